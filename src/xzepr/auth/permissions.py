"""Permissions and what each role may do. One spelling everywhere: contract `rest.md`, "Accounts"."""

from enum import StrEnum
from typing import Final


class Permission(StrEnum):
    """What a route, field or page can ask for."""

    EVENT_CREATE = "event:create"
    EVENT_READ = "event:read"
    EVENT_UPDATE = "event:update"
    EVENT_DELETE = "event:delete"
    RECEIVER_CREATE = "receiver:create"
    RECEIVER_READ = "receiver:read"
    RECEIVER_UPDATE = "receiver:update"
    RECEIVER_DELETE = "receiver:delete"
    GROUP_CREATE = "group:create"
    GROUP_READ = "group:read"
    GROUP_UPDATE = "group:update"
    GROUP_DELETE = "group:delete"
    STREAM_READ = "stream:read"
    REPLAY_CREATE = "replay:create"
    USER_MANAGE = "user:manage"
    ROLE_MANAGE = "role:manage"
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"


class Role(StrEnum):
    """What a principal can be given; the permissions follow."""

    ADMIN = "admin"
    EVENT_MANAGER = "event_manager"
    EVENT_VIEWER = "event_viewer"
    USER = "user"


class Public:
    """Said in place of a permission by a route that anybody may call."""

    def __repr__(self) -> str:
        return "PUBLIC"


PUBLIC: Final = Public()


class Authenticated:
    """Said in place of a permission by a route for everybody who is known, whatever they may do."""

    def __repr__(self) -> str:
        return "AUTHENTICATED"


AUTHENTICATED: Final = Authenticated()

_READ = frozenset({Permission.EVENT_READ, Permission.RECEIVER_READ, Permission.GROUP_READ, Permission.STREAM_READ})
_WRITE = frozenset(
    {
        Permission.EVENT_CREATE,
        Permission.EVENT_UPDATE,
        Permission.RECEIVER_CREATE,
        Permission.RECEIVER_UPDATE,
        Permission.GROUP_CREATE,
        Permission.GROUP_UPDATE,
    }
)

ROLE_PERMISSIONS: Final[dict[Role, frozenset[Permission]]] = {
    Role.ADMIN: frozenset(Permission),
    Role.EVENT_MANAGER: _READ | _WRITE,
    Role.EVENT_VIEWER: _READ,
    Role.USER: frozenset({Permission.EVENT_READ}),
}
