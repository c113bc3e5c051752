"""Partitions of `events` (one a month, by id) and of `stream` (by position), made ahead of need.

Rows never wait for a partition: what has none falls into the default partition, and is moved when its range is made, because
PostgreSQL refuses a new partition while the default one holds rows of its range. A partition that cannot be made now (a long
reader holds the lock) is logged and tried at the next call; it never stops the caller.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import asyncpg
import structlog

from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.ids import lowest_at

log = structlog.get_logger(__name__)
queries = Queries("xzepr.events")

MONTHS_AHEAD: Final = 3
POSITIONS_PER_PARTITION: Final = 10_000_000
STREAM_PARTITIONS_AHEAD: Final = 2
# Partitions of past months are made when something is stored there: by imports, or by what a wrong clock left in the default one.
_LOCK_TIMEOUT: Final = "set local lock_timeout = '2s'"


async def ensure_partitions(database: Database, now: datetime) -> int:
    """Make what is missing for this month, the last one and MONTHS_AHEAD, for the months of rows in the default partition, and for the
    stream. Returns how many were made."""
    made = 0
    async with database.connection() as connection:
        months = set(_months(now, MONTHS_AHEAD)) | await _months_in_default(connection)
        for month in sorted(months):
            low, high = lowest_at(month), lowest_at(_next_month(month))
            made += await _ensure(connection, "events", f"events_{month:%Y_%m}", "id", f"'{low}'", f"'{high}'")
        last: int = await connection.fetchval(queries["last_position"])
        for number in range(last // POSITIONS_PER_PARTITION, last // POSITIONS_PER_PARTITION + STREAM_PARTITIONS_AHEAD + 1):
            first = number * POSITIONS_PER_PARTITION
            made += await _ensure(connection, "stream", f"stream_{number:06}", "position", str(first), str(first + POSITIONS_PER_PARTITION))
    return made


async def _ensure(connection: Connection, table: str, partition: str, column: str, low: str, high: str) -> bool:
    """Make one partition [low, high) unless it is there, with the rows of that range from the default partition. Whether it was made now.

    All names and bounds are our own, none comes from outside; DDL takes no parameters.
    """
    if await connection.fetchval(queries["relation_exists"], partition):
        return False
    astray = f"select exists (select from {table}_default d where d.{column} >= {low} and d.{column} < {high})"  # noqa: S608
    try:
        async with connection.transaction():
            await connection.execute(_LOCK_TIMEOUT)
            await connection.execute(queries["lock_partitions"])
            if await connection.fetchval(queries["relation_exists"], partition):
                return False
            # Rows that move must move unseen. Who has looked up the partitions already and waits for the default one would, once it is free,
            # look for the rows where they no longer are, or insert where they no longer belong; so nobody may be past the table itself. Without
            # rows to move the lock of the default partition is enough, and holds up hardly anybody.
            rows_move = await connection.fetchval(astray)
            await connection.execute(f"lock table {table if rows_move else f'{table}_default'} in access exclusive mode")
            if not rows_move and await connection.fetchval(astray):
                log.warning("partition.not_made", partition=partition, reason="rows of its range came meanwhile")
                return False
            await connection.execute(f"create table {partition} (like {table} including defaults including constraints)")
            moved = await connection.execute(
                f"with moved as (delete from {table}_default d where d.{column} >= {low} and d.{column} < {high} returning d.*) "  # noqa: S608
                f"insert into {partition} select * from moved"
            )
            await connection.execute(f"alter table {table} attach partition {partition} for values from ({low}) to ({high})")
    except asyncpg.PostgresError as error:
        log.warning("partition.not_made", partition=partition, reason=str(error))
        return False
    log.info("partition.made", partition=partition, moved=int(moved.rsplit(" ", 1)[-1]))
    return True


async def _months_in_default(connection: Connection) -> set[datetime]:
    """The months for which the default partition holds rows; read off their ids."""
    rows = await connection.fetch(queries["created_in_default_partition"])
    return {row["month"].astimezone(UTC) for row in rows if row["month"].year < 9999}


def _months(now: datetime, ahead: int) -> Iterator[datetime]:
    this = datetime(now.year, now.month, 1, tzinfo=UTC)
    yield datetime(this.year - (this.month == 1), (this.month - 2) % 12 + 1, 1, tzinfo=UTC)
    for _ in range(ahead + 1):
        yield this
        this = _next_month(this)


def _next_month(month: datetime) -> datetime:
    return datetime(month.year + month.month // 12, month.month % 12 + 1, 1, tzinfo=UTC)
