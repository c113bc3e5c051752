"""`/api/v1/receivers`: parse, call, answer."""

from xzepr import clock
from xzepr.auth.permissions import Permission
from xzepr.errors import Conflict, NotFound, PreconditionFailed
from xzepr.house import House
from xzepr.ids import EventReceiverId
from xzepr.page import Created, Page
from xzepr.preconditions import IfMatch
from xzepr.receivers.manage import change_receiver, create_receiver, delete_receiver, get_receiver, search_receivers
from xzepr.receivers.model import EventReceiver, EventReceiverChange, EventReceiverPage, NewEventReceiver
from xzepr.web.call import Answer, Call
from xzepr.web.routes import Route, Whose

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
    receiver_id = await create_receiver(call.house.database, call.house.checker, call.principal, call.body, clock.now(), call.claim)
    return Answer(Created(receiver_id), headers={"Location": f"/api/v1/receivers/{receiver_id}"})


async def list_receivers(call: Call[House]) -> Answer:
    return Answer(await search_receivers(call.house.database, call.query))


async def show_receiver(call: Call[House]) -> Answer:
    receiver = await get_receiver(call.house.database, EventReceiverId(call.path["id"]))
    return Answer(receiver, headers={"ETag": f'"{receiver.resource_version}"'})


async def put_receiver(call: Call[House]) -> Answer:
    house, receiver_id = call.house, EventReceiverId(call.path["id"])
    if_match = IfMatch.of(call.headers.get("if-match"))
    await change_receiver(house.database, house.checker, call.principal, receiver_id, call.body, if_match, clock.now())
    return Answer()


async def remove_receiver(call: Call[House]) -> Answer:
    if_match = IfMatch.of(call.headers.get("if-match"))
    await delete_receiver(call.house.database, call.principal, EventReceiverId(call.path["id"]), if_match, clock.now())
    return Answer()


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
        idempotent=True,
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
    Route(
        method="PUT",
        path="/api/v1/receivers/{id}",
        handler=put_receiver,
        permission=Permission.RECEIVER_UPDATE,
        whose=Whose.OWNER,
        path_params={"id": EventReceiverId},
        body=EventReceiverChange,
        status=204,
        tag="receivers",
        summary="Change an event receiver",
        description="For its owner and administrators. Makes a new version; what is posted after the answer meets it, in every process.",
        problems=(NotFound, PreconditionFailed),
        conditional=True,
        example_body={"description": "what the build runs, since November with the slow ones"},
    ),
    Route(
        method="DELETE",
        path="/api/v1/receivers/{id}",
        handler=remove_receiver,
        permission=Permission.RECEIVER_DELETE,
        path_params={"id": EventReceiverId},
        status=204,
        tag="receivers",
        summary="Delete an event receiver",
        description="Not while events or groups refer to it. It is marked, not removed.",
        problems=(NotFound, PreconditionFailed, Conflict),
        conditional=True,
    ),
)
