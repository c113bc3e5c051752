"""`/api/v1/groups`: parse, call, answer."""

from xzepr import clock
from xzepr.auth.permissions import Permission
from xzepr.errors import NotFound
from xzepr.groups.manage import create_group, get_group, get_status, search_groups, set_enabled
from xzepr.groups.model import (
    Artifact,
    EventReceiverGroup,
    EventReceiverGroupPage,
    GroupEnabled,
    GroupStatus,
    NewEventReceiverGroup,
)
from xzepr.house import House
from xzepr.ids import EventReceiverGroupId
from xzepr.page import Created, Page
from xzepr.web.call import Answer, Call
from xzepr.web.routes import Route

_EXAMPLE = {
    "name": "release",
    "type": "com.example.release.approved",
    "version": "1.0.0",
    "description": "what must be true before anything is released",
    "enabled": True,
    "event_receiver_ids": ["01M88Q7AG504QSGMQWKDMNZ1V5"],
}


def _id(call: Call[House]) -> EventReceiverGroupId:
    return EventReceiverGroupId(call.path["id"])


def _shown(group: EventReceiverGroup) -> Answer:
    return Answer(group, headers={"ETag": f'"{group.resource_version}"'})


async def post_group(call: Call[House]) -> Answer:
    group_id = await create_group(call.house.database, call.principal, call.body, clock.now())
    return Answer(Created(group_id), headers={"Location": f"/api/v1/groups/{group_id}"})


async def list_groups(call: Call[House]) -> Answer:
    return Answer(await search_groups(call.house.database, call.query))


async def show_group(call: Call[House]) -> Answer:
    return _shown(await get_group(call.house.database, _id(call)))


async def patch_group(call: Call[House]) -> Answer:
    body: GroupEnabled = call.body
    return _shown(await set_enabled(call.house.database, call.principal, _id(call), body.enabled, clock.now()))


async def show_status(call: Call[House]) -> Answer:
    artifact: Artifact = call.query
    return Answer(await get_status(call.house.database, _id(call), artifact.nvrpp))


ROUTES = (
    Route(
        method="POST",
        path="/api/v1/groups",
        handler=post_group,
        permission=Permission.GROUP_CREATE,
        body=NewEventReceiverGroup,
        answer=Created,
        status=201,
        tag="groups",
        summary="Create an event receiver group",
        description="Decides nothing by itself: earlier events count from the next member event on, and its status shows them at once.",
        example_body=_EXAMPLE,
        example_answer={"data": "01M88Q7AG504QSGMQWKDMNZ1V7"},
    ),
    Route(
        method="GET",
        path="/api/v1/groups",
        handler=list_groups,
        permission=Permission.GROUP_READ,
        query=EventReceiverGroupPage,
        answer=Page[EventReceiverGroup],
        tag="groups",
        summary="List event receiver groups, newest first",
    ),
    Route(
        method="GET",
        path="/api/v1/groups/{id}",
        handler=show_group,
        permission=Permission.GROUP_READ,
        path_params={"id": EventReceiverGroupId},
        answer=EventReceiverGroup,
        tag="groups",
        summary="Get one event receiver group",
        problems=(NotFound,),
    ),
    Route(
        method="PATCH",
        path="/api/v1/groups/{id}",
        handler=patch_group,
        permission=Permission.GROUP_UPDATE,
        path_params={"id": EventReceiverGroupId},
        body=GroupEnabled,
        answer=EventReceiverGroup,
        tag="groups",
        summary="Enable or disable a group",
        description="For its owner and administrators.",
        problems=(NotFound,),
        example_body={"enabled": False},
    ),
    Route(
        method="GET",
        path="/api/v1/groups/{id}/status",
        handler=show_status,
        permission=(Permission.GROUP_READ, Permission.EVENT_READ),
        path_params={"id": EventReceiverGroupId},
        query=Artifact,
        answer=GroupStatus,
        tag="groups",
        summary="May this artifact move on, and if not, why not?",
        description="Right at the moment of the 201: events that are stored and not yet sequenced count.",
        problems=(NotFound,),
    ),
)
