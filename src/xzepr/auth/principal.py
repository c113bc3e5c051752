"""Who asks, how that was found out, and what they may do."""

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Final, Self

from xzepr.auth.permissions import ROLE_PERMISSIONS, Permission, Role
from xzepr.errors import PermissionDenied, Unauthenticated
from xzepr.ids import FamilyId, UserId


class How(StrEnum):
    """How a principal was found out. The words of the audit log and of `GET /auth/me`."""

    ANONYMOUS = "anonymous"
    PASSWORD = "password"
    OIDC = "oidc"
    BROWSER = "browser"
    API_KEY = "api_key"
    TRUSTED_ISSUER = "trusted_issuer"
    # The installation itself: a command on its machine, a rule of the relay.
    SYSTEM = "system"


# A person at a keyboard: who may make API keys.
LOGINS: Final = frozenset({How.PASSWORD, How.OIDC, How.BROWSER})
_WHAT_TO_DO: Final = (
    "credentials are needed: log in (`xzepr login`, POST /api/v1/auth/login) and send Authorization: Bearer, or send an API key as X-API-Key"
)


@dataclass(frozen=True)
class Principal:
    """The caller of one request. id: None for a caller without credentials, who owns nothing.

    scopes: None, or what an API key or token narrows its permissions to. event_receiver_ids: None, or the only receivers it may post to.
    family_id: of the login that it came by, key_id: of its API key. address, request_id: of this one request, for the audit log. nearest: of
    callers of public routes the address, or as much of the way to it as can be told: by it attempts are counted, and nothing is allowed.
    """

    id: UserId | None = None
    name: str = "anonymous"
    roles: frozenset[Role] = field(default_factory=frozenset)
    how: How = How.ANONYMOUS
    scopes: frozenset[Permission] | None = None
    event_receiver_ids: frozenset[str] | None = None
    family_id: FamilyId | None = None
    key_id: str | None = None
    address: str | None = None
    request_id: str | None = None
    nearest: str | None = None
    permissions: frozenset[Permission] = field(init=False)

    def __post_init__(self) -> None:
        granted = frozenset(permission for role in self.roles for permission in ROLE_PERMISSIONS[role])
        object.__setattr__(self, "permissions", granted if self.scopes is None else granted & self.scopes)

    def seen(self, address: str | None, request_id: str | None, nearest: str | None = None) -> Self:
        """The same, as it made this request. Copied as it is: replace() would work the permissions out anew, with each request."""
        made = copy(self)
        object.__setattr__(made, "address", address)
        object.__setattr__(made, "request_id", request_id)
        object.__setattr__(made, "nearest", nearest)
        return made

    @property
    def claims_as(self) -> str:
        """Whose its idempotency keys and CloudEvents are; empty for callers without an id, who share one name space.

        Who is limited to some receivers shares them with those that have the same limit alone: a key that got out must not take the source and id
        of events that its owner is going to post elsewhere. A new key with the limit of the one before goes on where that one stopped.
        """
        if self.event_receiver_ids is None:
            return self.id or ""
        return f"{self.id or ''}/{sha256(' '.join(sorted(self.event_receiver_ids)).encode()).hexdigest()[:32]}"

    @property
    def is_admin(self) -> bool:
        """Whether owner rules do not bind this principal."""
        return Role.ADMIN in self.roles

    @property
    def is_login(self) -> bool:
        """Whether a person logged in, as opposed to a key, a CI token, or nobody."""
        return self.how in LOGINS

    def require(self, permissions: Iterable[Permission]) -> None:
        """Raises Unauthenticated when there are no credentials at all, PermissionDenied naming what is missing otherwise."""
        missing = [permission for permission in permissions if permission not in self.permissions]
        if not missing:
            return
        self.require_known()
        raise PermissionDenied(f"needs the permission {', '.join(missing)}")

    def require_known(self) -> None:
        """Raises Unauthenticated for nobody: no credentials, and no roles without them."""
        if self.id is None and not self.roles:
            raise Unauthenticated(_WHAT_TO_DO)

    def owns(self, owner_id: str | None) -> bool:
        """Whether this is the owner or an administrator. What nobody owns, only administrators may change."""
        return self.is_admin or (owner_id is not None and owner_id == self.id)

    def require_owner(self, owner_id: str | None, what: str) -> None:
        """Raises PermissionDenied unless owns()."""
        if not self.owns(owner_id):
            raise PermissionDenied(f"only its owner or an administrator may change this {what}")


SYSTEM: Final = Principal(name="system", how=How.SYSTEM)
