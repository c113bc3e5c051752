"""Due events of one receiver go in batches: a walk by id, one short transaction a batch, its disposition within.

Each transaction first takes the lock on holds, so a hold that was added before it counts, and one that is added meanwhile waits. What a message still
shows or what is still queued stays. Before the commit the sequencer is stopped for a moment: if a message that it committed since tells of one of the
events (an evaluation on request), the batch is rolled back and taken anew. A crash loses the batch under way and nothing else; the next run goes on.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final

import asyncpg
import structlog

from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import Unavailable
from xzepr.retention import dispositions
from xzepr.retention.model import Disposition, Due

log = structlog.get_logger(__name__)
queries = Queries("xzepr.retention")

BATCH_ROWS: Final = 5_000
BATCH_ROWS_MIN: Final = 10
# Who adds a hold waits for a batch, and gives up after five seconds.
_TIMEOUT: Final = "set local statement_timeout = '4s'"


class _ShownMeanwhile(Exception):
    """A message tells of one of the events since the batch began."""


async def remove_rows(
    database: Database, due: Due, *, below: str, actor: str, go_on: Callable[[], bool], batch_rows: int = BATCH_ROWS
) -> AsyncIterator[Disposition]:
    """Remove what is due, of ids below `below`; one disposition a batch, after its commit. Payloads of a megabyte are slow to remove: a batch
    that takes more than four seconds is halved. Raises Unavailable."""
    after = ""
    while go_on():
        try:
            async with database.transaction() as connection:
                last, made = await _batch(connection, due, after, min(due.before, below), actor, batch_rows)
        except _ShownMeanwhile:
            continue
        except Unavailable as error:
            if not isinstance(error.__cause__, asyncpg.QueryCanceledError) or batch_rows <= BATCH_ROWS_MIN:
                raise
            batch_rows = max(batch_rows // 2, BATCH_ROWS_MIN)
            log.info("retention.batch_halved", rows=batch_rows)
            continue
        if made is not None:
            dispositions.tell(made)
            yield made
        if last is None:
            return
        after = last


async def _batch(connection: Connection, due: Due, after: str, below: str, actor: str, most: int) -> tuple[str | None, Disposition | None]:
    """The last id that was looked at (None: there was none) and what was removed."""
    await connection.execute(_TIMEOUT)
    await connection.execute(queries["lock_holds"])
    position = await connection.fetchval(queries["last_position"])
    rows = await connection.fetch(queries["take_due"], due.event_receiver_id, after, below, most, due.event_receiver_type)
    if not rows:
        return None, None
    going = [row["id"] for row in rows if not row["held"] and not row["shown"]]
    if not going:
        return rows[-1]["id"], None
    await keep_heads(connection, due.event_receiver_id, after, below, most=most, only=going)
    return rows[-1]["id"], await _remove(connection, due, going, position, actor)


async def keep_heads(
    connection: Connection, receiver_id: str, after: str, below: str, *, most: int = BATCH_ROWS, only: list[str] | None = None
) -> str | None:
    """Keep what gates show of the receiver's next events behind an id and below another, of `only` if given: before they are removed.

    Returns the last id that was looked at, None when there was none. An event that stays after all does not mind.
    """
    groups = [row["id"] for row in await connection.fetch(queries["groups_of_receiver"], receiver_id)]
    last: str | None = await connection.fetchval(queries["keep_heads"], receiver_id, after, below, most, groups, only)
    return last


async def _remove(connection: Connection, due: Due, going: list[str], position: int, actor: str) -> Disposition | None:
    gone = await connection.fetchrow(queries["remove_events"], going, going[0], going[-1])
    assert gone is not None
    if not gone["removed"]:
        # They are just being moved out of the default partition; the next run finds them.
        return None
    made = dispositions.of_events(due, gone["removed"], gone["first"], gone["last"], actor=actor)
    await dispositions.put(connection, made)
    await connection.fetch(queries["lock_sequencer"])
    if await connection.fetchval(queries["shown_since"], position, going):
        raise _ShownMeanwhile
    return made
