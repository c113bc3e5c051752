"""Members of a group: users who may post to its restricted receivers, besides the receivers' owners and administrators.

The group's owner and administrators add and remove them; members may see the list. Whoever is removed is refused everywhere within a second: each
change tells every process to forget who may post (auth_changes). Each is a row of the audit log.
"""

from datetime import datetime
from typing import Any

import msgspec

from xzepr.audit.acts import Act
from xzepr.audit.record import record
from xzepr.auth.principal import Principal
from xzepr.clock import rfc3339
from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from xzepr.fields import PAGE_LIMIT_DEFAULT, PageLimit
from xzepr.idempotency import Claim, take
from xzepr.ids import EventReceiverGroupId, UserId
from xzepr.ids import parse as parse_id
from xzepr.page import Page
from xzepr.receivers.manage import tell_posters_changed

queries = Queries("xzepr.groups")


class NewGroupMember(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is to be one."""

    user_id: str


class GroupMember(msgspec.Struct, frozen=True, kw_only=True):
    """Who is one, since when, and by whom."""

    user_id: UserId
    username: str
    added_at: str
    added_by: UserId | None


class GroupMemberPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Members, the newest account first. after: the cursor of the page before."""

    limit: PageLimit = PAGE_LIMIT_DEFAULT
    after: UserId | None = None


async def list_members(database: Database, principal: Principal, group_id: EventReceiverGroupId, page: GroupMemberPage) -> Page[GroupMember]:
    """For the owner, members and administrators. Raises NotFound, PermissionDenied."""
    async with database.transaction(snapshot=True) as connection:
        group = await connection.fetchrow(queries["group_and_membership"], group_id, principal.id)
        if group is None:
            raise _no_group(group_id)
        if not (group["is_member"] or principal.owns(group["owner_id"])):
            raise PermissionDenied("only its owner, its members and administrators may see the members of this group")
        rows = await connection.fetch(queries["members_of_group"], group_id, page.after, page.limit + 1)
    return Page.of([_member(row) for row in rows], page.limit, lambda member: member.user_id)


async def add_member(
    database: Database,
    principal: Principal,
    group_id: EventReceiverGroupId,
    member: NewGroupMember,
    now: datetime,
    claim: Claim | None = None,
) -> UserId:
    """Raises NotFound, PermissionDenied unless the owner or an administrator asks, InvalidInput for a user that is not there, Conflict for one who
    is a member already; Replayed by way of the claim."""
    user_id = parse_id(UserId, member.user_id, "/user_id")
    async with database.transaction() as connection:
        if claim is not None:
            await take(connection, claim, user_id)
        receiver_ids = await _lock(connection, principal, group_id)
        username = await connection.fetchval(queries["hold_user"], user_id)
        if username is None:
            raise InvalidInput.at("/user_id", f"there is no user {user_id}")
        if await connection.fetchval(queries["add_member"], group_id, user_id, now, principal.id) is None:
            raise Conflict(f"{username} is a member of this group already")
        await tell_posters_changed(connection, receiver_ids)
        await record(connection, principal, Act.GROUP_MEMBER_ADD, group_id, details={"user_id": user_id, "username": username})
    return user_id


async def remove_member(database: Database, principal: Principal, group_id: EventReceiverGroupId, user_id: UserId) -> None:
    """Raises NotFound, also for a user who is no member, PermissionDenied unless the owner or an administrator asks."""
    async with database.transaction() as connection:
        receiver_ids = await _lock(connection, principal, group_id)
        if await connection.fetchval(queries["remove_member"], group_id, user_id) is None:
            raise NotFound(f"the user {user_id} is no member of this group")
        await tell_posters_changed(connection, receiver_ids)
        await record(connection, principal, Act.GROUP_MEMBER_REMOVE, group_id, details={"user_id": user_id})


async def _lock(connection: Connection, principal: Principal, group_id: EventReceiverGroupId) -> list[str]:
    """The receivers that its members may post to; they and the members change one after the other, so that each change knows whom it lets in."""
    group = await connection.fetchrow(queries["lock_group"], group_id)
    if group is None:
        raise _no_group(group_id)
    if not principal.owns(group["owner_id"]):
        raise PermissionDenied("only its owner or an administrator may change the members of this group")
    receiver_ids: list[str] = group["vouched_receiver_ids"]
    return receiver_ids


def _no_group(group_id: EventReceiverGroupId) -> NotFound:
    return NotFound(f"there is no group {group_id}")


def _member(row: Any) -> GroupMember:
    return GroupMember(user_id=row["user_id"], username=row["username"], added_at=rfc3339(row["added_at"]), added_by=row["added_by"])
