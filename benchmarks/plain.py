"""The other counterparts: a plain SELECT for reads, a plain COPY for batches; a closed loop in a process of its own, straight to the database.

`python -m benchmarks.plain` reads a PlainPlan from standard input and writes an Outcome (msgpack).
"""

import asyncio
import os
from array import array
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final

import asyncpg
import msgspec

from benchmarks.fill import EVENTS_PER_ARTIFACT
from benchmarks.load import Outcome, carry_out, run_process
from xzepr.ids import lowest_at

# Rows in our own outbox would be sequenced.
_TABLES: Final = ("create schema if not exists bare", "create table bare.batch_outbox (like public.outbox including all)")
EVENT_COLUMNS: Final = (
    *("id", "seq", "artifact_id", "name", "version", "release", "platform_id", "package", "description", "payload", "success"),
    *("event_receiver_id", "event_receiver_version", "owner_id", "created_at", "traceparent"),
)
OUTBOX_COLUMNS: Final = ("seq", "kind", "artifact_id", "event_id", "event_receiver_id", "event_receiver_version", "success")


class PlainPlan(msgspec.Struct, kw_only=True, frozen=True):
    """Either `queries`, each (statement, parameters, rows that must come back), or `events`: the rows of one batch, in EVENT_COLUMNS.

    id, seq, artifact and version of the rows are made anew for each batch. first: the lowest seq that no run before used.
    """

    url: str
    connections: int
    warmup_s: float
    duration_s: float
    queries: list[tuple[str, list[Any], int]] = []
    events: list[list[Any]] = []
    first: int = 1


class _Plain:
    """One run of a plan."""

    def __init__(self, plan: PlainPlan) -> None:
        self._plan = plan
        self._outcome = Outcome(seconds=plan.duration_s)
        self._latencies = array("d")
        self._next = 0
        self._from = self._until = 0.0

    async def run(self) -> Outcome:
        """Connect, then loop until the time is over."""
        connections = [await asyncpg.connect(self._plan.url) for _ in range(self._plan.connections)]
        self._from = perf_counter() + self._plan.warmup_s
        self._until = self._from + self._plan.duration_s
        await asyncio.gather(*(self._loop(connection) for connection in connections))
        for connection in connections:
            await connection.close()
        self._outcome.latencies = self._latencies.tobytes()
        return self._outcome

    async def _loop(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        step = self._copy if self._plan.events else self._select
        while (begun := perf_counter()) <= self._until:
            good = await step(connection)
            now = perf_counter()
            self._outcome.bad += not good
            self._outcome.answered += good
            if self._from <= now <= self._until:
                self._outcome.in_window += good
                self._latencies.append(now - begun)

    async def _select(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        statement, parameters, rows = self._plan.queries[self._next % len(self._plan.queries)]
        self._next += 1
        return len(await connection.fetch(statement, *parameters)) == rows

    async def _copy(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        events, outbox = self._batch()
        async with connection.transaction():
            # Into the very table, so with the indexes as large as they are by now.
            await connection.copy_records_to_table("events", records=events, columns=EVENT_COLUMNS)
            await connection.copy_records_to_table("batch_outbox", schema_name="bare", records=outbox, columns=OUTBOX_COLUMNS)
        return True

    def _batch(self) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """The rows of a batch of ours: new ids, which rise as ours do; new artifacts by their version, with ids that lie anywhere, as hashes do."""
        first = self._plan.first + self._next * len(self._plan.events)
        self._next += 1
        # 26 characters that rise; the quickest that will do, since a COPY is to be measured.
        moment = lowest_at(datetime.now(UTC))[:10]
        version, artifact_ids = f"1.{first:010}", [os.urandom(16) for _ in range(len(self._plan.events) // EVENTS_PER_ARTIFACT)]
        events = [
            (f"{moment}{seq:016}", seq, artifact_ids[place // EVENTS_PER_ARTIFACT], row[3], version, *row[5:])
            for place, (seq, row) in enumerate(enumerate(self._plan.events, first))
        ]
        outbox = [(row[1], "event.recorded", row[2], row[0], row[11], row[12], row[10]) for row in events]
        return events, outbox


async def make_tables(url: str) -> None:
    """Where the batches of the counterpart go."""
    connection = await asyncpg.connect(url)
    try:
        for statement in _TABLES:
            await connection.execute(statement)
    finally:
        await connection.close()


async def run_plain(plan: PlainPlan) -> Outcome:
    """In a process of its own."""
    return msgspec.msgpack.decode(await run_process("benchmarks.plain", msgspec.msgpack.encode(plan)), type=Outcome)


if __name__ == "__main__":
    carry_out(PlainPlan, lambda plan: _Plain(plan).run())
