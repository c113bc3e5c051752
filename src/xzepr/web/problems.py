"""Errors as answers: RFC 9457 problem details, made in one place for every door that speaks the REST contract.

`type` is an address on this server (`/docs/problems#<code>`), so it can be opened offline and never moves to another host. What is not an
XzeprError is answered with 500 and the request id; what it was stands only in the log.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog
from starlette.responses import Response

from xzepr.errors import (
    HeadersTooLarge,
    InvalidToken,
    MethodNotAllowed,
    RequestTimeout,
    TooManyAttempts,
    TooManyReaders,
    Unauthenticated,
    Unavailable,
    XzeprError,
)

log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
TYPE_BASE: Final = "/docs/problems#"
RETRY_AFTER_S: Final = 1


class InputFault(msgspec.Struct, frozen=True):
    """One fault of the input. pointer: RFC 6901 from the root of the body; `?name` for a query parameter."""

    pointer: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong. type: an address on this server that explains the code; message: the same as detail, for older clients."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    error: str
    message: str
    request_id: str
    errors: list[InputFault] = []


def problem_of(error: XzeprError, *, instance: str, request_id: str) -> Problem:
    """The problem alone, for an answer that tells of several things."""
    return Problem(
        type=f"{TYPE_BASE}{error.code}",
        title=title_of(type(error)),
        status=error.status,
        detail=error.message,
        instance=instance,
        error=error.code,
        message=error.message,
        request_id=request_id,
        errors=[InputFault(fault.pointer, fault.message) for fault in error.faults],
    )


def problem_answer(error: XzeprError, *, instance: str, request_id: str) -> Response:
    """The one translation of our errors into HTTP. instance: the path as sent, percent-encoded."""
    problem = problem_of(error, instance=instance, request_id=request_id)
    # Members of its own never take the place of the standard ones.
    body: dict[str, Any] = {**error.extra, **msgspec.to_builtins(problem)}
    return Response(msgspec.json.encode(body), error.status, _headers_of(error), MEDIA_TYPE)


def unknown_error_answer(error: Exception, *, instance: str, request_id: str) -> Response:
    """Anything that is not ours: the caller gets the request id, the log gets the rest."""
    log.error("request.failed", request_id=request_id, path=instance, exc_info=error)
    shown = XzeprError(f"something went wrong here; the log has it under request id {request_id}")
    return problem_answer(shown, instance=instance, request_id=request_id)


def title_of(kind: type[XzeprError]) -> str:
    """The same for every problem of a code: the first line of the class's docstring."""
    return kind.title().rstrip(".")


def _headers_of(error: XzeprError) -> Mapping[str, str]:
    if isinstance(error, InvalidToken):
        # RFC 6750: by this word a client knows that another token may help.
        return {"WWW-Authenticate": 'Bearer realm="xzepr", error="invalid_token"'}
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": 'Bearer realm="xzepr"'}
    if isinstance(error, Unavailable):
        return {"Retry-After": str(RETRY_AFTER_S)}
    if isinstance(error, TooManyAttempts | TooManyReaders):
        return {"Retry-After": str(error.extra.get("retry_after", RETRY_AFTER_S))}
    if isinstance(error, MethodNotAllowed):
        return {"Allow": str(error.extra.get("allow", ""))}
    if isinstance(error, RequestTimeout | HeadersTooLarge):
        # The rest may still come; it must not be taken for the next request.
        return {"Connection": "close"}
    return {}
