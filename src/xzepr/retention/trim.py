"""The stream forgets what is older than `stream.retention_days`, from its oldest message on, and only so: it has no holes at any moment.

Positions are never given again: the sequencer's row keeps the last one, also when no message is left. A reader that resumes before the oldest message
is told (410). A message that looks young, because a clock was wrong when it was sequenced, keeps what stands behind it until it is old, too.
Rows go in batches, a transaction each; a piece of the stream all of whose positions are given is dropped once everything in it is old.
"""

import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg
import structlog

from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.events.partitions import POSITIONS_PER_PARTITION
from xzepr.retention import dispositions
from xzepr.retention.model import Disposition

log = structlog.get_logger(__name__)
queries = Queries("xzepr.retention")

BATCH_MESSAGES: Final = 5_000
_LOCK_TIMEOUT: Final = "set local lock_timeout = '2s'"
# To look through ten million messages.
_STATEMENT_TIMEOUT: Final = "set local statement_timeout = '5min'"
_PIECE: Final = re.compile(r"stream_(\d{6})")


class _Piece(NamedTuple):
    """One partition: positions from low to below high."""

    name: str
    low: int
    high: int


async def trim_stream(database: Database, before: datetime, *, actor: str, batch_messages: int = BATCH_MESSAGES) -> AsyncIterator[Disposition]:
    """Remove what was sequenced before; one disposition a transaction, after its commit. Ends at once while another process trims."""
    async for dropped in _drop_pieces(database, before, actor):
        yield dropped
    while (made := await _batch(database, before, actor, batch_messages)) is not None:
        yield made
    # What the batches emptied.
    async for dropped in _drop_pieces(database, before, actor):
        yield dropped


async def _batch(database: Database, before: datetime, actor: str, most: int) -> Disposition | None:
    """The oldest messages, up to the first young one; None: there is nothing to remove, or somebody else does it."""
    async with database.transaction() as connection:
        if not await connection.fetchval(queries["try_trim_lock"]):
            return None
        oldest = await connection.fetch(queries["oldest_messages"], most)
        going = oldest[: next((place for place, row in enumerate(oldest) if row["sequenced_at"] >= before), len(oldest))]
        if not going:
            return None
        first, last = going[0], going[-1]
        await connection.execute(queries["remove_messages"], first["position"], last["position"] + 1)
        made = dispositions.of_messages(first["position"], last["position"], first["sequenced_at"], last["sequenced_at"], actor=actor)
        await dispositions.put(connection, made)
    dispositions.tell(made)
    return made


async def _drop_pieces(database: Database, before: datetime, actor: str) -> AsyncIterator[Disposition]:
    """From the lowest on, until one is not wholly old, or cannot be dropped now (it is in use): then what is old in it goes in rows."""
    async with database.connection() as connection:
        names = [row["name"] for row in await connection.fetch(queries["partitions_of"], "stream")]
        last_position: int = await connection.fetchval(queries["last_position"])
    for piece in _pieces(names):
        # Positions behind the last one are still to be given.
        if piece.high > last_position:
            return
        try:
            async with database.transaction() as connection:
                dropped, made = await _drop(connection, piece, before, actor)
        except asyncpg.PostgresError as error:
            log.warning("retention.partition_not_dropped", partition=piece.name, reason=str(error))
            return
        if not dropped:
            return
        log.info("partition.dropped", partition=piece.name)
        if made is not None:
            dispositions.tell(made)
            yield made


async def _drop(connection: Connection, piece: _Piece, before: datetime, actor: str) -> tuple[bool, Disposition | None]:
    """Whether it was dropped; what was in it, if anything. Nobody writes there any more, so what was looked at stays as it is."""
    if not await connection.fetchval(queries["try_trim_lock"]):
        return False, None
    await connection.execute(_STATEMENT_TIMEOUT)
    edges = await connection.fetch(queries["edges_of_piece"], piece.low, piece.high)
    if any(row["sequenced_at"] >= before for row in edges) or await connection.fetchval(queries["piece_has_young"], piece.low, piece.high, before):
        return False, None
    await connection.execute(_LOCK_TIMEOUT)
    await connection.fetch(queries["lock_partitions"])
    made = None
    if edges:
        first, last = edges[0], edges[-1]
        made = dispositions.of_messages(
            first["position"], last["position"], first["sequenced_at"], last["sequenced_at"], actor=actor, partition=piece.name
        )
        await dispositions.put(connection, made)
    # The name is our own; DDL takes no parameters. It locks the whole stream, so it comes last.
    await connection.execute(f"drop table {piece.name}")
    return True, made


def _pieces(names: list[str]) -> list[_Piece]:
    numbers = [int(match[1]) for name in names if (match := _PIECE.fullmatch(name))]
    return [_Piece(f"stream_{number:06}", number * POSITIONS_PER_PARTITION, (number + 1) * POSITIONS_PER_PARTITION) for number in sorted(numbers)]
