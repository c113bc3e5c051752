"""Create, find and list event receivers.

A receiver is never removed and never changed in place: each change is a new row in `event_receiver_versions`, and an event names the
version that its payload passed. `Receivers` keeps the versions in force in memory for the write path; what is kept may be old, so
whoever relies on it compares the version in the transaction that stores the event (events/record.py).
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

import asyncpg
import msgspec
from msgspec import UNSET

from xzepr import ids
from xzepr.audit.acts import Act
from xzepr.audit.record import record
from xzepr.auth.principal import Principal
from xzepr.clock import rfc3339
from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import Conflict, Fault, InvalidInput, NotFound
from xzepr.idempotency import Claim, take
from xzepr.ids import EventReceiverId
from xzepr.json_text import compact
from xzepr.page import PAGE_BYTES_MAX, Page, require_one_way, was_cut
from xzepr.preconditions import IfMatch
from xzepr.receivers.model import EventReceiver, EventReceiverChange, EventReceiverPage, NewEventReceiver, ReceiverInForce, fingerprint_of
from xzepr.receivers.payload import PayloadChecker

queries = Queries("xzepr.receivers")

# What "$schema" absent stands for through the REST door. Source: contract `rest.md`.
REST_DEFAULT_DRAFT: Final = "2020-12"
KEPT_MAX: Final = 10_000
# Of their schemas, in characters: a hundred of a megabyte must not stay for good.
KEPT_CHARS_MAX: Final = 64 << 20
# How long a process that is not told of changes believes who may post to a restricted receiver.
UNTOLD_TRUST_S: Final = 0.5


class News(Protocol):
    """How a process hears of what changed elsewhere: auth/changes.py."""

    def subscribe(self, kind: str, callback: Callable[[str], None], /) -> None:
        """callback: called with the subject of each change of this kind, in this process's event loop."""
        ...

    def is_fresh(self) -> bool:
        """Whether everything that was committed a second ago has been told."""
        ...


async def tell_posters_changed(connection: Connection, receiver_ids: Collection[str]) -> None:
    """In the transaction that changes who may post to them, were they restricted."""
    if receiver_ids:
        await connection.execute(queries["tell_posters_changed"], sorted(receiver_ids))


async def create_receiver(
    database: Database,
    checker: PayloadChecker,
    principal: Principal,
    receiver: NewEventReceiver,
    now: datetime,
    claim: Claim | None = None,
) -> EventReceiverId:
    """Store a receiver, its first version and the fact; returns after the commit.

    Raises InvalidInput with one pointer per fault of the schema; Replayed by way of the claim. Two receivers may bear the same name and type.
    """
    schema_text = compact(bytes(receiver.schema))
    await checker.check_schema(schema_text, default_draft=REST_DEFAULT_DRAFT)
    receiver_id = ids.mint(EventReceiverId)
    async with database.transaction() as connection:
        if claim is not None:
            await take(connection, claim, receiver_id)
        await connection.execute(
            queries["create_receiver"],
            receiver_id,
            receiver.name,
            receiver.type,
            receiver.version,
            receiver.description,
            schema_text,
            REST_DEFAULT_DRAFT,
            fingerprint_of(receiver.name, receiver.type, receiver.version, receiver.description),
            receiver.restricted,
            principal.id,
            now,
        )
        shown = {"name": receiver.name, "type": receiver.type, "version": receiver.version, "restricted": receiver.restricted}
        await record(connection, principal, Act.RECEIVER_CREATE, receiver_id, details=shown)
    return receiver_id


async def get_receiver(database: Database, receiver_id: EventReceiverId) -> EventReceiver:
    """The version in force. Raises NotFound; a deleted receiver is not found."""
    async with database.connection() as connection:
        return _receiver(_found(await connection.fetchrow(queries["find_receiver"], receiver_id), receiver_id))


async def search_receivers(database: Database, page: EventReceiverPage) -> Page[EventReceiver]:
    """Newest first. Raises InvalidInput when both ways of paging are used at once."""
    require_one_way(page.after, page.offset)
    filters = (page.name, page.type, page.version, page.fingerprint)
    async with database.transaction(snapshot=True) as connection:
        rows = await connection.fetch(queries["search_receivers"], *filters, page.after, page.limit + 1, page.offset or 0, PAGE_BYTES_MAX)
        total = await connection.fetchval(queries["count_receivers"], *filters) if page.offset is not None else UNSET
    found = [_receiver(row) for row in rows]
    return Page.of(found, page.limit, lambda receiver: receiver.id, UNSET if page.offset is None else page.offset, total, cut=was_cut(rows))


async def change_receiver(
    database: Database,
    checker: PayloadChecker,
    principal: Principal,
    receiver_id: EventReceiverId,
    change: EventReceiverChange,
    if_match: IfMatch,
    now: datetime,
) -> None:
    """Make a new version; nothing happens when nothing differs. What is posted after this returned meets the new definition, in every process.

    Raises NotFound, PermissionDenied unless the owner or an administrator asks, PreconditionFailed, InvalidInput for the schema.
    """
    schema_text = None if change.schema is UNSET else compact(bytes(change.schema))
    if schema_text is not None:
        # Against the draft that the receiver was made with; that never changes.
        await checker.check_schema(schema_text, default_draft=(await _in_force(database, receiver_id))["default_draft"])
    async with database.transaction() as connection:
        row = _found(await connection.fetchrow(queries["lock_receiver"], receiver_id), receiver_id)
        principal.require_owner(row["owner_id"], "event receiver")
        if_match.require(row["resource_version"])
        wanted = {field: getattr(change, field) for field in ("name", "type", "version", "description", "restricted")}
        changed = {**dict(row), **{field: value for field, value in wanted.items() if value is not UNSET}}
        changed["schema"] = row["schema"] if schema_text is None else schema_text
        if changed == dict(row):
            return
        await connection.execute(
            queries["modify_receiver"],
            receiver_id,
            changed["name"],
            changed["type"],
            changed["version"],
            changed["description"],
            changed["schema"],
            fingerprint_of(changed["name"], changed["type"], changed["version"], changed["description"]),
            changed["restricted"],
            now,
        )
        told = {"resource_version": row["resource_version"] + 1, "changed": [field for field in changed if changed[field] != row[field]]}
        if "restricted" in told["changed"]:
            told["restricted"] = changed["restricted"]
        await record(connection, principal, Act.RECEIVER_UPDATE, receiver_id, details=told)


async def delete_receiver(database: Database, principal: Principal, receiver_id: EventReceiverId, if_match: IfMatch, now: datetime) -> None:
    """Mark it: nothing can be posted to it any more, and it is not found. Raises NotFound, PreconditionFailed, Conflict while events or groups
    refer to it. (An event that is being stored at the same moment may still come to refer to it; it is marked, not removed.)"""
    async with database.transaction() as connection:
        row = _found(await connection.fetchrow(queries["lock_receiver"], receiver_id), receiver_id)
        if_match.require(row["resource_version"])
        referred = await connection.fetchrow(queries["is_referred_to"], receiver_id)
        assert referred is not None
        by = [what for what in ("events", "groups") if referred[f"by_{what}"]]
        if by:
            raise Conflict(f"{' and '.join(by)} refer to this event receiver")
        await connection.execute(queries["delete_receiver"], receiver_id, now)
        await record(connection, principal, Act.RECEIVER_DELETE, receiver_id, details={"name": row["name"], "type": row["type"]})


def require_there(receiver_ids: Sequence[EventReceiverId], there: Container[str]) -> None:
    """Raises InvalidInput naming each id of a body's event_receiver_ids that is not among those that are there."""
    faults = [
        Fault(f"/event_receiver_ids/{place}", f"there is no event receiver {receiver_id}")
        for place, receiver_id in enumerate(receiver_ids)
        if receiver_id not in there
    ]
    if faults:
        raise InvalidInput.of_faults(faults)


async def _in_force(database: Database, receiver_id: EventReceiverId) -> asyncpg.Record:
    async with database.connection() as connection:
        return _found(await connection.fetchrow(queries["find_receiver_in_force"], receiver_id), receiver_id)


def _found(row: asyncpg.Record | None, receiver_id: EventReceiverId) -> asyncpg.Record:
    if row is None:
        raise NotFound(f"there is no event receiver {receiver_id}")
    return row


class Receivers:
    """The versions in force, kept in memory, the least recently used dropped first. Unknown ids are not kept.

    Who may post to a restricted one changes without a new version. What is kept of it is trusted while this process hears of such changes (listen()),
    and otherwise for UNTOLD_TRUST_S after it was read; after that only the database says who may.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[EventReceiverId, ReceiverInForce] = OrderedDict()
        # When the statement that read each of them began.
        self._read_at_s: dict[EventReceiverId, float] = {}
        self._kept_chars = 0
        self._is_told = _never
        self._forgotten = 0

    def listen(self, news: News) -> None:
        """Hear of changes of who may post to a receiver; to be called once, before anything is kept."""
        news.subscribe("receiver", self.forget)
        self._is_told = news.is_fresh

    def forget(self, receiver_id: str) -> None:
        """Who may post to it has changed: what is kept, and what is being read at this moment, may be from before."""
        self._forgotten += 1
        self._drop(EventReceiverId(receiver_id))

    async def get(self, receiver_id: EventReceiverId) -> ReceiverInForce | None:
        """From memory when it is there, maybe an old version; None: no such receiver now."""
        kept = self.kept(receiver_id)
        if kept is None:
            return await self.reload(receiver_id)
        self._kept.move_to_end(receiver_id)
        return kept

    def kept(self, receiver_id: str) -> ReceiverInForce | None:
        """From memory alone, maybe an old version. None: it is not there, or not to be trusted, which says nothing about the database."""
        kept = self._kept.get(EventReceiverId(receiver_id.upper()))
        return kept if kept is None or not kept.restricted or self._is_trusted(kept.id) else None

    async def reload(self, receiver_id: EventReceiverId) -> ReceiverInForce | None:
        """As the database has it now."""
        forgotten, began_s = self._forgotten, time.monotonic()
        async with self._database.connection() as connection:
            row = await connection.fetchrow(queries["find_receiver_in_force"], receiver_id)
        if row is None:
            self._drop(receiver_id)
            return None
        receiver = ReceiverInForce(**{**dict(row), "poster_ids": frozenset(row["poster_ids"])})
        if forgotten == self._forgotten:
            self._keep(receiver, began_s)
        return receiver

    def _keep(self, receiver: ReceiverInForce, began_s: float) -> None:
        self._drop(receiver.id)
        self._kept[receiver.id] = receiver
        self._kept_chars += len(receiver.schema_text)
        self._read_at_s[receiver.id] = began_s
        while len(self._kept) > KEPT_MAX or (self._kept_chars > KEPT_CHARS_MAX and len(self._kept) > 1):
            self._drop(next(iter(self._kept)))

    def _drop(self, receiver_id: EventReceiverId) -> None:
        dropped = self._kept.pop(receiver_id, None)
        if dropped is not None:
            self._kept_chars -= len(dropped.schema_text)
        self._read_at_s.pop(receiver_id, None)

    def _is_trusted(self, receiver_id: EventReceiverId) -> bool:
        return self._is_told() or time.monotonic() - self._read_at_s[receiver_id] < UNTOLD_TRUST_S


def _never() -> bool:
    return False


def _receiver(row: asyncpg.Record) -> EventReceiver:
    fields: dict[str, Any] = dict(row)
    fields.pop("followed", None)
    fields["schema"] = msgspec.Raw(fields["schema"].encode())
    fields["created_at"] = rfc3339(fields["created_at"])
    fields["updated_at"] = rfc3339(fields["updated_at"])
    return EventReceiver(**fields)
