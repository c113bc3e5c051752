"""What a body asks to be recorded: one event or many, each checked for its form, none yet against its receiver.

A batch is read event by event, with a pause for the others after every few: sixteen megabytes take a third of a second. Faults of a batch are told
with the place of the event first: `/25/name`. Source: contract `rest.md`, "Events".
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from xzepr.errors import BodyTooLarge, Fault, InvalidInput, MalformedBody, PermissionDenied, XzeprError
from xzepr.events.model import NewEvent
from xzepr.idempotency import Claim
from xzepr.inputs import decode_body
from xzepr.json_text import FAULTS_MAX, compact, parse_strict, plain_text, plain_texts

BATCH_EVENTS_MAX: Final = 10_000
# So many are read or checked before others get their turn: a millisecond or two.
EVENTS_AT_ONCE: Final = 50

Item = TypeVar("Item")
Made = TypeVar("Made")

_decode: Final = msgspec.json.Decoder(NewEvent).decode
_decode_all: Final = msgspec.json.Decoder(list[NewEvent]).decode


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
    if (plain := plain_text(body)) is not None:
        text, tree = plain
        event = _decode(text)
        return Posted(event, tree["payload"], bytes(event.payload).decode())
    tree, event = parse_strict(body), _decode(body)
    return posted_of(event, tree["payload"])


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
    # The array is compact, so each payload is.
    return [Posted(event, tree["payload"], bytes(event.payload).decode()) for event, tree in zip(events, trees, strict=True)]


def split_array(body: bytes) -> list[bytes]:
    """The texts of a JSON array's items, not yet looked into. Raises MalformedBody, InvalidInput."""
    if not body.strip():
        raise MalformedBody("the body is empty; it must be a JSON array", faults=(Fault("", "is empty; must be a JSON array"),))
    try:
        return [bytes(item) for item in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except msgspec.ValidationError:
        parse_strict(body)
        raise InvalidInput.at("", "must be an array") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedBody(f"the body is not JSON: {error}", faults=(Fault("", f"is not JSON: {error}"),)) from None


def split_lines(body: bytes) -> list[bytes]:
    """The texts of NDJSON, a line each, not yet looked into; empty lines are passed over."""
    return [line for each in body.split(b"\n") if (line := each.strip(b" \t\r"))]


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
    """Each text of a batch as `read` reads it, or what is wrong with it. Raises InvalidInput for none, BodyTooLarge for too many."""
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
    if len(texts) > BATCH_EVENTS_MAX:
        raise BodyTooLarge(f"a batch has at most {BATCH_EVENTS_MAX} events, not {len(texts)}")


async def in_turns(items: Sequence[Item | XzeprError], do: Callable[[Item], Made]) -> list[Made | XzeprError]:
    """What `do` makes of each, or the error that it raises; others get their turn after every few. An error among the items stays."""
    made: list[Made | XzeprError] = []
    for place, item in enumerate(items):
        if place % EVENTS_AT_ONCE == EVENTS_AT_ONCE - 1:
            await asyncio.sleep(0)
        try:
            made.append(item if isinstance(item, XzeprError) else do(item))
        except XzeprError as error:
            made.append(error)
    return made


def refusal_of(refused: dict[int, XzeprError]) -> XzeprError:
    """All that is wrong with a batch, as one error: of the kind that comes first in the order of checks. refused: by place."""
    kinds = sorted({type(error) for error in refused.values()}, key=_rank)
    faults = [fault for place, error in sorted(refused.items()) for fault in faults_at(place, error)]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return kinds[0](f"{faults[0].pointer}: {faults[0].message}{more}", faults=tuple(faults[:FAULTS_MAX]))


def _rank(kind: type[XzeprError]) -> tuple[int, int]:
    """Malformed before invalid, form before permission, permission before schema; of one class the most general first."""
    order = (MalformedBody, BodyTooLarge, InvalidInput, PermissionDenied)
    return next((place for place, known in enumerate(order) if issubclass(kind, known)), len(order)), len(kind.__mro__)


def faults_at(place: int, error: XzeprError) -> list[Fault]:
    """What is wrong with one event, with its place in the batch: pointers start at the root of the body."""
    faults = error.faults or (Fault("", error.message),)
    return [Fault(f"/{place}{fault.pointer}", fault.message) for fault in faults]
