"""Migrations, on both PostgreSQL versions that we meet."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from conftest import fresh_database, make_migrated
from xzepr import ids
from xzepr.db.migrate import Migration, MigrationError, check_schema, known_migrations, migrate
from xzepr.db.pool import Database
from xzepr.db.queries import ROOMS, Queries
from xzepr.events.partitions import ensure_partitions
from xzepr.ids import EventId

NOW = datetime(2026, 11, 25, tzinfo=UTC)


async def fetchval(url: str, sql: str, *values: object) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql, *values)
    finally:
        await connection.close()


async def test_five_migrators_at_once_apply_each_file_once(each_server: str) -> None:
    async with fresh_database(each_server) as url:
        applied = await asyncio.gather(*(migrate(url) for _ in range(5)))
        assert sorted(migration.number for each in applied for migration in each) == [each.number for each in known_migrations()]
        assert await fetchval(url, "select count(*) from schema_migrations") == len(known_migrations())


async def test_migrators_wait_for_a_concurrent_index_without_deadlock(each_server: str) -> None:
    extra = [
        *known_migrations(),
        Migration(9001, "index", "-- no-transaction\ncreate index concurrently if not exists extra_idx on gate_heads (event_id);\n"),
    ]
    async with fresh_database(each_server) as url:
        async with asyncio.timeout(60):
            await asyncio.gather(*(migrate(url, migrations=extra) for _ in range(5)))
        assert await fetchval(url, "select i.indisvalid from pg_index i where i.indexrelid = 'extra_idx'::regclass")


async def test_a_file_without_transaction_runs_statement_by_statement() -> None:
    migration = Migration(1, "x", "-- no-transaction\n-- why\nselect 1;\n\nselect\n  2;\n-- end\n")
    assert [statement.splitlines()[-1].strip() for statement in migration.statements] == ["select 1", "2"]
    assert not migration.in_transaction


async def test_a_changed_file_is_refused(empty_url: str) -> None:
    await migrate(empty_url)
    first, *others = known_migrations()
    with pytest.raises(MigrationError, match="was changed after it was applied"):
        await migrate(empty_url, migrations=[Migration(first.number, first.name, first.sql + "\n"), *others])


async def test_a_schema_newer_than_the_code_is_refused(empty_url: str) -> None:
    await migrate(empty_url, migrations=[*known_migrations(), Migration(9001, "future", "select 1")])
    with pytest.raises(MigrationError, match=r"9001_future, which this XZepr does not know"):
        await migrate(empty_url)
    connection = await asyncpg.connect(empty_url)
    with pytest.raises(MigrationError, match="newer version"):
        await check_schema(connection)
    await connection.close()


async def test_a_failing_file_leaves_nothing_behind(empty_url: str) -> None:
    broken = [*known_migrations(), Migration(9001, "broken", "create table left_over (id integer); select 1 / 0;")]
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_url, migrations=broken)
    assert await fetchval(empty_url, "select to_regclass('left_over') is null")
    assert await fetchval(empty_url, "select max(number) from schema_migrations") == known_migrations()[-1].number


async def test_a_database_that_is_not_migrated_is_named(empty_url: str) -> None:
    connection = await asyncpg.connect(empty_url)
    with pytest.raises(MigrationError, match="run `xzepr migrate`"):
        await check_schema(connection)
    await connection.close()


async def test_every_named_query_fits_the_migrated_schema(each_server: str) -> None:
    async with fresh_database(each_server) as url:
        await make_migrated(url)
        connection = await asyncpg.connect(url)
        for room in ROOMS:
            for name, sql in Queries(room).all().items():
                try:
                    await connection.prepare(sql)
                except asyncpg.PostgresError as error:
                    pytest.fail(f"{room}: {name}: {error}")
        await connection.close()


async def test_partitions_reach_months_ahead(each_server: str) -> None:
    async with fresh_database(each_server) as url:
        await make_migrated(url)
        database = await Database(url, connections_min=1, connections_max=2, connect_timeout_s=10).open()
        await ensure_partitions(database, NOW)
        names = await fetchval(url, "select array_agg(c.relname::text order by 1) from pg_class c where c.relname ~ '^events_[0-9]{4}_[0-9]{2}$'")
        assert isinstance(names, list)
        assert {"events_2026_10", "events_2026_11", "events_2026_12", "events_2027_01", "events_2027_02"} <= set(names)
        assert await ensure_partitions(database, NOW) == 0
        await database.close()


async def test_rows_in_the_default_partition_move_when_their_month_is_made(each_server: str) -> None:
    async with fresh_database(each_server) as url:
        await make_migrated(url)
        connection = await asyncpg.connect(url)
        wrong = EventId(ids.lowest_at(datetime(2031, 5, 17, tzinfo=UTC)))
        await connection.execute(
            """insert into events (id, seq, artifact_id, name, version, release, platform_id, package, description, payload, success,
                event_receiver_id, event_receiver_version, created_at)
            values ($1, 1, '\\x00000000000000000000000000000000', 'n', 'v', 'r', 'p', 'k', '', '{}', true, 'R', 1, $2)""",
            wrong,
            ids.time_of(wrong),
        )
        assert await connection.fetchval("select count(*) from events_default") == 1
        database = await Database(url, connections_min=1, connections_max=2, connect_timeout_s=10).open()
        assert await ensure_partitions(database, NOW) >= 1
        assert await connection.fetchval("select count(*) from events_default") == 0
        assert await connection.fetchval("select tableoid::regclass::text from events where id = $1", wrong) == "events_2031_05"
        await database.close()
        await connection.close()


async def test_a_partition_that_cannot_be_made_does_not_stop_the_caller(database_url: str) -> None:
    holder = await asyncpg.connect(database_url)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("lock table events_default in access share mode")
    database = await Database(database_url, connections_min=1, connections_max=2, connect_timeout_s=10).open()
    assert await ensure_partitions(database, datetime(2040, 1, 1, tzinfo=UTC)) == 0
    await transaction.rollback()
    assert await ensure_partitions(database, datetime(2040, 1, 1, tzinfo=UTC)) > 0
    await database.close()
    await holder.close()


async def test_an_encoding_that_cannot_hold_all_text_is_refused(first_server: str) -> None:
    async with fresh_database(first_server) as url:
        name = url.partition("?")[0].rpartition("/")[2]
        connection = await asyncpg.connect(url.replace(name, "postgres"))
        await connection.execute(f"drop database {name}")
        await connection.execute(f"create database {name} template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'")
        await connection.close()
        with pytest.raises(MigrationError, match="SQL_ASCII"):
            await migrate(url)
