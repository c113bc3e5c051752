"""`/api/v1/events`: parse, call, answer."""

from xzepr.auth.permissions import Permission
from xzepr.errors import NotFound, PayloadMismatch, ValidationTooCostly
from xzepr.events.model import Event, EventPage, NewEvent
from xzepr.events.record import record_event
from xzepr.events.search import get_event, search_events
from xzepr.house import House
from xzepr.ids import EventId
from xzepr.page import Created, Page
from xzepr.web.call import Answer, Call
from xzepr.web.routes import Route

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


async def post_event(call: Call[House]) -> Answer:
    body: NewEvent = call.body
    event_id = await record_event(call.house.recorder, call.principal, body, call.tree["payload"], call.traceparent, call.claim)
    return Answer(Created(event_id), headers={"Location": f"/api/v1/events/{event_id}"})


async def list_events(call: Call[House]) -> Answer:
    return Answer(await search_events(call.house.database, call.query))


async def show_event(call: Call[House]) -> Answer:
    return Answer(await get_event(call.house.database, EventId(call.path["id"])))


ROUTES = (
    Route(
        method="POST",
        path="/api/v1/events",
        handler=post_event,
        permission=Permission.EVENT_CREATE,
        body=NewEvent,
        answer=Created,
        status=201,
        tag="events",
        summary="Record an event",
        idempotent=True,
        description="Answered after the commit: the event is stored, and what follows from it is queued in the same transaction.",
        problems=(PayloadMismatch, ValidationTooCostly),
        example_body=_EXAMPLE,
        example_answer={"data": "01M88Q7AG504QSGMQWKDMNZ1V6"},
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
)
