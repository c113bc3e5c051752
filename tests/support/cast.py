"""What tests post: receivers, groups, events with sensible fields, each overridable."""

from typing import Any

import httpx2

ARTIFACT_FIELDS = ("name", "version", "release", "platform_id", "package")


def event(receiver_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": "api",
        "version": "1.4.2",
        "release": "2026.11",
        "platform_id": "x86-64-oci-linux",
        "package": "oci",
        "description": "",
        "payload": {},
        "success": True,
        "event_receiver_id": receiver_id,
        **fields,
    }


def artifact_of(body: dict[str, Any]) -> dict[str, str]:
    return {field: body[field] for field in ARTIFACT_FIELDS}


def created(answer: httpx2.Response) -> str:
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"])


def make_receiver(http: httpx2.Client, **fields: Any) -> str:
    body = {"name": "unit tests", "type": "test.finished", "version": "1.0.0", "description": "", "schema": {}, **fields}
    return created(http.post("/api/v1/receivers", json=body))


def make_group(http: httpx2.Client, receiver_ids: list[str], **fields: Any) -> str:
    body = {"name": "release", "type": "release.approved", "version": "1.0.0", "event_receiver_ids": receiver_ids, **fields}
    return created(http.post("/api/v1/groups", json=body))


def post_event(http: httpx2.Client, receiver_id: str, **fields: Any) -> str:
    return created(http.post("/api/v1/events", json=event(receiver_id, **fields)))
