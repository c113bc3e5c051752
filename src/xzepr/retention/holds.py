"""Holds: events of an artifact or of a receiver that no rule removes, however old they are.

A hold that was added keeps what is there at that moment: adding waits for a removal that is under way (some seconds at most, else Unavailable), and
every later one sees it. What was removed before is gone; a hold brings nothing back.
"""

from typing import Any, Final

import asyncpg

from xzepr import clock, ids
from xzepr.audit.acts import Act
from xzepr.audit.record import record
from xzepr.auth.principal import SYSTEM
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import InvalidInput, NotFound, Unavailable
from xzepr.ids import HoldId
from xzepr.nvrpp import FIELD_MAX_CHARS, FIELDS, Nvrpp
from xzepr.retention.model import REASON_MAX_CHARS, Hold

queries = Queries("xzepr.retention")

PAGE_HOLDS: Final = 500


async def add_hold(database: Database, subject: str | Nvrpp, *, reason: str, actor: str) -> HoldId:
    """subject: the id of a receiver (a deleted one too), or an artifact, of which there need be no event. Returns the hold's id.

    Raises NotFound for an unknown receiver, InvalidInput for a field or reason that is blank or too long, Unavailable while a removal takes long.
    """
    _check("reason", reason, REASON_MAX_CHARS)
    receiver_id, artifact = (subject, None) if isinstance(subject, str) else (None, subject)
    for field, text in zip(FIELDS, artifact or (), strict=False):
        _check(field, text, FIELD_MAX_CHARS)
    hold_id = ids.mint(HoldId)
    artifact_id = artifact.artifact_id if artifact is not None else None
    async with database.transaction() as connection:
        if receiver_id is not None and not await connection.fetchval(queries["receiver_exists"], receiver_id):
            raise NotFound(f"there is no receiver {receiver_id}")
        values = (hold_id, receiver_id, artifact_id, *(artifact or (None,) * 5), reason, clock.now(), actor)
        try:
            await connection.execute(queries["add_hold"], *values)
        except asyncpg.LockNotAvailableError:
            raise Unavailable("events are being removed at this moment; the hold was not added: try again") from None
        held = {"artifact": artifact._asdict()} if artifact is not None else {"event_receiver_id": receiver_id}
        await record(connection, SYSTEM, Act.RETENTION_HOLD_ADD, hold_id, details={**held, "reason": reason, "actor": actor})
    return hold_id


async def list_holds(database: Database) -> list[Hold]:
    """All that are in force, oldest first."""
    found: list[Hold] = []
    async with database.connection() as connection:
        while page := await connection.fetch(queries["list_holds"], found[-1].id if found else "", PAGE_HOLDS):
            found += [_hold(row) for row in page]
    return found


async def remove_hold(database: Database, hold_id: HoldId, *, actor: str) -> None:
    """Its row stays, with who took it off and when. Raises NotFound when no such hold is in force."""
    async with database.transaction() as connection:
        done = await connection.execute(queries["remove_hold"], hold_id, clock.now(), actor)
        if done == "UPDATE 0":
            raise NotFound(f"there is no hold {hold_id}")
        await record(connection, SYSTEM, Act.RETENTION_HOLD_REMOVE, hold_id, details={"actor": actor})


def _check(field: str, text: str, most: int) -> None:
    if not text.strip() or len(text) > most or "\0" in text:
        raise InvalidInput.at(f"/{field}", f"must be 1 to {most} characters, not blank, without NUL")


def _hold(row: Any) -> Hold:
    fields: dict[str, Any] = dict(row)
    return Hold(**{**fields, "created_at": clock.rfc3339(fields["created_at"])})
