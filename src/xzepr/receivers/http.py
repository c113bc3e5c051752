"""`/api/v1/receivers`: parse, call, answer."""

from xzepr import clock
from xzepr.auth.permissions import Permission
from xzepr.errors import NotFound
from xzepr.house import House
from xzepr.ids import EventReceiverId
from xzepr.page import Created, Page
from xzepr.receivers.manage import create_receiver, get_receiver, search_receivers
from xzepr.receivers.model import EventReceiver, EventReceiverPage, NewEventReceiver
from xzepr.web.call import Answer, Call
from xzepr.web.routes import Route

_EXAMPLE = {
    "name": "unit tests",
    "type": "dev.cdevents.testsuiterun.finished",
    "version": "1.0.0",
    "description": "what the build runs",
    "schema": {
        "type": "object",
        "properties": {"passed": {"type": "integer", "minimum": 0}, "failed": {"type": "integer", "minimum": 0}},
        "required": ["passed", "failed"],
    },
}


async def post_receiver(call: Call[House]) -> Answer:
    receiver_id = await create_receiver(call.house.database, call.house.checker, call.principal, call.body, clock.now())
    return Answer(Created(receiver_id), headers={"Location": f"/api/v1/receivers/{receiver_id}"})


async def list_receivers(call: Call[House]) -> Answer:
    return Answer(await search_receivers(call.house.database, call.query))


async def show_receiver(call: Call[House]) -> Answer:
    receiver = await get_receiver(call.house.database, EventReceiverId(call.path["id"]))
    return Answer(receiver, headers={"ETag": f'"{receiver.resource_version}"'})


ROUTES = (
    Route(
        method="POST",
        path="/api/v1/receivers",
        handler=post_receiver,
        permission=Permission.RECEIVER_CREATE,
        body=NewEventReceiver,
        answer=Created,
        status=201,
        tag="receivers",
        summary="Create an event receiver",
        description="Its schema is checked here: what is not valid, refers outside, or would cost too much to check with, is refused.",
        example_body=_EXAMPLE,
        example_answer={"data": "01M88Q7AG504QSGMQWKDMNZ1V5"},
    ),
    Route(
        method="GET",
        path="/api/v1/receivers",
        handler=list_receivers,
        permission=Permission.RECEIVER_READ,
        query=EventReceiverPage,
        answer=Page[EventReceiver],
        tag="receivers",
        summary="List event receivers, newest first",
    ),
    Route(
        method="GET",
        path="/api/v1/receivers/{id}",
        handler=show_receiver,
        permission=Permission.RECEIVER_READ,
        path_params={"id": EventReceiverId},
        answer=EventReceiver,
        tag="receivers",
        summary="Get one event receiver",
        problems=(NotFound,),
    ),
)
