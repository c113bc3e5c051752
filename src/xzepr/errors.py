"""The few errors that a caller can meet.

Code, HTTP status and default message stand on the class; the message is the first line of its docstring. They are raised where the fact
is known and translated once per door. A door shows everything here to the caller, so no message carries a secret or a stack.
"""

from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of an input. pointer: RFC 6901, from the root of the body; for a query parameter `?name`, for a path part its name."""

    pointer: str
    message: str


class XzeprError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(
        self, message: str | None = None, *, faults: tuple[Fault, ...] = (), unlisted: int = 0, extra: dict[str, object] | None = None
    ) -> None:
        """unlisted: how many more faults there are, of which only the number is kept."""
        self.message = message or self.title()
        self.faults = faults
        self.unlisted = unlisted
        self.extra = extra or {}
        super().__init__(self.message)

    @classmethod
    def title(cls) -> str:
        """What every error of this class has in common: the first line of its docstring."""
        return (cls.__doc__ or "").partition("\n")[0]


class InvalidInput(XzeprError):
    """The input is not valid."""

    code = "invalid_input"
    status = 400

    @classmethod
    def at(cls, pointer: str, message: str) -> Self:
        """One fault at one place."""
        return cls(f"{pointer or 'body'}: {message}", faults=(Fault(pointer, message),))

    @classmethod
    def of_faults(cls, faults: list[Fault]) -> Self:
        """All faults at once; the message names the first and counts the others."""
        others = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return cls(f"{faults[0].pointer or 'body'}: {faults[0].message}{others}", faults=tuple(faults))


class MalformedBody(InvalidInput):
    """The body is not JSON that would survive being stored."""

    code = "malformed_body"


class InvalidId(InvalidInput):
    """An id is 26 characters of Crockford's base 32."""

    code = "invalid_id"

    @classmethod
    def of(cls, text: str, pointer: str | None) -> Self:
        """For this text, cut to a length that can be shown."""
        shown = text if len(text) <= 40 else text[:40] + "…"
        message = f"{shown!r} is not a ULID: 26 characters of 0-9 and A-Z without I, L, O, U"
        return cls(message, faults=(Fault(pointer, message),) if pointer is not None else ())


class UnknownHost(XzeprError):
    """This server does not answer for that Host."""

    code = "unknown_host"
    status = 400


class Unauthenticated(XzeprError):
    """Credentials are needed, and none that count were given."""

    code = "unauthenticated"
    status = 401


class InvalidCredentials(Unauthenticated):
    """The name or the password is wrong."""

    code = "invalid_credentials"


class InvalidToken(Unauthenticated):
    """The token does not count."""

    code = "invalid_token"


class LoginFailed(Unauthenticated):
    """The login did not succeed."""

    code = "login_failed"

    def __init__(self, message: str | None = None, *, kept: str | None = None) -> None:
        """kept: what is recorded in place of the message, where that repeats what the caller sent."""
        super().__init__(message)
        self.kept = kept or self.message


class PermissionDenied(XzeprError):
    """The principal lacks the permission."""

    code = "permission_denied"
    status = 403


class ForeignOrigin(XzeprError):
    """A web page of another origin may not do this."""

    code = "foreign_origin"
    status = 403


class NotFound(XzeprError):
    """There is no such thing, or it is not yours to see."""

    code = "not_found"
    status = 404


class MethodNotAllowed(XzeprError):
    """This address does not take that method."""

    code = "method_not_allowed"
    status = 405


class RequestTimeout(XzeprError):
    """The request did not arrive in time."""

    code = "request_timeout"
    status = 408


class Conflict(XzeprError):
    """The request conflicts with what is stored."""

    code = "conflict"
    status = 409


class InFlight(Conflict):
    """The first request with this Idempotency-Key is still at work."""

    code = "in_flight"


class RefreshSuperseded(Conflict):
    """The refresh token was turned in a moment ago; use the pair that was answered then."""

    code = "refresh_superseded"


class PositionExpired(XzeprError):
    """The stream no longer reaches back to that position."""

    code = "position_expired"
    status = 410


class PreconditionFailed(XzeprError):
    """It was changed by somebody else in the meantime."""

    code = "precondition_failed"
    status = 412


class BodyTooLarge(XzeprError):
    """The body is larger than this server takes."""

    code = "body_too_large"
    status = 413


class UnsupportedMediaType(XzeprError):
    """This address takes application/json."""

    code = "unsupported_media_type"
    status = 415


class PayloadMismatch(XzeprError):
    """The payload does not satisfy the schema of its event receiver."""

    code = "payload_mismatch"
    status = 422


class ValidationTooCostly(XzeprError):
    """Checking the payload against the schema of its event receiver took too long."""

    code = "validation_too_costly"
    status = 422


class HeadersTooLarge(XzeprError):
    """The head of a request has at most 64 KiB here, and 100 lines."""

    code = "headers_too_large"
    status = 431


class TooManyAttempts(XzeprError):
    """Too many wrong logins; try again later."""

    code = "too_many_attempts"
    status = 429


class TooManyReaders(XzeprError):
    """This principal follows the stream too often at once."""

    code = "too_many_readers"
    status = 429


class Unavailable(XzeprError):
    """A part that this needs is down; try again."""

    code = "unavailable"
    status = 503


class ProviderUnavailable(Unavailable):
    """The login provider does not answer as it should; try again."""

    code = "provider_unavailable"
