"""Group commit: the events of concurrent requests share one transaction.

The next transaction begins the moment the one before has ended, with everything that came meanwhile: a lone event waits for nothing, and under load
the cost of a commit is shared. One transaction is under way per instance; what comes joins the queue, which is bounded.

What an entry can meet, each told through its `done`:
- Stored: committed, durably; also when the caller has gone meanwhile.
- Stale: a receiver of it has another version in force by now; nothing of it was stored.
- Replayed, Conflict, InFlight: of its Idempotency-Key.
- an error of the data alone (InvalidInput): the transaction is split until the faulty entry stands alone. Nothing else splits.
- Unavailable: the database stayed away for RETRY_FOR_S. Whether it was stored is then unknown, and only the caller's retry can tell.

A lost connection leaves a commit unknown. Ids are made before the first attempt and kept, so the ids are looked up: there means committed, none there
means try again; a unique violation on our own ids means that the first try was still committing: look again. Deadlocks, timeouts and cancelled
statements repeat the transaction whole. Source: DESIGN §5, docs/decisions/0008.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import asyncpg
import msgspec
import structlog

from xzepr.db.pool import Connection, Database, translated
from xzepr.db.queries import Queries
from xzepr.errors import Conflict, Fault, InvalidInput, Unavailable
from xzepr.events.model import NewEvent
from xzepr.idempotency import OTHER_BODY, Answered, Claim, KeyName, Replayed, claim_all, in_flight
from xzepr.ids import EventId, time_of
from xzepr.nvrpp import artifact_id_of
from xzepr.stream.outbox import Bell

log = structlog.get_logger(__name__)
queries = Queries("xzepr.events")

# One transaction takes at most so many events and bytes of payload; a larger entry has one for itself.
BATCH_ROWS_MAX: Final = 500
BATCH_BYTES_MAX: Final = 4 << 20
# From so many rows on, COPY's four statements cost less than what they save.
COPY_ROWS_MIN: Final = 200
# What may wait. Beyond it a caller gets 503 at once, which costs less than a timeout later.
QUEUE_ROWS_MAX: Final = 10_000
QUEUE_BYTES_MAX: Final = 64 << 20
# Outlasts a restart of the embedded database.
RETRY_FOR_S: Final = 8.0
RETRY_INTERVAL_S: Final = 0.1
# For a key that an open transaction elsewhere holds; the others of the transaction wait as long.
KEY_WAIT_MS: Final = 200
# A statement that takes longer is given up by us; the database does the same by its statement_timeout.
STATEMENT_TIMEOUT_S: Final = 30.0

# A value that cannot be stored. Classes 22 and 54, and what the driver cannot encode.
_FAULTY: Final = (asyncpg.exceptions.DataError, asyncpg.exceptions.ProgramLimitExceededError, asyncpg.exceptions.IntegrityConstraintViolationError)


class Stored(msgspec.Struct, frozen=True):
    """Committed. earlier: for an event whose own key was used before, its place in the entry to the id that it has; it was not stored again."""

    earlier: Mapping[int, str] = {}


class Stale(msgspec.Struct, frozen=True):
    """Nothing of it was stored. receiver_ids: whose version in force is another one now."""

    receiver_ids: frozenset[str]


Outcome = Stored | Stale | Exception
_STORED: Final = Stored()
OTHER_EVENT: Final = "another event with this source and id is stored"


Keys = Sequence[tuple[Claim, Answered]]
# One event, in the order of row_of().
Row = tuple[Any, ...]


class Entry:
    """Events that are stored together or not at all.

    rows: one event each, in order. done: told the outcome once, on the event loop. claim: of the request's
    Idempotency-Key, with what is answered. own: of single events, by their place.
    """

    __slots__ = ("claim", "done", "give_up_at_s", "keys", "own", "rows", "size_bytes")

    def __init__(
        self,
        rows: Sequence[Row],
        done: Callable[[Outcome], None],
        claim: tuple[Claim, Answered] | None = None,
        own: Mapping[int, tuple[Claim, Answered]] | None = None,
    ) -> None:
        self.rows = rows
        self.done = done
        self.claim = claim
        self.own = own or {}
        self.keys: Keys = [*([claim] if claim is not None else []), *self.own.values()] if claim is not None or own else ()
        # When a transaction elsewhere holds one of its keys: until then it is tried again.
        self.give_up_at_s: float | None = None
        # Payload and description, which alone can be long; the rest is bounded by a few kilobytes.
        if len(rows) == 1:
            self.size_bytes = len(rows[0][_PAYLOAD]) + len(rows[0][_DESCRIPTION])
        else:
            self.size_bytes = sum(len(row[_PAYLOAD]) + len(row[_DESCRIPTION]) for row in rows)

    def tell(self, outcome: Outcome) -> None:
        """A receiver that fails must not stop the others."""
        try:
            self.done(outcome)
        except Exception:
            log.exception("group_commit.answer_failed")

    def outcome(self, earlier: Mapping[KeyName, Answered | None]) -> Outcome:
        """What it will be told when the transaction is committed. earlier: keys that were used before."""
        if self.claim is not None and self.claim[0].name in earlier:
            answer = earlier[self.claim[0].name]
            return Replayed(answer) if answer is not None else Conflict(OTHER_BODY)
        known: dict[int, str] = {}
        for place, (claim, _) in self.own.items():
            if claim.name in earlier:
                answer = earlier[claim.name]
                if answer is None:
                    faults = (Fault(f"/{place}", OTHER_EVENT),) if len(self.rows) > 1 else ()
                    return Conflict(OTHER_EVENT, faults=faults)
                known[place] = answer.id
        return Stored(known) if known else _STORED


def row_of(event_id: EventId, event: NewEvent, payload_text: str, receiver_version: int, owner_id: str | None, traceparent: str | None) -> Row:
    """An event that was found to satisfy its receiver's schema in this version, as an `event_to_record`."""
    name, version, release, platform_id, package = event.name, event.version, event.release, event.platform_id, event.package
    return (
        event_id,
        artifact_id_of(name, version, release, platform_id, package),
        name,
        version,
        release,
        platform_id,
        package,
        event.description,
        payload_text,
        event.success,
        event.event_receiver_id.upper(),
        receiver_version,
        owner_id,
        time_of(event_id),
        traceparent,
    )


# Places in a row.
_ID: Final = 0
_DESCRIPTION: Final = 7
_PAYLOAD: Final = 8
_SUCCESS: Final = 9
_RECEIVER: Final = 10
_VERSION: Final = 11
# Of a row with its number behind the id, and of what the queue holds of it.
EVENT_COLUMNS: Final = (
    *("id", "seq", "artifact_id", "name", "version", "release", "platform_id", "package", "description", "payload", "success"),
    *("event_receiver_id", "event_receiver_version", "owner_id", "created_at", "traceparent"),
)
OUTBOX_COLUMNS: Final = ("seq", "kind", "artifact_id", "event_id", "event_receiver_id", "event_receiver_version", "success", "traceparent")


class _Attempt:
    """One transaction: what it would store, and what each of its entries is told once it is committed."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.rows: list[Row] = []
        self.outcomes: list[Outcome] = []

    def take(self, earlier: Mapping[KeyName, Answered | None]) -> None:
        """Everything but what an earlier request did. earlier: keys that were used before."""
        for entry in self.entries:
            outcome = entry.outcome(earlier) if earlier else _STORED
            self.outcomes.append(outcome)
            if isinstance(outcome, Stored):
                known = outcome.earlier
                self.rows += [row for place, row in enumerate(entry.rows) if place not in known] if known else entry.rows

    def tell(self) -> None:
        for entry, outcome in zip(self.entries, self.outcomes, strict=True):
            entry.tell(outcome)


class NotStorable(Exception):
    """The database refuses a row as a whole; the message quotes no value of it."""


class _StaleReceivers(Exception):
    """Nothing was stored: these receivers have another version by now."""

    def __init__(self, receiver_ids: frozenset[str]) -> None:
        self.receiver_ids = receiver_ids
        super().__init__()


class GroupCommit:
    """The queue and the one loop that empties it. States: at rest (empty, no task), at work."""

    def __init__(self, database: Database, bell: Bell, *, rows_max: int = QUEUE_ROWS_MAX, bytes_max: int = QUEUE_BYTES_MAX) -> None:
        self._database = database
        self._bell = bell
        self._rows_max = rows_max
        self._bytes_max = bytes_max
        self._queue: deque[Entry] = deque()
        self._queued_rows = 0
        self._queued_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._held: AsyncExitStack | None = None
        self._connection: Connection | None = None

    def add(self, entry: Entry) -> None:
        """It joins the next transaction. Raises Unavailable at once when too much waits already."""
        if self._queued_rows >= self._rows_max or self._queued_bytes >= self._bytes_max:
            raise Unavailable("too many events wait to be stored; try again")
        self._put_back(entry)

    async def store(
        self,
        rows: Sequence[Row],
        claim: tuple[Claim, Answered] | None = None,
        own: Mapping[int, tuple[Claim, Answered]] | None = None,
    ) -> Stored | Stale:
        """add() for who waits. What the outcome raises, this raises. A caller that is cancelled leaves its events to be stored."""
        answered: asyncio.Future[Stored | Stale] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if answered.done():
                return
            if isinstance(outcome, Exception):
                answered.set_exception(outcome)
            else:
                answered.set_result(outcome)

        self.add(Entry(rows, done, claim, own))
        return await answered

    async def close(self) -> None:
        """Until everything that was taken has its answer."""
        while self._task is not None:
            await asyncio.wait([self._task])

    def _put_back(self, entry: Entry) -> None:
        self._queue.append(entry)
        self._queued_rows += len(entry.rows)
        self._queued_bytes += entry.size_bytes
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._queue:
                while self._queue:
                    await self._commit(self._next())
                    # One turn of the loop: what has arrived and was not yet read comes along, instead of just missing it. No time passes.
                    await asyncio.sleep(0)
                await self._give_back()
        finally:
            self._task = None

    def _next(self) -> list[Entry]:
        """What goes into one transaction. Each key once: the second request with it waits for the first one's commit, and finds it."""
        taken: list[Entry] = []
        held_back: list[Entry] = []
        keys: set[KeyName] = set()
        rows = size_bytes = 0
        while self._queue:
            entry = self._queue[0]
            if taken and entry.give_up_at_s is not None:
                # It may wait for its key again: nobody waits with it.
                break
            rows += len(entry.rows)
            size_bytes += entry.size_bytes
            if taken and (rows > BATCH_ROWS_MAX or size_bytes > BATCH_BYTES_MAX):
                break
            self._queue.popleft()
            if entry.keys:
                names = [claim.name for claim, _ in entry.keys]
                if not keys.isdisjoint(names):
                    held_back.append(entry)
                    continue
                keys.update(names)
            taken.append(entry)
            self._queued_rows -= len(entry.rows)
            self._queued_bytes -= entry.size_bytes
            if entry.give_up_at_s is not None:
                break
        self._queue.extendleft(reversed(held_back))
        return taken

    async def _commit(self, entries: list[Entry]) -> None:
        """Until each entry has its answer; never raises but on cancellation."""
        give_up_at_s = time.monotonic() + RETRY_FOR_S
        while entries:
            attempt = _Attempt(entries)
            try:
                await self._attempt(attempt)
            except _StaleReceivers as stale:
                entries = _without_stale(entries, stale.receiver_ids)
            except Unavailable as error:
                if isinstance(error.__cause__, asyncpg.LockNotAvailableError) and any(entry.keys for entry in entries):
                    entries = self._without_waiting(entries)
                    continue
                log.warning("events.commit_unknown", events=len(attempt.rows), reason=error.message)
                if await self._is_over(attempt, give_up_at_s, error):
                    return
            except asyncpg.UniqueViolationError:
                # Nobody else mints these ids: the try before this one was still committing when it was looked up.
                log.info("events.commit_was_late", events=len(attempt.rows))
                if await self._is_over(attempt, give_up_at_s, Unavailable("the database refuses what it has not stored; try again")):
                    return
            except _FAULTY as error:
                if isinstance(error, asyncpg.CheckViolationError) and error.constraint_name is None:
                    # A partition was made while these were on their way to the default one: nothing is stored, and now there is a place for
                    # them. Only a partition's bound has no name.
                    continue
                await self._split(entries, error)
                return
            except Exception as error:
                log.exception("events.commit_failed", events=len(attempt.rows))
                _tell_all(entries, error)
                return
            else:
                attempt.tell()
                self._bell.ring()
                return

    async def _attempt(self, attempt: _Attempt) -> None:
        """Commit it, or raise; after _StaleReceivers nothing is stored."""
        claims = [key for entry in attempt.entries for key in entry.keys]
        try:
            with translated():
                connection = await self._connected()
                if claims or sum(len(entry.rows) for entry in attempt.entries) >= COPY_ROWS_MIN:
                    await _attempt_in_steps(connection, attempt, claims)
                else:
                    attempt.take({})
                    await _record(connection, attempt.rows)
        except BaseException:
            # Whatever state it is in, the pool looks after it.
            await self._give_back()
            raise

    async def _connected(self) -> Connection:
        """One connection for as long as there is work: taking one from the pool each time costs as much as storing three events."""
        if self._held is None:
            held = AsyncExitStack()
            self._connection = await held.enter_async_context(self._database.connection())
            self._held = held
        assert self._connection is not None
        return self._connection

    async def _give_back(self) -> None:
        held, self._held, self._connection = self._held, None, None
        if held is not None:
            with suppress(Unavailable):
                await held.aclose()

    async def _is_over(self, attempt: _Attempt, give_up_at_s: float, error: Unavailable) -> bool:
        """After a commit that nobody knows of: True when everybody was told, False to try again."""
        try:
            committed = await self._is_recorded(attempt, give_up_at_s)
        except Unavailable:
            _tell_all(attempt.entries, error)
            return True
        if committed:
            attempt.tell()
            self._bell.ring()
        elif time.monotonic() >= give_up_at_s:
            _tell_all(attempt.entries, error)
            return True
        return committed

    async def _is_recorded(self, attempt: _Attempt, give_up_at_s: float) -> bool:
        """Whether the ids are there: one transaction, so all or none. Raises Unavailable when the database stays away."""
        while True:
            await asyncio.sleep(RETRY_INTERVAL_S)
            if not attempt.rows:
                # Lost before anything was sent, or all of it was done before.
                return False
            try:
                async with self._database.connection() as connection:
                    return bool(await connection.fetchval(queries["is_recorded"], attempt.rows[0][_ID]))
            except Unavailable:
                if time.monotonic() >= give_up_at_s:
                    raise

    def _without_waiting(self, entries: list[Entry]) -> list[Entry]:
        """Some key is held by an open transaction elsewhere: whoever has a key tries again later, each for itself; the rest goes on."""
        now_s = time.monotonic()
        for entry in entries:
            if not entry.keys:
                continue
            claim = entry.keys[0][0]
            if entry.give_up_at_s is None:
                entry.give_up_at_s = now_s + claim.wait_s
            if now_s >= entry.give_up_at_s:
                entry.tell(in_flight(claim))
            else:
                asyncio.get_running_loop().call_later(RETRY_INTERVAL_S, self._put_back, entry)
        return [entry for entry in entries if not entry.keys]

    async def _split(self, entries: list[Entry], error: Exception) -> None:
        if len(entries) > 1:
            middle = len(entries) // 2
            await self._commit(entries[:middle])
            await self._commit(entries[middle:])
            return
        reason = _reason(error)
        log.error("events.not_storable", events=len(entries[0].rows), reason=reason)
        if isinstance(error, asyncpg.IntegrityConstraintViolationError):
            # No fault of what was sent.
            entries[0].tell(NotStorable(f"the database refuses what was made of an event: {reason}"))
        else:
            entries[0].tell(InvalidInput.at("", f"the database cannot store this event: {reason}"))


async def _attempt_in_steps(connection: Connection, attempt: _Attempt, claims: Keys) -> None:
    """In a transaction of several statements: keys first, and many rows by COPY."""
    async with connection.transaction():
        earlier: Mapping[KeyName, Answered | None] = {}
        if claims:
            await connection.execute(queries["wait_briefly_for_keys"], str(KEY_WAIT_MS))
            earlier = await claim_all(connection, claims)
        attempt.take(earlier)
        if len(attempt.rows) >= COPY_ROWS_MIN:
            await _record_by_copy(connection, attempt.rows)
        elif attempt.rows:
            await _record(connection, attempt.rows)


async def _record(connection: Connection, rows: Sequence[Row]) -> None:
    """One statement stores all of them with their outbox rows, or none. Raises _StaleReceivers."""
    stale = await connection.fetch(queries["record_events"], rows, *_used(rows), timeout=STATEMENT_TIMEOUT_S)
    if stale:
        raise _StaleReceivers(frozenset(row["event_receiver_id"] for row in stale))


async def _record_by_copy(connection: Connection, rows: Sequence[Row]) -> None:
    """The same in the caller's transaction, for many rows: numbers and versions by one query, then COPY. Raises _StaleReceivers."""
    found = await connection.fetchrow(queries["reserve"], len(rows), *_used(rows))
    assert found is not None
    if found["stale"]:
        raise _StaleReceivers(frozenset(found["stale"]))
    numbered = list(zip(found["numbers"], rows, strict=True))
    await connection.copy_records_to_table(
        "events", records=[(row[_ID], seq, *row[1:]) for seq, row in numbered], columns=EVENT_COLUMNS, timeout=STATEMENT_TIMEOUT_S
    )
    queued = [(seq, "event.recorded", row[1], row[_ID], row[_RECEIVER], row[_VERSION], row[_SUCCESS], row[-1]) for seq, row in numbered]
    await connection.copy_records_to_table("outbox", records=queued, columns=OUTBOX_COLUMNS, timeout=STATEMENT_TIMEOUT_S)


def _used(rows: Sequence[Row]) -> tuple[list[str], list[int]]:
    """Receivers and the versions that the payloads were checked against, each pair once."""
    used = list({(row[_RECEIVER], row[_VERSION]) for row in rows})
    return [pair[0] for pair in used], [pair[1] for pair in used]


def _without_stale(entries: list[Entry], receiver_ids: frozenset[str]) -> list[Entry]:
    """Tells those that must be checked again; gives back the rest, which had no part in it."""
    rest = []
    for entry in entries:
        if receiver_ids.isdisjoint(row[_RECEIVER] for row in entry.rows):
            rest.append(entry)
        else:
            entry.tell(Stale(receiver_ids))
    return rest


def _tell_all(entries: list[Entry], error: Exception) -> None:
    for entry in entries:
        entry.tell(error)


def _reason(error: Exception) -> str:
    """What the database found, without its own words: they quote values, and the whole row as a detail."""
    where = [f"{what} {name}" for what in ("column", "constraint") if (name := getattr(error, f"{what}_name", None))]
    return ", ".join([f"{type(error).__name__} ({getattr(error, 'sqlstate', None)})", *where])
