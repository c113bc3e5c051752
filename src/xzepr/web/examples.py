"""An example for every answer and body that brings none of its own: made from its type, so a new field or route has one at once.

Field names are fixed by the contract, and mean the same wherever they stand: the sample of a name is given here once. A text without a
sample shows up as UNNAMED; a test finds it.
"""

from typing import Any, Final

import msgspec
from msgspec import inspect

UNNAMED: Final = "…"

_ID: Final = "01M88Q7AG504QSGMQWKDMNZ1V5"
_TIME: Final = "2026-11-25T06:00:00.123000Z"

# By field, or by type and field where a name means something else there.
_SAMPLES: Final[dict[str | tuple[str, str], Any]] = {
    "name": "api",
    "version": "1.4.2",
    "release": "2026.11",
    "platform_id": "x86-64-oci-linux",
    "package": "oci",
    "type": "dev.cdevents.testsuiterun.finished",
    "description": "unit tests of build 812",
    "payload": {"passed": 812, "failed": 0},
    "success": True,
    "schema": {"type": "object", "required": ["passed", "failed"]},
    "fingerprint": "c4a1f1f4f2d7a7d9c7a9a4a35b1d5ad0f3f5d0a3b6f5bb1e6f6b3b5f2b0e6a11",
    "id": _ID,
    "event_id": _ID,
    "event_receiver_id": _ID,
    "event_receiver_ids": [_ID],
    "message_id": _ID,
    "last_event_id": _ID,
    "owner_id": None,
    "user_id": _ID,
    "username": "charlie",
    "added_at": _TIME,
    "added_by": None,
    "reason": "the log that was attached held a password",
    "decided_by": None,
    "created_at": _TIME,
    "updated_at": _TIME,
    "decided_at": _TIME,
    "last_event_at": _TIME,
    "time": _TIME,
    "seq": 4711,
    "position": 4712,
    "oldest": 1,
    "newest": 4712,
    "pending": 0,
    "resource_version": 1,
    "event_receiver_version": 1,
    "event_receiver_name": "unit tests",
    "event_receiver_type": "dev.cdevents.testsuiterun.finished",
    "limit": 50,
    "next": None,
    "has_more": False,
    "missing": [],
    "summary": "release may act on api 1.4.2: its gates are open.",
    "first": True,
    "specversion": "1.0",
    "source": "xzepr",
    "api_version": "v1",
    "api_versions": ["v1"],
    "dialect": "xzepr",
    "href": "/docs",
    "at": _TIME,
    "how": "browser",
    "act": "group.disable",
    "object_id": _ID,
    "address": "192.0.2.7",
    "request_id": _ID,
    "details": {"resource_version": 4},
    ("Actor", "id"): _ID,
    ("Actor", "name"): "alice",
    "title": "API pages",
    "email": "alice@example.com",
    "roles": ["event_manager"],
    "permissions": ["event:read", "event:create"],
    "scopes": ["event:create"],
    "issuer": None,
    "csrf_token": "nM2kq3cKp0m8cJw0W8d5dYh3uV0mQ1e9sT7rX4yZ6aE",
    "key": "xzepr_6Jjw2mBiA5b1NfcAuhlNuWekA1nO3akkQ5RWaSHwoWw",
    "last_used_at": None,
    "last_login_at": _TIME,
    "outcome": "success",
    "revoked_at": None,
    "access_token": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIwMU04In0.c2ln",
    "refresh_token": "lqzOTbRYtV1yQ5dZFsUEvC0aWg2JmT8KpXh7nBi4oM0",
    "token": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIwMU04In0.c2ln",
    "expires_in": 900,
    "expires_at": _TIME,
    ("Created", "data"): _ID,
    ("Home", "service"): "xzepr",
    ("Data", "event_receivers"): None,
    ("Data", "event_receiver_groups"): None,
    ("EventReceiver", "name"): "unit tests",
    ("EventReceiver", "version"): "1.0.0",
    ("EventReceiver", "description"): "what the build runs",
    ("EventReceiverChange", "name"): "unit tests",
    ("EventReceiverChange", "version"): "1.1.0",
    ("EventReceiverChange", "description"): "what the build runs",
    ("EventReceiverGroup", "name"): "release",
    ("EventReceiverGroup", "type"): "com.example.release.approved",
    ("EventReceiverGroup", "version"): "1.0.0",
    ("EventReceiverGroup", "description"): "what must be true before anything is released",
    ("EventReceiverGroupChange", "name"): "release",
    ("EventReceiverGroupChange", "type"): "com.example.release.approved",
    ("EventReceiverGroupChange", "version"): "1.1.0",
    ("EventReceiverGroupChange", "description"): "what must be true before anything is released",
    ("GroupRef", "name"): "release",
    ("GroupRef", "type"): "com.example.release.approved",
    ("ReceiverRef", "name"): "unit tests",
    ("ReceiverObject", "name"): "unit tests",
    ("ReceiverObject", "version"): "1.0.0",
    ("ReceiverObject", "description"): "what the build runs",
}


def example_of(kind: Any) -> Any:
    """A JSON value of this type, None where the type is no object: text and documents speak for themselves. kind: as a route declares it."""
    described = inspect.type_info(kind)
    return _struct(described) if isinstance(described, inspect.StructType) else None


def _struct(kind: inspect.StructType) -> dict[str, Any]:
    shown = {}
    for field in kind.fields:
        by_type = (kind.cls.__name__, field.name)
        key: str | tuple[str, str] = by_type if by_type in _SAMPLES else field.name
        if key not in _SAMPLES and _is_sometimes_there(field):
            continue
        shown[field.encode_name] = _SAMPLES[key] if key in _SAMPLES else _value(field.type)
    return shown


def _is_sometimes_there(field: inspect.Field) -> bool:
    """Whether its default is UNSET, which this view of a type does not show as one."""
    return not field.required and field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT


def _value(kind: inspect.Type) -> Any:
    """The first thing that the type takes."""
    match kind:
        case inspect.Metadata():
            return _value(kind.type)
        case inspect.UnionType():
            return _value(next(each for each in kind.types if not isinstance(each, inspect.NoneType)))
        case inspect.StructType():
            return _struct(kind)
        case inspect.ListType():
            return [_value(kind.item_type)]
        case inspect.LiteralType():
            return kind.values[0]
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return kind.ge or 0
    return UNNAMED
