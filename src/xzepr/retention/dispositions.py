"""Nothing is removed without a row that says so: the one place where dispositions are made and written."""

from datetime import datetime
from typing import Any

import msgspec
import structlog

from xzepr import clock, ids
from xzepr.audit.acts import Act
from xzepr.audit.record import record
from xzepr.auth.principal import SYSTEM
from xzepr.clock import rfc3339
from xzepr.db.pool import Connection
from xzepr.db.queries import Queries
from xzepr.ids import DispositionId
from xzepr.retention.model import Disposition, Due, fields_of

log = structlog.get_logger(__name__)
queries = Queries("xzepr.retention")


def of_events(due: Due, removed: int, first: str, last: str, *, actor: str, partition: str | None = None) -> Disposition:
    """For events of one receiver, from the id `first` to `last`."""
    return Disposition(
        id=ids.mint(DispositionId),
        at=clock.now(),
        subject="events",
        rule=fields_of(due.rule),
        event_receiver_id=due.event_receiver_id,
        event_receiver_type=due.event_receiver_type,
        removed=removed,
        first=first,
        last=last,
        oldest_at=ids.time_of(first),
        newest_at=ids.time_of(last),
        partition=partition,
        actor=actor,
    )


def of_messages(first: int, last: int, oldest_at: datetime, newest_at: datetime, *, actor: str, partition: str | None = None) -> Disposition:
    """For the messages from one position to another; there are no holes."""
    return Disposition(
        id=ids.mint(DispositionId),
        at=clock.now(),
        subject="messages",
        removed=last - first + 1,
        first=str(first),
        last=str(last),
        oldest_at=oldest_at,
        newest_at=newest_at,
        partition=partition,
        actor=actor,
    )


async def put(connection: Connection, made: Disposition) -> None:
    """In the transaction that removes. The audit log gets the same facts, so that the disposition is sealed as well."""
    await connection.execute(
        queries["put_disposition"],
        made.id,
        made.at,
        made.subject,
        made.rule.event_receiver_type if made.rule else None,
        made.rule.older_than_days if made.rule else None,
        made.event_receiver_id,
        made.event_receiver_type,
        made.removed,
        made.first,
        made.last,
        made.oldest_at,
        made.newest_at,
        made.partition,
        made.actor,
    )
    await record(connection, SYSTEM, Act.RETENTION_APPLY, made.id, details=facts_of(made))


def facts_of(made: Disposition) -> dict[str, Any]:
    """All of it but its id, as the audit log keeps it; times to the microsecond, as the table does."""
    facts = {**msgspec.structs.asdict(made), "at": rfc3339(made.at), "oldest_at": rfc3339(made.oldest_at), "newest_at": rfc3339(made.newest_at)}
    del facts["id"]
    return facts


def tell(made: Disposition) -> None:
    """After the commit: a line in the log."""
    log.info(
        "retention.removed",
        disposition=made.id,
        subject=made.subject,
        removed=made.removed,
        rule=str(made.rule) if made.rule else None,
        event_receiver_id=made.event_receiver_id,
        first=made.first,
        last=made.last,
        partition=made.partition,
    )
