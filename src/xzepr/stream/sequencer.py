"""The sequencer: moves outbox rows into the stream, gives each a position, and decides the gates as it goes.

One short transaction per step: lock the lease and check its epoch; take the lowest numbers that can be seen; append each to the stream with the next
position, and right behind it what `groups/gates.decide` says follows; store the fold's new state; delete the rows; commit. So a fact,
its position, its decisions and the state are one commit, and the stream has no holes.

*State is what was sequenced*, never what the tables of events and definitions show: those run ahead. Definitions are kept in memory between
steps; after anything but a clean commit (lost lease, lost connection, an error) that memory is dropped and read again from the database,
so it never holds what was not committed.
"""

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import asyncpg
import structlog

from xzepr import clock, ids
from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import Unavailable
from xzepr.groups.gates import Decision, EvaluationFact, EventFact, FoldState, GroupDefinition, GroupFact, Head, Verdict, decide, evaluate
from xzepr.ids import MessageId
from xzepr.stream.lead import Lead
from xzepr.stream.message import EVALUATION_REQUESTED, Kind

log = structlog.get_logger(__name__)
queries = Queries("xzepr.stream")

BATCH_FACTS_MAX: Final = 2_000
BUSY_INTERVAL_S: Final = 0.02
IDLE_INTERVAL_S: Final = 0.25
# A step costs some two milliseconds whatever it takes: with so many facts at once it is better to let more of them come.
MANY_FACTS: Final = 100
CROWDED_INTERVAL_S: Final = 0.05
# It stays busy this long after the last fact: a writer that rang a moment ago does not ring again for what it writes now.
STAYS_BUSY_S: Final = 0.2
# How long a writer may need from its number to its commit before it counts as paused, and how often a look begins at the very beginning.
FLOOR_AGE_S: Final = 5.0
FULL_LOOK_INTERVAL_S: Final = 5.0
# After a fault, so that a database that is away is not hammered.
RETRY_INTERVAL_S: Final = 0.5

STREAM_COLUMNS: Final = (
    "position",
    "message_id",
    "kind",
    "seq",
    "artifact_id",
    "event_id",
    "event_receiver_id",
    "event_receiver_version",
    "event_receiver_group_id",
    "event_receiver_group_version",
    "success",
    "first",
    "sequenced_at",
    "traceparent",
)

HEAD_COLUMNS: Final = ("artifact_id", "event_receiver_id", "event_id", "seq", "success")

_EVENT: Final = Kind.EVENT_RECORDED.value
_GROUP_KINDS: Final = frozenset({Kind.GROUP_CREATED, Kind.GROUP_MODIFIED, Kind.GROUP_DELETED})


class LeadLost(Exception):
    """Another epoch has begun; nothing was written."""


@dataclass(slots=True)
class _Step:
    """What one step will write. The dicts: each key once, its last value. known_heads: those that are stored already.

    moved: number, position and message id of each fact; without both it becomes no message. verdicts: messages behind them, as
    `append_verdicts` takes them. told: messages that no fact in the outbox becomes, as rows of the stream.
    """

    position: int
    now: datetime
    known_heads: frozenset[tuple[bytes, str]] = frozenset()
    moved: list[tuple[int, int | None, str | None]] = field(default_factory=list)
    verdicts: list[tuple[Any, ...]] = field(default_factory=list)
    told: list[tuple[Any, ...]] = field(default_factory=list)
    heads: dict[tuple[bytes, str], tuple[str, int, bool]] = field(default_factory=dict)
    states: dict[tuple[str, bytes], tuple[int, bool, str, int | None, int]] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    evaluations: list[tuple[Any, ...]] = field(default_factory=list)

    def move(self, seq: int) -> None:
        """A fact, as the next message."""
        self.position += 1
        self.moved.append((seq, self.position, ids.mint(MessageId)))

    def note(self, row: Any, decision: Decision) -> None:
        """An event's decision: the new head, and each verdict behind the event."""
        if decision.head is not None:
            self.heads[row["artifact_id"], row["event_receiver_id"]] = decision.head
        for verdict in decision.verdicts:
            complete = self._note_state(verdict, row["artifact_id"], row["event_id"])
            message = (self.position, ids.mint(MessageId), verdict.kind, row["seq"], verdict.group_id, verdict.group_version)
            self.verdicts.append((*message, complete, verdict.first))

    def tell(self, verdict: Verdict, trigger: Any) -> str:
        """The answer to an evaluation, as the next message; its id. trigger: of the event that decided long ago, the columns of its message."""
        complete = self._note_state(verdict, trigger["artifact_id"], trigger["event_id"])
        message_id = ids.mint(MessageId)
        values = {
            **trigger,
            "position": self.position,
            "message_id": message_id,
            "kind": verdict.kind,
            "event_receiver_group_id": verdict.group_id,
            "event_receiver_group_version": verdict.group_version,
            "success": complete,
            "first": verdict.first,
            "sequenced_at": self.now,
        }
        self.told.append(tuple(values[column] for column in STREAM_COLUMNS))
        return message_id

    def _note_state(self, verdict: Verdict, artifact_id: bytes, event_id: str) -> bool:
        """The group's state for the artifact, as of the next position; whether it is complete."""
        self.position += 1
        complete = verdict.kind is Kind.GROUP_COMPLETE
        key = (verdict.group_id, artifact_id)
        first = self.position if verdict.first else self.states[key][3] if key in self.states else None
        self.states[key] = (verdict.group_version, complete, event_id, first, self.position)
        return complete


class _Floor:
    """Below which number nothing is looked for, most of the time.

    While somebody holds an old snapshot (a backup), rows that were taken stay in the index of the outbox, and a look from its beginning walks over
    all of them. A number is hardly ever committed long after higher ones were taken; so looks begin above what was taken FLOOR_AGE_S ago, and one
    every FULL_LOOK_INTERVAL_S begins at the very beginning, and finds what a paused writer has committed since. Late facts are recorded late,
    which is what they are.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self._seq = 0
        self._full_look_at_s = 0.0

    def seq(self, now_s: float) -> int:
        """The next look begins above this number; 0: at the beginning."""
        while self._marks and self._marks[0][0] <= now_s - FLOOR_AGE_S:
            self._seq = max(self._seq, self._marks.popleft()[1])
        return 0 if now_s >= self._full_look_at_s else self._seq

    def note(self, now_s: float, floor: int, taken: list[int], *, is_last: bool) -> None:
        """After a look that was committed. is_last: it left nothing behind."""
        if taken:
            self._marks.append((now_s, taken[-1]))
        if floor == 0 and is_last:
            self._full_look_at_s = now_s + FULL_LOOK_INTERVAL_S


class Sequencer:
    """The one loop. batch_facts_max: rows taken in one step."""

    def __init__(self, database: Database, lead: Lead, *, batch_facts_max: int = BATCH_FACTS_MAX) -> None:
        self._database = database
        self._lead = lead
        self.batch_facts_max = batch_facts_max
        self._state: FoldState | None = None
        self._bell = asyncio.Event()
        self._busy_until_s = 0.0
        self._floor = _Floor()

    def wake(self) -> None:
        """There may be something to take; look now."""
        self._bell.set()

    async def run(self) -> None:
        """Sequence until cancelled, whenever this process leads. No error ends the loop: it is logged, and the step tried again."""
        while True:
            epoch = await self._lead.held()
            try:
                sequenced = await self.step(epoch)
                await self._rest(sequenced)
            except LeadLost:
                self._lead.lose()
            except Unavailable as error:
                log.warning("sequencer.database_away", reason=error.message)
                await asyncio.sleep(RETRY_INTERVAL_S)
            except Exception:
                log.exception("sequencer.step_failed")
                await asyncio.sleep(RETRY_INTERVAL_S)

    async def step(self, epoch: int) -> int:
        """Sequence one batch; how many facts. Raises LeadLost, Unavailable, or what the database says; then nothing was written, or
        (a connection lost at the commit) all of it was: the next step starts from what is stored either way."""
        try:
            async with self._database.connection() as connection:
                floor = self._floor.seq(time.monotonic())
                if not await connection.fetchval(queries["outbox_has_rows"], floor):
                    taken: list[int] = []
                else:
                    async with connection.transaction():
                        taken = await self._sequence(connection, epoch, floor)
                self._floor.note(time.monotonic(), floor, taken, is_last=len(taken) < self.batch_facts_max)
                return len(taken)
        except BaseException:
            self._state = None
            self._floor = _Floor()
            raise

    async def _sequence(self, connection: Connection, epoch: int, floor: int) -> list[int]:
        """The numbers of the facts that it took."""
        last_position = await connection.fetchval(queries["lock_lead"], epoch)
        if last_position is None:
            raise LeadLost
        if self._state is None:
            self._state = await _load_groups(connection)
        facts = await connection.fetch(queries["take_outbox"], self.batch_facts_max, floor)
        await _load_artifacts(connection, self._state, facts)
        step = _Step(last_position, clock.now(), known_heads=frozenset(self._state.heads))
        for row in facts:
            if row["kind"] == EVALUATION_REQUESTED:
                await _evaluate(connection, self._state, step, row)
            else:
                _fold(self._state, step, row)
        taken = [row["seq"] for row in facts]
        await _write(connection, epoch, step)
        # Heads and completions are read anew for each batch; only definitions are kept.
        self._state.heads, self._state.told = {}, set()
        return taken

    async def _rest(self, sequenced: int) -> None:
        """Until the next look: none behind a full batch, a moment while busy; the bell cuts short what is longer."""
        if sequenced >= self.batch_facts_max:
            return
        now_s = time.monotonic()
        if sequenced:
            self._busy_until_s = now_s + STAYS_BUSY_S
        await asyncio.sleep(BUSY_INTERVAL_S if sequenced < MANY_FACTS else CROWDED_INTERVAL_S)
        if now_s < self._busy_until_s:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_INTERVAL_S - BUSY_INTERVAL_S):
                await self._bell.wait()
        self._bell.clear()


def _fold(state: FoldState, step: _Step, row: Any) -> None:
    """One fact: its own row, what it decides, and the state behind it."""
    step.move(row["seq"])
    if row["kind"] == _EVENT:
        fact = EventFact(row["seq"], row["artifact_id"], row["event_receiver_id"], row["event_id"], row["success"])
        decision = decide(state, fact)
        step.note(row, decision)
        state.apply(fact, decision)
        return
    if row["kind"] in _GROUP_KINDS:
        state.define(_group_fact(row))
        step.groups[row["event_receiver_group_id"]] = row["event_receiver_group_version"]


async def _evaluate(connection: Connection, state: FoldState, step: _Step, row: Any) -> None:
    """Answer one evaluation. Its message tells of the event that opened the last gate."""
    step.moved.append((row["seq"], None, None))
    fact = EvaluationFact(row["seq"], row["event_receiver_group_id"], row["artifact_id"])
    decided = evaluate(state, fact)
    if decided is None:
        step.evaluations.append((row["seq"], False, None, None, step.now))
        return
    verdict, receiver_id, head = decided
    version = await connection.fetchval(queries["receiver_version_of_event"], head.event_id)
    trigger = {
        "seq": head.seq,
        "artifact_id": row["artifact_id"],
        "event_id": head.event_id,
        "event_receiver_id": receiver_id,
        "event_receiver_version": version,
        "traceparent": row["traceparent"],
    }
    message_id = step.tell(verdict, trigger)
    state.told.add((verdict.group_id, row["artifact_id"]))
    step.evaluations.append((row["seq"], True, message_id, step.position, step.now))


def _group_fact(row: Any) -> GroupFact:
    group_id = row["event_receiver_group_id"]
    if row["group_deleted"]:
        return GroupFact(row["seq"], group_id, None)
    receiver_ids = tuple(row["group_event_receiver_ids"])
    return GroupFact(row["seq"], group_id, GroupDefinition(group_id, row["event_receiver_group_version"], row["group_enabled"], receiver_ids))


async def _load_groups(connection: Connection) -> FoldState:
    state = FoldState()
    for row in await connection.fetch(queries["load_sequenced_groups"]):
        state.define(GroupFact(0, row["id"], GroupDefinition(row["id"], row["version"], row["enabled"], tuple(row["event_receiver_ids"]))))
    return state


async def _load_artifacts(connection: Connection, state: FoldState, facts: list[asyncpg.Record]) -> None:
    """Heads of the artifacts in this batch, and which groups were told complete for those of them that have an event of some group's receiver."""
    events = [row for row in facts if row["kind"] == Kind.EVENT_RECORDED]
    evaluations = [row for row in facts if row["kind"] == EVALUATION_REQUESTED]
    if not events and not evaluations:
        return
    for row in await connection.fetch(queries["load_heads"], list({row["artifact_id"] for row in events + evaluations})):
        state.heads[row["artifact_id"], row["event_receiver_id"]] = Head(row["event_id"], row["seq"], row["success"])
    members = {receiver_id for row in facts for receiver_id in row["group_event_receiver_ids"] or ()}
    members.update(receiver_id for receiver_id, group_ids in state.groups_of.items() if group_ids)
    grouped = {row["artifact_id"] for row in events if row["event_receiver_id"] in members}
    grouped.update(row["artifact_id"] for row in evaluations)
    if grouped:
        for row in await connection.fetch(queries["load_told"], list(grouped)):
            state.told.add((row["event_receiver_group_id"], row["artifact_id"]))


async def _write(connection: Connection, epoch: int, step: _Step) -> None:
    if step.told:
        await connection.copy_records_to_table("stream", records=step.told, columns=STREAM_COLUMNS)
    if step.verdicts:
        _require_rows(await connection.execute(queries["append_verdicts"], step.verdicts, step.now), len(step.verdicts))
    messages = sum(1 for _, position, _ in step.moved if position is not None)
    _require_rows(await connection.execute(queries["move_facts"], step.moved, step.now), messages)
    new_heads = [(*key, *head) for key, head in step.heads.items() if key not in step.known_heads]
    if new_heads:
        # Nobody else writes them, so none can have come meanwhile. COPY takes a third of the time of an INSERT.
        await connection.copy_records_to_table("gate_heads", records=new_heads, columns=HEAD_COLUMNS)
    changed_heads = {key: head for key, head in step.heads.items() if key in step.known_heads}
    if changed_heads:
        await connection.execute(queries["change_heads"], _sorted_rows(changed_heads))
    if step.states:
        await connection.execute(queries["put_group_states"], _sorted_rows(step.states))
    if step.groups:
        await connection.execute(queries["put_sequenced_groups"], list(step.groups), list(step.groups.values()))
    if step.evaluations:
        await connection.execute(queries["put_evaluations"], *map(list, zip(*step.evaluations, strict=True)))
    await connection.execute(queries["advance_position"], epoch, step.position)


def _require_rows(status: str, rows: int) -> None:
    """A message that is missing would be a hole in the stream for ever: rather none of the step."""
    if status != f"INSERT 0 {rows}":
        raise RuntimeError(f"{rows} messages were to be written, not {status!r}")


def _sorted_rows(rows: dict[Any, tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Key and value fields, in the order of the keys, so that two steps lock rows in one order."""
    return [(*key, *rows[key]) for key in sorted(rows)]
