"""API keys: for programs, made by a person who logged in, able to do no more than that person may at the moment of use.

`xzepr_` and 32 random bytes; only the SHA-256 is stored. A process that has seen a key keeps it in memory, so its use costs no query; when the key is
revoked or its owner changes, `changes` makes every process forget it within a second.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import structlog
from msgspec import UNSET

from xzepr import ids
from xzepr.audit.acts import Act
from xzepr.audit.record import record
from xzepr.auth import changes
from xzepr.auth.model import ApiKey, ApiKeyPage, NewApiKey
from xzepr.auth.opaque import digest, new_secret
from xzepr.auth.permissions import Permission
from xzepr.auth.principal import Principal
from xzepr.clock import rfc3339
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import Fault, InvalidInput, NotFound, PermissionDenied, Unavailable
from xzepr.ids import ApiKeyId, EventReceiverId
from xzepr.page import Page
from xzepr.receivers.manage import require_there

log = structlog.get_logger(__name__)
queries = Queries("xzepr.auth")

PREFIX: Final = "xzepr_"
USES_WRITTEN_EVERY_S: Final = 60.0


async def create_api_key(database: Database, principal: Principal, wanted: NewApiKey, now: datetime) -> ApiKey:
    """The key itself is in this answer and nowhere else.

    Raises PermissionDenied unless a person logged in asks; InvalidInput for scopes that the person lacks, unknown receivers, an end that is past.
    """
    if not principal.is_login or principal.id is None:
        raise PermissionDenied("an API key is made by somebody who logged in, not by a key, a CI token or a caller without credentials")
    scopes = list(dict.fromkeys(wanted.scopes))
    receiver_ids = _receiver_ids(wanted)
    faults = [
        Fault(f"/scopes/{place}", f"you do not have the permission {scope} yourself")
        for place, scope in enumerate(wanted.scopes)
        if scope not in principal.permissions
    ]
    if wanted.expires_at is not None and (wanted.expires_at.tzinfo is None or wanted.expires_at <= now):
        faults.append(Fault("/expires_at", "must be a time in the future, with its offset"))
    if faults:
        raise InvalidInput.of_faults(faults)
    key, key_id = PREFIX + new_secret(), ids.mint(ApiKeyId)
    async with database.transaction() as connection:
        if receiver_ids is not None:
            rows = await connection.fetch(queries["receivers_there"], receiver_ids)
            require_there(receiver_ids, {row["id"] for row in rows})
        await connection.execute(
            queries["create_api_key"], key_id, digest(key), principal.id, wanted.name, scopes, receiver_ids, now, wanted.expires_at
        )
        expires_at = rfc3339(wanted.expires_at) if wanted.expires_at is not None else None
        told = {"name": wanted.name, "scopes": scopes, "event_receiver_ids": receiver_ids, "expires_at": expires_at}
        await record(connection, principal, Act.API_KEY_CREATE, key_id, details=told)
    return ApiKey(
        id=key_id,
        name=wanted.name,
        user_id=principal.id,
        scopes=scopes,
        event_receiver_ids=list(receiver_ids) if receiver_ids is not None else None,
        created_at=rfc3339(now),
        expires_at=expires_at,
        last_used_at=None,
        revoked_at=None,
        key=key,
    )


async def search_api_keys(database: Database, principal: Principal, page: ApiKeyPage) -> Page[ApiKey]:
    """One's own; an administrator's: all, or those of one user. Raises PermissionDenied."""
    _require_login(principal)
    user_id = page.user_id if principal.is_admin else principal.id
    if page.user_id is not None and page.user_id != user_id:
        raise PermissionDenied("only an administrator may look at the keys of others")
    async with database.connection() as connection:
        rows = await connection.fetch(queries["search_api_keys"], user_id, page.after, page.limit + 1)
    return Page.of([_shown(row) for row in rows], page.limit, lambda key: key.id)


async def revoke_api_key(database: Database, principal: Principal, key_id: ApiKeyId, now: datetime) -> None:
    """Dead in every process within a second. Raises NotFound, also for the key of somebody else; PermissionDenied."""
    _require_login(principal)
    async with database.transaction() as connection:
        owner_id = None if principal.is_admin else principal.id
        row = await connection.fetchrow(queries["revoke_api_key"], key_id, owner_id, now)
        if row is None:
            raise NotFound(f"there is no API key {key_id} of yours that is not revoked")
        await changes.tell(connection, changes.API_KEY, key_id)
        await record(connection, principal, Act.API_KEY_REVOKE, key_id, details={"user_id": row["user_id"]})


def _require_login(principal: Principal) -> None:
    if not principal.is_login:
        raise PermissionDenied("API keys are looked after by somebody who logged in")


def _receiver_ids(wanted: NewApiKey) -> list[EventReceiverId] | None:
    if wanted.event_receiver_ids is None:
        return None
    parsed = [ids.parse(EventReceiverId, text, f"/event_receiver_ids/{place}") for place, text in enumerate(wanted.event_receiver_ids)]
    return list(dict.fromkeys(parsed))


class Uses:
    """When keys were last used: noted in memory, written once a minute for all of them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Seconds since 1970.
        self._used: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, key_id: str, now: float) -> None:
        """It was used now."""
        self._used[key_id] = now

    def open(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._keep_writing(), name="api-key-uses")

    async def close(self) -> None:
        """Writes what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            await self._write()

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(USES_WRITTEN_EVERY_S)
            await self._write()

    async def _write(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with self._database.connection() as connection:
                moments = [datetime.fromtimestamp(at, UTC) for at in used.values()]
                await connection.execute(queries["note_use"], list(used), moments)
        except (Unavailable, asyncpg.PostgresError) as error:
            log.warning("api_keys.uses_unwritten", reason=str(error))
            self._used = used | self._used


def _shown(row: Any) -> ApiKey:
    expires_at, last_used_at, revoked_at = row["expires_at"], row["last_used_at"], row["revoked_at"]
    return ApiKey(
        id=row["id"],
        name=row["name"],
        user_id=row["user_id"],
        scopes=[Permission(scope) for scope in row["scopes"]],
        event_receiver_ids=row["event_receiver_ids"],
        created_at=rfc3339(row["created_at"]),
        expires_at=rfc3339(expires_at) if expires_at is not None else None,
        last_used_at=rfc3339(last_used_at) if last_used_at is not None else None,
        revoked_at=rfc3339(revoked_at) if revoked_at is not None else None,
        key=UNSET,
    )
