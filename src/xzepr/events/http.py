"""`/api/v1/events`: parse, call, answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from starlette.datastructures import Headers

from xzepr import clock
from xzepr.auth.permissions import Permission
from xzepr.errors import Conflict, Fault, InFlight, NotFound, PayloadMismatch, ValidationTooCostly, XzeprError
from xzepr.events.cloudevents import (
    BATCHED,
    STRUCTURED,
    CloudEvent,
    read_binary,
    read_structured,
    receiver_id_of,
    receivers_by_type,
    to_posted,
)
from xzepr.events.model import BatchQuery, Event, EventPage, NewEvent, Recorded
from xzepr.events.posted import (
    BATCH_EVENTS_MAX,
    Posted,
    faults_at,
    in_turns,
    posted_of,
    read_each,
    read_events,
    split_array,
    split_lines,
)
from xzepr.events.record import Result, record_event, record_events
from xzepr.events.redact import NewRedaction, redact_event
from xzepr.events.search import search_events
from xzepr.house import House
from xzepr.idempotency import find_answer
from xzepr.ids import EventId
from xzepr.json_text import FAULTS_MAX
from xzepr.page import Created, Page
from xzepr.web.call import Answer, Call
from xzepr.web.problems import Problem, problem_of
from xzepr.web.routes import Form, Route

_EXAMPLE = {
    "name": "api",
    "version": "1.4.2",
    "release": "2026.11",
    "platform_id": "x86-64-oci-linux",
    "package": "oci",
    "description": "unit tests of build 812",
    "payload": {"passed": 812, "failed": 0},
    "success": True,
    "event_receiver_id": "01M88Q7AG504QSGMQWKDMNZ1V5",
}
_CLOUD_EXAMPLE = {
    "specversion": "1.0",
    "id": "812",
    "source": "https://ci.example.com/jobs/unit-tests",
    "type": "dev.cdevents.testsuiterun.finished",
    "subject": "api/1.4.2/2026.11/x86-64-oci-linux/oci",
    "datacontenttype": "application/json",
    "data": {"passed": 812, "failed": 0},
}

# In the place of what a fault says, in an answer that is kept.
WORDS_NOT_KEPT = "was told in the first answer"


class BatchItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one event. status: 201 with its id, else that of the problem."""

    status: int
    id: EventId | msgspec.UnsetType = msgspec.UNSET
    problem: Problem | msgspec.UnsetType = msgspec.UNSET


class RecordedBatch(msgspec.Struct, frozen=True):
    """The ids, in order; with partial, for each event what became of it."""

    data: list[EventId | BatchItem]


async def post_event(call: Call[House]) -> Answer:
    """One event in whatever form, or a batch of CloudEvents."""
    body = call.body
    if isinstance(body, NewEvent):
        posted = posted_of(body, call.tree["payload"])
        event_id, _ = await record_event(call.house.recorder, call.principal, posted, call.traceparent, call.claim)
        return _recorded(event_id)
    if isinstance(body, CloudEvent):
        return await _post_cloudevent(call, body)
    return await _post_cloudevents(call, body)


async def post_batch(call: Call[House]) -> Answer:
    """An array, or an event a line."""
    is_partial: bool = call.query.partial
    instance = call.request.scope["path"]

    def answer(results: Sequence[Result], *, kept: bool = False) -> bytes:
        if not is_partial:
            return msgspec.json.encode(RecordedBatch([EventId(str(result)) for result in results]))
        return msgspec.json.encode(RecordedBatch(list(_items(results, instance, call.request_id, kept=kept))))

    split: Callable[[], list[bytes]] = call.body
    results = await record_events(
        call.house.recorder,
        call.principal,
        await read_events(split(), _event_max_bytes(call)),
        partial=is_partial,
        traceparent=call.traceparent,
        keyed=(call.claim, lambda results: answer(results, kept=True).decode()) if call.claim is not None else None,
    )
    return Answer(msgspec.Raw(answer(results)), 207 if is_partial else 201)


async def list_events(call: Call[House]) -> Answer:
    return Answer(await search_events(call.house.database, call.query))


async def show_event(call: Call[House]) -> Answer:
    return Answer(await call.house.reads.get(EventId(call.path["id"])))


async def post_redaction(call: Call[House]) -> Answer:
    return Answer(Created(await redact_event(call.house.database, call.principal, EventId(call.path["id"]), call.body, clock.now(), call.claim)))


async def _post_cloudevent(call: Call[House], event: CloudEvent) -> Answer:
    prefix = "/" if call.headers.get("content-type", "").startswith(STRUCTURED) else "ce-"
    posted = _to_posted(call, await receivers_by_type(call.house.database, [event]), prefix)(event)
    assert posted.own is not None
    # Before it is judged: a repetition gets the first answer also when its receiver has changed since.
    if (earlier := await find_answer(call.house.database, posted.own)) is not None:
        return _recorded(EventId(earlier.id), replayed=True)
    event_id, is_new = await record_event(call.house.recorder, call.principal, posted, call.traceparent)
    return _recorded(event_id, replayed=not is_new)


async def _post_cloudevents(call: Call[House], texts: list[bytes]) -> Answer:
    """All or nothing."""
    events = await read_each(texts, _event_max_bytes(call), read_structured)
    by_type = await receivers_by_type(call.house.database, [event for event in events if isinstance(event, CloudEvent)])
    batch = await in_turns(events, _to_posted(call, by_type, "/"))
    results = await record_events(call.house.recorder, call.principal, batch, traceparent=call.traceparent)
    return Answer(Recorded([EventId(str(result)) for result in results]))


def _to_posted(call: Call[House], by_type: Mapping[str, list[str]], prefix: str) -> Callable[[CloudEvent], Posted]:
    """What makes an event of ours of each CloudEvent of this request."""
    settings, claims_as, now = call.house.settings, call.principal.claims_as, clock.now()
    return lambda event: to_posted(event, receiver_id_of(event, by_type, prefix), settings, claims_as, now, prefix)


def _event_max_bytes(call: Call[House]) -> int:
    return call.house.settings.security.validation.max_body_size


def _recorded(event_id: EventId, *, replayed: bool = False) -> Answer:
    headers = {"Location": f"/api/v1/events/{event_id}"}
    return Answer(Recorded(event_id), headers={**headers, "Idempotency-Replayed": "true"} if replayed else headers)


def _items(results: Sequence[Result], instance: str, request_id: str, *, kept: bool) -> Iterator[BatchItem]:
    """In order; FAULTS_MAX faults in all, of the others their number. kept: for a repeated request, without the words, which quote payloads: no
    redaction would find there what was refused."""
    left = FAULTS_MAX
    for place, result in enumerate(results):
        if not isinstance(result, XzeprError):
            yield BatchItem(201, id=EventId(result))
            continue
        faults = faults_at(place, result)
        shown = [Fault(fault.pointer, WORDS_NOT_KEPT) for fault in faults[:left]] if kept else faults[:left]
        left -= len(shown)
        if unlisted := result.unlisted + len(faults) - len(shown):
            shown.append(Fault(f"/{place}", f"and {unlisted} more: {FAULTS_MAX} faults of a batch are told"))
        placed = type(result)(result.title() if kept else result.message, faults=tuple(shown))
        yield BatchItem(placed.status, problem=problem_of(placed, instance=instance, request_id=request_id))


async def _structured(body: bytes, _: Headers) -> CloudEvent:
    return read_structured(body)


async def _binary(body: bytes, headers: Headers) -> CloudEvent:
    media_type = headers.get("content-type")
    return read_binary(headers.items(), body, media_type)


async def _batched(body: bytes, _: Headers) -> list[bytes]:
    return split_array(body)


async def _json_batch(body: bytes, _: Headers) -> Callable[[], list[bytes]]:
    """Split by the handler: a key that was used is found before that."""
    return partial(split_array, body)


async def _ndjson_batch(body: bytes, _: Headers) -> Callable[[], list[bytes]]:
    return partial(split_lines, body)


_CLOUD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A CloudEvent 1.0; extension attributes as documented in docs/how_to/post_many_events.md.",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        **{name: {"type": "string", "minLength": 1} for name in ("id", "source", "type")},
        **{name: {"type": "string"} for name in ("subject", "time", "datacontenttype", "dataschema", "data_base64")},
        **{name: {"type": "string"} for name in ("xzreceiverid", "xzname", "xzversion", "xzrelease", "xzplatformid", "xzpackage", "xzdescription")},
        "xzsuccess": {"type": ["boolean", "string"]},
        "data": {},
    },
}

ROUTES = (
    Route(
        method="POST",
        path="/api/v1/events",
        handler=post_event,
        permission=Permission.EVENT_CREATE,
        body=NewEvent,
        forms=(
            Form(media_type=STRUCTURED, read=_structured, kind=_CLOUD_SCHEMA, example=_CLOUD_EXAMPLE),
            Form(
                media_type=BATCHED,
                read=_batched,
                kind={"type": "array", "minItems": 1, "items": _CLOUD_SCHEMA},
                example=[_CLOUD_EXAMPLE],
                large=True,
            ),
            Form(
                media_type="application/*+json",
                read=_binary,
                kind={"description": "The payload of a CloudEvent in binary mode, whose attributes are `ce-…` headers."},
                example=_CLOUD_EXAMPLE["data"],
                chosen_by=lambda headers: "ce-specversion" in headers,
            ),
        ),
        answer=Recorded,
        status=201,
        tag="events",
        summary="Record an event",
        idempotent=True,
        description=(
            "Answered after the commit: the event is stored, and what follows from it is queued in the same transaction. A CloudEvent, structured, "
            "binary or batched, brings its own key: the same source and id again gives the first answer, and Idempotency-Key is not looked at. "
            "Credentials that are limited to receivers share such keys with those that have the same limit alone."
        ),
        problems=(PayloadMismatch, ValidationTooCostly, Conflict, InFlight),
        example_body=_EXAMPLE,
        example_answer={"data": "01M88Q7AG504QSGMQWKDMNZ1V6"},
    ),
    Route(
        method="POST",
        path="/api/v1/events/batch",
        handler=post_batch,
        permission=Permission.EVENT_CREATE,
        query=BatchQuery,
        forms=(
            Form(
                media_type="application/json",
                read=_json_batch,
                kind=Annotated[list[NewEvent], msgspec.Meta(min_length=1, max_length=BATCH_EVENTS_MAX)],
                example=[_EXAMPLE],
                large=True,
            ),
            Form(
                media_type="application/x-ndjson",
                read=_ndjson_batch,
                kind={"type": "string", "description": "A JSON object a line, each as an item of the array."},
                example=None,
                large=True,
            ),
        ),
        answer=RecordedBatch,
        status=201,
        other_statuses=(207,),
        tag="events",
        summary="Record a batch of events",
        idempotent=True,
        has_location=False,
        description=(
            "Up to 10,000 events in one transaction, in their order. All or nothing, every fault told with the place of its event (`/25/name`); with "
            "`partial=true` 207, and for each event, in order, its id or its problem. 50 faults are listed in all, of the others their number. What "
            "is kept for an Idempotency-Key says of a refused event its status, its code and the places of its faults, without words that quote its "
            "payload."
        ),
        problems=(PayloadMismatch, ValidationTooCostly),
        example_answer={"data": ["01M88Q7AG504QSGMQWKDMNZ1V6"]},
    ),
    Route(
        method="GET",
        path="/api/v1/events",
        handler=list_events,
        permission=Permission.EVENT_READ,
        query=EventPage,
        answer=Page[Event],
        tag="events",
        summary="List events, newest first",
    ),
    Route(
        method="GET",
        path="/api/v1/events/{id}",
        handler=show_event,
        permission=Permission.EVENT_READ,
        path_params={"id": EventId},
        answer=Event,
        tag="events",
        summary="Get one event",
        problems=(NotFound,),
    ),
    Route(
        method="POST",
        path="/api/v1/events/{id}/redactions",
        handler=post_redaction,
        permission=Permission.EVENT_DELETE,
        path_params={"id": EventId},
        body=NewRedaction,
        answer=Created,
        status=201,
        tag="events",
        summary="Take the payload of an event away, for good",
        description=(
            "A tombstone takes the payload's place: `redacted` (true), `redaction_id`, `reason`, `redacted_at`; the description is emptied. The "
            "event stays, and so does every decision. The answer is the redaction's id. 409 when it was redacted already, or a legal hold keeps it."
        ),
        problems=(NotFound, Conflict),
        idempotent=True,
        has_location=False,
        example_body={"reason": "the log that was attached held a password"},
        example_answer={"data": "01M88Q7AG504QSGMQWKDMNZ1V9"},
    ),
)
