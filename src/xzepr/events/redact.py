"""Taking the payload of an event away, for good: what should never have been recorded, such as a password or a person's data.

The event stays with all that decides: artifact, receiver, outcome, number, time, poster. A tombstone takes the payload's place, and the description
is emptied. Nothing else holds a copy: messages, lists and timelines are made from the event's row when they are read, answers that are kept for
repeated requests hold ids (of what was refused, and so never recorded, codes and places), and the messages that processes keep in memory are
forgotten within a second. What left the house before is out of reach, and so are backups and the database's own log. A legal hold stands before a
redaction.
"""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from xzepr import ids
from xzepr.audit.acts import Act
from xzepr.audit.record import record
from xzepr.auth.principal import Principal
from xzepr.clock import rfc3339
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import Conflict, NotFound
from xzepr.idempotency import Claim, take
from xzepr.ids import EventId, RedactionId

queries = Queries("xzepr.events")

REASON_MAX_CHARS = 1000


class NewRedaction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why, in a sentence: everybody who reads the event reads it too."""

    reason: Annotated[str, Meta(min_length=1, max_length=REASON_MAX_CHARS, pattern=r"\S")]


class Tombstone(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the payload's place."""

    redacted: bool = True
    redaction_id: RedactionId
    reason: str
    redacted_at: str


async def redact_event(
    database: Database, principal: Principal, event_id: EventId, redaction: NewRedaction, now: datetime, claim: Claim | None = None
) -> RedactionId:
    """Returns after the commit; nothing brings the payload back. Raises NotFound, Conflict when it was redacted already or is held, Replayed by way
    of the claim."""
    redaction_id = ids.mint(RedactionId)
    tombstone = Tombstone(redaction_id=redaction_id, reason=redaction.reason, redacted_at=rfc3339(now))
    async with database.transaction() as connection:
        if claim is not None:
            await take(connection, claim, redaction_id)
        await connection.execute(queries["lock_holds_as_they_are"])
        event = await connection.fetchrow(queries["lock_event_to_redact"], event_id)
        if event is None:
            raise NotFound(f"there is no event {event_id}")
        # A statement of its own: it sees what the one before it waited for.
        earlier = await connection.fetchval(queries["find_redaction"], event_id)
        if earlier is not None:
            raise Conflict(f"the event was redacted already, as {earlier}")
        if event["held_by"] is not None:
            raise Conflict(f"the event is held by {event['held_by']}: take the hold off first (xzepr retention hold)")
        text = msgspec.json.encode(tombstone).decode()
        await connection.execute(queries["redact_event"], redaction_id, event_id, text, redaction.reason, now, principal.id)
        await record(connection, principal, Act.EVENT_REDACT, event_id, details={"redaction_id": redaction_id, "reason": redaction.reason})
    return redaction_id
