"""`/api/v1/artifacts`: parse, call, answer."""

from xzepr.artifacts.model import ArtifactPage, Timeline, TimelinePage, TouchedArtifact
from xzepr.artifacts.read import get_timeline, search_artifacts
from xzepr.auth.permissions import Permission
from xzepr.house import House
from xzepr.page import Page
from xzepr.web.call import Answer, Call
from xzepr.web.routes import Route


async def list_artifacts(call: Call[House]) -> Answer:
    return Answer(await search_artifacts(call.house.database, call.query))


async def show_timeline(call: Call[House]) -> Answer:
    with_groups = Permission.GROUP_READ in call.principal.permissions
    return Answer(await get_timeline(call.house.database, call.query, with_groups=with_groups))


ROUTES = (
    Route(
        method="GET",
        path="/api/v1/artifacts",
        handler=list_artifacts,
        permission=Permission.EVENT_READ,
        query=ArtifactPage,
        answer=Page[TouchedArtifact],
        tag="artifacts",
        summary="List artifacts, the most recently touched first",
    ),
    Route(
        method="GET",
        path="/api/v1/artifacts/timeline",
        handler=show_timeline,
        permission=Permission.EVENT_READ,
        query=TimelinePage,
        answer=Timeline,
        tag="artifacts",
        summary="What happened to one artifact, and where it stands",
        description="Events oldest first by seq, with the name and type of their receivers. `groups` is null without group:read.",
    ),
)
