"""What is sent and what comes back. Members that a newer server adds are ignored.

`payload` and `schema` come back as the JSON text that the server keeps (msgspec.Raw), so that no number changes on the way; `payload_value` and
`schema_value` read them. Times are RFC 3339 text in UTC.
"""

from datetime import datetime
from typing import Any, Generic, Literal, Self, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

Item = TypeVar("Item")


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """What events are about. Two artifacts are the same when all five fields are, exactly."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded. payload: whatever encodes as JSON and satisfies the receiver's schema; Raw is sent as it stands."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str
    description: str = ""
    payload: Any
    success: bool
    event_receiver_id: str

    @classmethod
    def about(cls, artifact: Artifact, event_receiver_id: str, *, success: bool, payload: Any, description: str = "") -> Self:
        """From an artifact."""
        fields = msgspec.structs.asdict(artifact)
        return cls(**fields, event_receiver_id=event_receiver_id, success=success, payload=payload, description=description)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored. seq: rises with every event; within one artifact and receiver the highest is the newest.

    event_receiver_version: the receiver's resource_version that the payload passed. owner_id: who posted it; None: nobody was logged in. The payload
    of a redacted event is an object with `redacted` true, `redaction_id`, `reason` and `redacted_at`.
    """

    id: str
    seq: int
    name: str
    version: str
    release: str
    platform_id: str
    package: str
    description: str
    payload: Raw
    success: bool
    event_receiver_id: str
    event_receiver_version: int
    owner_id: str | None
    created_at: str

    @property
    def payload_value(self) -> Any:
        """The payload as Python objects."""
        return msgspec.json.decode(self.payload)


class TimelineEvent(Event, frozen=True, kw_only=True):
    """An event with the name and type of its receiver."""

    event_receiver_name: str
    event_receiver_type: str


class NewEventReceiver(msgspec.Struct, frozen=True, kw_only=True):
    """What is created. schema: a JSON Schema as a dict, or as Raw, which is sent as it stands.

    restricted: only its owner, members of its groups and administrators may post to it.
    """

    name: str
    type: str
    version: str
    description: str = ""
    schema: Any
    restricted: bool = False


class EventReceiverChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What changes; what is left out stays."""

    name: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    version: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    schema: Any = UNSET
    restricted: bool | UnsetType = UNSET


class EventReceiver(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored. resource_version: rises by one with each change; fingerprint: 64 hex digits."""

    id: str
    name: str
    type: str
    version: str
    description: str
    schema: Raw
    fingerprint: str
    restricted: bool
    owner_id: str | None
    resource_version: int
    created_at: str
    updated_at: str

    @property
    def schema_value(self) -> Any:
        """The schema as Python objects."""
        return msgspec.json.decode(self.schema)


class NewEventReceiverGroup(msgspec.Struct, frozen=True, kw_only=True):
    """What is created. event_receiver_ids: 1 to 100, each once; the order is kept."""

    name: str
    type: str
    version: str
    description: str = ""
    enabled: bool = True
    event_receiver_ids: list[str]


class EventReceiverGroupChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What changes; what is left out stays. event_receiver_ids: the whole new list."""

    name: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    version: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    event_receiver_ids: list[str] | UnsetType = UNSET


class EventReceiverGroup(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored. resource_version: rises by one with each change."""

    id: str
    name: str
    type: str
    version: str
    description: str
    enabled: bool
    event_receiver_ids: list[str]
    owner_id: str | None
    resource_version: int
    created_at: str
    updated_at: str


class GroupMember(msgspec.Struct, frozen=True, kw_only=True):
    """Who may post to the restricted receivers of a group. added_by: None: nobody was logged in."""

    user_id: str
    username: str
    added_at: str
    added_by: str | None


class ReceiverRef(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver or group, as far as a reader needs it to know what is meant."""

    id: str
    name: str
    type: str


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One requirement. state: open (newest event succeeded), closed (it failed), missing (there is none; the other fields are then None)."""

    event_receiver: ReceiverRef
    state: Literal["open", "closed", "missing"]
    event_id: str | None
    success: bool | None
    decided_at: str | None
    decided_by: str | None


class GroupStatus(msgspec.Struct, frozen=True, kw_only=True):
    """May an artifact move on by a group, and if not, why not. missing: the receivers whose gate has no event yet; summary: one sentence."""

    complete: bool
    enabled: bool
    gates: list[Gate]
    missing: list[ReceiverRef]
    summary: str


class TimelineGroup(GroupStatus, frozen=True, kw_only=True):
    """The same, where several groups are told of."""

    group: ReceiverRef


class GroupArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact as a group decided on it last: complete or broken, by which event, when, at which position of the stream."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str
    complete: bool
    event_id: str
    decided_at: str
    position: int


class ArtifactSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact with its newest event."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str
    last_event_id: str
    last_event_at: str


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What the sequencer decided when asked. message_id, position: of the *group complete* it sent; None when it is not complete."""

    complete: bool
    message_id: str | None
    position: int | None


class StreamPosition(msgspec.Struct, frozen=True, kw_only=True):
    """Which positions can be read, and how many facts wait to be sequenced. oldest, newest: None while the stream is empty."""

    oldest: int | None
    newest: int | None
    pending: int


class Pagination(msgspec.Struct, frozen=True, kw_only=True):
    """next: the `after` of the next page, None on the last one. A page may be short while has_more is true.

    offset, total: where a list was asked for by offset.
    """

    limit: int
    next: str | None
    has_more: bool
    offset: int | None = None
    total: int | None = None


class Page(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """One page of a list."""

    data: list[Item]
    pagination: Pagination


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who did something, and how that was found out. id: None for the installation itself and for callers without credentials."""

    id: str | None
    name: str
    how: str


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One act. outcome: success, failure or denied; details: what else a reader needs, different for each act."""

    id: str
    at: str
    actor: Actor
    act: str
    object_id: str | None
    outcome: str
    address: str | None
    request_id: str | None
    details: dict[str, Any]


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what happened to an artifact, oldest first, and what each group says of it now. groups: None for who may not read groups."""

    artifact: Artifact
    events: list[TimelineEvent]
    groups: list[TimelineGroup] | None = None
    pagination: Pagination


class Created(msgspec.Struct, frozen=True):
    """The id of what was made."""

    data: str


class BatchFault(msgspec.Struct, frozen=True):
    """pointer: RFC 6901, from the root of the batch: `/25/name`."""

    pointer: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why an event of a batch was not recorded. errors: the first faults of the batch, and how many more there are."""

    status: int
    error: str
    detail: str
    errors: list[BatchFault] = []


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one event of a batch. status: 201 with its id, else that of the problem."""

    status: int
    id: str | None = None
    problem: Problem | None = None


class RecordedBatch(msgspec.Struct, frozen=True):
    """In the order of the batch."""

    data: list[str | BatchItem]


class LoggedIn(msgspec.Struct, frozen=True, kw_only=True):
    """The user of a token pair."""

    id: str
    username: str
    email: str | None
    roles: list[str]


class ProviderLogin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a browser logs in at a server's provider."""

    authorization_url: str


class TokenPair(msgspec.Struct, frozen=True, kw_only=True):
    """What a login gives. expires_in: seconds that the access token lives; expires_at: its end by the server's clock.

    The refresh token is good for one use, and gives the next pair.
    """

    access_token: str
    refresh_token: str
    expires_in: int
    expires_at: str
    user: LoggedIn


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """Who the server takes us for. id: None for a caller without an account. how: `password`, `oidc`, `browser`, `api_key`, `trusted_issuer` or
    `anonymous`. event_receiver_ids: the only receivers that may be posted to; None: no such limit.
    """

    id: str | None
    username: str
    roles: list[str]
    permissions: list[str]
    how: str
    event_receiver_ids: list[str] | None = None


class NewUser(msgspec.Struct, frozen=True, kw_only=True):
    """A local user."""

    username: str
    password: str
    email: str | None = None
    roles: list[str] = []


class UserChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What changes; what is left out stays."""

    email: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    password: str | UnsetType = UNSET


class User(msgspec.Struct, frozen=True, kw_only=True):
    """issuer: of the provider that knows the user; None: a local one."""

    id: str
    username: str
    email: str | None
    issuer: str | None
    roles: list[str]
    enabled: bool
    created_at: str
    updated_at: str
    last_login_at: str | None


class NewApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """scopes: permissions, such as `event:create`. event_receiver_ids: the only receivers it may post to; None: all. expires_at: aware, or RFC 3339
    text; None: never.
    """

    name: str
    scopes: list[str]
    event_receiver_ids: list[str] | None = None
    expires_at: datetime | str | None = None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """key: the key itself, in the answer that made it and never again."""

    id: str
    name: str
    user_id: str
    scopes: list[str]
    event_receiver_ids: list[str] | None = None
    created_at: str
    expires_at: str | None = None
    last_used_at: str | None = None
    revoked_at: str | None = None
    key: str | None = None
