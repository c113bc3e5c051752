"""Users who come from a provider, known by (issuer, subject): names and addresses may change there, and say nothing about who somebody is.

A name that is taken here is never taken over: the newcomer gets it with a number. The name stays as it was at the first login. Roles are the
provider's at each login; when they differ from the last ones, tokens that are out end everywhere. Only the last administrator stays one whatever the
provider says: there is always one, and a mistake in a role there must not lock everybody out here.

Who was deleted here is nobody that is known: the next login makes a new user. To keep somebody out, disable them.
"""

from collections.abc import Collection, Iterator
from datetime import datetime
from hashlib import sha256
from typing import Final

import structlog

from xzepr import ids
from xzepr.auth import changes
from xzepr.auth.model import KnownUser
from xzepr.auth.permissions import Role
from xzepr.db.pool import Connection
from xzepr.db.queries import Queries
from xzepr.errors import Conflict, PermissionDenied
from xzepr.ids import UserId

log = structlog.get_logger(__name__)
queries = Queries("xzepr.auth")

NUMBERED_MAX: Final = 9
_NAME_MAX_CHARS: Final = 240
# Names of the audit log for callers who are no users.
_RESERVED: Final = frozenset({"anonymous", "system"})


class ProviderUser(KnownUser, frozen=True, kw_only=True):
    """The user as it is after this login. roles_before: None for one who is new."""

    roles_before: list[Role] | None

    @property
    def is_new(self) -> bool:
        """Whether this is the first login."""
        return self.roles_before is None

    @property
    def has_other_roles(self) -> bool:
        """Whether the provider gave other roles than the last time."""
        return self.roles_before is not None and self.roles_before != self.roles


async def user_of_provider(
    connection: Connection, issuer: str, subject: str, *, username: str, email: str | None, roles: Collection[Role], now: datetime
) -> ProviderUser:
    """Make or refresh the user of this subject, in the caller's transaction; its row stays locked until that ends.

    username: what the provider calls it. Raises PermissionDenied for a user who is disabled here.
    """
    wanted = sorted(set(roles))
    # Before the row: in this order everybody takes them who takes an administrator away.
    is_alone = Role.ADMIN not in wanted and await connection.fetchval(queries["provider_user_is_administrator"], issuer, subject)
    if is_alone:
        await connection.execute(queries["serialize_administrators"])
    for name in _names(username, issuer, subject):
        found = await connection.fetchrow(queries["provider_user_lock"], issuer, subject)
        if found is not None:
            if not found["enabled"]:
                raise PermissionDenied("this account is disabled")
            before = sorted(Role(role) for role in found["roles"])
            # One who became an administrator this very moment has the role until the next login.
            if (
                Role.ADMIN in before
                and Role.ADMIN not in wanted
                and not (is_alone and await connection.fetchval(queries["count_other_administrators"], found["id"]))
            ):
                wanted = sorted([*wanted, Role.ADMIN])
                log.warning("oidc.last_administrator", user_id=found["id"], username=found["username"])
            epoch = await connection.fetchval(queries["provider_user_update"], found["id"], email, wanted, before != wanted, now)
            if before != wanted:
                await changes.tell(connection, changes.USER, found["id"], epoch)
            return ProviderUser(id=found["id"], username=found["username"], email=email, roles=wanted, auth_epoch=epoch, roles_before=before)
        user_id = ids.mint(UserId)
        epoch = await connection.fetchval(queries["provider_user_add"], user_id, name, email, issuer, subject, wanted, now)
        if epoch is not None:
            return ProviderUser(id=user_id, username=name, email=email, roles=wanted, auth_epoch=epoch, roles_before=None)
    raise Conflict(f"every name for {username} is taken here")


def _names(username: str, issuer: str, subject: str) -> Iterator[str]:
    """In the order in which they are tried; the last one is this subject's alone."""
    base = username[:_NAME_MAX_CHARS]
    if base.lower() not in _RESERVED:
        yield base
    for number in range(2, NUMBERED_MAX + 1):
        yield f"{base}-{number}"
    own = sha256(f"{issuer}\n{subject}".encode()).hexdigest()
    yield f"{base}-{own[:12]}"
