"""Reads by id: shared, exact, and one look at one month each. What other reads look at on a table of 36 months."""

import asyncio
from typing import Any

import asyncpg
import pytest

from support import old
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import NotFound, Unavailable
from xzepr.events.search import EventReads
from xzepr.ids import EventId

queries = Queries("xzepr.events")
UNKNOWN = EventId("01ARZ3NDEKTSV4RRFFQ69G5FAV")


async def test_concurrent_reads_share_statements(database: Database, database_url: str) -> None:
    receiver = await old.make_receiver(database, "t")
    await old.store(database, receiver, 1, count=50)
    watcher = await asyncpg.connect(database_url)
    wanted = [EventId(row["id"]) for row in await watcher.fetch("select id from events")]
    reads = EventReads(database)
    asked = 0
    real = database.connection

    def counted() -> Any:
        nonlocal asked
        asked += 1
        return real()

    database.connection = counted  # type: ignore[method-assign]
    found = await asyncio.gather(*(reads.get(event_id) for event_id in wanted * 4))
    assert [event.id for event in found] == wanted * 4
    assert asked <= 2
    answers = await asyncio.gather(reads.get(wanted[0]), reads.get(UNKNOWN), return_exceptions=True)
    assert answers[0] == found[0]
    assert isinstance(answers[1], NotFound)
    await watcher.close()


async def test_a_reader_that_leaves_takes_no_answer_from_the_others(database: Database) -> None:
    receiver = await old.make_receiver(database, "t")
    await old.store(database, receiver, 1, count=1)
    async with database.connection() as connection:
        event_id = EventId(await connection.fetchval("select id from events"))
    reads = EventReads(database)
    leaving, staying = asyncio.create_task(reads.get(event_id)), asyncio.create_task(reads.get(event_id))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).id == event_id
    await reads.close()


async def test_a_database_that_is_away_is_told_to_everybody(database: Database) -> None:
    reads = EventReads(database)
    await database.close()
    answers = await asyncio.gather(reads.get(UNKNOWN), reads.get(UNKNOWN), return_exceptions=True)
    assert [isinstance(answer, Unavailable) for answer in answers] == [True, True]


async def plan_of(connection: Any, statement: str, *arguments: Any) -> tuple[str, int]:
    """As it was carried out, and how many partitions of `events` it looked at."""
    rows = await connection.fetch(f"explain (analyze, costs off, timing off) {statement}", *arguments)
    lines = [row[0] for row in rows]
    looked_at = {line.split(" on ")[1].split()[0] for line in lines if " on events_" in line and "never executed" not in line}
    return "\n".join(lines), len(looked_at)


@pytest.mark.parametrize("generic", ["force_custom_plan", "force_generic_plan"])
async def test_a_read_by_id_looks_at_one_month(database: Database, database_url: str, generic: str) -> None:
    receiver = await old.make_receiver(database, "t")
    for days in range(1, 1080, 30):
        await old.store(database, receiver, days, count=2)
    connection = await asyncpg.connect(database_url, server_settings={"plan_cache_mode": generic, "enable_seqscan": "off"})
    await connection.execute("analyze events")
    assert await connection.fetchval("select count(*) from pg_inherits where inhparent = 'events'::regclass") > 36
    event_id = await connection.fetchval("select id from events order by id offset 30 limit 1")
    # A prepared statement, as the server uses it.
    prepared = await connection.prepare(queries["find_events"])
    assert [row["id"] for row in await prepared.fetch([event_id])] == [event_id]
    text, months = await plan_of(connection, queries["find_events"], [event_id])
    assert months == 1, text
    assert "Index Scan" in text
    await connection.close()
