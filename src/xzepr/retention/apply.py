"""Removing by age, read from top to bottom. Can be ended at any moment and run again: each transaction stands for itself and tells what
it removed.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.ids import lowest_at
from xzepr.retention.model import Disposition, due_by
from xzepr.retention.months import drop_months
from xzepr.retention.rows import BATCH_ROWS, remove_rows
from xzepr.retention.trim import trim_stream
from xzepr.settings.model import RetentionRule

queries = Queries("xzepr.retention")

# Behind every id.
_HIGHEST: Final = "~"


async def apply_rules(
    database: Database,
    rules: Sequence[RetentionRule],
    *,
    stream_days: int,
    now: datetime,
    actor: str,
    go_on: Callable[[], bool] = lambda: True,
    batch_rows: int = BATCH_ROWS,
) -> AsyncIterator[Disposition]:
    """Trim the stream, so that it shows less; drop months that are wholly due; remove what else is due in batches; drop what that emptied.

    go_on: asked between transactions. Yields what was removed, each after its commit. Raises Unavailable.
    """
    async for made in trim_stream(database, now - timedelta(days=stream_days), actor=actor):
        yield made
    async with database.connection() as connection:
        receivers = [(row["id"], row["type"]) for row in await connection.fetch(queries["receiver_types"])]
        oldest = await connection.fetch(queries["oldest_messages"], 1)
    due = due_by(rules, receivers, now)
    async for made in drop_months(database, due, now=now, actor=actor, go_on=go_on):
        yield made
    # An event is sequenced after it was posted: what was posted after the oldest message was sequenced is in the stream or queued. No need to walk
    # over it at every run, which a short rule beside a long stream would do.
    below = lowest_at(oldest[0]["sequenced_at"]) if oldest else _HIGHEST
    for each in due:
        async for made in remove_rows(database, each, below=below, actor=actor, go_on=go_on, batch_rows=batch_rows):
            yield made
    async for made in drop_months(database, due, now=now, actor=actor, go_on=go_on):
        yield made
