"""Create, find, list, change and delete groups.

A change of a group decides nothing by itself: it is a fact like any other, the sequencer takes it as the definition from then on, and the status
shows it at once. Whoever changes a group locks its row before the fact gets its number, so that the versions of one group are numbered
in their order.

`vouched_receiver_ids` are those that their owner or an administrator put there: whoever is a member of the group may post to them when they are
restricted. Anybody may put a receiver that is not restricted into a group of their own, and must not thereby let people in once it is restricted.
A change vouches for receivers that it adds. For those that were there already only a request vouches that names the same list and changes nothing
else: who adds one receiver, or mends a description, says nothing of the others. Whom it lets in is in the audit log, whatever else changes.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
from msgspec import UNSET

from xzepr import ids
from xzepr.audit.acts import Act
from xzepr.audit.record import record
from xzepr.auth.principal import Principal
from xzepr.clock import rfc3339
from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import Fault, InvalidInput, NotFound, PermissionDenied
from xzepr.groups.model import (
    EventReceiverGroup,
    EventReceiverGroupChange,
    EventReceiverGroupPage,
    NewEventReceiverGroup,
)
from xzepr.idempotency import Claim, take
from xzepr.ids import EventReceiverGroupId, EventReceiverId
from xzepr.page import PAGE_BYTES_MAX, Page, require_one_way, was_cut
from xzepr.preconditions import IfMatch
from xzepr.receivers.manage import require_there, tell_posters_changed

queries = Queries("xzepr.groups")


async def create_group(
    database: Database, principal: Principal, group: NewEventReceiverGroup, now: datetime, claim: Claim | None = None
) -> EventReceiverGroupId:
    """Store a group, its first version and the fact; returns after the commit.

    Raises InvalidInput naming each receiver id that is no id, unknown or given twice; PermissionDenied for a restricted receiver of
    somebody else; Replayed by way of the claim.
    """
    receiver_ids = _distinct_ids(group.event_receiver_ids)
    group_id = ids.mint(EventReceiverGroupId)
    async with database.transaction() as connection:
        if claim is not None:
            await take(connection, claim, group_id)
        vouched = await _require_receivers(connection, principal, receiver_ids)
        await connection.execute(
            queries["create_group"],
            group_id,
            group.name,
            group.type,
            group.version,
            group.description,
            group.enabled,
            receiver_ids,
            principal.id,
            now,
            vouched,
        )
        shown = {
            "name": group.name,
            "type": group.type,
            "enabled": group.enabled,
            "event_receiver_ids": receiver_ids,
            "vouched_receiver_ids": vouched,
        }
        await record(connection, principal, Act.GROUP_CREATE, group_id, details=shown)
    return group_id


async def get_group(database: Database, group_id: EventReceiverGroupId) -> EventReceiverGroup:
    """The version in force. Raises NotFound; a deleted group is not found."""
    async with database.connection() as connection:
        row = await connection.fetchrow(queries["find_group"], group_id)
    return _group(_found(row, group_id))


async def search_groups(database: Database, page: EventReceiverGroupPage) -> Page[EventReceiverGroup]:
    """Newest first. Raises InvalidInput when both ways of paging are used at once."""
    require_one_way(page.after, page.offset)
    filters = (page.name, page.type, page.version, page.enabled, page.event_receiver_id)
    async with database.transaction(snapshot=True) as connection:
        rows = await connection.fetch(queries["search_groups"], *filters, page.after, page.limit + 1, page.offset or 0, PAGE_BYTES_MAX)
        total = await connection.fetchval(queries["count_groups"], *filters) if page.offset is not None else UNSET
    found = [_group(row) for row in rows]
    return Page.of(found, page.limit, lambda group: group.id, UNSET if page.offset is None else page.offset, total, cut=was_cut(rows))


async def change_group(
    database: Database,
    principal: Principal,
    group_id: EventReceiverGroupId,
    change: EventReceiverGroupChange,
    if_match: IfMatch,
    now: datetime,
) -> EventReceiverGroup:
    """Make a new version, and give the group as it is then; nothing happens when nothing differs.

    Raises NotFound, PermissionDenied unless the owner or an administrator asks, PreconditionFailed, InvalidInput naming each receiver it
    cannot have.
    """
    receiver_ids = None if change.event_receiver_ids is UNSET else _distinct_ids(change.event_receiver_ids)
    async with database.transaction() as connection:
        row = _found(await connection.fetchrow(queries["lock_group"], group_id), group_id)
        principal.require_owner(row["owner_id"], "group")
        if_match.require(row["resource_version"])
        wanted = {field: getattr(change, field) for field in ("name", "type", "version", "description", "enabled")}
        changed = {**dict(row), **{field: value for field, value in wanted.items() if value is not UNSET}}
        if receiver_ids is not None:
            may_vouch = await _require_receivers(connection, principal, receiver_ids, row["event_receiver_ids"])
            changed["event_receiver_ids"] = receiver_ids
            # The same list, and nothing else: said to vouch for it.
            said_for = may_vouch if changed == dict(row) else set(may_vouch).difference(row["event_receiver_ids"])
            vouched = [receiver_id for receiver_id in receiver_ids if receiver_id in row["vouched_receiver_ids"] or receiver_id in said_for]
            changed["vouched_receiver_ids"] = vouched
            await tell_posters_changed(connection, set(vouched) ^ set(row["vouched_receiver_ids"]))
        if changed == dict(row):
            return _group(row)
        if changed == {**dict(row), "vouched_receiver_ids": changed["vouched_receiver_ids"]}:
            await connection.execute(queries["vouch_for_receivers"], group_id, changed["vouched_receiver_ids"])
            await _record_change(connection, principal, group_id, row, changed, row["resource_version"])
            return _group(row)
        await connection.execute(
            queries["modify_group"],
            group_id,
            changed["name"],
            changed["type"],
            changed["version"],
            changed["description"],
            changed["enabled"],
            changed["event_receiver_ids"],
            now,
            changed["vouched_receiver_ids"],
        )
        await _record_change(connection, principal, group_id, row, changed, row["resource_version"] + 1)
        return _group(_found(await connection.fetchrow(queries["find_group"], group_id), group_id))


async def _record_change(
    connection: Connection, principal: Principal, group_id: EventReceiverGroupId, before: asyncpg.Record, changed: dict[str, Any], version: int
) -> None:
    """Enabling and disabling have acts of their own when nothing else changes."""
    fields = [field for field in changed if changed[field] != before[field]]
    told: dict[str, Any] = {"resource_version": version}
    if fields == ["enabled"]:
        await record(connection, principal, Act.GROUP_ENABLE if changed["enabled"] else Act.GROUP_DISABLE, group_id, details=told)
        return
    # What decides a gate is told, the rest named.
    told["changed"] = fields
    told |= {field: changed[field] for field in fields if field in ("enabled", "event_receiver_ids")}
    if set(changed["vouched_receiver_ids"]) != set(before["vouched_receiver_ids"]):
        told["vouched_receiver_ids"] = {"before": before["vouched_receiver_ids"], "after": changed["vouched_receiver_ids"]}
    await record(connection, principal, Act.GROUP_UPDATE, group_id, details=told)


async def delete_group(database: Database, principal: Principal, group_id: EventReceiverGroupId, if_match: IfMatch, now: datetime) -> None:
    """Mark it: it decides nothing any more, and is not found. Raises NotFound, PreconditionFailed."""
    async with database.transaction() as connection:
        row = _found(await connection.fetchrow(queries["lock_group"], group_id), group_id)
        if_match.require(row["resource_version"])
        await connection.execute(queries["delete_group"], group_id, now)
        await tell_posters_changed(connection, row["vouched_receiver_ids"])
        await record(connection, principal, Act.GROUP_DELETE, group_id, details={"name": row["name"], "type": row["type"]})


def _distinct_ids(texts: list[str]) -> list[EventReceiverId]:
    """Parsed, in order. Raises InvalidInput with every id that is none or stands there twice."""
    parsed: list[EventReceiverId] = []
    faults: list[Fault] = []
    for place, text in enumerate(texts):
        pointer = f"/event_receiver_ids/{place}"
        if not ids.is_ulid(text):
            faults.append(Fault(pointer, "is not a ULID: 26 characters of 0-9 and A-Z without I, L, O, U"))
            continue
        receiver_id = ids.parse(EventReceiverId, text, pointer)
        if receiver_id in parsed:
            faults.append(Fault(pointer, f"is the same receiver as /event_receiver_ids/{parsed.index(receiver_id)}"))
        parsed.append(receiver_id)
    if faults:
        raise InvalidInput.of_faults(faults)
    return parsed


async def _require_receivers(
    connection: Connection, principal: Principal, receiver_ids: list[EventReceiverId], already_there: Sequence[str] = ()
) -> list[EventReceiverId]:
    """All are there, and the principal may put those that are new into a group; held against deletion until the commit.

    already_there: receivers of the group as it was, which anybody who may change it may leave there. Returns those that the principal may vouch for.
    """
    rows = {row["id"]: row for row in await connection.fetch(queries["lock_receivers"], receiver_ids)}
    require_there(receiver_ids, rows)
    vouched = [receiver_id for receiver_id in receiver_ids if principal.owns(rows[receiver_id]["owner_id"])]
    for receiver_id in receiver_ids:
        if rows[receiver_id]["restricted"] and receiver_id not in vouched and receiver_id not in already_there:
            raise PermissionDenied(f"the event receiver {receiver_id} is restricted: only its owner or an administrator may put it into a group")
    return vouched


def _found(row: asyncpg.Record | None, group_id: EventReceiverGroupId) -> asyncpg.Record:
    if row is None:
        raise NotFound(f"there is no group {group_id}")
    return row


def _group(row: Any) -> EventReceiverGroup:
    fields: dict[str, Any] = dict(row)
    fields.pop("vouched_receiver_ids", None)
    fields.pop("followed", None)
    fields["created_at"] = rfc3339(fields["created_at"])
    fields["updated_at"] = rfc3339(fields["updated_at"])
    return EventReceiverGroup(**fields)
