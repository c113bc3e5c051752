"""What a body asks to be recorded: one event or many, each checked for its form, none yet against its receiver.

A batch is read event by event, with a pause for the others after every few: sixteen megabytes take a third of a second. Faults of a batch are told
with the place of the event first: `/25/name`. Source: contract `rest.md`, "Events".
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from xzepr.errors import BodyTooLarge, Fault, InvalidInput, MalformedBody, PermissionDenied, XzeprError
from xzepr.events.model import NewEvent
from xzepr.idempotency import Claim
from xzepr.inputs import decode_body
from xzepr.json_text import FAULTS_MAX, compact, plain_texts, read_strict

BATCH_EVENTS_MAX: Final = 10_000
# So many are read or checked before others get their turn: a millisecond or two.
EVENTS_AT_ONCE: Final = 50

Item = TypeVar("Item")
Made = TypeVar("Made")

_decode: Final = msgspec.json.Decoder(NewEvent).decode
_decode_all: Final = msgspec.json.Decoder(list[NewEvent]).decode
_NO_ITEM: Final = msgspec.Raw()
# A line that is not empty, from its first character that is no white space.
_LINE: Final = re.compile(rb"\S[^\n]*")
_LINE_SPACE: Final = b" \t\r"


class Posted(msgspec.Struct, frozen=True):
    """One event. payload: the decoded tree of event.payload; payload_text: its compact text. own: the key that it brings itself."""

    event: NewEvent
    payload: Any
    payload_text: str
    own: Claim | None = None


# Of a batch, each event or what is wrong with it.
Batch = list[Posted | XzeprError]


def posted_of(event: NewEvent, payload: Any) -> Posted:
    """payload: the decoded tree of event.payload."""
    return Posted(event, payload, compact(bytes(event.payload)))


def read_plainly(body: bytes) -> Posted:
    """A JSON object, by the straight way. Raises MalformedBody, or msgspec.DecodeError, which does not tell all that is wrong."""
    text, tree = read_strict(body)
    return _compact_posted(_decode(text), tree)


def read_event(body: bytes) -> Posted:
    """A JSON object. Raises MalformedBody, InvalidInput with all faults."""
    try:
        return read_plainly(body)
    except msgspec.DecodeError:
        event, tree = decode_body(body, NewEvent)
        return posted_of(event, tree["payload"])


def _read_together(texts: list[bytes]) -> list[Posted] | None:
    """As read_event() reads each, in half the time; None when something is wrong with one of them, or may be."""
    found = plain_texts(texts)
    if found is None:
        return None
    array, trees = found
    try:
        events = _decode_all(array)
    except msgspec.DecodeError:
        return None
    return [_compact_posted(event, tree) for event, tree in zip(events, trees, strict=True)]


def _compact_posted(event: NewEvent, tree: Any) -> Posted:
    """Of a compact text, in which the payload is compact as well."""
    return Posted(event, tree["payload"], bytes(event.payload).decode())


def split_array(body: bytes) -> list[bytes]:
    """The texts of a JSON array's items, not yet looked into. Raises MalformedBody, InvalidInput, BodyTooLarge before there are too many."""
    if not body.strip():
        raise MalformedBody("the body is empty; it must be a JSON array", faults=(Fault("", "is empty; must be a JSON array"),))
    try:
        if body.count(b",") < BATCH_EVENTS_MAX:
            return [bytes(item) for item in msgspec.json.decode(body, type=list[msgspec.Raw])]
        items = msgspec.structs.astuple(_bounded_decoder().decode(body))
        return [bytes(item) for item in items if item is not _NO_ITEM]
    except msgspec.ValidationError:
        raise _too_many() if body.lstrip().startswith(b"[") else _no_array(body) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise _no_json(error) from None


@cache
def _bounded_decoder() -> msgspec.json.Decoder[Any]:
    """Of an array that it refuses at the first item too many. A list's length is looked at when the list is made, and sixteen megabytes hold eight
    million items. Made once, and only where it is needed: that takes longer than splitting a batch."""
    fields = [(f"item_{place}", msgspec.Raw, _NO_ITEM) for place in range(BATCH_EVENTS_MAX)]
    return msgspec.json.Decoder(msgspec.defstruct("Items", fields, array_like=True, forbid_unknown_fields=True))


def _no_array(body: bytes) -> XzeprError:
    """What is wrong with a body that does not begin as an array; what is in it is passed over."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError) as error:
        return _no_json(error)
    return InvalidInput.at("", "must be an array")


def _no_json(error: Exception) -> MalformedBody:
    return MalformedBody(f"the body is not JSON: {error}", faults=(Fault("", f"is not JSON: {error}"),))


def _too_many() -> BodyTooLarge:
    return BodyTooLarge(f"a batch has at most {BATCH_EVENTS_MAX} events")


def split_lines(body: bytes) -> list[bytes]:
    """The texts of NDJSON, a line each, not yet looked into; empty lines are passed over. Raises BodyTooLarge before there are too many."""
    if body.count(b"\n") < BATCH_EVENTS_MAX:
        return [line for each in body.split(b"\n") if (line := each.strip(_LINE_SPACE))]
    lines: list[bytes] = []
    for match in _LINE.finditer(body):
        if len(lines) == BATCH_EVENTS_MAX:
            raise _too_many()
        lines.append(body[body.rfind(b"\n", 0, match.start()) + 1 : match.end()].strip(_LINE_SPACE))
    return lines


async def read_events(texts: list[bytes], event_max_bytes: int) -> Batch:
    """As read_each() with read_event(); in one pass each few that nothing is wrong with."""
    _require_some(texts)
    batch: Batch = []
    for begin in range(0, len(texts), EVENTS_AT_ONCE):
        few = texts[begin : begin + EVENTS_AT_ONCE]
        together = _read_together(few) if max(map(len, few)) <= event_max_bytes else None
        if together is not None:
            batch += together
            await asyncio.sleep(0)
        else:
            batch += await read_each(few, event_max_bytes, read_event)
    return batch


async def read_each(texts: list[bytes], event_max_bytes: int, read: Callable[[bytes], Item]) -> list[Item | XzeprError]:
    """Each text of a batch as `read` reads it, or what is wrong with it. Raises InvalidInput for none."""
    _require_some(texts)

    def read_sized(text: bytes) -> Item:
        if len(text) > event_max_bytes:
            message = f"an event has at most {event_max_bytes} bytes here (security.validation.max_body_size)"
            raise BodyTooLarge(message, faults=(Fault("", message),))
        return read(text)

    return await in_turns(texts, read_sized)


def _require_some(texts: list[bytes]) -> None:
    if not texts:
        raise InvalidInput.at("", "must hold at least one event")


async def in_turns(items: Sequence[Item | XzeprError], do: Callable[[Item], Made]) -> list[Made | XzeprError]:
    """What `do` makes of each, or the error that it raises, FAULTS_MAX faults in all; others get their turn after every few. An error among the items
    stays."""
    made: list[Made | XzeprError] = []
    told = 0
    for place, item in enumerate(items):
        if place % EVENTS_AT_ONCE == EVENTS_AT_ONCE - 1:
            await asyncio.sleep(0)
        try:
            made.append(item if isinstance(item, XzeprError) else do(item))
        except XzeprError as error:
            refused = shortened(error, FAULTS_MAX - told)
            told += len(refused.faults)
            made.append(refused)
    return made


def shortened(error: XzeprError, faults_max: int) -> XzeprError:
    """The same with no more faults than that, the others counted, and without what raised it: a traceback holds on to the event and its tree."""
    shown = error.faults[: max(faults_max, 0)]
    return type(error)(error.message, faults=shown, unlisted=error.unlisted + len(error.faults) - len(shown), extra=error.extra)


def refusal_of(refused: dict[int, XzeprError]) -> XzeprError:
    """All that is wrong with a batch, as one error: of the kind that comes first in the order of checks. refused: by place."""
    kinds = sorted({type(error) for error in refused.values()}, key=_rank)
    faults = [fault for place, error in sorted(refused.items()) for fault in faults_at(place, error)]
    others = len(faults) - 1 + sum(error.unlisted for error in refused.values())
    more = f" (and {others} more)" if others else ""
    return kinds[0](f"{faults[0].pointer}: {faults[0].message}{more}", faults=tuple(faults[:FAULTS_MAX]))


def _rank(kind: type[XzeprError]) -> tuple[int, int]:
    """Malformed before invalid, form before permission, permission before schema; of one class the most general first."""
    order = (MalformedBody, BodyTooLarge, InvalidInput, PermissionDenied)
    return next((place for place, known in enumerate(order) if issubclass(kind, known)), len(order)), len(kind.__mro__)


def faults_at(place: int, error: XzeprError) -> list[Fault]:
    """What is wrong with one event, with its place in the batch: pointers start at the root of the body."""
    faults = error.faults if error.faults or error.unlisted else (Fault("", error.message),)
    return [Fault(f"/{place}{fault.pointer}", fault.message) for fault in faults]
