"""CloudEvents 1.0 over HTTP as events: structured, binary and batched mode, and how an event of another vocabulary comes to its five fields.

The five fields are taken from the extension attributes `xzname` …, else from `subject` in the form of our own messages (five fields
percent-encoded, joined by `/`), else by the first rule of the setting `cloudevents.subject_rules` whose `type` matches. The receiver is
`xzreceiverid`, else the only one whose type is the event's type. Success is `xzsuccess`, else what the rule says of the event's outcome, else true.
(source, id), scoped to the principal, is the idempotency key. Source: CloudEvents 1.0.2, HTTP protocol binding 1.0.2, contract `rest.md`.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import Fault, InvalidInput, MalformedBody, UnsupportedMediaType
from xzepr.events.model import NewEvent
from xzepr.events.posted import Posted
from xzepr.idempotency import Claim
from xzepr.inputs import faults_of
from xzepr.json_text import compact, parse_strict
from xzepr.nvrpp import FIELDS
from xzepr.settings import Settings
from xzepr.settings.model import SubjectRule
from xzepr.wildcard import matches

queries = Queries("xzepr.events")

STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"
# The idempotency keys of all CloudEvents, whichever mode they came in.
KEY_ROUTE: Final = "cloudevents"

_EXTENSIONS: Final = {"xzname": "name", "xzversion": "version", "xzrelease": "release", "xzplatformid": "platform_id", "xzpackage": "package"}
_REQUIRED: Final = ("id", "source", "type")
_ATTRIBUTE: Final = re.compile(r"[a-z0-9]+", re.ASCII)
_JSON_MEDIA: Final = re.compile(r"(application|text)/(json|[\w.+-]+\+json)", re.ASCII | re.IGNORECASE)
# They say how the event travelled, not what it says: a repetition may differ in them.
_TRAVEL: Final = frozenset({"traceparent", "tracestate"})
# A CDEvent's subject is a package URL, its outcome stands in its content. Source: CDEvents 0.4, "subject" and "outcome".
_CDEVENTS: Final = SubjectRule(type="dev.cdevents.*")
_PLACEHOLDER: Final = re.compile(r"\{([^{}|]*)(?:\|([^{}]*))?\}")


class CloudEvent(msgspec.Struct, frozen=True):
    """One that is well formed. attributes: context and extension attributes, all as text; data: the payload's JSON text as sent."""

    attributes: Mapping[str, str]
    data: bytes
    tree: Any

    @property
    def type(self) -> str:
        """Of the event, such as `dev.cdevents.artifact.packaged.0.2.0`."""
        return self.attributes["type"]

    @property
    def digest(self) -> bytes:
        """Equal for a repetition in whatever mode."""
        said = sorted((name, value) for name, value in self.attributes.items() if name not in _TRAVEL)
        return sha256(msgspec.json.encode([said, compact(self.data)])).digest()


def read_structured(body: bytes) -> CloudEvent:
    """From one JSON object. Raises MalformedBody, InvalidInput with every fault."""
    tree = parse_strict(body)
    if not isinstance(tree, dict):
        raise InvalidInput.at("", "must be an object")
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    faults: list[Fault] = []
    attributes = {}
    for name, value in tree.items():
        if name not in ("data", "data_base64") and value is not None:
            attributes[name] = _attribute_text(value, f"/{name}", faults)
    _require_attributes(attributes, "/", faults)
    if "data" in tree and "data_base64" in tree:
        faults.append(Fault("/data_base64", "goes without data"))
    if faults:
        raise InvalidInput.of_faults(faults)
    _require_json(attributes.get("datacontenttype"), "/datacontenttype")
    if "data_base64" in tree:
        return _with_data(attributes, _from_base64(tree["data_base64"]), "/data_base64")
    return CloudEvent(attributes, bytes(members.get("data", msgspec.Raw(b"null"))), tree.get("data"))


def read_binary(headers: Sequence[tuple[str, str]], body: bytes, media_type: str | None) -> CloudEvent:
    """From `ce-…` headers, whose values are percent-encoded, and a JSON body. headers: names in lower case. Raises as read_structured()."""
    _require_json(media_type, "Content-Type")
    faults: list[Fault] = []
    attributes: dict[str, str] = {}
    for name, value in headers:
        if not name.startswith("ce-"):
            continue
        if name[3:] in attributes:
            faults.append(Fault(name, "stands there twice"))
        try:
            attributes[name[3:]] = unquote(value.strip().strip('"'), errors="strict")
        except UnicodeDecodeError:
            faults.append(Fault(name, "is not UTF-8, percent-encoded"))
    _require_attributes(attributes, "ce-", faults)
    if faults:
        raise InvalidInput.of_faults(faults)
    return _with_data(attributes, body, "")


async def receivers_by_type(database: Database, events: Iterable[CloudEvent]) -> dict[str, list[str]]:
    """Of the events that name no receiver: type to the ids of receivers that have it, two at most. One statement for all of them."""
    types = {event.type for event in events if "xzreceiverid" not in event.attributes}
    found: dict[str, list[str]] = {}
    if types:
        async with database.connection() as connection:
            for row in await connection.fetch(queries["receivers_of_types"], list(types)):
                found.setdefault(row["type"], []).append(row["id"])
    return found


def receiver_id_of(event: CloudEvent, by_type: Mapping[str, list[str]], prefix: str) -> str:
    """The receiver that the event names, else the only one whose type is the event's. Raises InvalidInput when there is none, or several."""
    named = event.attributes.get("xzreceiverid")
    if named is not None:
        return named
    found = by_type.get(event.type, [])
    if len(found) == 1:
        return found[0]
    why = (
        f"no event receiver has the type {event.type!r}"
        if not found
        else f"several event receivers have the type {event.type!r}: say which by xzreceiverid"
    )
    raise InvalidInput.at(f"{prefix}type", why)


def to_posted(event: CloudEvent, receiver_id: str, settings: Settings, claims_as: str, now: datetime, prefix: str) -> Posted:
    """As an event of ours, to this receiver. claims_as: of the principal; prefix: `/` or `ce-`, before an attribute's name where a fault is told.

    Raises InvalidInput.
    """
    attributes = event.attributes
    rules = [*settings.cloudevents.subject_rules, _CDEVENTS]
    rule = next((rule for rule in rules if matches(rule.type, event.type)), None)
    fields, places = _fields(event, rule, prefix)
    wanted = {
        **fields,
        "description": attributes.get("xzdescription", ""),
        "success": _success(event, rule, prefix),
        "event_receiver_id": receiver_id,
        "payload": event.tree,
    }
    faults = [Fault(_place(fault.pointer, places, prefix), fault.message) for fault in faults_of(wanted, NewEvent, "")]
    if faults:
        raise InvalidInput.of_faults(faults)
    new = NewEvent(**{**wanted, "payload": msgspec.Raw(event.data)})
    key = sha256(f"{len(attributes['source'])}:{attributes['source']}{attributes['id']}".encode()).hexdigest()
    claim = Claim(claims_as, KEY_ROUTE, key, event.digest, now, settings.server.request_timeout_seconds, lasting=True)
    return Posted(new, event.tree, compact(event.data), claim)


def _fields(event: CloudEvent, rule: SubjectRule | None, prefix: str) -> tuple[dict[str, str], dict[str, str]]:
    """The five fields, and the attribute that each comes from. Raises InvalidInput naming what is missing."""
    attributes = event.attributes
    given = {field: attributes[name] for name, field in _EXTENSIONS.items() if name in attributes}
    places = {field: name for name, field in _EXTENSIONS.items()}
    subject = attributes.get("subject")
    parts = _as_ours(subject)
    for number, field in enumerate(FIELDS):
        if field in given:
            continue
        places[field] = "subject"
        if parts is not None:
            given[field] = parts[number]
        elif rule is not None:
            given[field] = _filled(getattr(rule, field), event, field, prefix)
        else:
            known = "name/version/release/platform_id/package, each percent-encoded"
            raise InvalidInput.at(
                f"{prefix}subject",
                f"must be {known}, or the event brings {', '.join(_EXTENSIONS)}, or cloudevents.subject_rules has a rule for its type",
            )
    return given, places


def _as_ours(subject: str | None) -> list[str] | None:
    """The five fields of a subject in the form of our own messages. A package URL has five parts now and then, too, and is none."""
    if subject is None or subject.count("/") != len(FIELDS) - 1 or subject.startswith("pkg:"):
        return None
    return [unquote(part) for part in subject.split("/")]


def _success(event: CloudEvent, rule: SubjectRule | None, prefix: str) -> bool:
    text = event.attributes.get("xzsuccess")
    if text is not None:
        if text not in ("true", "false"):
            raise InvalidInput.at(f"{prefix}xzsuccess", "must be true or false")
        return text == "true"
    if rule is None or not rule.outcome:
        return True
    return str(_looked_up(event, rule.outcome)) not in rule.failed_outcomes


def _filled(template: str, event: CloudEvent, field: str, prefix: str) -> str:
    def value(match: re.Match[str]) -> str:
        found = _looked_up(event, match[1])
        if isinstance(found, str | int | float) and found != "":
            return str(found)
        if match[2] is not None:
            return match[2]
        raise InvalidInput.at(
            f"{prefix}subject", f"has no {match[1]}, which cloudevents.subject_rules takes for {field}; or send xz{field.replace('_', '')}"
        )

    return _PLACEHOLDER.sub(value, template)


def _looked_up(event: CloudEvent, path: str) -> Any:
    """`subject`, any attribute, `purl.…` of a package URL, `data.…` of the payload; None when it is not there."""
    root, _, rest = path.partition(".")
    if root == "purl":
        return package_url(event.attributes.get("subject", "")).get(rest)
    if root != "data":
        return event.attributes.get(path)
    value = event.tree
    for part in rest.split(".") if rest else []:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def package_url(text: str) -> dict[str, str]:
    """Its parts: type, namespace, name (with the namespace before it), version, qualifiers.KEY. Empty when it is none. Source: purl-spec."""
    rest, _, _ = text.partition("#")
    rest, _, query = rest.partition("?")
    scheme, colon, rest = rest.partition(":")
    if scheme != "pkg" or not colon:
        return {}
    path, at, version = rest.strip("/").rpartition("@")
    kind, slash, name = (path if at else version).partition("/")
    if not slash or not name:
        return {}
    parts = {"type": kind, "name": unquote(name), "namespace": unquote(name.rpartition("/")[0])}
    if at:
        parts["version"] = unquote(version)
    for pair in filter(None, query.split("&")):
        key, _, value = pair.partition("=")
        parts[f"qualifiers.{key}"] = unquote(value)
    return parts


def _place(pointer: str, places: Mapping[str, str], prefix: str) -> str:
    """Where the caller wrote what the fault is about."""
    field, _, rest = pointer.removeprefix("/").partition("/")
    if field == "payload":
        return f"/data/{rest}" if rest else "/data"
    names = {**places, "description": "xzdescription", "success": "xzsuccess", "event_receiver_id": "xzreceiverid"}
    return prefix + names.get(field, field)


def _attribute_text(value: Any, place: str, faults: list[Fault]) -> str:
    """Strings, integers and booleans are attributes; anything else is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    faults.append(Fault(place, "must be a string, an integer or a boolean"))
    return ""


def _require_attributes(attributes: Mapping[str, str], prefix: str, faults: list[Fault]) -> None:
    told = {fault.pointer for fault in faults}
    if attributes.get("specversion") != "1.0":
        faults.append(Fault(f"{prefix}specversion", "must be 1.0" if "specversion" in attributes else "is missing"))
    for name in _REQUIRED:
        if not attributes.get(name, "").strip() and f"{prefix}{name}" not in told:
            faults.append(Fault(f"{prefix}{name}", "must not be blank" if name in attributes else "is missing"))  # noqa: PERF401 - clearer so
    faults += [
        Fault(f"{prefix}{name}"[:100], "is no attribute: lower-case letters and digits") for name in attributes if not _ATTRIBUTE.fullmatch(name)
    ]
    faults += [Fault(f"{prefix}{name}", "holds NUL") for name, value in attributes.items() if "\0" in value]


def _require_json(media_type: str | None, place: str) -> None:
    if media_type is not None and not _JSON_MEDIA.fullmatch(media_type.partition(";")[0].strip()):
        raise UnsupportedMediaType(f"{place}: data must be JSON here, not {media_type[:100]}")


def _from_base64(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InvalidInput.at("/data_base64", "is not base64") from None


def _with_data(attributes: Mapping[str, str], data: bytes, place: str) -> CloudEvent:
    if not data.strip():
        return CloudEvent(attributes, b"null", None)
    try:
        return CloudEvent(attributes, data, parse_strict(data))
    except MalformedBody as error:
        raise MalformedBody(error.message, faults=tuple(Fault(f"{place}{fault.pointer}", fault.message) for fault in error.faults)) from None
