"""Accounts as they are asked for and shown. Names: contract `rest.md`, "Accounts"."""

from datetime import datetime
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import UNSET, Meta, UnsetType

from xzepr.auth.permissions import Permission, Role
from xzepr.auth.principal import How, Principal
from xzepr.db.pool import Connection
from xzepr.fields import PAGE_LIMIT_DEFAULT, PageLimit, ShortText, Username
from xzepr.ids import ApiKeyId, EventReceiverId, UserId

# Of what is never stored: bounded, so that nothing large is hashed.
Secret = Annotated[str, Meta(min_length=1, max_length=4096)]
# Without the last part Python takes a line's end for the end.
Email = Annotated[str, Meta(min_length=3, max_length=254, pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+$(?!\n)")]


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A login by name and password."""

    username: Secret
    password: Secret


class RefreshToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new pair is asked for with."""

    refresh_token: Secret


class KnownUser(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has shown who they are: the columns of `users`."""

    id: UserId
    username: str
    email: str | None
    roles: list[Role]
    auth_epoch: int


class LoggedIn(msgspec.Struct, frozen=True, kw_only=True):
    """The user of a token pair."""

    id: UserId
    username: str
    email: str | None
    roles: list[Role]


class TokenPair(msgspec.Struct, frozen=True, kw_only=True):
    """expires_in: seconds; token: the access token again, for older clients; expires_at: of the access token."""

    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: int
    token: str
    expires_at: str
    user: LoggedIn


class LogsIn(Protocol):
    """Who makes token pairs: logins.py."""

    async def begin(self, connection: Connection, user: KnownUser, how: How, principal: Principal, /) -> TokenPair:
        """A new family of tokens, in the caller's transaction. principal: of this request, for its address. The caller writes the audit row."""
        ...


class Me(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who asks. how: how that was found out; csrf_token: for a browser session's unsafe requests."""

    id: str | None
    username: str
    roles: list[Role]
    permissions: list[Permission]
    how: str
    event_receiver_ids: list[str] | None = None
    csrf_token: str | UnsetType = UNSET


class NewUser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A local user."""

    username: Username
    password: Secret
    email: Email | None = None
    roles: list[Role] = []


class UserChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays."""

    email: Email | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    password: Secret | UnsetType = UNSET


class UserRoles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of them, in place of those before."""

    roles: list[Role]


class User(msgspec.Struct, frozen=True, kw_only=True):
    """issuer: of the provider that knows the user; null: a local one."""

    id: UserId
    username: str
    email: str | None
    issuer: str | None
    roles: list[Role]
    enabled: bool
    created_at: str
    updated_at: str
    last_login_at: str | None


class UserPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Newest first."""

    username: str | None = None
    enabled: bool | None = None
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    after: UserId | None = None


class NewApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """scopes: what the key may do at most; event_receiver_ids: null for all."""

    name: ShortText
    scopes: Annotated[list[Permission], Meta(min_length=1)]
    event_receiver_ids: Annotated[list[EventReceiverId], Meta(min_length=1, max_length=100)] | None = None
    expires_at: datetime | None = None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """key: shown once, when it is made."""

    id: ApiKeyId
    name: str
    user_id: UserId
    scopes: list[Permission]
    event_receiver_ids: list[str] | None
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None
    key: str | UnsetType = UNSET


class ApiKeyPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Newest first; one's own, an administrator's all or those of one user."""

    user_id: UserId | None = None
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    after: ApiKeyId | None = None
