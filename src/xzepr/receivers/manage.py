"""Create, find and list event receivers.

A receiver is never removed and never changed in place: each change is a new row in `event_receiver_versions`, and an event names the
version that its payload passed. `Receivers` keeps the versions in force in memory for the write path; what is kept may be old, so
whoever relies on it compares the version in the transaction that stores the event (events/record.py).
"""

from collections import OrderedDict
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from xzepr import ids
from xzepr.auth.principal import Principal
from xzepr.clock import rfc3339
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import NotFound
from xzepr.ids import EventReceiverId
from xzepr.json_text import compact
from xzepr.page import Page
from xzepr.receivers.model import EventReceiver, EventReceiverPage, NewEventReceiver, ReceiverInForce, fingerprint_of
from xzepr.receivers.payload import PayloadChecker

queries = Queries("xzepr.receivers")

# What "$schema" absent stands for through the REST door. Source: contract `rest.md`.
REST_DEFAULT_DRAFT: Final = "2020-12"
KEPT_MAX: Final = 10_000


async def create_receiver(
    database: Database, checker: PayloadChecker, principal: Principal, receiver: NewEventReceiver, now: datetime
) -> EventReceiverId:
    """Store a receiver, its first version and the fact; returns after the commit.

    Raises InvalidInput with one pointer per fault of the schema. Two receivers may bear the same name and type.
    """
    schema_text = compact(bytes(receiver.schema))
    await checker.check_schema(schema_text, default_draft=REST_DEFAULT_DRAFT)
    receiver_id = ids.mint(EventReceiverId)
    async with database.connection() as connection:
        await connection.execute(
            queries["create_receiver"],
            receiver_id,
            receiver.name,
            receiver.type,
            receiver.version,
            receiver.description,
            schema_text,
            REST_DEFAULT_DRAFT,
            fingerprint_of(receiver),
            receiver.restricted,
            principal.id,
            now,
        )
    return receiver_id


async def get_receiver(database: Database, receiver_id: EventReceiverId) -> EventReceiver:
    """The version in force. Raises NotFound; a deleted receiver is not found."""
    async with database.connection() as connection:
        row = await connection.fetchrow(queries["find_receiver"], receiver_id)
    if row is None:
        raise NotFound(f"there is no event receiver {receiver_id}")
    return _receiver(row)


async def search_receivers(database: Database, page: EventReceiverPage) -> Page[EventReceiver]:
    """Newest first. Raises InvalidId for a cursor that is none."""
    after = ids.parse(EventReceiverId, page.after, "?after") if page.after is not None else None
    async with database.connection() as connection:
        rows = await connection.fetch(queries["search_receivers"], page.name, page.type, page.version, page.fingerprint, after, page.limit + 1)
    return Page.of([_receiver(row) for row in rows], page.limit, lambda receiver: receiver.id)


class Receivers:
    """The versions in force, kept in memory, the least recently used dropped first. Unknown ids are not kept."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[EventReceiverId, ReceiverInForce] = OrderedDict()

    async def get(self, receiver_id: EventReceiverId) -> ReceiverInForce | None:
        """From memory when it is there, maybe an old version; None: no such receiver now."""
        kept = self._kept.get(receiver_id)
        if kept is None:
            return await self.reload(receiver_id)
        self._kept.move_to_end(receiver_id)
        return kept

    async def reload(self, receiver_id: EventReceiverId) -> ReceiverInForce | None:
        """As the database has it now."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(queries["find_receiver_in_force"], receiver_id)
        if row is None:
            self._kept.pop(receiver_id, None)
            return None
        receiver = ReceiverInForce(**dict(row))
        self._kept[receiver_id] = receiver
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return receiver


def _receiver(row: asyncpg.Record) -> EventReceiver:
    fields: dict[str, Any] = dict(row)
    fields["schema"] = msgspec.Raw(fields["schema"].encode())
    fields["created_at"] = rfc3339(fields["created_at"])
    fields["updated_at"] = rfc3339(fields["updated_at"])
    return EventReceiver(**fields)
