"""Every route, for every role, without credentials, for owners, members and strangers: what happens is what the table of the docs says.

A request for each cell of docs/reference/roles_and_permissions.md goes to a real application on a real database. *Let in* is any answer but 401 and 403:
what else may be wrong with the request is not looked at, but its body is sound, so that a rule about owners, which comes last, is reached.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import msgspec
import pytest

from support.cast import artifact_of, event
from support.served import Served, served
from support.users import make_users, principal
from xzepr import clock, ids
from xzepr.app import ROUTES
from xzepr.auth import reference
from xzepr.auth.permissions import Role
from xzepr.auth.principal import Principal
from xzepr.events.model import NewEvent
from xzepr.events.posted import read_event
from xzepr.events.record import record_event
from xzepr.groups.manage import create_group
from xzepr.groups.members import NewGroupMember, add_member
from xzepr.groups.model import NewEventReceiverGroup
from xzepr.ids import EventReceiverId
from xzepr.receivers.manage import create_receiver
from xzepr.receivers.model import NewEventReceiver
from xzepr.web import pages
from xzepr.web.call import Answer, Call
from xzepr.web.routes import IncompleteRoute, Route, require_complete

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "roles_and_permissions.md"
TABLE = [*ROUTES, *pages.routes(ROUTES)]
# Whose object a request is about, from the caller's side.
OWNER, MEMBER, STRANGER = "owner", "member", "stranger"
# By the words of the docs: who is let in besides administrators.
LET_IN = {"": {OWNER, MEMBER, STRANGER}, "its owner": {OWNER}, "its owner, members of the group": {OWNER, MEMBER}}
ARTIFACT = artifact_of(event(""))


@dataclass(frozen=True)
class Row:
    """One row of the docs. met: by caller. and_only: whose the object must be."""

    met: Mapping[str, str]
    and_only: str


def documented() -> dict[str, Row]:
    """By `METHOD path`, as a reader sees it."""
    section = PAGE.read_text("utf-8").partition("\n## What each route needs\n")[2].partition("\n## ")[0]
    head, _, *lines = [line for line in section.splitlines() if line.startswith("|")]
    callers = [name.strip("` ") for name in head.strip("|").split("|")][2:-1]
    rows = {}
    for line in lines:
        route, _, *cells, and_only = [cell.strip() for cell in line.strip("|").split("|")]
        assert route.strip("`") not in rows, f"{route} stands there twice"
        rows[route.strip("`")] = Row(dict(zip(callers, cells, strict=True)), and_only)
    return rows


DOCS = documented()


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def test_the_page_is_the_one_that_the_code_writes() -> None:
    assert PAGE.read_text("utf-8") == reference.reference_page(), "write it again: make reference"


def test_every_route_stands_in_the_table_and_no_other() -> None:
    assert sorted(DOCS) == sorted(name_of(route) for route in TABLE)
    assert all(set(row.met) == {"anonymous", *map(str, Role)} for row in DOCS.values())
    assert {row.and_only for row in DOCS.values()} == set(LET_IN)


def test_a_route_that_is_added_without_a_permission_stops_the_build() -> None:
    async def handler(_: Call[Any]) -> Answer:
        return Answer()

    forgotten = Route(method="GET", path="/api/v1/forgotten", handler=handler, answer=NewEvent, tag="events", summary="Forgotten")
    require_complete(TABLE)
    with pytest.raises(IncompleteRoute, match="GET /api/v1/forgotten names neither a permission nor PUBLIC"):
        require_complete([*TABLE, forgotten])
    assert name_of(forgotten) not in DOCS, "and the comparison above would find it missing"


class Objects:
    """What a request is about. cast: users by role, and `other`, to whom a stranger's objects
    belong, and `spare`, who can become a member."""

    def __init__(self, server: Served, cast: Mapping[str, Principal]) -> None:
        self.server = server
        self.cast = cast

    async def make(self, caller: Principal, side: str) -> dict[str, str]:
        """Ids for the path and the body, by name."""
        owner = caller if side == OWNER else self.cast["other"]
        house, now = self.server.house, clock.now()
        database, recorder = house.database, house.recorder
        new = NewEventReceiver(name="tests", type="tests.finished", version="1", schema=msgspec.Raw(b"{}"))
        receiver_id = await create_receiver(database, house.checker, owner, new, now)
        unused_id = await create_receiver(database, house.checker, owner, new, now)
        group = NewEventReceiverGroup(name="release", type="released", version="1", event_receiver_ids=[receiver_id])
        group_id = await create_group(database, owner, group, now)
        joined = self.cast["spare"].id
        assert joined is not None
        await add_member(database, owner, group_id, NewGroupMember(user_id=joined), now)
        if side == MEMBER:
            assert caller.id is not None
            await add_member(database, owner, group_id, NewGroupMember(user_id=caller.id), now)
        event_id, _ = await record_event(recorder, owner, read_event(msgspec.json.encode(event(receiver_id))))
        newcomer = self.cast["newcomer"].id
        assert newcomer is not None
        return {"receiver": receiver_id, "unused": unused_id, "group": group_id, "event": event_id, "joined": joined, "newcomer": newcomer}


PATHS = {"/api/v1/events": "event", "/api/v1/receivers": "unused", "/api/v1/groups": "group"}
GROUP = {"name": "release", "type": "released", "version": "1"}
RECEIVER = {"name": "tests", "type": "tests.finished", "version": "1", "schema": {}}


def address_of(route: Route, made: Mapping[str, str]) -> str:
    """Rooms whose objects this file does not know get an id of nothing: whether a caller is let in is known before."""
    kind = next((kind for beginning, kind in PATHS.items() if route.path.startswith(f"{beginning}/")), None)
    unknown = ids.mint(EventReceiverId)
    values = {name: made["joined"] if name == "user_id" else made[kind] if kind is not None else unknown for name in route.path_params}
    return route.path.format_map(values)


def body_of(route: Route, made: Mapping[str, str]) -> Any:
    """Sound for what is there. Routes that are not named here send their documented example."""
    known: dict[str, Any] = {
        "POST /api/v1/events": event(made["receiver"]),
        "POST /api/v1/events/batch": [event(made["receiver"])],
        "POST /api/v1/receivers": RECEIVER,
        "POST /api/v1/groups": {**GROUP, "event_receiver_ids": [made["receiver"]]},
        "POST /api/v1/groups/{id}/members": {"user_id": made["newcomer"]},
        "POST /api/v1/groups/{id}/evaluations": ARTIFACT,
    }
    return known.get(name_of(route), route.example_body if route.example_body is not None else {})


async def status_of(client: httpx2.AsyncClient, route: Route, made: Mapping[str, str]) -> int:
    params = ARTIFACT if route.path.endswith(("/status", "/timeline")) and route.path.count("/") > 3 else {}
    body = {"json": body_of(route, made)} if route.takes_body else {}
    if route.path.endswith("/evaluations"):
        # Nobody decides here: who is let in would wait for the sequencer. A rule about owners comes before that.
        return await _status_or_wait(client, route, made)
    async with client.stream(route.method, address_of(route, made), params=params, **body) as answer:
        return answer.status_code


async def _status_or_wait(client: httpx2.AsyncClient, route: Route, made: Mapping[str, str]) -> int:
    try:
        return (await client.post(address_of(route, made), json=body_of(route, made), timeout=1)).status_code
    except httpx2.ReadTimeout:
        return 200


def met_by(route: Route, status: int) -> str:
    # A public route may refuse what its body says (a wrong password); that is no question of who asks.
    if route.is_public and any(kind.status == status for kind in route.problems):
        return reference.ALLOWED
    return str(status) if status in (401, 403) else reference.ALLOWED


def expected(row: Row, caller: str, side: str) -> str:
    met = row.met[caller]
    if met != reference.ALLOWED or caller == Role.ADMIN or side in LET_IN[row.and_only]:
        return met
    return "403"


async def test_what_happens_is_what_the_table_says(database_url: str) -> None:
    named = await make_users(database_url, [*Role, "other", "spare", "newcomer"])
    cast = {name: principal(user_id, name, *([Role(name)] if name in list(Role) else [Role.ADMIN])) for name, user_id in named.items()}
    deviations, asked = [], 0
    async with served(database_url, cast) as server:
        objects = Objects(server, cast)
        # What is only looked at is made once for each caller.
        looked_at: dict[tuple[str, str], dict[str, str]] = {}
        for route in TABLE:
            row = DOCS[name_of(route)]
            for caller in ("anonymous", *Role):
                who = cast.get(caller, cast["other"])
                sides = (OWNER, MEMBER, STRANGER) if caller != "anonymous" else (STRANGER,)
                async with server.as_(caller if caller != "anonymous" else None) as client:
                    for side in sides:
                        if route.method != "GET":
                            made = await objects.make(who, side)
                        elif (caller, side) in looked_at:
                            made = looked_at[caller, side]
                        else:
                            made = looked_at[caller, side] = await objects.make(who, side)
                        met = met_by(route, await status_of(client, route, made))
                        asked += 1
                        if met != expected(row, caller, side):
                            deviations.append(f"{name_of(route)} as {caller}, {side}: {met}, and the docs say {expected(row, caller, side)}")
    assert deviations == []
    assert asked == len(TABLE) * (1 + len(Role) * 3)
    print(f"{asked} requests, 0 deviations")


async def test_a_member_who_is_removed_is_a_stranger(database_url: str) -> None:
    named = await make_users(database_url, ["owner", "member"])
    cast = {name: principal(user_id, name, Role.EVENT_MANAGER) for name, user_id in named.items()}
    async with served(database_url, cast) as server, server.as_("owner") as owner, server.as_("member") as member:
        receiver = (await owner.post("/api/v1/receivers", json=RECEIVER)).json()["data"]
        members = f"/api/v1/groups/{(await owner.post('/api/v1/groups', json={**GROUP, 'event_receiver_ids': [receiver]})).json()['data']}/members"
        assert (await member.get(members)).status_code == 403
        assert (await owner.post(members, json={"user_id": named["member"]})).status_code == 201
        assert (await member.get(members)).status_code == 200
        assert (await member.post(members, json={"user_id": named["owner"]})).status_code == 403
        assert (await owner.delete(f"{members}/{named['member']}")).status_code == 204
        assert (await member.get(members)).status_code == 403


async def test_objects_that_nobody_owns_are_for_administrators(database_url: str) -> None:
    named = await make_users(database_url, ["manager", "admin"])
    cast = {"manager": principal(named["manager"], "manager", Role.EVENT_MANAGER), "admin": principal(named["admin"], "admin", Role.ADMIN)}
    async with served(database_url, cast) as server, server.as_("manager") as manager, server.as_("admin") as admin:
        receiver = (await manager.post("/api/v1/receivers", json=RECEIVER)).json()["data"]
        connection = await asyncpg.connect(database_url)
        await connection.execute("update event_receivers set owner_id = null")
        await connection.close()
        assert (await manager.put(f"/api/v1/receivers/{receiver}", json={"description": "mine now"})).status_code == 403
        assert (await admin.put(f"/api/v1/receivers/{receiver}", json={"description": "ours"})).status_code == 204
