"""An event receiver group: receivers that together decide something, and what the house says of an artifact by it."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from xzepr.fields import PAGE_LIMIT_DEFAULT, Description, PageLimit, ShortText
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
    event_receiver_id: str | None = None
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    after: str | None = None


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


class GroupStatus(msgspec.Struct, frozen=True, kw_only=True):
    """May this artifact move on by this group, and if not, why not. missing: the receivers whose gate has no event yet."""

    complete: bool
    enabled: bool
    gates: list[Gate]
    missing: list[ReceiverRef]
    summary: str
