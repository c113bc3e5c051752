"""An event: the record of one act on one artifact. Immutable, except that its payload can be taken away for good (redact.py)."""

from datetime import datetime

import msgspec

from xzepr.fields import PAGE_LIMIT_DEFAULT, Description, PageLimit, ShortText
from xzepr.ids import EventId, EventReceiverId, UserId
from xzepr.nvrpp import Nvrpp


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for. payload: any JSON that the receiver's schema allows; kept as sent."""

    name: ShortText
    version: ShortText
    release: ShortText
    platform_id: ShortText
    package: ShortText
    description: Description = ""
    payload: msgspec.Raw
    success: bool
    event_receiver_id: str

    @property
    def nvrpp(self) -> Nvrpp:
        """The artifact it is about."""
        return Nvrpp(self.name, self.version, self.release, self.platform_id, self.package)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored. seq: rises with every event; within one artifact and receiver the highest is the newest.

    event_receiver_version: the receiver's resource_version that the payload passed. created_at: the clock reading in the id.
    """

    id: EventId
    seq: int
    name: str
    version: str
    release: str
    platform_id: str
    package: str
    description: str
    payload: msgspec.Raw
    success: bool
    event_receiver_id: EventReceiverId
    event_receiver_version: int
    owner_id: str | None
    created_at: str


class EventPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Which events to list; newest first. from: inclusive, to: exclusive, on created_at; after: the cursor of the page before."""

    name: str | None = None
    version: str | None = None
    release: str | None = None
    platform_id: str | None = None
    package: str | None = None
    success: bool | None = None
    event_receiver_id: EventReceiverId | None = None
    owner_id: UserId | None = None
    from_: datetime | None = None
    to: datetime | None = None
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    after: EventId | None = None


class Recorded(msgspec.Struct, frozen=True):
    """The id of the event; for a batch of CloudEvents the ids, in order."""

    data: EventId | list[EventId]


class BatchQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """partial: record every event that nothing is wrong with, and tell for each what became of it."""

    partial: bool = False
