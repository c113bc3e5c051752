"""An event receiver: a kind of act, with the JSON Schema that every payload posted to it must satisfy."""

from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from xzepr.fields import PAGE_LIMIT_DEFAULT, Description, PageLimit, PageOffset, ShortText
from xzepr.ids import EventReceiverId


class NewEventReceiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for. schema: a JSON object that is a valid JSON Schema; kept as sent."""

    name: ShortText
    type: ShortText
    version: ShortText
    description: Description = ""
    schema: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
    restricted: bool = False


class EventReceiver(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored. resource_version: rises by one with each change; fingerprint: 64 hex digits."""

    id: EventReceiverId
    name: str
    type: str
    version: str
    description: str
    schema: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
    fingerprint: str
    restricted: bool
    owner_id: str | None
    resource_version: int
    created_at: str
    updated_at: str


class EventReceiverPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which receivers to list; newest first. after: the cursor of the page before."""

    name: str | None = None
    type: str | None = None
    version: str | None = None
    fingerprint: str | None = None
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    after: EventReceiverId | None = None
    offset: PageOffset | None = None


class EventReceiverChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; a field that is left out stays as it is."""

    name: ShortText | UnsetType = UNSET
    type: ShortText | UnsetType = UNSET
    version: ShortText | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    schema: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})] | UnsetType = UNSET
    restricted: bool | UnsetType = UNSET


class ReceiverInForce(msgspec.Struct, frozen=True):
    """What the write path needs of a receiver's version: enough to check an event, and to be kept in memory.

    poster_ids: users who may post to it when it is restricted, besides its owner and administrators; empty when it is not.
    """

    id: EventReceiverId
    resource_version: int
    schema_text: str
    default_draft: str
    restricted: bool
    owner_id: str | None
    poster_ids: frozenset[str] = frozenset()


def fingerprint_of(name: str, type_: str, version: str, description: str) -> str:
    """sha256 hex of `"v1 " + type + " " + description + " " + name + " " + version`: EPR's formula, kept for its clients."""
    return sha256(f"v1 {type_} {description} {name} {version}".encode()).hexdigest()
