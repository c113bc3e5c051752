"""`GET /api/v1/stream`: the live stream as server-sent events. Resumes without holes by `Last-Event-ID`.

A stream lives as long as a request with its credential would be answered. When that has expired, was revoked, or lost the permission, the answer ends
within a second, and whoever comes again with it is told why. While it cannot be found out, no message is sent.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from starlette.responses import StreamingResponse

from xzepr.auth.permissions import Permission
from xzepr.db.queries import Queries
from xzepr.errors import InvalidInput, PermissionDenied, PositionExpired, TooManyReaders, Unauthenticated, Unavailable
from xzepr.house import House
from xzepr.ids import EventReceiverId
from xzepr.stream.filter import Filter
from xzepr.stream.follow import RETRY_INTERVAL_S, Tail
from xzepr.stream.message import Envelope, Message
from xzepr.web.call import Answer, Call
from xzepr.web.routes import Route

queries = Queries("xzepr.stream")

HEARTBEAT_S: Final = 15.0
# Behind a look that found nothing that is wanted, so that a reader who wants little of a long stream leaves time to the others.
WALK_PAUSE_S: Final = 0.01
# How often it is looked whether the credential still counts. That is done in memory, unless something ended it.
ASK_INTERVAL_S: Final = 0.5
# The database may be away; readers are to hear something meanwhile.
ASK_TIMEOUT_S: Final = 5.0
_POSITION_MAX: Final = (1 << 63) - 1


class StreamQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to begin (`Last-Event-ID` counts before `after`; neither: from now) and what to leave out; filters compare exactly."""

    after: Annotated[int, Meta(ge=0, le=_POSITION_MAX)] | None = None
    type: str | None = None
    name: str | None = None
    version: str | None = None
    release: str | None = None
    platform_id: str | None = None
    package: str | None = None
    success: bool | None = None
    event_receiver_id: EventReceiverId | None = None


async def follow_stream(call: Call[House]) -> StreamingResponse:
    query: StreamQuery = call.query
    wanted = Filter(query)
    tail = call.house.tail
    # Callers without credentials are told apart by where they call from.
    reader = call.principal.id or call.principal.address
    tail.require_room(reader)
    after = await tail.start_of(_last_event_id(call.headers.get("last-event-id")) if "last-event-id" in call.headers else query.after)
    # X-Accel-Buffering: a proxy of the nginx family would hold the stream back otherwise.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    frames = _frames(tail, after, wanted, call.ask_again, reader)
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)


def _last_event_id(text: str | None) -> int:
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= _POSITION_MAX):
        raise InvalidInput.at("Last-Event-ID", "is not a position: the id of a message that this stream sent before")
    return int(text)


async def _frames(
    tail: Tail, after: int, wanted: Filter, ask_again: Callable[[], Awaitable[object]], reader: str | None = None
) -> AsyncIterator[bytes]:
    """Messages behind the position, in order, until the client goes, the process closes, the credential no longer counts, or the stream was trimmed
    in front of the reader.

    The answer then just ends: the reader resumes where it was, and is answered 401, 403 or 410.
    """
    async with tail.following(reader):
        # At once, so that a reader that is cut before its first message still resumes from here.
        yield _mark(after)
        marked_at_s = asked_at_s = time.monotonic()
        is_more = True
        while not tail.closed.is_set():
            messages: list[Message] = []
            looked_to = after
            try:
                if time.monotonic() - asked_at_s >= ASK_INTERVAL_S:
                    async with asyncio.timeout(ASK_TIMEOUT_S):
                        await ask_again()
                    asked_at_s = time.monotonic()
                if is_more:
                    messages, looked_to = await tail.read_wanted(after, wanted)
            except (Unavailable, TimeoutError):
                await tail.wait(_POSITION_MAX, RETRY_INTERVAL_S)
            except (PositionExpired, Unauthenticated, PermissionDenied):
                return
            if messages:
                yield b"".join([_frame(message) for message in messages])
                marked_at_s = time.monotonic()
            elif looked_to > after:
                await asyncio.sleep(WALK_PAUSE_S)
            if looked_to > after:
                after = looked_to
            else:
                is_more = await tail.wait(after, min(max(HEARTBEAT_S - (time.monotonic() - marked_at_s), 0.01), ASK_INTERVAL_S))
            if time.monotonic() - marked_at_s >= HEARTBEAT_S:
                yield _mark(after)
                marked_at_s = time.monotonic()
                # What was missed, if ever that happens, is not missed for longer.
                is_more = True


def _mark(position: int) -> bytes:
    """An id without data: nothing is dispatched, but a reader resumes from here."""
    return b"id: %d\n\n" % position


def _frame(message: Message) -> bytes:
    # A type may hold any character; a line break would end the field.
    kind = " ".join(message.type.splitlines())
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (message.position, kind.encode(), message.body)


class StreamPosition(msgspec.Struct, frozen=True):
    """oldest: null while no message is kept; newest: the last given, 0 at first; pending: facts that are stored and not yet sequenced."""

    oldest: int | None
    newest: int
    pending: int


async def show_position(call: Call[House]) -> Answer:
    async with call.house.database.connection() as connection:
        row = await connection.fetchrow(queries["position_report"])
    assert row is not None
    return Answer(StreamPosition(row["oldest"], row["newest"], row["pending"]))


ROUTES = (
    Route(
        method="GET",
        path="/api/v1/stream/position",
        handler=show_position,
        permission=Permission.STREAM_READ,
        answer=StreamPosition,
        tag="stream",
        summary="How far the stream reaches, and how much waits",
    ),
    Route(
        method="GET",
        path="/api/v1/stream",
        handler=follow_stream,
        permission=Permission.STREAM_READ,
        query=StreamQuery,
        answer=Envelope,
        media_type="text/event-stream",
        tag="stream",
        summary="Follow the stream as server-sent events",
        description=(
            "`id:` is the position, `event:` the message's type, `data:` its envelope. Resume with `Last-Event-ID`, or begin behind `after`; "
            "with neither it begins now. Every 15 s without a message an `id:` without data tells how far the reader is. The stream ends within a "
            "second when its credential expires, is revoked or loses the permission; resuming with it is then answered 401 or 403. One principal "
            "follows at most 100 times in a process; then 429."
        ),
        problems=(PositionExpired, TooManyReaders),
    ),
)
