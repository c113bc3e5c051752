"""The bytes that are sent, and what must come back."""

from typing import Final
from urllib.parse import urlencode

import msgspec

from benchmarks.fill import PACKAGE, PAYLOAD, PLATFORM_ID, RELEASE, Definitions, Stored
from benchmarks.load import NUMBER

NAMES: Final = 200
EVENTS_PER_ARTIFACT: Final = 5
BATCH_EVENTS: Final = 1_000
LIST_EVENTS: Final = 50


def _event(name: str, receiver_id: str, version: str) -> dict[str, object]:
    return {
        "name": name,
        "version": version,
        "release": RELEASE,
        "platform_id": PLATFORM_ID,
        "package": PACKAGE,
        "description": "unit tests of build 812",
        "payload": PAYLOAD,
        "success": True,
        "event_receiver_id": receiver_id,
    }


def _post(port: int, path: str, body: object, credential: str = "") -> bytes:
    """credential: a header line, without its end."""
    encoded = msgspec.json.encode(body)
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json", f"Content-Length: {len(encoded)}"]
    return "\r\n".join([*lines, *([credential] if credential else []), "", ""]).encode() + encoded


def _get(port: int, path: str, query: dict[str, str] | None = None) -> bytes:
    target = f"{path}?{urlencode(query)}" if query else path
    return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


_VERSION: Final = f"1.{NUMBER.decode()}"
CREATED: Final = b'{"data":"'


def posts(port: int, receiver_ids: list[str], credential: str = "") -> list[bytes]:
    """Single events, artifact by artifact: one of each receiver, or five when there is one receiver. Each round has new artifacts."""
    receivers = receiver_ids if len(receiver_ids) > 1 else receiver_ids * EVENTS_PER_ARTIFACT
    bodies = [_event(f"load-{name:04}", receiver_id, _VERSION) for name in range(NAMES) for receiver_id in receivers]
    return [_post(port, "/api/v1/events", body, credential) for body in bodies]


def post_numbered(port: int, receiver_id: str) -> list[bytes]:
    """One kind of event whose version alone tells them apart."""
    return [_post(port, "/api/v1/events", _event("load", receiver_id, _VERSION))]


def batch(port: int, receiver_id: str) -> list[bytes]:
    """BATCH_EVENTS events in one request, five an artifact."""
    events = [_event(f"batch-{number // EVENTS_PER_ARTIFACT:04}", receiver_id, _VERSION) for number in range(BATCH_EVENTS)]
    return [_post(port, "/api/v1/events/batch", events)]


def gets(port: int, events: list[Stored]) -> tuple[list[bytes], list[bytes]]:
    """By id, with the token of each answer."""
    return [_get(port, f"/api/v1/events/{event.id}") for event in events], [b'"id":"%s"' % event.id.encode() for event in events]


def lists(port: int, events: list[Stored]) -> list[bytes]:
    """Of 50: every second one by name."""
    plain = _get(port, "/api/v1/events", {"limit": str(LIST_EVENTS)})
    named = [_get(port, "/api/v1/events", {"limit": str(LIST_EVENTS), "name": event.nvrpp.name}) for event in events]
    return [request for by_name in named for request in (plain, by_name)]


def timelines(port: int, events: list[Stored]) -> list[bytes]:
    """Of their artifacts."""
    return [_get(port, "/api/v1/artifacts/timeline", event.nvrpp._asdict()) for event in events]


def statuses(port: int, events: list[Stored], definitions: Definitions) -> list[bytes]:
    """Of the group of three on their artifacts."""
    return [_get(port, f"/api/v1/groups/{definitions.group_id}/status", event.nvrpp._asdict()) for event in events]


# What each event of an answer holds once, and each gate.
EVENT_TOKEN: Final = b'"event_receiver_version":'
GATE_TOKEN: Final = b'"state":"'
