"""An event receiver group: receivers that together decide something, and what the house says of an artifact by it."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from xzepr.fields import PAGE_LIMIT_DEFAULT, Description, PageLimit, PageOffset, ShortText
from xzepr.ids import EventReceiverGroupId, EventReceiverId
from xzepr.nvrpp import Nvrpp

RECEIVERS_MAX = 100


class NewEventReceiverGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for. event_receiver_ids: 1 to 100, each once; the order is kept."""

    name: ShortText
    type: ShortText
    version: ShortText
    description: Description = ""
    enabled: bool = True
    event_receiver_ids: Annotated[list[str], Meta(min_length=1, max_length=RECEIVERS_MAX)]


class EventReceiverGroup(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored. resource_version: rises by one with each change."""

    id: EventReceiverGroupId
    name: str
    type: str
    version: str
    description: str
    enabled: bool
    event_receiver_ids: list[EventReceiverId]
    owner_id: str | None
    resource_version: int
    created_at: str
    updated_at: str


class EventReceiverGroupPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which groups to list; newest first. after: the cursor of the page before."""

    name: str | None = None
    type: str | None = None
    version: str | None = None
    enabled: bool | None = None
    event_receiver_id: EventReceiverId | None = None
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    after: EventReceiverGroupId | None = None
    offset: PageOffset | None = None


class EventReceiverGroupChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; a field that is left out stays as it is."""

    name: ShortText | UnsetType = UNSET
    type: ShortText | UnsetType = UNSET
    version: ShortText | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    event_receiver_ids: Annotated[list[str], Meta(min_length=1, max_length=RECEIVERS_MAX)] | UnsetType = UNSET


class GroupEnabled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the group decides anything."""

    enabled: bool


class Artifact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The five fields, all of them, compared exactly."""

    name: ShortText
    version: ShortText
    release: ShortText
    platform_id: ShortText
    package: ShortText

    @property
    def nvrpp(self) -> Nvrpp:
        """As the artifact's key."""
        return Nvrpp(self.name, self.version, self.release, self.platform_id, self.package)


class ReceiverRef(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver, as far as a reader needs it to know what is meant."""

    id: EventReceiverId
    name: str
    type: str


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One requirement. state: open (newest event succeeded), closed (it failed), missing (there is none).

    event_id, success, decided_at, decided_by (who posted it) are null when missing; decided_by also when nobody was logged in.
    """

    event_receiver: ReceiverRef
    state: Literal["open", "closed", "missing"]
    event_id: str | None
    success: bool | None
    decided_at: str | None
    decided_by: str | None


class GroupRef(msgspec.Struct, frozen=True, kw_only=True):
    """A group, as far as a reader needs it to know what is meant."""

    id: EventReceiverGroupId
    name: str
    type: str


class GroupArtifactPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which artifacts of a group to list, by its last decision. complete: only those that it holds complete now, or only the others."""

    complete: bool | None = None
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    after: str | None = None


class GroupArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that the group decided on. complete: whether the group holds it at this moment; event_id, decided_at, position: of the
    last decision."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str
    complete: bool
    event_id: str
    decided_at: str
    position: int


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """message_id, position: of the *group complete* that was told; null when it is not complete."""

    complete: bool
    message_id: str | None
    position: int | None


class GroupStatus(msgspec.Struct, frozen=True, kw_only=True):
    """May this artifact move on by this group, and if not, why not. missing: the receivers whose gate has no event yet."""

    complete: bool
    enabled: bool
    gates: list[Gate]
    missing: list[ReceiverRef]
    summary: str


class NamedGroupStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A group's status, with the group."""

    group: GroupRef
    complete: bool
    enabled: bool
    gates: list[Gate]
    missing: list[ReceiverRef]
    summary: str
