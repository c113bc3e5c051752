"""A month of events that is wholly due, or empty, is dropped as the partition that it is: nothing is left to vacuum.

Wholly due: every receiver with an event in it has a rule by which the whole month is old, no hold matches any of them, no message and no queued fact
tells of one. First, in batches of their own, what gates still show is kept. Then one transaction: inserts into that month wait (only a clock that is
wrong by months, or an import, makes any), everything is counted, and only for the last moment the whole table is locked, what might keep an event is
asked once more, and the partition dropped. A lock that is not to be had within two seconds, a table that belongs to another role, or a doubt, leaves
the month to the batches of rows.py. The last month, this one, those ahead and the default partition are never dropped.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import asyncpg
import structlog

from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import Unavailable
from xzepr.ids import lowest_at
from xzepr.retention import dispositions
from xzepr.retention.model import Disposition, Due
from xzepr.retention.rows import keep_heads

log = structlog.get_logger(__name__)
queries = Queries("xzepr.retention")

_PARTITION: Final = re.compile(r"events_(\d{4})_(\d{2})")
_TIMEOUTS: Final = ("set local lock_timeout = '2s'", "set local statement_timeout = '5min'")
# While the whole table is locked, nothing may take long.
_BRIEF: Final = "set local statement_timeout = '2s'"


class _Month(NamedTuple):
    """One partition: ids from low to below high."""

    name: str
    low: str
    high: str


class _NotNow(Exception):
    """The month is not wholly due after all; the reason is for the log."""


async def drop_months(database: Database, due: Sequence[Due], *, now: datetime, actor: str, go_on: Callable[[], bool]) -> AsyncIterator[Disposition]:
    """Drop what can be; a disposition for each receiver of each month, after the commit. Raises Unavailable when the database is away."""
    by_receiver = {each.event_receiver_id: each for each in due}
    async with database.connection() as connection:
        names = [row["name"] for row in await connection.fetch(queries["partitions_of"], "events")]
    for month in _past_months(names, now):
        if not go_on():
            return
        try:
            dropped = await _drop_if_due(database, month, by_receiver, actor)
        except _NotNow as reason:
            log.info("retention.partition_not_dropped", partition=month.name, reason=str(reason))
            continue
        except asyncpg.PostgresError as error:
            # In use, or not ours to drop: its rows go all the same.
            log.warning("retention.partition_not_dropped", partition=month.name, reason=str(error))
            continue
        except Unavailable as error:
            if not isinstance(error.__cause__, asyncpg.QueryCanceledError):
                raise
            log.warning("retention.partition_not_dropped", partition=month.name, reason="it took too long")
            continue
        for made in dropped:
            dispositions.tell(made)
            yield made


async def _drop_if_due(database: Database, month: _Month, due: Mapping[str, Due], actor: str) -> list[Disposition]:
    async with database.connection() as connection:
        receiver_ids = [row["id"] for row in await connection.fetch(queries["receivers_in_range"], month.low, month.high)]
        if not all(_is_due(due.get(each), month) for each in receiver_ids):
            return []
        if await connection.fetchval(queries["range_is_kept"], month.low, month.high):
            return []
        # Each of these statements is a transaction of its own; what it keeps ahead of need does no harm if the month stays.
        for receiver_id in receiver_ids:
            await _keep_heads(connection, receiver_id, month)
    async with database.transaction() as connection:
        made = await _drop(connection, month, due, actor)
    log.info("partition.dropped", partition=month.name)
    return made


async def _drop(connection: Connection, month: _Month, due: Mapping[str, Due], actor: str) -> list[Disposition]:
    """Names of partitions are our own; DDL takes no parameters. Raises _NotNow, and what the database says."""
    for timeout in _TIMEOUTS:
        await connection.execute(timeout)
    await connection.execute(f"lock table {month.name} in share mode")
    made = []
    for row in await connection.fetch(queries["count_range"], month.low, month.high):
        found = due.get(row["event_receiver_id"])
        if found is None or not _is_due(found, month) or found.event_receiver_type != row["event_receiver_type"]:
            raise _NotNow(f"events of receiver {row['event_receiver_id']} are not due")
        # What came since they were kept ahead.
        await _keep_heads(connection, row["event_receiver_id"], month)
        made.append(dispositions.of_events(found, row["removed"], row["first"], row["last"], actor=actor, partition=month.name))
    await connection.execute(queries["lock_holds"])
    await connection.fetch(queries["lock_partitions"])
    await connection.execute("lock table only events in access exclusive mode")
    await connection.execute(_BRIEF)
    # No step of the sequencer is under way: each looks at events or waits for this. So nothing can come to refer to the month.
    if await connection.fetchval(queries["range_is_kept"], month.low, month.high):
        raise _NotNow("a hold or a message came that keeps an event of it")
    for each in made:
        await dispositions.put(connection, each)
    await connection.execute(queries["forget_keys"], month.low, month.high)
    await connection.execute(f"drop table {month.name}")
    return made


async def _keep_heads(connection: Connection, receiver_id: str, month: _Month) -> None:
    # The lowest id of a month may be an event's: begin below it.
    after: str | None = _below(month.low)
    while after is not None:
        after = await keep_heads(connection, receiver_id, after, month.high)


def _below(low: str) -> str:
    """A text right below an id and behind all lower ids: no id is as short."""
    return low[:-1]


def _is_due(due: Due | None, month: _Month) -> bool:
    return due is not None and due.before >= month.high


def _past_months(names: Sequence[str], now: datetime) -> list[_Month]:
    """Those before the last month, oldest first."""
    last = (datetime(now.year, now.month, 1, tzinfo=UTC) - timedelta(days=1)).replace(day=1)
    found = []
    for name in sorted(names):
        match = _PARTITION.fullmatch(name)
        if match and (month := datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC)) < last:
            following = (month + timedelta(days=31)).replace(day=1)
            found.append(_Month(name, lowest_at(month), lowest_at(following)))
    return found
