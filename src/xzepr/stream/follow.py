"""Following the stream: what a reader behind a position gets, and how one that is at its end learns of more.

`Tail` is one per process. While anybody follows, it looks at the newest position a few dozen times a second, reads what is new once, and keeps the
last messages in memory for all followers; one that is further behind reads from the database. The sequencer commits positions in order, so reading
behind a position misses nothing. When the database is away followers stay connected and go on where they were. A follower that is so far behind that
the stream was trimmed in front of it is told, never led over the gap.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import structlog

from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import InvalidInput, PositionExpired, Unavailable
from xzepr.stream.message import Message, message_of

log = structlog.get_logger(__name__)
queries = Queries("xzepr.stream")

POLL_INTERVAL_S: Final = 0.025
RETRY_INTERVAL_S: Final = 0.5
# A message may carry a payload and a schema of a megabyte each: pages are small, and what is kept is bounded in bytes.
PAGE_MESSAGES_MAX: Final = 50
KEPT_BYTES_MAX: Final = 16 << 20


class Tail:
    """The end of the stream, as this process sees it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: deque[Message] = deque()
        self._kept_bytes = 0
        self._newest = 0
        self._forgotten = 0
        self._followers = 0
        self._more = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self.closed = asyncio.Event()

    def forget(self, _event_id: str) -> None:
        """An event was redacted: no message that is kept, or being read at this moment, is given out any more; followers read them anew."""
        self._forgotten += 1
        self._forget_kept()

    async def start_of(self, after: int | None) -> int:
        """The position to read behind: `after`, or now. Raises PositionExpired, InvalidInput for a position not given out yet."""
        async with self._database.connection() as connection:
            bounds = await connection.fetchrow(queries["stream_bounds"])
        assert bounds is not None
        newest: int = bounds["newest"]
        oldest: int = bounds["oldest"] if bounds["oldest"] is not None else newest + 1
        if after is None:
            return newest
        if after > newest:
            raise InvalidInput.at("?after", f"is beyond the newest position, {newest}")
        if after + 1 < oldest:
            raise PositionExpired(f"the stream begins at position {oldest}; what came before is no longer kept", extra={"oldest": oldest})
        return after

    async def read(self, after: int) -> list[Message]:
        """Up to a page of messages behind a position, in order; empty at the end. Raises Unavailable, PositionExpired when the next is gone."""
        if self._kept and self._kept[0].position <= after + 1:
            skip = after + 1 - self._kept[0].position
            return [self._kept[place] for place in range(skip, min(skip + PAGE_MESSAGES_MAX, len(self._kept)))]
        # As known before the read: what comes meanwhile may be missing from it.
        newest = self._newest
        messages = await self._read_stored(after)
        # Positions have no holes: what is missing was trimmed.
        found_at = messages[0].position if messages else newest + 1
        if found_at > after + 1:
            raise PositionExpired(f"what follows position {after} is no longer kept")
        return messages

    async def wait(self, after: int, seconds: float) -> None:
        """Until there is something behind the position, the process is closing, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._more:
                await self._more.wait_for(lambda: self._newest > after or self.closed.is_set())

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """While anybody is in here, the tail looks for more."""
        self._followers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._poll(), name="stream-tail")
        try:
            yield
        finally:
            self._followers -= 1

    async def close(self) -> None:
        """Let every follower go; they resume elsewhere by their position."""
        self.closed.set()
        async with self._more:
            self._more.notify_all()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _poll(self) -> None:
        while self._followers:
            try:
                await self._look()
                await asyncio.sleep(POLL_INTERVAL_S)
            except Unavailable as error:
                log.warning("stream.database_away", reason=error.message)
                await asyncio.sleep(RETRY_INTERVAL_S)
            except Exception:
                # Ended here, the look would never begin again, and every follower of this process would wait for ever.
                log.exception("stream.look_failed")
                await asyncio.sleep(RETRY_INTERVAL_S)
        # Nobody follows: what is kept would no longer reach the end when somebody comes.
        self._forget()
        self._task = None

    async def _look(self) -> None:
        async with self._database.connection() as connection:
            newest = await connection.fetchval(queries["newest_position"])
        if newest <= self._newest:
            return
        if not self._kept:
            # The first look: only what comes from now on is kept.
            self._newest = max(self._newest, newest - PAGE_MESSAGES_MAX, 0)
        while self._newest < newest:
            forgotten = self._forgotten
            messages = await self._read_stored(self._newest)
            if not messages:
                # Trimmed, all of it; a follower that had not read it finds out.
                self._newest = newest
                break
            if messages[0].position > self._newest + 1:
                self._forget_kept()
            if forgotten == self._forgotten:
                self._keep(messages)
            async with self._more:
                self._newest = messages[-1].position
                self._more.notify_all()

    def _keep(self, messages: list[Message]) -> None:
        for message in messages:
            self._kept.append(message)
            self._kept_bytes += len(message.body)
        while self._kept_bytes > KEPT_BYTES_MAX and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popleft().body)

    def _forget(self) -> None:
        self._forget_kept()
        self._newest = 0

    def _forget_kept(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0

    async def _read_stored(self, after: int) -> list[Message]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(queries["read_stream"], after, PAGE_MESSAGES_MAX)
        return [message_of(row) for row in rows]
