"""Create, find, list, enable groups; and the answer to "may this artifact move on, and if not, why not?".

A change of a group decides nothing by itself: it is a fact like any other, the sequencer takes it as the definition from then on, and the status
shows it at once. Whoever changes a group locks its row before the fact gets its number, so that the versions of one group are numbered
in their order.
"""

from datetime import datetime
from typing import Any

import asyncpg

from xzepr import ids
from xzepr.auth.principal import Principal
from xzepr.clock import rfc3339
from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import Fault, InvalidInput, NotFound, PermissionDenied
from xzepr.groups.gates import GateFacts, summarise
from xzepr.groups.model import EventReceiverGroup, EventReceiverGroupPage, Gate, GroupStatus, NewEventReceiverGroup, ReceiverRef
from xzepr.ids import EventReceiverGroupId, EventReceiverId
from xzepr.nvrpp import Nvrpp
from xzepr.page import Page

queries = Queries("xzepr.groups")


async def create_group(database: Database, principal: Principal, group: NewEventReceiverGroup, now: datetime) -> EventReceiverGroupId:
    """Store a group, its first version and the fact; returns after the commit.

    Raises InvalidInput naming each receiver id that is no id, unknown or given twice; PermissionDenied for a restricted receiver of
    somebody else.
    """
    receiver_ids = _distinct_ids(group.event_receiver_ids)
    group_id = ids.mint(EventReceiverGroupId)
    async with database.transaction() as connection:
        await _require_receivers(connection, principal, receiver_ids)
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
        )
    return group_id


async def get_group(database: Database, group_id: EventReceiverGroupId) -> EventReceiverGroup:
    """The version in force. Raises NotFound; a deleted group is not found."""
    async with database.connection() as connection:
        row = await connection.fetchrow(queries["find_group"], group_id)
    return _group(_found(row, group_id))


async def search_groups(database: Database, page: EventReceiverGroupPage) -> Page[EventReceiverGroup]:
    """Newest first. Raises InvalidId for a cursor or receiver id that is none."""
    after = ids.parse(EventReceiverGroupId, page.after, "?after") if page.after is not None else None
    receiver_id = ids.parse(EventReceiverId, page.event_receiver_id, "?event_receiver_id") if page.event_receiver_id is not None else None
    async with database.connection() as connection:
        rows = await connection.fetch(queries["search_groups"], page.name, page.type, page.version, page.enabled, receiver_id, after, page.limit + 1)
    return Page.of([_group(row) for row in rows], page.limit, lambda group: group.id)


async def set_enabled(database: Database, principal: Principal, group_id: EventReceiverGroupId, enabled: bool, now: datetime) -> EventReceiverGroup:
    """Enable or disable; the group as it is then. A value that it already has makes no version and no message.

    Raises NotFound, PermissionDenied unless the owner or an administrator asks.
    """
    async with database.transaction() as connection:
        row = _found(await connection.fetchrow(queries["lock_group"], group_id), group_id)
        principal.require_owner(row["owner_id"], "group")
        if row["enabled"] == enabled:
            return _group(row)
        await connection.execute(
            queries["modify_group"],
            group_id,
            row["name"],
            row["type"],
            row["version"],
            row["description"],
            enabled,
            row["event_receiver_ids"],
            now,
        )
        return _group(_found(await connection.fetchrow(queries["find_group"], group_id), group_id))


async def get_status(database: Database, group_id: EventReceiverGroupId, artifact: Nvrpp) -> GroupStatus:
    """Each gate of the group in force for this artifact, right as of this moment: events that are stored and not yet sequenced count.

    Raises NotFound. An artifact that nobody posted about has only missing gates.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(queries["group_status"], group_id, artifact.artifact_id)
    if not rows:
        raise NotFound(f"there is no group {group_id}")
    return _explain(rows, artifact)


def _explain(rows: list[asyncpg.Record], artifact: Nvrpp) -> GroupStatus:
    gates = [_gate(row) for row in rows]
    enabled: bool = rows[0]["enabled"]
    facts = [GateFacts(row["receiver_name"], row["receiver_type"], row["success"], row["decided_at"]) for row in rows]
    return GroupStatus(
        complete=enabled and all(gate.state == "open" for gate in gates),
        enabled=enabled,
        gates=gates,
        missing=[gate.event_receiver for gate in gates if gate.state == "missing"],
        summary=summarise(rows[0]["group_name"], f"{artifact.name} {artifact.version} ({artifact.key})", enabled, facts),
    )


def _gate(row: Any) -> Gate:
    success: bool | None = row["success"]
    return Gate(
        event_receiver=ReceiverRef(id=row["event_receiver_id"], name=row["receiver_name"], type=row["receiver_type"]),
        state="missing" if success is None else "open" if success else "closed",
        event_id=row["event_id"],
        success=success,
        # The id carries the time: it is there also when retention has removed the event.
        decided_at=rfc3339(ids.time_of(row["event_id"])) if row["event_id"] is not None else None,
        decided_by=row["decided_by"],
    )


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


async def _require_receivers(connection: Connection, principal: Principal, receiver_ids: list[EventReceiverId]) -> None:
    """All are there, and the principal may put them into a group; held against deletion until the commit."""
    rows = {row["id"]: row for row in await connection.fetch(queries["lock_receivers"], receiver_ids)}
    faults = [
        Fault(f"/event_receiver_ids/{place}", f"there is no event receiver {receiver_id}")
        for place, receiver_id in enumerate(receiver_ids)
        if receiver_id not in rows
    ]
    if faults:
        raise InvalidInput.of_faults(faults)
    for row in rows.values():
        if row["restricted"] and not principal.owns(row["owner_id"]):
            raise PermissionDenied(f"the event receiver {row['id']} is restricted: only its owner or an administrator may put it into a group")


def _found(row: asyncpg.Record | None, group_id: EventReceiverGroupId) -> asyncpg.Record:
    if row is None:
        raise NotFound(f"there is no group {group_id}")
    return row


def _group(row: Any) -> EventReceiverGroup:
    fields: dict[str, Any] = dict(row)
    fields["created_at"] = rfc3339(fields["created_at"])
    fields["updated_at"] = rfc3339(fields["updated_at"])
    return EventReceiverGroup(**fields)
