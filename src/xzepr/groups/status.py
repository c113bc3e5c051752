"""May this artifact move on, and if not, why not? And which artifacts may.

Right at the moment of the 201: each read takes what was sequenced and what still waits in the outbox, in one snapshot. The rule is the fold's own,
the highest number of a receiver's events for the artifact counts, said in SQL so that it is one statement.
"""

from collections.abc import Sequence
from typing import Any

import asyncpg

from xzepr import ids
from xzepr.clock import rfc3339
from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import InvalidInput, NotFound
from xzepr.groups.gates import GateFacts, summarise
from xzepr.groups.model import Gate, GroupArtifact, GroupArtifactPage, GroupRef, GroupStatus, NamedGroupStatus, ReceiverRef
from xzepr.ids import EventReceiverGroupId
from xzepr.nvrpp import Nvrpp
from xzepr.page import Page

queries = Queries("xzepr.groups")


async def get_status(database: Database, group_id: EventReceiverGroupId, artifact: Nvrpp) -> GroupStatus:
    """Each gate of the group in force for this artifact. Raises NotFound. An artifact that nobody posted about has only missing gates."""
    async with database.connection() as connection:
        rows = await connection.fetch(queries["group_status"], [group_id], artifact.artifact_id)
    if not rows:
        raise NotFound(f"there is no group {group_id}")
    return _explain(rows, artifact)


async def statuses_of(connection: Connection, group_ids: Sequence[str], artifact: Nvrpp) -> list[NamedGroupStatus]:
    """Of several groups for one artifact, in the order of their ids, in the caller's snapshot."""
    by_group: dict[str, list[asyncpg.Record]] = {}
    for row in await connection.fetch(queries["group_status"], list(group_ids), artifact.artifact_id):
        by_group.setdefault(row["group_id"], []).append(row)
    return [_named(rows, artifact) for _, rows in sorted(by_group.items())]


async def search_group_artifacts(database: Database, group_id: EventReceiverGroupId, page: GroupArtifactPage) -> Page[GroupArtifact]:
    """What the group decided, by its last decision, newest first. complete=true: only what the version in force, enabled, holds at this moment.

    Raises NotFound, InvalidInput for a cursor that is none.
    """
    after = _position(page.after)
    async with database.transaction(snapshot=True) as connection:
        if await connection.fetchval(queries["find_group"], group_id) is None:
            raise NotFound(f"there is no group {group_id}")
        rows = await connection.fetch(queries["group_artifacts"], group_id, after, page.complete, page.limit + 1)
    return Page.of([_group_artifact(row) for row in rows], page.limit, lambda item: str(item.position))


def _explain(rows: list[asyncpg.Record], artifact: Nvrpp) -> GroupStatus:
    gates = [_gate(row) for row in rows]
    enabled: bool = rows[0]["enabled"]
    facts = [GateFacts(row["receiver_name"], row["receiver_type"], row["success"], _decided_at(row)) for row in rows]
    return GroupStatus(
        complete=enabled and all(gate.state == "open" for gate in gates),
        enabled=enabled,
        gates=gates,
        missing=[gate.event_receiver for gate in gates if gate.state == "missing"],
        summary=summarise(rows[0]["group_name"], f"{artifact.name} {artifact.version} ({artifact.key})", enabled, facts),
    )


def _named(rows: list[asyncpg.Record], artifact: Nvrpp) -> NamedGroupStatus:
    status = _explain(rows, artifact)
    group = GroupRef(id=rows[0]["group_id"], name=rows[0]["group_name"], type=rows[0]["group_type"])
    return NamedGroupStatus(
        group=group, complete=status.complete, enabled=status.enabled, gates=status.gates, missing=status.missing, summary=status.summary
    )


def _gate(row: Any) -> Gate:
    success: bool | None = row["success"]
    decided_at = _decided_at(row)
    return Gate(
        event_receiver=ReceiverRef(id=row["event_receiver_id"], name=row["receiver_name"], type=row["receiver_type"]),
        state="missing" if success is None else "open" if success else "closed",
        event_id=row["event_id"],
        success=success,
        decided_at=rfc3339(decided_at) if decided_at is not None else None,
        decided_by=row["decided_by"],
    )


def _decided_at(row: Any) -> Any:
    """The id carries the time: it is there also when retention has removed the event."""
    return ids.time_of(row["event_id"]) if row["event_id"] is not None else None


def _group_artifact(row: Any) -> GroupArtifact:
    return GroupArtifact(
        name=row["name"],
        version=row["version"],
        release=row["release"],
        platform_id=row["platform_id"],
        package=row["package"],
        complete=row["complete"],
        event_id=row["event_id"],
        decided_at=rfc3339(ids.time_of(row["event_id"])),
        position=row["position"],
    )


def _position(after: str | None) -> int | None:
    if after is None:
        return None
    if not (after.isascii() and after.isdigit() and len(after) <= 18):
        raise InvalidInput.at("?after", "is not a cursor of this list")
    return int(after)
