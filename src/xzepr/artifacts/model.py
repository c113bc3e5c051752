"""An artifact as a reader meets it: the five fields, what happened to it, where it stands."""

import msgspec

from xzepr.events.model import Event
from xzepr.fields import PAGE_LIMIT_DEFAULT, PageLimit, ShortText
from xzepr.groups.model import Artifact, NamedGroupStatus
from xzepr.ids import EventId
from xzepr.page import Pagination


class ArtifactPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which artifacts to list; the most recently touched first. name_prefix: of the name. after: the cursor of the page before."""

    name: str | None = None
    name_prefix: str | None = None
    version: str | None = None
    release: str | None = None
    platform_id: str | None = None
    package: str | None = None
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    after: EventId | None = None


class TouchedArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact with its newest event."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str
    last_event_id: str
    last_event_at: str


class TimelinePage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose timeline, all five fields. after: the cursor of the page before."""

    name: ShortText
    version: ShortText
    release: ShortText
    platform_id: ShortText
    package: ShortText
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    after: str | None = None

    @property
    def artifact(self) -> Artifact:
        """The five fields."""
        return Artifact(name=self.name, version=self.version, release=self.release, platform_id=self.platform_id, package=self.package)


class TimelineEvent(Event, frozen=True, kw_only=True):
    """An event with what its receiver is called, in the version that the payload passed."""

    event_receiver_name: str
    event_receiver_type: str


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """events: the oldest first, by seq. groups: where the artifact stands with each group that it has an event for; null without
    group:read."""

    artifact: Artifact
    events: list[TimelineEvent]
    groups: list[NamedGroupStatus] | None
    pagination: Pagination
