"""`/api/v1/groups`: parse, call, answer."""

from xzepr import clock
from xzepr.auth.permissions import Permission
from xzepr.errors import Conflict, NotFound, PreconditionFailed
from xzepr.groups.evaluate import evaluate
from xzepr.groups.manage import change_group, create_group, delete_group, get_group, search_groups
from xzepr.groups.members import GroupMember, GroupMemberPage, NewGroupMember, add_member, list_members, remove_member
from xzepr.groups.model import (
    Artifact,
    Evaluation,
    EventReceiverGroup,
    EventReceiverGroupChange,
    EventReceiverGroupPage,
    GroupArtifact,
    GroupArtifactPage,
    GroupEnabled,
    GroupStatus,
    NewEventReceiverGroup,
)
from xzepr.groups.status import get_status, search_group_artifacts
from xzepr.house import House
from xzepr.ids import EventReceiverGroupId, UserId
from xzepr.page import Created, Page
from xzepr.preconditions import IfMatch
from xzepr.web.call import Answer, Call
from xzepr.web.routes import Route, Whose

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
    group_id = await create_group(call.house.database, call.principal, call.body, clock.now(), call.claim)
    return Answer(Created(group_id), headers={"Location": f"/api/v1/groups/{group_id}"})


async def list_groups(call: Call[House]) -> Answer:
    return Answer(await search_groups(call.house.database, call.query))


async def show_group(call: Call[House]) -> Answer:
    return _shown(await get_group(call.house.database, _id(call)))


async def patch_group(call: Call[House]) -> Answer:
    body: GroupEnabled = call.body
    return _shown(await _change(call, EventReceiverGroupChange(enabled=body.enabled)))


async def put_group(call: Call[House]) -> Answer:
    await _change(call, call.body)
    return Answer()


async def _change(call: Call[House], change: EventReceiverGroupChange) -> EventReceiverGroup:
    if_match = IfMatch.of(call.headers.get("if-match"))
    return await change_group(call.house.database, call.principal, _id(call), change, if_match, clock.now())


async def remove_group(call: Call[House]) -> Answer:
    await delete_group(call.house.database, call.principal, _id(call), IfMatch.of(call.headers.get("if-match")), clock.now())
    return Answer()


async def list_artifacts_of(call: Call[House]) -> Answer:
    return Answer(await search_group_artifacts(call.house.database, _id(call), call.query))


async def post_evaluation(call: Call[House]) -> Answer:
    body: Artifact = call.body
    timeout_s = call.house.settings.server.request_timeout_seconds
    return Answer(await evaluate(call.house.database, call.principal, _id(call), body.nvrpp, call.house.recorder.bell, timeout_s))


async def show_status(call: Call[House]) -> Answer:
    artifact: Artifact = call.query
    return Answer(await get_status(call.house.database, _id(call), artifact.nvrpp))


async def show_members(call: Call[House]) -> Answer:
    return Answer(await list_members(call.house.database, call.principal, _id(call), call.query))


async def post_member(call: Call[House]) -> Answer:
    return Answer(Created(await add_member(call.house.database, call.principal, _id(call), call.body, clock.now(), call.claim)))


async def delete_member(call: Call[House]) -> Answer:
    await remove_member(call.house.database, call.principal, _id(call), UserId(call.path["user_id"]))
    return Answer()


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
        idempotent=True,
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
        whose=Whose.OWNER,
        path_params={"id": EventReceiverGroupId},
        body=GroupEnabled,
        answer=EventReceiverGroup,
        tag="groups",
        summary="Enable or disable a group",
        description="For its owner and administrators.",
        problems=(NotFound, PreconditionFailed),
        conditional=True,
        example_body={"enabled": False},
    ),
    Route(
        method="PUT",
        path="/api/v1/groups/{id}",
        handler=put_group,
        permission=Permission.GROUP_UPDATE,
        whose=Whose.OWNER,
        path_params={"id": EventReceiverGroupId},
        body=EventReceiverGroupChange,
        status=204,
        tag="groups",
        summary="Change a group",
        description="For its owner and administrators. Decides nothing by itself: earlier events count from the next member event on.",
        problems=(NotFound, PreconditionFailed),
        conditional=True,
        example_body={"description": "what must be true before anything is released"},
    ),
    Route(
        method="DELETE",
        path="/api/v1/groups/{id}",
        handler=remove_group,
        permission=Permission.GROUP_DELETE,
        path_params={"id": EventReceiverGroupId},
        status=204,
        tag="groups",
        summary="Delete a group",
        description="It is marked, not removed, and decides nothing any more.",
        problems=(NotFound, PreconditionFailed),
        conditional=True,
    ),
    Route(
        method="GET",
        path="/api/v1/groups/{id}/artifacts",
        handler=list_artifacts_of,
        permission=(Permission.GROUP_READ, Permission.EVENT_READ),
        path_params={"id": EventReceiverGroupId},
        query=GroupArtifactPage,
        answer=Page[GroupArtifact],
        tag="groups",
        summary="What this group decided, newest first",
        description="`complete=true`: only the artifacts that the group, as it now stands and enabled, still holds complete.",
        problems=(NotFound,),
    ),
    Route(
        method="POST",
        path="/api/v1/groups/{id}/evaluations",
        handler=post_evaluation,
        permission=Permission.GROUP_UPDATE,
        whose=Whose.OWNER,
        path_params={"id": EventReceiverGroupId},
        body=Artifact,
        answer=Evaluation,
        tag="groups",
        summary="Decide now, for a group that was made or enabled late",
        description="For its owner and administrators. Answered once sequenced; when complete, *group complete* has been told.",
        problems=(NotFound,),
        example_body={"name": "api", "version": "1.4.2", "release": "2026.11", "platform_id": "x86-64-oci-linux", "package": "oci"},
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
    Route(
        method="GET",
        path="/api/v1/groups/{id}/members",
        handler=show_members,
        permission=Permission.GROUP_READ,
        whose=Whose.MEMBER,
        path_params={"id": EventReceiverGroupId},
        query=GroupMemberPage,
        answer=Page[GroupMember],
        tag="groups",
        summary="Who may post to the restricted receivers of a group",
        description="For its owner, its members and administrators. The newest account comes first.",
        problems=(NotFound,),
    ),
    Route(
        method="POST",
        path="/api/v1/groups/{id}/members",
        handler=post_member,
        permission=Permission.GROUP_UPDATE,
        whose=Whose.OWNER,
        path_params={"id": EventReceiverGroupId},
        body=NewGroupMember,
        answer=Created,
        status=201,
        tag="groups",
        summary="Add a member to a group",
        description=(
            "For its owner and administrators. A member may post to the restricted receivers that their owners or an administrator put into the "
            "group; posting at all still needs event:create. The answer is the user's id."
        ),
        problems=(NotFound, Conflict),
        idempotent=True,
        has_location=False,
        example_answer={"data": "01M88Q7AG504QSGMQWKDMNZ1V9"},
    ),
    Route(
        method="DELETE",
        path="/api/v1/groups/{id}/members/{user_id}",
        handler=delete_member,
        permission=Permission.GROUP_UPDATE,
        whose=Whose.OWNER,
        path_params={"id": EventReceiverGroupId, "user_id": UserId},
        status=204,
        tag="groups",
        summary="Remove a member from a group",
        description="For its owner and administrators. Every process refuses the user within a second.",
        problems=(NotFound,),
    ),
)
