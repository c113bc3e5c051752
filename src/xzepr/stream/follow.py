"""Following the stream: what a reader behind a position gets, and how one that is at its end learns of more.

`Tail` is one per process. While anybody follows, it looks at the newest position a few dozen times a second, reads what is new once, and keeps the
last messages in memory for all followers; one that is further behind reads from the database. The sequencer commits positions in order, so reading
behind a position misses nothing. When the database is away followers stay connected and go on where they were. A follower that is so far behind that
the stream was trimmed in front of it is told, never led over the gap.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator
from typing import Final

import structlog

from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import InvalidInput, PositionExpired, TooManyReaders, Unavailable
from xzepr.page import PAGE_BYTES_MAX
from xzepr.stream.filter import Filter
from xzepr.stream.message import Message, message_of

log = structlog.get_logger(__name__)
queries = Queries("xzepr.stream")

POLL_INTERVAL_S: Final = 0.025
RETRY_INTERVAL_S: Final = 0.5
# A message may carry a payload and a schema of a megabyte each: pages are small, bounded in bytes as well, and so is what is kept.
PAGE_MESSAGES_MAX: Final = 50
KEPT_BYTES_MAX: Final = 16 << 20
# Messages that one statement looks at for a reader who wants few of them.
WALK_MESSAGES_MAX: Final = 1_000
# How many followers one principal may have in a process.
READERS_MAX: Final = 100


class Tail:
    """The end of the stream, as this process sees it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: deque[Message] = deque()
        self._kept_bytes = 0
        self._newest = 0
        self._forgotten = 0
        self._followers = 0
        self._readers: Counter[str | None] = Counter()
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
        if self._is_kept(after):
            return self._look_at_kept(after, PAGE_MESSAGES_MAX)[0]
        # As known before the read: what comes meanwhile may be missing from it.
        newest = self._newest
        messages = await self._read_stored(after)
        _require_next(after, messages[0].position if messages else newest + 1)
        return messages

    async def read_wanted(self, after: int, wanted: Filter) -> tuple[list[Message], int]:
        """As read(), less what is not wanted; and how far was looked: to `after` at the end. What is stored and not wanted is neither fetched nor
        encoded."""
        if wanted.takes_all:
            messages = await self.read(after)
            return messages, messages[-1].position if messages else after
        if self._is_kept(after):
            return self._look_at_kept(after, WALK_MESSAGES_MAX, wanted)
        newest = self._newest
        # One moment: what is trimmed between the two would be taken for not wanted.
        async with self._database.transaction(snapshot=True) as connection:
            walk = await connection.fetchrow(queries["walk_stream"], after, WALK_MESSAGES_MAX)
            assert walk is not None
            _require_next(after, walk["first"] if walk["first"] is not None else newest + 1)
            if walk["last"] is None:
                return [], after
            matching = await connection.fetch(queries["match_stream"], after, walk["last"], PAGE_MESSAGES_MAX, *wanted.values)
        if not matching:
            return [], walk["last"]
        chosen = [row["position"] for row in matching]
        messages = await self._read_stored(after, chosen)
        _require_next(chosen[0] - 1, messages[0].position if messages else chosen[-1] + 1)
        is_whole = len(messages) == len(chosen) < PAGE_MESSAGES_MAX
        return [message for message in messages if wanted(message)], walk["last"] if is_whole else messages[-1].position

    async def wait(self, after: int, seconds: float) -> bool:
        """Until there is something behind the position, the process is closing, or the time is over. Whether there is something."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._more:
                await self._more.wait_for(lambda: self._newest > after or self.closed.is_set())
        return self._newest > after

    def require_room(self, reader: str | None) -> None:
        """Raises TooManyReaders when this principal follows often enough here."""
        if self._readers[reader] >= READERS_MAX:
            raise TooManyReaders(f"one principal follows the stream at most {READERS_MAX} times in a process; end some of them")

    @contextlib.asynccontextmanager
    async def following(self, reader: str | None = None) -> AsyncIterator[None]:
        """While anybody is in here, the tail looks for more. reader: whom it counts for."""
        self._followers += 1
        self._readers[reader] += 1
        if self._task is None:
            self._task = asyncio.create_task(self._poll(), name="stream-tail")
        try:
            yield
        finally:
            self._followers -= 1
            self._readers[reader] -= 1
            if not self._readers[reader]:
                del self._readers[reader]

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

    def _is_kept(self, after: int) -> bool:
        return bool(self._kept) and self._kept[0].position <= after + 1

    def _look_at_kept(self, after: int, messages_max: int, wanted: Filter | None = None) -> tuple[list[Message], int]:
        """A page of those that are wanted among the next ones, and how far was looked."""
        page: list[Message] = []
        size_bytes = 0
        begin = after + 1 - self._kept[0].position
        for place in range(begin, min(begin + messages_max, len(self._kept))):
            message = self._kept[place]
            after = message.position
            if wanted is None or wanted(message):
                page.append(message)
                size_bytes += len(message.body)
                if len(page) == PAGE_MESSAGES_MAX or size_bytes >= PAGE_BYTES_MAX:
                    break
        return page, after

    async def _read_stored(self, after: int, chosen: list[int] | None = None) -> list[Message]:
        """chosen: the positions to read, behind that one; None: the next ones."""
        sql, values = queries["read_stream"], [after, PAGE_MESSAGES_MAX, PAGE_BYTES_MAX]
        async with self._database.connection() as connection:
            if chosen is None:
                rows = await connection.fetch(sql, *values)
            else:
                rows = await connection.fetch(sql.replace("true /* chosen */", "t.position = any($4::bigint[])"), *values, chosen)
        return [message_of(row) for row in rows]


def _require_next(after: int, found_at: int) -> None:
    """Positions have no holes: what is missing was trimmed. Raises PositionExpired."""
    if found_at > after + 1:
        raise PositionExpired(f"what follows position {after} is no longer kept")
