"""Messages: the only thing that leaves the house.

A message has a kind (what it tells), a position in the stream and an id of its own. Its envelope is a pure function of immutable rows: the
stream row, the event, the receiver's version, the group's version; so it may be made when it is read, any number of times. Shape and
key order are those that EPR's watchers decode. Source: contract `epr.md` §4.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from xzepr.clock import rfc3339

SOURCE: Final = "xzepr"
PLATFORM_ID: Final = "event-provenance-registry"


class Kind(StrEnum):
    """What a message tells. The first seven are facts, written by whoever did the act; the last two are decided by the sequencer."""

    EVENT_RECORDED = "event.recorded"
    RECEIVER_CREATED = "receiver.created"
    RECEIVER_MODIFIED = "receiver.modified"
    RECEIVER_DELETED = "receiver.deleted"
    GROUP_CREATED = "group.created"
    GROUP_MODIFIED = "group.modified"
    GROUP_DELETED = "group.deleted"
    GROUP_COMPLETE = "group.complete"
    GROUP_BROKEN = "group.broken"


# An evaluation on request: a fact in the outbox, and no message of its own.
EVALUATION_REQUESTED: Final = "evaluation.requested"

# The envelope's `type`, where it does not come from the receiver or the group.
_FIXED_TYPES: Final = {
    Kind.RECEIVER_CREATED: "epr.event.receiver.created",
    Kind.RECEIVER_MODIFIED: "xzepr.event.receiver.modified",
    Kind.RECEIVER_DELETED: "xzepr.event.receiver.deleted",
    Kind.GROUP_CREATED: "epr.event.receiver.group.created",
    Kind.GROUP_MODIFIED: "epr.event.receiver.group.modified",
    Kind.GROUP_DELETED: "xzepr.event.receiver.group.deleted",
    Kind.GROUP_BROKEN: "xzepr.event.receiver.group.broken",
}

_ABOUT_EVENTS: Final = (Kind.EVENT_RECORDED, Kind.GROUP_COMPLETE, Kind.GROUP_BROKEN)
# What a message about a definition says in `package`: of a receiver, of a group.
ABOUT_DEFINITIONS: Final = ("event.receiver", "event.receiver.group")


def kinds_of_type(type_: str) -> list[str]:
    """Kinds whose messages have this `type`, whatever they tell of."""
    return [kind.value for kind, fixed in _FIXED_TYPES.items() if fixed == type_]


class ReceiverObject(msgspec.Struct, frozen=True):
    """A receiver as EPR shows it."""

    id: str
    name: str
    type: str
    version: str
    description: str
    schema: msgspec.Raw
    fingerprint: str
    created_at: str


class GroupObject(msgspec.Struct, frozen=True):
    """A group as EPR shows it."""

    id: str
    name: str
    type: str
    version: str
    description: str
    enabled: bool
    event_receiver_ids: list[str]
    created_at: str
    updated_at: str


class EventObject(msgspec.Struct, frozen=True):
    """An event as EPR shows it, its receiver inside."""

    id: str
    name: str
    version: str
    release: str
    platform_id: str
    package: str
    description: str
    payload: msgspec.Raw
    success: bool
    created_at: str
    event_receiver_id: str
    event_receiver: ReceiverObject = msgspec.field(name="EventReceiver")


class Data(msgspec.Struct, frozen=True):
    """What the message is about."""

    events: list[EventObject] | None = None
    event_receivers: list[ReceiverObject] | None = None
    event_receiver_groups: list[GroupObject] | None = None


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What a watcher decodes. `first`: on group complete only; `event_receiver_version`: with an event; `truncated`: its payload was removed."""

    success: bool
    id: str
    specversion: str = "1.0"
    type: str
    source: str = SOURCE
    api_version: str = "v1"
    name: str
    version: str
    release: str
    platform_id: str
    package: str
    data: Data
    message_id: str
    time: str
    position: int
    seq: int
    first: bool | msgspec.UnsetType = msgspec.UNSET
    event_receiver_version: int | msgspec.UnsetType = msgspec.UNSET
    truncated: bool | msgspec.UnsetType = msgspec.UNSET


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope ready to be sent, with what a reader may filter by beside it."""

    position: int
    type: str
    name: str
    version: str
    release: str
    platform_id: str
    package: str
    success: bool
    event_receiver_id: str | None
    body: bytes


def message_of(row: Any) -> Message:
    """From one row of `read_stream` (stream/queries.sql)."""
    kind = Kind(row["kind"])
    envelope = _about_event(kind, row) if kind in _ABOUT_EVENTS else _about_definition(kind, row)
    return Message(
        position=envelope.position,
        type=envelope.type,
        name=envelope.name,
        version=envelope.version,
        release=envelope.release,
        platform_id=envelope.platform_id,
        package=envelope.package,
        success=envelope.success,
        event_receiver_id=row["event_receiver_id"],
        body=msgspec.json.encode(envelope),
    )


def _about_event(kind: Kind, row: Any) -> Envelope:
    """Event recorded, group complete, group broken: the artifact is the event's."""
    receiver = _receiver(row)
    event = EventObject(
        row["event_id"],
        row["e_name"],
        row["e_version"],
        row["e_release"],
        row["e_platform_id"],
        row["e_package"],
        row["e_description"],
        msgspec.Raw(row["e_payload"].encode()),
        row["e_success"],
        rfc3339(row["e_created_at"]),
        row["event_receiver_id"],
        receiver,
    )
    if kind is Kind.EVENT_RECORDED:
        data, subject, type_ = Data(events=[event], event_receivers=[receiver]), event.id, receiver.type
    else:
        group = _group(row)
        data, subject = Data(events=[event], event_receiver_groups=[group]), group.id
        type_ = _FIXED_TYPES.get(kind, group.type)
    return Envelope(
        success=row["success"],
        id=subject,
        type=type_,
        name=event.name,
        version=event.version,
        release=event.release,
        platform_id=event.platform_id,
        package=event.package,
        data=data,
        first=row["first"] if kind is Kind.GROUP_COMPLETE else msgspec.UNSET,
        event_receiver_version=row["event_receiver_version"],
        truncated=True if row["e_removed"] else msgspec.UNSET,
        **_place(row),
    )


def _about_definition(kind: Kind, row: Any) -> Envelope:
    """Receiver or group created, modified, deleted: it stands for itself, released at the second of the change."""
    of_group = row["event_receiver_group_id"] is not None
    subject = _group(row) if of_group else _receiver(row)
    changed_at: datetime = row["g_updated_at"] if of_group else row["r_updated_at"]
    return Envelope(
        success=True,
        id=subject.id,
        type=_FIXED_TYPES[kind],
        name=subject.name,
        version=subject.version,
        release=changed_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        platform_id=PLATFORM_ID,
        package=ABOUT_DEFINITIONS[of_group],
        data=Data(event_receiver_groups=[subject]) if isinstance(subject, GroupObject) else Data(event_receivers=[subject]),
        **_place(row),
    )


def _place(row: Any) -> dict[str, Any]:
    """Where the message stands: the same for all kinds."""
    return {
        "message_id": row["message_id"],
        "time": rfc3339(row["sequenced_at"]),
        "position": row["position"],
        "seq": row["seq"],
    }


def _receiver(row: Any) -> ReceiverObject:
    return ReceiverObject(
        row["event_receiver_id"],
        row["r_name"],
        row["r_type"],
        row["r_version"],
        row["r_description"],
        msgspec.Raw(row["r_schema"].encode()),
        row["r_fingerprint"],
        rfc3339(row["r_created_at"]),
    )


def _group(row: Any) -> GroupObject:
    return GroupObject(
        row["event_receiver_group_id"],
        row["g_name"],
        row["g_type"],
        row["g_version"],
        row["g_description"],
        row["g_enabled"],
        row["g_event_receiver_ids"],
        rfc3339(row["g_created_at"]),
        rfc3339(row["g_updated_at"]),
    )
