"""Users: made, changed, taken away. Each act leaves a row in the audit log, and what ends tokens is told to every process, in the act's transaction.

There is always an administrator: whoever would take the last one away is refused.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import asyncpg
from msgspec import UNSET

from xzepr import ids
from xzepr.audit.acts import Act
from xzepr.audit.record import record
from xzepr.auth import changes
from xzepr.auth.model import NewUser, User, UserChange, UserPage
from xzepr.auth.passwords import Passwords, require_good
from xzepr.auth.permissions import ROLE_PERMISSIONS, Permission, Role
from xzepr.auth.principal import How, Principal
from xzepr.clock import rfc3339
from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import Conflict, InvalidInput, NotFound
from xzepr.idempotency import Claim, take
from xzepr.ids import UserId
from xzepr.page import Page

queries = Queries("xzepr.auth")

_TAKEN = "another user has this name"


async def create_user(database: Database, actor: Principal, user: NewUser, password_hash: str, now: datetime, claim: Claim | None = None) -> UserId:
    """A local user, whose password was found to be good.

    Raises Conflict for a name that is taken; PermissionDenied for roles that may do more than the actor; Replayed, InFlight by the claim.
    """
    _require_within(actor, user.roles)
    user_id = ids.mint(UserId)
    async with database.transaction() as connection:
        if claim is not None:
            await take(connection, claim, user_id)
        return await add_user(connection, actor, user, password_hash, now, user_id)


async def add_user(connection: Connection, actor: Principal, user: NewUser, password_hash: str, now: datetime, user_id: UserId) -> UserId:
    """In the caller's transaction. Raises Conflict."""
    roles = distinct(user.roles)
    try:
        async with connection.transaction():
            await connection.execute(queries["create_user"], user_id, user.username, user.email, password_hash, roles, now)
    except asyncpg.UniqueViolationError:
        raise Conflict(_TAKEN) from None
    await record(connection, actor, Act.USER_CREATE, user_id, details={"username": user.username, "roles": roles})
    return user_id


async def get_user(database: Database, user_id: UserId) -> User:
    """Raises NotFound."""
    async with database.connection() as connection:
        row = await connection.fetchrow(queries["find_user"], user_id)
    return _shown(_found(row, user_id))


async def find_named(database: Database, named: str) -> User:
    """By id or by username; a user whose name is the id of another is found by its own id alone. Raises NotFound."""
    async with database.connection() as connection:
        row = await connection.fetchrow(queries["find_user"], named.upper())
        if row is None and (by_name := await connection.fetchrow(queries["find_user_by_name"], named)) is not None:
            row = await connection.fetchrow(queries["find_user"], by_name["id"])
    return _shown(_found(row, named))


async def search_users(database: Database, page: UserPage) -> Page[User]:
    """Newest first."""
    async with database.connection() as connection:
        rows = await connection.fetch(queries["search_users"], page.username, page.enabled, page.after, page.limit + 1)
    return Page.of([_shown(row) for row in rows], page.limit, lambda user: user.id)


async def change_user(
    database: Database, passwords: Passwords, actor: Principal, user_id: UserId, change: UserChange, min_chars: int, now: datetime
) -> User:
    """What is given is put in place. A new password and disabling end the user's logins.

    Raises NotFound, InvalidInput, Conflict; PermissionDenied, also for the password of a user who may do more than the actor.
    """
    password_hash = None
    if change.password is not UNSET:
        named = await get_user(database, user_id)
        if named.issuer is not None:
            raise InvalidInput.at("/password", "belongs to the provider that knows this user")
        require_good(change.password, "/password", min_chars=min_chars, username=named.username, email=named.email)
        password_hash = await passwords.hash(change.password)
    async with database.transaction() as connection:
        await connection.execute(queries["serialize_administrators"])
        row = _found(await connection.fetchrow(queries["lock_user"], user_id), user_id)
        _require_may_manage(actor, row)
        if password_hash is not None:
            _require_within(actor, row["roles"])
        email = row["email"] if change.email is UNSET else change.email
        enabled = row["enabled"] if change.enabled is UNSET else change.enabled
        if not enabled:
            await _require_another_administrator(connection, row, row["roles"], enabled=False)
        ends = password_hash is not None or (row["enabled"] and not enabled)
        epoch = row["auth_epoch"] + 1 if ends else row["auth_epoch"]
        await connection.execute(queries["change_user"], user_id, email, enabled, password_hash or row["password_hash"], row["roles"], epoch, now)
        if ends:
            await _end_logins(connection, user_id, epoch, now)
        if enabled != row["enabled"]:
            await record(connection, actor, Act.USER_ENABLE if enabled else Act.USER_DISABLE, user_id)
        if password_hash is not None:
            await record(connection, actor, Act.USER_CHANGE_PASSWORD, user_id)
        if email != row["email"]:
            await record(connection, actor, Act.USER_CHANGE_EMAIL, user_id)
        return _shown(_found(await connection.fetchrow(queries["find_user"], user_id), user_id))


async def set_roles(database: Database, actor: Principal, user_id: UserId, roles: Sequence[Role], now: datetime) -> User:
    """In place of those before; ends the user's tokens when they differ.

    Raises NotFound, Conflict for the last administrator, PermissionDenied for a new one that may do more than the actor.
    """
    return await _change_roles(database, actor, user_id, lambda _: distinct(roles), now)


async def add_roles(database: Database, actor: Principal, user_id: UserId, roles: Sequence[Role], now: datetime) -> User:
    """Besides those before. Raises NotFound, PermissionDenied for a new one that may do more than the actor."""
    return await _change_roles(database, actor, user_id, lambda before: distinct([*before, *roles]), now)


async def remove_roles(database: Database, actor: Principal, user_id: UserId, roles: Sequence[Role], now: datetime) -> User:
    """The others stay; one that the user does not have is no fault. Raises NotFound, Conflict for the last administrator."""
    return await _change_roles(database, actor, user_id, lambda before: [role for role in before if role not in roles], now)


async def _change_roles(
    database: Database, actor: Principal, user_id: UserId, wanted_of: Callable[[Sequence[str]], list[str]], now: datetime
) -> User:
    """wanted_of: gets those that the user has at this moment, under the lock."""
    async with database.transaction() as connection:
        await connection.execute(queries["serialize_administrators"])
        row = _found(await connection.fetchrow(queries["lock_user"], user_id), user_id)
        wanted = wanted_of(row["roles"])
        if set(wanted) != set(row["roles"]):
            _require_within(actor, set(wanted).difference(row["roles"]))
            await _require_another_administrator(connection, row, wanted, enabled=row["enabled"])
            epoch = row["auth_epoch"] + 1
            values = (row["email"], row["enabled"], row["password_hash"], wanted, epoch, now)
            await connection.execute(queries["change_user"], user_id, *values)
            await changes.tell(connection, changes.USER, user_id, epoch)
            await record(connection, actor, Act.USER_CHANGE_ROLES, user_id, details={"before": row["roles"], "after": wanted})
        return _shown(_found(await connection.fetchrow(queries["find_user"], user_id), user_id))


async def delete_user(database: Database, actor: Principal, user_id: UserId, now: datetime) -> None:
    """It can log in no more; what it owns and did stays under its id. Raises NotFound, Conflict for the last administrator."""
    async with database.transaction() as connection:
        await connection.execute(queries["serialize_administrators"])
        row = _found(await connection.fetchrow(queries["lock_user"], user_id), user_id)
        _require_may_manage(actor, row)
        await _require_another_administrator(connection, row, [], enabled=False)
        epoch = await connection.fetchval(queries["delete_user"], user_id, now)
        await _end_logins(connection, user_id, epoch, now)
        await record(connection, actor, Act.USER_DELETE, user_id, details={"username": row["username"]})


def _require_may_manage(actor: Principal, row: asyncpg.Record) -> None:
    """Whoever could set an administrator's password could become one."""
    if Role.ADMIN in row["roles"] and actor.how is not How.SYSTEM:
        actor.require([Permission.ROLE_MANAGE])


def _require_within(actor: Principal, roles: Iterable[str]) -> None:
    """Whoever gives a role, or sets the password of somebody who has it, could do all that it may: a key must not exceed its scopes so."""
    if actor.how is not How.SYSTEM:
        actor.require(sorted({permission for role in roles for permission in ROLE_PERMISSIONS[Role(role)]}))


async def _end_logins(connection: Connection, user_id: UserId, epoch: int, now: datetime) -> None:
    """Its refresh tokens, sessions, and what is out of access tokens."""
    await connection.execute(queries["end_families_of_user"], user_id, now)
    await changes.tell(connection, changes.USER, user_id, epoch)


async def _require_another_administrator(connection: Connection, row: asyncpg.Record, roles: Sequence[str], *, enabled: bool) -> None:
    is_one, stays_one = row["enabled"] and Role.ADMIN in row["roles"], enabled and Role.ADMIN in roles
    if is_one and not stays_one and not await connection.fetchval(queries["count_other_administrators"], row["id"]):
        raise Conflict("this is the last administrator")


def distinct(roles: Sequence[str]) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(str(role) for role in roles))


def _found(row: asyncpg.Record | None, user_id: str) -> asyncpg.Record:
    if row is None:
        raise NotFound(f"there is no user {user_id}")
    return row


def _shown(row: Any) -> User:
    last = row["last_login_at"]
    return User(
        id=row["id"],
        username=row["username"],
        email=row["email"],
        issuer=row["issuer"],
        roles=[Role(role) for role in row["roles"]],
        enabled=row["enabled"],
        created_at=rfc3339(row["created_at"]),
        updated_at=rfc3339(row["updated_at"]),
        last_login_at=rfc3339(last) if last is not None else None,
    )
