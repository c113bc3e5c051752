"""One request, parsed, as a handler sees it; and what a handler gives back."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from starlette.datastructures import Headers
from starlette.requests import Request

from xzepr.auth.principal import Principal
from xzepr.idempotency import Claim

HouseT = TypeVar("HouseT")

# Version 00 ends behind the flags; a later one may go on behind a dash. Source: W3C Trace Context.
_TRACEPARENT: Final = re.compile(
    r"(?:00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|(?!00|ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,200})?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[HouseT]):
    """house: the parts of this process; path: parsed path parameters; query, body: of the route's declared types, None where it has none.

    raw_body: the bytes as sent; tree: the whole body decoded to Python objects, for what is checked by value and kept as text.
    traceparent: only if it is well formed, None otherwise. claim: of an Idempotency-Key, to be taken in the act's own transaction.
    ask_again: for what goes on for long: who asks, found out as if the request came now; raises what would be answered then.
    """

    house: HouseT
    principal: Principal
    path: Mapping[str, str]
    query: Any
    body: Any
    raw_body: bytes
    tree: Any
    headers: Headers
    request_id: str
    traceparent: str | None
    request: Request
    ask_again: Callable[[], Awaitable[Principal]]
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """body: anything that msgspec encodes, times as text by clock.rfc3339; None: no body. status: None for the route's own."""

    body: Any = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def traceparent_of(headers: Headers) -> str | None:
    """The caller's place in its trace; a malformed or repeated one is as good as none, as the standard asks."""
    given = headers.getlist("traceparent")
    if len(given) != 1 or _TRACEPARENT.fullmatch(given[0]) is None:
        return None
    _, trace_id, span_id, *_ = given[0].split("-")
    return given[0] if trace_id.strip("0") and span_id.strip("0") else None
