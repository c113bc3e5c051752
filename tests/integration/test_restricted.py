"""Who may post to a restricted receiver, through every door; and that who may no longer is refused everywhere within a second."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx2
import msgspec
import pytest
from test_members import call, told

from support.cast import event
from support.served import Served, served
from support.users import make_users, principal
from xzepr import clock
from xzepr.auth.permissions import Role
from xzepr.auth.principal import Principal
from xzepr.db.pool import Connection, Database
from xzepr.errors import PermissionDenied
from xzepr.events.hot import take_event
from xzepr.events.posted import read_event
from xzepr.events.record import Recorder, record_event
from xzepr.groups.manage import delete_group
from xzepr.groups.members import NewGroupMember, add_member, remove_member
from xzepr.ids import EventReceiverGroupId, EventReceiverId, UserId
from xzepr.preconditions import IfMatch
from xzepr.receivers import manage
from xzepr.receivers.manage import Receivers

BATCH = "/events/batch"
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
ANYBODY = Principal(roles=frozenset({Role.ADMIN}))
GROUP = {"name": "release", "type": "released", "version": "1"}
RECEIVER = {"name": "tests", "type": "tests.finished", "version": "1", "schema": {}}


class FakeNews:
    """Reads auth_changes as every process does, when it is told to; is as fresh as it says."""

    def __init__(self, url: str) -> None:
        self.fresh = True
        self._url = url
        self._callbacks: dict[str, list[Callable[[str], None]]] = {}
        self._seen: set[int] = set()

    def subscribe(self, kind: str, callback: Callable[[str], None], /) -> None:
        self._callbacks.setdefault(kind, []).append(callback)

    def is_fresh(self) -> bool:
        return self.fresh

    async def poll(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        for row in await connection.fetch("select id, kind, subject from auth_changes order by id"):
            if row["id"] not in self._seen:
                self._seen.add(row["id"])
                for callback in self._callbacks.get(row["kind"], ()):
                    callback(row["subject"])

    @asynccontextmanager
    async def polled(self, interval_s: float = 0.25) -> AsyncIterator[None]:
        """All the time, as every process does."""
        connection = await asyncpg.connect(self._url)

        async def forever() -> None:
            while True:
                await self.poll(connection)
                await asyncio.sleep(interval_s)

        task = asyncio.create_task(forever())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await connection.close()


@pytest.fixture
async def users(database_url: str) -> dict[str, UserId]:
    return await make_users(database_url, ["alice", "bob", "charlie", "mallory", "root"])


@pytest.fixture
def cast(users: dict[str, UserId]) -> dict[str, Principal]:
    return {name: principal(user_id, name, Role.ADMIN if name == "root" else Role.EVENT_MANAGER) for name, user_id in users.items()}


@pytest.fixture
def news(database_url: str) -> FakeNews:
    return FakeNews(database_url)


@pytest.fixture
async def server(database_url: str, cast: dict[str, Principal], news: FakeNews) -> AsyncIterator[Served]:
    async with served(database_url, cast, news) as running:
        yield running


async def created(answer: httpx2.Response) -> str:
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"])


async def make_receiver(server: Served, who: str, **fields: Any) -> EventReceiverId:
    return EventReceiverId(await created(await call(server, who, "POST", "/receivers", {**RECEIVER, **fields})))


async def make_group(server: Served, who: str, *receiver_ids: str) -> EventReceiverGroupId:
    return EventReceiverGroupId(await created(await call(server, who, "POST", "/groups", {**GROUP, "event_receiver_ids": list(receiver_ids)})))


async def join(server: Served, who: str, group: str, user_id: str) -> None:
    await created(await call(server, who, "POST", f"/groups/{group}/members", {"user_id": user_id}))


@pytest.fixture
async def setting(server: Served, users: dict[str, UserId]) -> tuple[EventReceiverId, EventReceiverGroupId]:
    """alice's restricted receiver, in her group, which bob is a member of."""
    receiver = await make_receiver(server, "alice", restricted=True)
    group = await make_group(server, "alice", receiver)
    await join(server, "alice", group, users["bob"])
    return receiver, group


async def post(server: Served, who: str, receiver: str, **fields: Any) -> int:
    return (await call(server, who, "POST", "/events", event(receiver, **fields))).status_code


async def hot(recorder: Recorder, who: Principal, receiver: str) -> str | None:
    """By the short way; None: it was left to the ordinary one."""
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if not take_event(recorder, who, json.dumps(event(receiver)).encode(), None, done.set_result):
        return None
    outcome = await done
    assert isinstance(outcome, str), outcome
    return outcome


async def warm(recorder: Recorder, receiver: str) -> None:
    """So that the short way takes what it may: the receiver is in memory and its schema compiled."""
    await record_event(recorder, ANYBODY, read_event(msgspec.json.encode(event(receiver, name="warm"))))
    assert await hot(recorder, ANYBODY, receiver) is not None


async def stored(database: Database, receiver: str) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval("select count(*) from events where event_receiver_id = $1", receiver) or 0)


# --- who may


async def test_owner_members_and_administrators_may_post_and_nobody_else(server: Served, setting: tuple[str, str]) -> None:
    receiver, _ = setting
    for who, status in (("alice", 201), ("bob", 201), ("root", 201), ("charlie", 403), ("mallory", 403)):
        assert await post(server, who, receiver) == status, who
    body = told(await call(server, "charlie", "POST", "/events", event(receiver)), 403, "permission_denied")
    assert body["detail"] == f"the event receiver {receiver} is restricted: only its owner, members of its groups and administrators may post to it"
    assert await stored(server.house.database, receiver) == 3


async def test_the_short_way_lets_in_exactly_those(server: Served, setting: tuple[str, str], cast: dict[str, Principal]) -> None:
    receiver, _ = setting
    recorder = server.house.recorder
    await warm(recorder, receiver)
    for who in ("alice", "bob", "root"):
        assert await hot(recorder, cast[who], receiver) is not None, who
    for who in ("charlie", "mallory"):
        assert await hot(recorder, cast[who], receiver) is None, who
    assert await hot(recorder, Principal(roles=frozenset({Role.EVENT_MANAGER})), receiver) is None, "who has no name is nobody's member"


async def test_a_batch_holds_to_it_event_by_event(server: Served, setting: tuple[str, str], users: dict[str, UserId]) -> None:
    restricted, _ = setting
    free = await make_receiver(server, "alice")
    events = [event(free, name="batch"), event(restricted, name="batch"), event(free, name="batch", extra=1), event(restricted, name="batch")]
    good = [events[0], events[1], events[3]]
    body = told(await call(server, "charlie", "POST", BATCH, good), 403, "permission_denied")
    assert [fault["pointer"] for fault in body["errors"]] == ["/1", "/2"]
    assert await stored(server.house.database, free) == 0, "all or nothing"
    answer = await call(server, "charlie", "POST", f"{BATCH}?partial=true", events)
    assert answer.status_code == 207
    items = answer.json()["data"]
    assert [item["status"] for item in items] == [201, 403, 400, 403]
    assert [item["problem"]["error"] for item in items[1:]] == ["permission_denied", "invalid_input", "permission_denied"]
    assert items[3]["problem"]["errors"][0]["pointer"] == "/3"
    assert (await stored(server.house.database, free), await stored(server.house.database, restricted)) == (1, 0)
    for who in ("alice", "bob", "root"):
        assert (await call(server, who, "POST", BATCH, good)).status_code == 201, who
    assert await stored(server.house.database, restricted) == 6


async def test_a_large_batch_asks_the_database_once(
    server: Served, setting: tuple[str, str], monkeypatch: pytest.MonkeyPatch, news: FakeNews
) -> None:
    receiver, _ = setting
    for fresh in (True, False):
        news.fresh = fresh
        for who, status in (("charlie", 403), ("bob", 201)):
            with monkeypatch.context() as patch:
                asked = counted_reloads(server.house.recorder.receivers, patch)
                answer = await call(server, who, "POST", BATCH, [event(receiver) for _ in range(300)])
                assert (answer.status_code, len(asked) <= 2) == (status, True), (fresh, who, len(asked))


async def test_cloudevents_hold_to_it_in_every_mode(server: Served, setting: tuple[str, str]) -> None:
    receiver, _ = setting
    numbers = iter(range(100))

    def cloud() -> dict[str, Any]:
        subject = "api/1.4.2/2026.11/x86-64-oci-linux/oci"
        return {"specversion": "1.0", "id": str(next(numbers)), "source": "ci", "type": RECEIVER["type"], "subject": subject, "data": {}}

    async def send(who: str) -> list[int]:
        async with server.as_(who) as client:
            path, one = "/api/v1/events", cloud()
            binary = {f"ce-{name}": value for name, value in one.items() if name != "data"} | {"Content-Type": "application/json"}
            answers = [
                await client.post(path, content=json.dumps(cloud()), headers={"Content-Type": STRUCTURED}),
                await client.post(path, content=json.dumps([cloud(), cloud()]), headers={"Content-Type": BATCHED}),
                await client.post(path, content="{}", headers=binary),
            ]
        assert all(answer.status_code == 201 or receiver in answer.text for answer in answers)
        return [answer.status_code for answer in answers]

    assert await send("charlie") == [403, 403, 403]
    assert await stored(server.house.database, receiver) == 0
    assert await send("bob") == [201, 201, 201]
    assert await stored(server.house.database, receiver) == 4


async def test_who_has_no_permission_to_post_gains_none_by_membership(server: Served, setting: tuple[str, str], cast: dict[str, Principal]) -> None:
    receiver, _ = setting
    bob = cast["bob"].id
    assert bob is not None
    cast["bob"] = principal(bob, "bob", Role.EVENT_VIEWER)
    assert await post(server, "bob", receiver) == 403


# --- credentials for some receivers


async def test_credentials_for_some_receivers_post_to_no_other(server: Served, cast: dict[str, Principal], users: dict[str, UserId]) -> None:
    own, other = await make_receiver(server, "bob"), await make_receiver(server, "bob")
    for name, role in (("bob", Role.EVENT_MANAGER), ("root", Role.ADMIN)):
        cast["key"] = principal(users[name], name, role, event_receiver_ids=[own])
        assert await post(server, "key", own) == 201
        body = told(await call(server, "key", "POST", "/events", event(other)), 403, "permission_denied")
        assert body["detail"] == f"these credentials are for other event receivers: they may not post to {other}"
        unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
        told(await call(server, "key", "POST", "/events", event(unknown)), 403, "permission_denied")
        body = told(await call(server, "key", "POST", BATCH, [event(own), event(other.lower())]), 403, "permission_denied")
        assert [fault["pointer"] for fault in body["errors"]] == ["/1"]
        items = (await call(server, "key", "POST", f"{BATCH}?partial=true", [event(other), event(own)])).json()["data"]
        assert [item["status"] for item in items] == [403, 201]
        cloud = {"specversion": "1.0", "id": "1", "source": name, "type": "t", "subject": "a/1/1/p/k", "data": {}, "xzreceiverid": other}
        async with server.as_("key") as client:
            answer = await client.post("/api/v1/events", content=json.dumps(cloud), headers={"Content-Type": STRUCTURED})
        told(answer, 403, "permission_denied")
        recorder = server.house.recorder
        await warm(recorder, other)
        assert await hot(recorder, cast["key"], own) is not None
        assert await hot(recorder, cast["key"], other) is None
        assert (await call(server, "key", "GET", f"/receivers/{other}")).status_code == 200, "reading is not limited"
        assert (await call(server, "key", "GET", f"/events?event_receiver_id={other}")).status_code == 200


async def test_credentials_for_some_receivers_take_no_key_of_what_is_posted_elsewhere(
    server: Served, cast: dict[str, Principal], users: dict[str, UserId]
) -> None:
    own, other = await make_receiver(server, "bob"), await make_receiver(server, "bob")
    cast["key"] = principal(users["bob"], "bob", Role.EVENT_MANAGER, event_receiver_ids=[own])
    cast["next key"] = principal(users["bob"], "bob", Role.EVENT_MANAGER, event_receiver_ids=[own])
    cast["wider key"] = principal(users["bob"], "bob", Role.EVENT_MANAGER, event_receiver_ids=[own, other])

    async def send(who: str, receiver: str) -> tuple[int, str]:
        cloud = {"specversion": "1.0", "id": "guessed", "source": "ci", "type": "t", "subject": "a/1/1/p/k", "data": {}, "xzreceiverid": receiver}
        async with server.as_(who) as client:
            answer = await client.post("/api/v1/events", content=json.dumps(cloud), headers={"Content-Type": STRUCTURED})
        return answer.status_code, answer.json().get("data", "")

    first = await send("key", own)
    assert first[0] == 201
    assert await send("next key", own) == first, "a repetition, whichever key of this limit it comes by"
    elsewhere = await send("bob", other)
    assert (elsewhere[0], elsewhere[1] != first[1]) == (201, True)
    assert (await send("wider key", other))[0] == 201
    assert (await send("bob", own))[0] == 409
    answers = [
        await call(server, who, "POST", "/events", event(receiver), idempotency_key="guessed") for who, receiver in (("key", own), ("bob", other))
    ]
    assert [answer.status_code for answer in answers] == [201, 201]


async def test_a_key_for_no_receiver_posts_nowhere(server: Served, cast: dict[str, Principal], users: dict[str, UserId]) -> None:
    receiver = await make_receiver(server, "bob")
    await warm(server.house.recorder, receiver)
    cast["key"] = principal(users["bob"], "bob", Role.EVENT_MANAGER, event_receiver_ids=[])
    assert await post(server, "key", receiver) == 403
    assert await hot(server.house.recorder, cast["key"], receiver) is None


async def test_a_key_reaches_no_restricted_receiver_that_its_owner_may_not_post_to(
    server: Served, setting: tuple[str, str], cast: dict[str, Principal], users: dict[str, UserId]
) -> None:
    receiver, _ = setting
    cast["key"] = principal(users["charlie"], "charlie", Role.EVENT_MANAGER, event_receiver_ids=[receiver])
    assert await post(server, "key", receiver) == 403
    cast["key"] = principal(users["bob"], "bob", Role.EVENT_MANAGER, event_receiver_ids=[receiver])
    assert await post(server, "key", receiver) == 201


# --- groups


async def test_only_its_owner_or_an_administrator_puts_it_into_a_group(server: Served, setting: tuple[str, str]) -> None:
    receiver, _ = setting
    own = await make_receiver(server, "mallory")
    body = told(await call(server, "mallory", "POST", "/groups", {**GROUP, "event_receiver_ids": [own, receiver]}), 403, "permission_denied")
    assert receiver in body["detail"]
    group = await make_group(server, "mallory", own)
    told(await call(server, "mallory", "PUT", f"/groups/{group}", {"event_receiver_ids": [own, receiver]}), 403, "permission_denied")
    assert (await call(server, "root", "PUT", f"/groups/{group}", {"event_receiver_ids": [own, receiver]})).status_code == 204
    # Once it is there, the group's owner may leave it there when something else changes.
    other = await make_receiver(server, "mallory")
    assert (await call(server, "mallory", "PUT", f"/groups/{group}", {"event_receiver_ids": [receiver, other]})).status_code == 204
    assert (await call(server, "mallory", "PUT", f"/groups/{group}", {"event_receiver_ids": [other]})).status_code == 204
    told(await call(server, "mallory", "PUT", f"/groups/{group}", {"event_receiver_ids": [receiver, other]}), 403, "permission_denied")


async def test_members_of_a_group_of_somebody_else_that_held_it_before_are_not_let_in(
    server: Served, cast: dict[str, Principal], users: dict[str, UserId], news: FakeNews
) -> None:
    receiver = await make_receiver(server, "alice")
    group = await make_group(server, "mallory", receiver)
    await join(server, "mallory", group, users["mallory"])
    await join(server, "mallory", group, users["charlie"])
    assert await post(server, "charlie", receiver) == 201
    assert (await call(server, "alice", "PUT", f"/receivers/{receiver}", {"restricted": True})).status_code == 204
    await warm(server.house.recorder, receiver)
    for who in ("mallory", "charlie"):
        assert await post(server, who, receiver) == 403
        assert await hot(server.house.recorder, cast[who], receiver) is None
    # Saying the list again does not help the group's owner; an administrator who says it lets them in, without a new version of the group.
    assert (await call(server, "mallory", "PUT", f"/groups/{group}", {"event_receiver_ids": [receiver]})).status_code == 204
    assert await post(server, "charlie", receiver) == 403
    before = (await call(server, "root", "GET", f"/groups/{group}")).json()
    assert (await call(server, "root", "PUT", f"/groups/{group}", {"event_receiver_ids": [receiver]})).status_code == 204
    assert (await call(server, "root", "GET", f"/groups/{group}")).json() == before
    assert await post(server, "charlie", receiver) == 201
    # And the group's owner can change the rest without shutting them out.
    assert (await call(server, "mallory", "PATCH", f"/groups/{group}", {"enabled": False})).status_code == 200
    assert await post(server, "charlie", receiver) == 201


async def test_a_change_vouches_for_what_it_adds_and_the_same_list_again_for_all(
    server: Served, database: Database, users: dict[str, UserId]
) -> None:
    first, second, third = [await make_receiver(server, "alice") for _ in range(3)]
    group = await make_group(server, "mallory", first, second)
    await join(server, "mallory", group, users["charlie"])
    for receiver in (first, second, third):
        assert (await call(server, "alice", "PUT", f"/receivers/{receiver}", {"restricted": True})).status_code == 204
    # An administrator who adds one, or changes something else beside the list, has not looked at the others.
    for change in ({"event_receiver_ids": [first, second, third]}, {"event_receiver_ids": [first, second, third], "description": "of mallory"}):
        assert (await call(server, "root", "PUT", f"/groups/{group}", change)).status_code == 204
        assert [await post(server, "charlie", receiver) for receiver in (first, second, third)] == [403, 403, 201]
    for _ in range(2):
        assert (await call(server, "root", "PUT", f"/groups/{group}", {"event_receiver_ids": [first, second, third]})).status_code == 204
        assert [await post(server, "charlie", receiver) for receiver in (first, second, third)] == [201, 201, 201]
    assert (await call(server, "mallory", "PUT", f"/groups/{group}", {"event_receiver_ids": [third, second]})).status_code == 204
    async with database.connection() as connection:
        sql = "select actor_name, details::text from audit_log where act = 'group.update' and object_id = $1 order by id"
        rows = [(row["actor_name"], json.loads(row["details"])) for row in await connection.fetch(sql, group)]
    assert [(who, row["resource_version"], row.get("vouched_receiver_ids")) for who, row in rows] == [
        ("root", 2, {"before": [], "after": [third]}),
        ("root", 3, None),
        ("root", 3, {"before": [third], "after": [first, second, third]}),
        ("mallory", 4, {"before": [first, second, third], "after": [third, second]}),
    ]


@pytest.mark.parametrize("end", ["removed", "group deleted", "taken out of the group"])
async def test_what_ends_a_membership_ends_the_posting(
    server: Served, setting: tuple[str, str], cast: dict[str, Principal], news: FakeNews, end: str
) -> None:
    receiver, group = setting
    assert await post(server, "bob", receiver) == 201
    await warm(server.house.recorder, receiver)
    assert await hot(server.house.recorder, cast["bob"], receiver) is not None
    async with news.polled(0.05):
        match end:
            case "removed":
                answer = await call(server, "alice", "DELETE", f"/groups/{group}/members/{cast['bob'].id}")
            case "group deleted":
                answer = await call(server, "root", "DELETE", f"/groups/{group}")
            case _:
                other = await make_receiver(server, "alice")
                answer = await call(server, "alice", "PUT", f"/groups/{group}", {"event_receiver_ids": [other]})
        assert answer.status_code == 204
        await asyncio.sleep(0.2)
    await warm(server.house.recorder, receiver)
    assert await hot(server.house.recorder, cast["bob"], receiver) is None
    assert await post(server, "bob", receiver) == 403
    assert await post(server, "alice", receiver) == 201


async def test_two_groups_let_in_until_the_last_membership_ends(
    server: Served, setting: tuple[str, str], users: dict[str, UserId], news: FakeNews
) -> None:
    receiver, first = setting
    second = await make_group(server, "alice", receiver)
    await join(server, "alice", second, users["bob"])
    async with news.polled(0.05):
        for group, after in ((first, 201), (second, 403)):
            assert (await call(server, "alice", "DELETE", f"/groups/{group}/members/{users['bob']}")).status_code == 204
            await asyncio.sleep(0.2)
            assert await post(server, "bob", receiver) == after


# --- many processes


async def test_a_new_member_may_post_at_once_in_every_process(
    server: Served, setting: tuple[str, str], cast: dict[str, Principal], users: dict[str, UserId], database_url: str
) -> None:
    """The other process has heard nothing yet: it asks before it refuses."""
    receiver, group = setting
    async with served(database_url, cast, FakeNews(database_url)) as other:
        assert await post(other, "charlie", receiver) == 403
        await join(server, "alice", group, users["charlie"])
        assert await post(other, "charlie", receiver) == 201
        assert await post(server, "charlie", receiver) == 201


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "untold"])
async def test_a_member_who_is_removed_while_posting_is_refused_within_a_second(
    server: Served, setting: tuple[str, str], cast: dict[str, Principal], database_url: str, is_told: bool
) -> None:
    """By the short and the ordinary way of another process, whether that process hears of it or cannot."""
    receiver, group = setting
    bob = cast["bob"]
    assert bob.id is not None
    theirs = FakeNews(database_url)
    theirs.fresh = is_told
    async with served(database_url, cast, theirs) as other:
        recorder, refused_at_s = other.house.recorder, dict[str, float]()

        async def keep_posting(way: str) -> int:
            accepted = 0
            while way not in refused_at_s:
                posted = read_event(msgspec.json.encode(event(receiver, description=way)))
                try:
                    if way == "ordinary" or await hot(recorder, bob, receiver) is None:
                        await record_event(recorder, bob, posted)
                    accepted += 1
                except PermissionDenied:
                    refused_at_s[way] = time.monotonic()
                await asyncio.sleep(0)
            return accepted

        async def one_round() -> None:
            refused_at_s.clear()
            tasks = [asyncio.create_task(keep_posting(way)) for way in ("hot", "ordinary")]
            await asyncio.sleep(0.3)
            assert not refused_at_s
            assert bob.id is not None
            await remove_member(server.house.database, cast["alice"], EventReceiverGroupId(group), bob.id)
            removed_at_s = time.monotonic()
            async with asyncio.timeout(10):
                accepted = await asyncio.gather(*tasks)
            assert all(count > 0 for count in accepted)
            late_s = max(refused_at_s.values()) - removed_at_s
            assert late_s < 1.0, f"still posting {late_s:.2f} s after the removal"
            after = await stored(server.house.database, receiver)
            assert await hot(recorder, bob, receiver) is None
            with pytest.raises(PermissionDenied):
                await record_event(recorder, bob, read_event(msgspec.json.encode(event(receiver))))
            assert await stored(server.house.database, receiver) == after
            await add_member(server.house.database, cast["alice"], EventReceiverGroupId(group), NewGroupMember(user_id=bob.id), clock.now())

        async with theirs.polled() if is_told else _nothing():
            for _ in range(5):
                await one_round()


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


def counted_reloads(receivers: Receivers, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which receivers the database was asked about."""
    asked: list[str] = []
    real = receivers.reload

    async def reload(receiver_id: EventReceiverId) -> Any:
        asked.append(receiver_id)
        return await real(receiver_id)

    monkeypatch.setattr(receivers, "reload", reload)
    return asked


async def test_posting_to_it_needs_no_query_per_event(
    server: Served, setting: tuple[str, str], cast: dict[str, Principal], news: FakeNews, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, _ = setting
    recorder = server.house.recorder
    assert await post(server, "bob", receiver) == 201
    asked = counted_reloads(recorder.receivers, monkeypatch)
    for _ in range(100):
        assert await hot(recorder, cast["bob"], receiver) is not None
        await record_event(recorder, cast["bob"], read_event(msgspec.json.encode(event(receiver))))
    assert asked == []
    # One that hears nothing asks, but not for each event.
    news.fresh = False
    ended_s = time.monotonic() + 3 * manage.UNTOLD_TRUST_S
    posted = 0
    while time.monotonic() < ended_s:
        await record_event(recorder, cast["bob"], read_event(msgspec.json.encode(event(receiver))))
        posted += 1
    assert 1 <= len(asked) <= 4 < posted


async def test_what_is_not_restricted_stays_in_memory_whatever_is_heard(server: Served, news: FakeNews, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = await make_receiver(server, "alice")
    assert await post(server, "charlie", receiver) == 201
    asked = counted_reloads(server.house.recorder.receivers, monkeypatch)
    news.fresh = False
    await asyncio.sleep(manage.UNTOLD_TRUST_S + 0.1)
    assert await post(server, "charlie", receiver) == 201
    assert asked == []


async def test_what_was_read_before_a_change_is_not_kept_after_it(
    database: Database, setting: tuple[str, str], cast: dict[str, Principal], database_url: str
) -> None:
    """The read began before the removal and ends after the process has heard of it."""
    receiver, group = EventReceiverId(setting[0]), EventReceiverGroupId(setting[1])
    bob = cast["bob"].id
    assert bob is not None
    read, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Database):
        @asynccontextmanager
        async def connection(self) -> AsyncIterator[Connection]:
            async with database.connection() as connection:
                yield connection
            read.set()
            await go_on.wait()

    receivers = Receivers(Slow(database_url, connections_min=1, connections_max=1, connect_timeout_s=1))
    news = FakeNews(database_url)
    receivers.listen(news)
    reading = asyncio.create_task(receivers.get(receiver))
    await read.wait()
    await remove_member(database, cast["alice"], group, bob)
    watcher = await asyncpg.connect(database_url)
    await news.poll(watcher)
    await watcher.close()
    go_on.set()
    found = await reading
    assert found is not None
    assert bob in found.poster_ids, "as it was when it was read"
    assert receivers.kept(receiver) is None
    found = await receivers.get(receiver)
    assert found is not None
    assert found.poster_ids == frozenset()


async def test_a_receiver_that_becomes_restricted_is_so_for_the_next_event_everywhere(
    server: Served, cast: dict[str, Principal], database_url: str
) -> None:
    receiver = await make_receiver(server, "alice")
    async with served(database_url, cast, FakeNews(database_url)) as other:
        for each in (server, other):
            assert await post(each, "charlie", receiver) == 201
        assert (await call(server, "alice", "PUT", f"/receivers/{receiver}", {"restricted": True})).status_code == 204
        for each in (server, other):
            assert await post(each, "charlie", receiver) == 403
        assert (await call(server, "alice", "PUT", f"/receivers/{receiver}", {"restricted": False})).status_code == 204
        for each in (server, other):
            assert await post(each, "charlie", receiver) == 201


async def test_a_group_decides_by_what_members_post(server: Served, setting: tuple[str, str], cast: dict[str, Principal]) -> None:
    receiver, group = setting
    params = "&".join(
        f"{name}={value}" for name, value in {field: event("")[field] for field in ("name", "version", "release", "platform_id", "package")}.items()
    )
    assert await post(server, "charlie", receiver) == 403
    assert (await call(server, "charlie", "GET", f"/groups/{group}/status?{params}")).json()["complete"] is False
    assert await post(server, "bob", receiver) == 201
    status = (await call(server, "charlie", "GET", f"/groups/{group}/status?{params}")).json()
    assert (status["complete"], status["gates"][0]["decided_by"]) == (True, cast["bob"].id)


async def test_a_deleted_group_tells_every_process(server: Served, setting: tuple[str, str], cast: dict[str, Principal], database: Database) -> None:
    receiver, group = setting
    async with database.connection() as connection:
        before = await connection.fetchval("select count(*) from auth_changes")
        await delete_group(database, cast["root"], EventReceiverGroupId(group), IfMatch.of(None), clock.now())
        rows = await connection.fetch("select kind, subject from auth_changes order by id offset $1", before)
    assert [tuple(row) for row in rows] == [("receiver", receiver)]
