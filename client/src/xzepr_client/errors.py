"""What can go wrong between here and the server: it refuses, nobody answers, or something else answers."""

import msgspec


class ClientError(Exception):
    """Whatever goes wrong in this package."""


class Fault(msgspec.Struct, frozen=True):
    """One fault of what was sent. pointer: RFC 6901 from the root of the body; `?name` for a query parameter; `` for the body itself."""

    pointer: str
    message: str


class ProblemError(ClientError):
    """The server refused, and said why.

    status: of HTTP; code: stable, such as `payload_mismatch`; faults: every one that was found, maybe none; request_id: what the server's log has
    it under; retry_after_s: when trying again is worth it, None if the server named no time; body: the whole answer, with what else belongs to the
    code (`oldest` of `position_expired`).
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        faults: tuple[Fault, ...] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
        body: dict[str, object] | None = None,
    ) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code
        self.message = message
        self.faults = faults
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.body = body or {}


class NoAnswer(ClientError):
    """Nobody answered, or the answer was lost on the way.

    connected: False when the request was certainly not received. idempotency_key: of a request that creates; sent again with it, nothing is made
    twice.
    """

    def __init__(self, url: str, reason: str, *, connected: bool, idempotency_key: str | None = None) -> None:
        super().__init__(f"no answer from {url}: {reason}")
        self.url = url
        self.reason = reason
        self.connected = connected
        self.idempotency_key = idempotency_key


class UnexpectedAnswer(ClientError):
    """Something answered, but not as XZepr does: another server, a proxy's own page, a newer contract. status: of HTTP."""

    def __init__(self, url: str, status: int, reason: str) -> None:
        super().__init__(f"{url} answered {status}, which is not how XZepr answers: {reason}")
        self.url = url
        self.status = status
        self.reason = reason
