"""The REST contract as methods, each one request (and its repetitions, see transport.py).

Every method may raise ProblemError, NoAnswer and UnexpectedAnswer. Ids are texts of 26 characters. What creates takes an idempotency key, and makes
one up when none is given; so a connection that is lost on the way is tried again without anything being made twice. Give your own to be as safe over
several runs of your program: same key and same body within 24 h give the first answer again.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote
from uuid import uuid4

import msgspec

from xzepr_client.auth import Login, TokenSource, header_of_key, header_of_token
from xzepr_client.errors import ClientError, UnexpectedAnswer
from xzepr_client.models import (
    ApiKey,
    Artifact,
    ArtifactSeen,
    AuditRow,
    BatchItem,
    Created,
    Evaluation,
    Event,
    EventReceiver,
    EventReceiverChanges,
    EventReceiverGroup,
    EventReceiverGroupChanges,
    GroupArtifact,
    GroupMember,
    GroupStatus,
    Me,
    NewApiKey,
    NewEvent,
    NewEventReceiver,
    NewEventReceiverGroup,
    NewUser,
    Page,
    ProviderLogin,
    RecordedBatch,
    StreamPosition,
    Timeline,
    TokenPair,
    User,
    UserChanges,
)
from xzepr_client.stream import Message, follow
from xzepr_client.transport import DEFAULT_URL, Transport

PAGE_LIMIT_MAX: Final = 1000

Item = TypeVar("Item")


class EventFilters(TypedDict, total=False):
    """All compare exactly. created_from: inclusive, created_to: exclusive; aware, or RFC 3339 text."""

    name: str | None
    version: str | None
    release: str | None
    platform_id: str | None
    package: str | None
    success: bool | None
    event_receiver_id: str | None
    owner_id: str | None
    created_from: datetime | str | None
    created_to: datetime | str | None


class ReceiverFilters(TypedDict, total=False):
    """All compare exactly."""

    name: str | None
    type: str | None
    version: str | None
    fingerprint: str | None


class GroupFilters(TypedDict, total=False):
    """All compare exactly. event_receiver_id: groups that hold this receiver."""

    name: str | None
    type: str | None
    version: str | None
    enabled: bool | None
    event_receiver_id: str | None


class ArtifactFilters(TypedDict, total=False):
    """All but name_prefix compare exactly."""

    name: str | None
    version: str | None
    release: str | None
    platform_id: str | None
    package: str | None
    name_prefix: str | None


class AuditFilters(TypedDict, total=False):
    """actor: id or name; act: as it stands, or with `*` at its end all that begin so. at_from: inclusive, at_to: exclusive."""

    actor: str | None
    act: str | None
    outcome: str | None
    at_from: datetime | str | None
    at_to: datetime | str | None


class StreamFilters(TypedDict, total=False):
    """All compare exactly."""

    type: str | None
    name: str | None
    version: str | None
    release: str | None
    platform_id: str | None
    package: str | None
    success: bool | None
    event_receiver_id: str | None


class Client:
    """One server. `with Client(url, api_key=key) as client:` closes its connections at the end."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        token: str | None = None,
        auth: TokenSource | None = None,
        timeout_s: float = 30.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """url: of the server, with the path it is mounted under, if any. api_key, token (of a login or a trusted issuer), auth (asked for a token
        before each request): at most one of them; login() takes its place. timeout_s: of one answer, its repetitions included. headers: sent with
        each request, for what a proxy asks for. Raises ValueError for a url that is none, and for a key or token that cannot be one.
        """
        if sum(each is not None for each in (api_key, token, auth)) > 1:
            raise ValueError("give one of api_key, token and auth")
        credential = header_of_key(api_key) if api_key is not None else header_of_token(token) if token is not None else None
        self._transport = Transport(url, timeout_s=timeout_s, headers=headers, credential=credential)
        self._transport.tokens = auth

    @property
    def url(self) -> str:
        """Of the server."""
        return self._transport.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def post_batch(self, lines: bytes, *, partial: bool = False, idempotency_key: str | None = None) -> list[str | BatchItem]:
        """Events as NDJSON, one a line, at most 10,000: all of them or none (ProblemError, with pointers such as `/25/name`), in their order.

        partial: each that nothing is wrong with. Returns their ids; with partial, for each what became of it.
        """
        headers = {"Idempotency-Key": idempotency_key or new_key(), "Content-Type": "application/x-ndjson"}
        answer = self._transport.send("POST", "events/batch", params={"partial": partial or None}, body=lines, headers=headers, repeatable=True)
        return self._transport.decode(answer, RecordedBatch).data

    def post_event(self, event: NewEvent, *, idempotency_key: str | None = None) -> str:
        """The id, once the event is stored."""
        return self._create("events", event, idempotency_key)

    def get_event(self, event_id: str) -> Event:
        """One event."""
        return self._transport.get(_path("events", event_id), Event)

    def search_events(self, *, limit: int = 50, after: str | None = None, **filters: Unpack[EventFilters]) -> Page[Event]:
        """Newest first."""
        params: dict[str, Any] = {**filters}
        params["from"], params["to"] = _time(params.pop("created_from", None)), _time(params.pop("created_to", None))
        return self._transport.get("events", Page[Event], {**params, "limit": limit, "after": after})

    def search_artifacts(self, *, limit: int = 50, after: str | None = None, **filters: Unpack[ArtifactFilters]) -> Page[ArtifactSeen]:
        """The most recently touched first."""
        return self._transport.get("artifacts", Page[ArtifactSeen], {**filters, "limit": limit, "after": after})

    def artifact_timeline(self, artifact: Artifact, *, limit: int = 50, after: str | None = None) -> Timeline:
        """A page of what happened to it, oldest first, with what each group says of it."""
        return self._transport.get("artifacts/timeline", Timeline, {**msgspec.structs.asdict(artifact), "limit": limit, "after": after})

    def redact_event(self, event_id: str, reason: str, *, idempotency_key: str | None = None) -> str:
        """Take its payload away, for good; the event stays. The redaction's id. ProblemError `conflict` when it was redacted already, or is held."""
        return self._create(f"{_path('events', event_id)}/redactions", {"reason": reason}, idempotency_key)

    def create_receiver(self, receiver: NewEventReceiver, *, idempotency_key: str | None = None) -> str:
        """The id."""
        return self._create("receivers", receiver, idempotency_key)

    def get_receiver(self, receiver_id: str) -> EventReceiver:
        """One receiver."""
        return self._transport.get(_path("receivers", receiver_id), EventReceiver)

    def search_receivers(self, *, limit: int = 50, after: str | None = None, **filters: Unpack[ReceiverFilters]) -> Page[EventReceiver]:
        """Newest first."""
        return self._transport.get("receivers", Page[EventReceiver], {**filters, "limit": limit, "after": after})

    def change_receiver(self, receiver_id: str, changes: EventReceiverChanges, *, if_version: int | None = None) -> None:
        """if_version: only if this is still its resource_version; else ProblemError `precondition_failed`."""
        self._transport.send("PUT", _path("receivers", receiver_id), body=changes, headers=_if_match(if_version))

    def delete_receiver(self, receiver_id: str, *, if_version: int | None = None) -> None:
        """ProblemError `conflict` while events or groups refer to it."""
        self._transport.send("DELETE", _path("receivers", receiver_id), headers=_if_match(if_version))

    def create_group(self, group: NewEventReceiverGroup, *, idempotency_key: str | None = None) -> str:
        """The id."""
        return self._create("groups", group, idempotency_key)

    def get_group(self, group_id: str) -> EventReceiverGroup:
        """One group."""
        return self._transport.get(_path("groups", group_id), EventReceiverGroup)

    def search_groups(self, *, limit: int = 50, after: str | None = None, **filters: Unpack[GroupFilters]) -> Page[EventReceiverGroup]:
        """Newest first."""
        return self._transport.get("groups", Page[EventReceiverGroup], {**filters, "limit": limit, "after": after})

    def change_group(self, group_id: str, changes: EventReceiverGroupChanges, *, if_version: int | None = None) -> None:
        """if_version: only if this is still its resource_version; else ProblemError `precondition_failed`."""
        self._transport.send("PUT", _path("groups", group_id), body=changes, headers=_if_match(if_version))

    def set_group_enabled(self, group_id: str, enabled: bool) -> EventReceiverGroup:
        """A group that is not enabled decides nothing. Returns it as it then is."""
        answer = self._transport.send("PATCH", _path("groups", group_id), body={"enabled": enabled}, repeatable=True)
        return self._transport.decode(answer, EventReceiverGroup)

    def delete_group(self, group_id: str, *, if_version: int | None = None) -> None:
        """It decides nothing any more."""
        self._transport.send("DELETE", _path("groups", group_id), headers=_if_match(if_version))

    def group_status(self, group_id: str, artifact: Artifact) -> GroupStatus:
        """May the artifact move on by this group, and if not, why not: right as soon as an event's id has been returned."""
        return self._transport.get(f"{_path('groups', group_id)}/status", GroupStatus, msgspec.structs.asdict(artifact))

    def group_artifacts(self, group_id: str, *, complete: bool | None = None, limit: int = 50, after: str | None = None) -> Page[GroupArtifact]:
        """Artifacts by decision, newest first. complete=True: only those that the group, as it now stands, still holds complete."""
        params = {"complete": complete, "limit": limit, "after": after}
        return self._transport.get(f"{_path('groups', group_id)}/artifacts", Page[GroupArtifact], params)

    def evaluate_group(self, group_id: str, artifact: Artifact) -> Evaluation:
        """For a group made or enabled late: have the sequencer decide now, and say *group complete* on the stream if it is.

        Not repeated when its answer is lost: each evaluation may say *group complete* again.
        """
        answer = self._transport.send("POST", f"{_path('groups', group_id)}/evaluations", body=artifact)
        return self._transport.decode(answer, Evaluation)

    def group_members(self, group_id: str, *, limit: int = 50, after: str | None = None) -> Page[GroupMember]:
        """Who may post to its restricted receivers, besides their owners; the newest account first."""
        return self._transport.get(f"{_path('groups', group_id)}/members", Page[GroupMember], {"limit": limit, "after": after})

    def add_group_member(self, group_id: str, user_id: str, *, idempotency_key: str | None = None) -> None:
        """ProblemError `conflict` for one who is a member already."""
        self._create(f"{_path('groups', group_id)}/members", {"user_id": user_id}, idempotency_key)

    def remove_group_member(self, group_id: str, user_id: str) -> None:
        """ProblemError `not_found` for one who is no member."""
        self._transport.send("DELETE", _path("groups", group_id, "members", user_id))

    def search_audit(self, *, limit: int = 50, after: str | None = None, **filters: Unpack[AuditFilters]) -> Page[AuditRow]:
        """Who did what, newest first."""
        params: dict[str, Any] = {**filters}
        params["from"], params["to"] = _time(params.pop("at_from", None)), _time(params.pop("at_to", None))
        return self._transport.get("admin/audit", Page[AuditRow], {**params, "limit": limit, "after": after})

    def login(self, username: str, password: str) -> TokenPair:
        """By name and password. From here on this client sends the token, and renews it by itself until logout().

        ProblemError `invalid_credentials`, or `too_many_attempts` with retry_after_s after several of them.
        """
        pair = self._pair("login", {"username": username, "password": password})
        self._transport.tokens = Login(pair, self.refresh)
        return pair

    def provider_login_url(self) -> str:
        """Where a browser logs in at the server's provider. ProblemError `not_found` when it has none, `provider_unavailable` when it is down."""
        return self._transport.get("auth/oidc/login", ProviderLogin).authorization_url

    def turn_in_code(self, code: str, code_verifier: str) -> TokenPair:
        """The token pair of a login in a browser, by the code that it ended with. As login() from here on."""
        pair = self._pair("cli/token", {"code": code, "code_verifier": code_verifier})
        self._transport.tokens = Login(pair, self.refresh)
        return pair

    def refresh(self, refresh_token: str) -> TokenPair:
        """The next pair; the refresh token is dead then. ProblemError `invalid_token` when the login is over; `refresh_superseded` when somebody else
        turned it in a moment ago: use the pair that they got. Changes nothing about what this client sends.
        """
        return self._pair("refresh", {"refresh_token": refresh_token})

    def logout(self) -> None:
        """End the login that this client's token belongs to: its tokens are dead in every process of the server within a second."""
        self._transport.send("POST", "auth/logout")
        self._transport.tokens = None

    def me(self) -> Me:
        """Who the server takes us for, and what we may do."""
        return self._transport.get("auth/me", Me)

    def create_api_key(self, key: NewApiKey) -> ApiKey:
        """With the key itself, which is never shown again; so this is not repeated when the answer is lost. Needs a login."""
        body = {**msgspec.structs.asdict(key), "expires_at": _time(key.expires_at)}
        return self._transport.decode(self._transport.send("POST", "api-keys", body=body), ApiKey)

    def list_api_keys(self, *, user_id: str | None = None, limit: int = 50, after: str | None = None) -> Page[ApiKey]:
        """Newest first: one's own; an administrator's: all, or those of one user."""
        return self._transport.get("api-keys", Page[ApiKey], {"user_id": user_id, "limit": limit, "after": after})

    def revoke_api_key(self, key_id: str) -> None:
        """Dead in every process of the server within a second. ProblemError `not_found` for one that is not yours or was revoked."""
        self._transport.send("DELETE", _path("api-keys", key_id))

    def create_user(self, user: NewUser, *, idempotency_key: str | None = None) -> str:
        """The id. ProblemError `conflict` for a name that is taken."""
        return self._create("admin/users", user, idempotency_key)

    def search_users(self, *, username: str | None = None, enabled: bool | None = None, limit: int = 50, after: str | None = None) -> Page[User]:
        """Newest first. username: exact but for upper and lower case."""
        return self._transport.get("admin/users", Page[User], {"username": username, "enabled": enabled, "limit": limit, "after": after})

    def get_user(self, user_id: str) -> User:
        """One user."""
        return self._transport.get(_path("admin", "users", user_id), User)

    def change_user(self, user_id: str, changes: UserChanges) -> User:
        """As it then is. Disabling and a new password end the user's logins within a second."""
        answer = self._transport.send("PATCH", _path("admin", "users", user_id), body=changes, repeatable=True)
        return self._transport.decode(answer, User)

    def set_user_roles(self, user_id: str, roles: list[str]) -> User:
        """In place of those before. ProblemError `conflict` for the last administrator."""
        answer = self._transport.send("PUT", f"{_path('admin', 'users', user_id)}/roles", body={"roles": roles}, repeatable=True)
        return self._transport.decode(answer, User)

    def delete_user(self, user_id: str) -> None:
        """It can log in no more; what it owns and did stays under its id."""
        self._transport.send("DELETE", _path("admin", "users", user_id))

    def stream_position(self) -> StreamPosition:
        """What the stream holds."""
        return self._transport.get("stream/position", StreamPosition)

    def follow(
        self,
        *,
        after: int | None = None,
        on_interruption: Callable[[ClientError, float], None] | None = None,
        **filters: Unpack[StreamFilters],
    ) -> Generator[Message, None, None]:
        """Messages behind a position (None: from now on), for ever; close() ends the connection.

        See stream.py for what is resumed and what is raised.
        """
        return follow(self._transport, after=after, filters={**filters}, on_interruption=on_interruption)

    def _pair(self, path: str, body: dict[str, str]) -> TokenPair:
        # With an old token at hand nobody could get a new one.
        answer = self._transport.send("POST", f"auth/{path}", body=body, anonymous=True)
        pair = self._transport.decode(answer, TokenPair)
        try:
            header_of_token(pair.access_token)
        except ValueError as error:
            # No header could hold it: it would fail later, where nobody expects it.
            raise UnexpectedAnswer(self.url, answer.status_code, str(error)) from None
        return pair

    def _create(self, path: str, body: msgspec.Struct | dict[str, str], idempotency_key: str | None) -> str:
        headers = {"Idempotency-Key": idempotency_key or new_key()}
        answer = self._transport.send("POST", path, body=body, headers=headers, repeatable=True)
        return self._transport.decode(answer, Created).data


def each(search: Callable[..., Page[Item]], *arguments: Any, **filters: Any) -> Iterator[Item]:
    """Everything that a search finds, page by page: `each(client.search_events, name="api")`. Filters are those of the search."""
    after: str | None = None
    while True:
        page = search(*arguments, limit=PAGE_LIMIT_MAX, after=after, **filters)
        yield from page.data
        if not page.pagination.has_more or page.pagination.next is None:
            return
        after = page.pagination.next


def new_key() -> str:
    """An idempotency key that nobody has used."""
    return str(uuid4())


def _path(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def _if_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}


def _time(moment: datetime | str | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if isinstance(moment, datetime) else moment
