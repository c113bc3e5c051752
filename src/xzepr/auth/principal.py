"""Who asks, and what they may do."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from xzepr.auth.permissions import ROLE_PERMISSIONS, Permission, Role
from xzepr.errors import PermissionDenied, Unauthenticated
from xzepr.ids import UserId


@dataclass(frozen=True)
class Principal:
    """The caller of one request. id: None for a caller without credentials, who owns nothing."""

    id: UserId | None = None
    name: str = "anonymous"
    roles: frozenset[Role] = field(default_factory=frozenset)

    @cached_property
    def permissions(self) -> frozenset[Permission]:
        """The union of what the roles allow."""
        return frozenset(permission for role in self.roles for permission in ROLE_PERMISSIONS[role])

    @property
    def is_admin(self) -> bool:
        """Whether owner rules do not bind this principal."""
        return Role.ADMIN in self.roles

    def require(self, permissions: Iterable[Permission]) -> None:
        """Raises Unauthenticated when there are no credentials at all, PermissionDenied naming what is missing otherwise."""
        missing = [permission for permission in permissions if permission not in self.permissions]
        if not missing:
            return
        if self.id is None and not self.roles:
            raise Unauthenticated
        raise PermissionDenied(f"needs the permission {', '.join(missing)}")

    def owns(self, owner_id: str | None) -> bool:
        """Whether this is the owner or an administrator. What nobody owns, only administrators may change."""
        return self.is_admin or (owner_id is not None and owner_id == self.id)

    def require_owner(self, owner_id: str | None, what: str) -> None:
        """Raises PermissionDenied unless owns()."""
        if not self.owns(owner_id):
            raise PermissionDenied(f"only its owner or an administrator may change this {what}")
