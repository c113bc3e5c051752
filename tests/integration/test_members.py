"""Members of groups: who adds and removes them, who sees them, what is told and recorded of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx2
import pytest
from test_cli import Cli
from xzepr_client import Client, ProblemError, each

from support.cast import make_group, make_receiver
from support.installation import Installation
from support.served import Served, served
from support.users import make_users, principal
from xzepr.auth.permissions import Role
from xzepr.db.pool import Database
from xzepr.ids import UserId

UNKNOWN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.fixture
async def users(database_url: str) -> dict[str, UserId]:
    return await make_users(database_url, ["alice", "bob", "charlie", "root", "viewer"])


@pytest.fixture
async def server(database_url: str, users: dict[str, UserId]) -> AsyncIterator[Served]:
    roles = {"alice": Role.EVENT_MANAGER, "bob": Role.EVENT_MANAGER, "charlie": Role.EVENT_MANAGER, "root": Role.ADMIN, "viewer": Role.EVENT_VIEWER}
    cast = {name: principal(user_id, name, roles[name]) for name, user_id in users.items()}
    async with served(database_url, cast) as running:
        yield running


async def call(server: Served, who: str | None, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
    async with server.as_(who) as client:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.request(method, f"/api/v1{path}", headers=named, **({"json": body} if body is not None else {}))


async def make(server: Served, who: str, **receiver: Any) -> tuple[str, str]:
    """A receiver, and a group with it."""
    body = {"name": "tests", "type": "tests.finished", "version": "1", "schema": {}, **receiver}
    made = (await call(server, who, "POST", "/receivers", body)).json()["data"]
    group = {"name": "release", "type": "released", "version": "1", "event_receiver_ids": [made]}
    return made, (await call(server, who, "POST", "/groups", group)).json()["data"]


def told(answer: httpx2.Response, status: int, code: str) -> Any:
    body = answer.json()
    assert (answer.status_code, body["error"]) == (status, code), answer.text
    return body


async def acts(database: Database) -> list[tuple[str, str, str, dict[str, Any]]]:
    async with database.connection() as connection:
        rows = await connection.fetch("select actor_name, act, object_id, details from audit_log where act like 'group.member%' order by at, id")
    return [(row["actor_name"], row["act"], row["object_id"], json.loads(row["details"])) for row in rows]


async def test_the_owner_adds_and_removes_members(server: Served, users: dict[str, UserId], database: Database) -> None:
    receiver, group = await make(server, "alice")
    added = await call(server, "alice", "POST", f"/groups/{group}/members", {"user_id": users["bob"].lower()})
    assert (added.status_code, added.json()) == (201, {"data": users["bob"]})
    assert "location" not in added.headers
    page = (await call(server, "alice", "GET", f"/groups/{group}/members")).json()
    [member] = page["data"]
    assert member.pop("added_at").endswith("Z")
    assert member == {"user_id": users["bob"], "username": "bob", "added_by": users["alice"]}
    assert page["pagination"] == {"limit": 50, "next": None, "has_more": False}
    removed = await call(server, "alice", "DELETE", f"/groups/{group}/members/{users['bob']}")
    assert (removed.status_code, removed.content) == (204, b"")
    assert (await call(server, "alice", "GET", f"/groups/{group}/members")).json()["data"] == []
    assert await acts(database) == [
        ("alice", "group.member_add", group, {"user_id": users["bob"], "username": "bob"}),
        ("alice", "group.member_remove", group, {"user_id": users["bob"]}),
    ]
    async with database.connection() as connection:
        changes = await connection.fetch("select kind, subject from auth_changes order by id")
    assert [tuple(row) for row in changes] == [("receiver", receiver)] * 2


async def test_members_see_each_other_and_change_nothing(server: Served, users: dict[str, UserId]) -> None:
    _, group = await make(server, "alice")
    for name in ("bob", "viewer"):
        assert (await call(server, "root", "POST", f"/groups/{group}/members", {"user_id": users[name]})).status_code == 201
    for who, status in (("alice", 200), ("bob", 200), ("viewer", 200), ("root", 200), ("charlie", 403), (None, 401)):
        assert (await call(server, who, "GET", f"/groups/{group}/members")).status_code == status, who
    for who, status in (("bob", 403), ("viewer", 403), ("charlie", 403), (None, 401)):
        assert (await call(server, who, "POST", f"/groups/{group}/members", {"user_id": users["charlie"]})).status_code == status, who
        assert (await call(server, who, "DELETE", f"/groups/{group}/members/{users['bob']}")).status_code == status, who
    names = [member["username"] for member in (await call(server, "bob", "GET", f"/groups/{group}/members")).json()["data"]]
    assert names == ["viewer", "bob"]


async def test_what_cannot_be_is_told(server: Served, users: dict[str, UserId], database: Database) -> None:
    _, group = await make(server, "alice")
    members = f"/groups/{group}/members"
    async with database.connection() as connection:
        await connection.execute("update users set deleted_at = now() where username = 'charlie'")
    for unknown in (UNKNOWN, users["charlie"]):
        body = told(await call(server, "alice", "POST", members, {"user_id": unknown}), 400, "invalid_input")
        assert body["errors"] == [{"pointer": "/user_id", "message": f"there is no user {unknown}"}]
    body = told(await call(server, "alice", "POST", members, {"user_id": "bob"}), 400, "invalid_id")
    assert [fault["pointer"] for fault in body["errors"]] == ["/user_id"]
    body = told(await call(server, "alice", "POST", members, {"user": "x"}), 400, "invalid_input")
    assert {fault["pointer"] for fault in body["errors"]} == {"/user_id", "/user"}
    told(await call(server, "alice", "POST", f"/groups/{UNKNOWN}/members", {"user_id": users["bob"]}), 404, "not_found")
    told(await call(server, "alice", "GET", f"/groups/{UNKNOWN}/members"), 404, "not_found")
    told(await call(server, "alice", "DELETE", f"{members}/{users['bob']}"), 404, "not_found")
    told(await call(server, "alice", "DELETE", f"{members}/bob"), 400, "invalid_id")
    assert (await call(server, "alice", "POST", members, {"user_id": users["bob"]})).status_code == 201
    told(await call(server, "alice", "POST", members, {"user_id": users["bob"]}), 409, "conflict")
    assert (await call(server, "root", "DELETE", f"/groups/{group}")).status_code == 204
    for method, path, sent in (
        ("GET", members, None),
        ("POST", members, {"user_id": users["viewer"]}),
        ("DELETE", f"{members}/{users['bob']}", None),
    ):
        told(await call(server, "root", method, path, sent), 404, "not_found")
    assert [act for _, act, _, _ in await acts(database)] == ["group.member_add"], "what was refused left no row"


async def test_a_deleted_user_is_no_member_any_more(server: Served, users: dict[str, UserId], database: Database) -> None:
    _, group = await make(server, "alice")
    assert (await call(server, "alice", "POST", f"/groups/{group}/members", {"user_id": users["bob"]})).status_code == 201
    async with database.connection() as connection:
        await connection.execute("update users set deleted_at = now() where username = 'bob'")
    assert (await call(server, "alice", "GET", f"/groups/{group}/members")).json()["data"] == []


async def test_a_request_that_is_sent_again_adds_once(server: Served, users: dict[str, UserId], database: Database) -> None:
    (_, first), (_, second) = await make(server, "alice"), await make(server, "alice")
    body = {"user_id": users["bob"]}
    answers = [await call(server, "alice", "POST", f"/groups/{first}/members", body, Idempotency_Key="k") for _ in range(2)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(201, {"data": users["bob"]})] * 2
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true"]
    assert "location" not in answers[1].headers
    # The same key and body at another address are another act.
    other = await call(server, "alice", "POST", f"/groups/{second}/members", body, Idempotency_Key="k")
    assert (other.status_code, other.headers.get("idempotency-replayed")) == (201, None)
    assert [group for _, _, group, _ in await acts(database)] == [first, second]


async def test_of_many_who_add_the_same_user_at_once_one_succeeds(server: Served, users: dict[str, UserId], database: Database) -> None:
    _, group = await make(server, "alice")
    path = f"/groups/{group}/members"
    answers = await asyncio.gather(*(call(server, "alice", "POST", path, {"user_id": users["bob"]}) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    answers = await asyncio.gather(*(call(server, "alice", "DELETE", f"{path}/{users['bob']}") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [204] + [404] * 7
    assert len(await acts(database)) == 2


async def test_a_long_list_comes_in_pages(server: Served, database_url: str) -> None:
    _, group = await make(server, "alice")
    many = await make_users(database_url, [f"user-{number}" for number in range(25)])
    for user_id in many.values():
        assert (await call(server, "alice", "POST", f"/groups/{group}/members", {"user_id": user_id})).status_code == 201
    found: list[str] = []
    after = ""
    while True:
        page = (await call(server, "alice", "GET", f"/groups/{group}/members?limit=10{after}")).json()
        found += [member["user_id"] for member in page["data"]]
        if not page["pagination"]["has_more"]:
            break
        after = f"&after={page['pagination']['next']}"
    assert found == sorted(many.values(), reverse=True)
    told(await call(server, "alice", "GET", f"/groups/{group}/members?limit=0"), 400, "invalid_input")


async def test_client_and_command_line(shared_installation: Installation, http: httpx2.Client) -> None:
    users = await make_users(shared_installation.environ["XZEPR__DATABASE__URL"], [f"user-{place}" for place in range(3)])
    first, second, third = users.values()
    group = make_group(http, [make_receiver(http)])

    def use() -> None:
        with Client(shared_installation.url) as client:
            client.add_group_member(group, first)
            client.add_group_member(group, second, idempotency_key="mine")
            client.add_group_member(group, second, idempotency_key="mine")
            with pytest.raises(ProblemError) as raised:
                client.add_group_member(group, first)
            assert raised.value.status == 409
            assert [member.username for member in each(client.group_members, group)] == ["user-1", "user-0"]
            client.remove_group_member(group, first)
            with pytest.raises(ProblemError) as raised:
                client.remove_group_member(group, first)
            assert raised.value.status == 404
        cli = Cli(shared_installation.url)
        assert cli.ok("group", "member", "add", group, third) == ""
        assert [member["user_id"] for member in cli.json("group", "member", "list", group)] == [third, second]
        assert cli.ok("group", "member", "list", group, "--limit", "1").splitlines()[-1].split()[0] == "user-2"
        assert "is a member of this group already" in cli.fails(1, "group", "member", "add", group, third)
        assert cli.ok("group", "member", "remove", group, third) == ""
        assert "is no member of this group" in cli.fails(1, "group", "member", "remove", group, third)
        assert "the group has no members" in cli.fails(0, "group", "member", "list", make_group(http, [make_receiver(http)]))

    await asyncio.to_thread(use)


async def test_a_user_who_is_a_member_can_be_marked_deleted_but_not_removed(server: Served, users: dict[str, UserId], database: Database) -> None:
    _, group = await make(server, "alice")
    assert (await call(server, "alice", "POST", f"/groups/{group}/members", {"user_id": users["bob"]})).status_code == 201
    async with database.connection() as connection:
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await connection.execute("delete from users where username = 'bob'")
