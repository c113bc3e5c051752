"""What a redaction takes away, what it leaves, and that no copy of the payload stays anywhere in the house."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from test_cli import Cli
from test_members import call, told
from test_restricted import FakeNews
from xzepr_client import Client, ProblemError

from support.cast import artifact_of, event, make_receiver, post_event
from support.installation import Installation
from support.old import sequence
from support.served import Served, served
from support.users import make_users, principal
from xzepr import clock
from xzepr.auth.permissions import Role
from xzepr.auth.principal import Principal
from xzepr.db.pool import Connection, Database
from xzepr.ids import UserId
from xzepr.nvrpp import Nvrpp
from xzepr.retention.apply import apply_rules
from xzepr.retention.holds import add_hold, remove_hold
from xzepr.settings.model import RetentionRule
from xzepr.stream.follow import Tail

UNKNOWN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
SECRET = "hunter2-must-never-be-seen-again"
REASON = {"reason": "the log held a password"}
PARAMS = "&".join(f"{field}={value}" for field, value in artifact_of(event("")).items())


@pytest.fixture
async def users(database_url: str) -> dict[str, UserId]:
    return await make_users(database_url, ["alice", "root"])


@pytest.fixture
def cast(users: dict[str, UserId]) -> dict[str, Principal]:
    return {"alice": principal(users["alice"], "alice", Role.EVENT_MANAGER), "root": principal(users["root"], "root", Role.ADMIN)}


@pytest.fixture
async def server(database_url: str, cast: dict[str, Principal]) -> AsyncIterator[Served]:
    async with served(database_url, cast) as running:
        yield running


@pytest.fixture
async def receiver(server: Served) -> str:
    body = {"name": "tests", "type": "tests.finished", "version": "1", "schema": {"required": ["log"]}}
    return str((await call(server, "alice", "POST", "/receivers", body)).json()["data"])


async def post(server: Served, receiver: str, **fields: Any) -> str:
    body = event(receiver, payload={"log": SECRET}, description=f"it says {SECRET}", **fields)
    answer = await call(server, "alice", "POST", "/events", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"])


async def redact(server: Served, event_id: str, **headers: str) -> str:
    answer = await call(server, "root", "POST", f"/events/{event_id}/redactions", REASON, **headers)
    assert answer.status_code == 201, answer.text
    assert "location" not in answer.headers
    return str(answer.json()["data"])


async def value(database: Database, sql: str, *values: Any) -> Any:
    async with database.connection() as connection:
        return await connection.fetchval(sql, *values)


async def everything(database: Database) -> str:
    """Every row of every table, as text."""
    async with database.connection() as connection:
        tables = await connection.fetch(
            "select c.oid::regclass::text as name from pg_class c where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace"
        )
        rows = [await connection.fetchval(f"select coalesce(string_agg(t::text, ' '), '') from {row['name']} t") for row in tables]
    return "\n".join(rows)


async def test_a_tombstone_takes_the_payloads_place_and_the_rest_stays(server: Served, receiver: str, users: dict[str, UserId]) -> None:
    event_id = await post(server, receiver)
    before = (await call(server, "alice", "GET", f"/events/{event_id}")).json()
    redaction_id = await redact(server, event_id)
    after = (await call(server, "alice", "GET", f"/events/{event_id}")).json()
    tombstone = after.pop("payload")
    assert list(tombstone) == ["redacted", "redaction_id", "reason", "redacted_at"]
    assert tombstone == {"redacted": True, "redaction_id": redaction_id, **REASON, "redacted_at": tombstone["redacted_at"]}
    assert after == {**{name: field for name, field in before.items() if name != "payload"}, "description": ""}
    assert after["owner_id"] == users["alice"]


async def test_every_way_of_reading_shows_it(server: Served, receiver: str, database: Database) -> None:
    event_id, other = await post(server, receiver), await post(server, receiver)
    await sequence(database)
    await redact(server, event_id)
    by_list = (await call(server, "alice", "GET", "/events")).json()["data"]
    timeline = (await call(server, "alice", "GET", f"/artifacts/timeline?{PARAMS}")).json()["events"]
    tail = Tail(database)
    messages = [json.loads(message.body) for message in await tail.read(0)]
    events = [shown for message in messages for shown in message["data"].get("events") or []]
    for found in (by_list, timeline, events):
        payloads = {shown["id"]: (shown["payload"], shown["description"]) for shown in found}
        assert payloads[event_id][0]["redacted"] is True
        assert payloads[event_id][1] == ""
        assert payloads[other] == ({"log": SECRET}, f"it says {SECRET}")
    with_group = json.dumps(messages)
    assert with_group.count(SECRET) == 2


async def test_no_copy_stays_in_the_database(server: Served, receiver: str, database: Database) -> None:
    """Stored alone, in batches with a key whose answers are kept, as a CloudEvent; sequenced or still queued; in a group."""
    group = {"name": "release", "type": "released", "version": "1", "event_receiver_ids": [receiver]}
    assert (await call(server, "alice", "POST", "/groups", group)).status_code == 201
    made = [await post(server, receiver)]
    secret = event(receiver, payload={"log": SECRET}, description=SECRET)
    for query in ("", "?partial=true"):
        answer = await call(server, "alice", "POST", f"/events/batch{query}", [secret], Idempotency_Key=f"k{query}")
        [item] = answer.json()["data"]
        made.append(item if isinstance(item, str) else item["id"])
    cloud = {"specversion": "1.0", "id": "1", "source": "ci", "type": "tests.finished", "subject": "a/1/1/p/k", "xzdescription": SECRET}
    async with server.as_("alice") as client:
        content = json.dumps({**cloud, "data": {"log": SECRET}})
        answer = await client.post("/api/v1/events", content=content, headers={"Content-Type": "application/cloudevents+json"})
    made.append(answer.json()["data"])
    await sequence(database)
    made.append(await post(server, receiver))
    assert SECRET in await everything(database)
    for event_id in made:
        await redact(server, event_id)
    assert SECRET not in await everything(database)
    await sequence(database)
    assert SECRET not in await everything(database)


async def test_decisions_stay(server: Served, receiver: str, database: Database) -> None:
    group = {"name": "release", "type": "released", "version": "1", "event_receiver_ids": [receiver]}
    group_id = (await call(server, "alice", "POST", "/groups", group)).json()["data"]
    event_id = await post(server, receiver)
    queued = (await call(server, "alice", "GET", f"/groups/{group_id}/status?{PARAMS}")).json()
    await redact(server, event_id)
    assert (await call(server, "alice", "GET", f"/groups/{group_id}/status?{PARAMS}")).json() == queued
    await sequence(database)
    status = (await call(server, "alice", "GET", f"/groups/{group_id}/status?{PARAMS}")).json()
    assert (status["complete"], status["gates"][0]["event_id"]) == (True, event_id)
    kinds = [json.loads(message.body)["type"] for message in await Tail(database).read(0)]
    assert kinds[-2:] == ["tests.finished", "released"]


async def test_it_is_recorded_without_the_payload(server: Served, receiver: str, database: Database, users: dict[str, UserId]) -> None:
    event_id = await post(server, receiver)
    redaction_id = await redact(server, event_id, X_Request_ID="mine")
    async with database.connection() as connection:
        [act] = await connection.fetch("select * from audit_log where act = 'event.redact'")
        [row] = await connection.fetch("select * from redactions")
        changes = await connection.fetch("select kind, subject from auth_changes")
    assert (act["actor_id"], act["object_id"], act["outcome"]) == (users["root"], event_id, "success")
    assert json.loads(act["details"]) == {"redaction_id": redaction_id, **REASON}
    assert (row["id"], row["event_id"], row["reason"], row["created_by"]) == (redaction_id, event_id, REASON["reason"], users["root"])
    assert [tuple(change) for change in changes] == [("event", event_id)]


async def test_what_cannot_be_is_told(server: Served, receiver: str, database: Database) -> None:
    event_id = await post(server, receiver)
    path = f"/events/{event_id}/redactions"
    told(await call(server, "root", "POST", f"/events/{UNKNOWN}/redactions", REASON), 404, "not_found")
    told(await call(server, "root", "POST", "/events/x/redactions", REASON), 400, "invalid_id")
    for body, pointer in (({}, "/reason"), ({"reason": ""}, "/reason"), ({"reason": " "}, "/reason"), ({"reason": "r" * 1001}, "/reason")):
        assert [fault["pointer"] for fault in told(await call(server, "root", "POST", path, body), 400, "invalid_input")["errors"]] == [pointer]
    body = told(await call(server, "root", "POST", path, {**REASON, "why": 1}), 400, "invalid_input")
    assert [fault["pointer"] for fault in body["errors"]] == ["/why"]
    told(await call(server, "alice", "POST", path, REASON), 403, "permission_denied")
    told(await call(server, None, "POST", path, REASON), 401, "unauthenticated")
    assert (await call(server, "alice", "GET", f"/events/{event_id}")).json()["payload"] == {"log": SECRET}
    assert await value(database, "select count(*) from audit_log where act = 'event.redact'") == 0
    first = await redact(server, event_id)
    assert first in told(await call(server, "root", "POST", path, REASON), 409, "conflict")["detail"]


async def test_a_legal_hold_stands_before_it(server: Served, receiver: str, database: Database) -> None:
    event_id = await post(server, receiver)
    for subject in (receiver, Nvrpp(**artifact_of(event("")))):
        hold = await add_hold(database, subject, reason="a lawsuit", actor="alice")
        assert hold in told(await call(server, "root", "POST", f"/events/{event_id}/redactions", REASON), 409, "conflict")["detail"]
        await remove_hold(database, hold, actor="alice")
    await redact(server, event_id)


async def test_of_many_at_once_one_succeeds(server: Served, receiver: str, database: Database) -> None:
    event_id = await post(server, receiver)
    answers = await asyncio.gather(*(call(server, "root", "POST", f"/events/{event_id}/redactions", REASON) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert await value(database, "select count(*) from redactions") == 1
    assert await value(database, "select count(*) from audit_log where act = 'event.redact'") == 1


async def test_a_request_that_is_sent_again_redacts_once_and_each_event_by_itself(server: Served, receiver: str) -> None:
    first, second = await post(server, receiver), await post(server, receiver)
    redaction_id = await redact(server, first, Idempotency_Key="k")
    assert await redact(server, first, Idempotency_Key="k") == redaction_id
    # The same key and body for another event: another act, and its payload goes as well.
    assert await redact(server, second, Idempotency_Key="k") != redaction_id
    for event_id in (first, second):
        assert (await call(server, "alice", "GET", f"/events/{event_id}")).json()["payload"]["redacted"] is True


async def test_a_repeated_post_brings_nothing_back(server: Served, receiver: str, database: Database) -> None:
    body = event(receiver, payload={"log": SECRET})
    event_id = (await call(server, "alice", "POST", "/events", body, Idempotency_Key="k")).json()["data"]
    await redact(server, event_id)
    again = await call(server, "alice", "POST", "/events", body, Idempotency_Key="k")
    assert (again.json()["data"], again.headers["idempotency-replayed"]) == (event_id, "true")
    assert SECRET not in await everything(database)


async def test_a_redacted_event_goes_with_its_rule(server: Served, receiver: str, database: Database) -> None:
    event_id = await post(server, receiver)
    await redact(server, event_id)
    async with database.connection() as connection:
        await connection.execute("delete from outbox")
    rules = [RetentionRule(event_receiver_type="*", older_than_days=1)]
    later = clock.now() + timedelta(days=10)
    removed = [made.removed async for made in apply_rules(database, rules, stream_days=30, now=later, actor="test", batch_rows=100)]
    assert removed == [1]
    assert await value(database, "select count(*) from redactions") == 1, "that and why it was redacted is kept"


# --- what processes keep in memory


async def test_messages_in_memory_are_forgotten(server: Served, receiver: str, database: Database) -> None:
    event_id = await post(server, receiver)
    tail = Tail(database)
    async with tail.following():
        await post(server, receiver)
        await sequence(database)
        async with asyncio.timeout(10):
            while SECRET.encode() not in b"".join(message.body for message in tail._kept):
                await asyncio.sleep(0.01)
        await redact(server, event_id)
        tail.forget(event_id)
        shown = [message.body for message in await tail.read(0)]
        assert sum(body.count(SECRET.encode()) for body in shown) == 2, "the other event has its payload and description"
        assert sum(b'"redacted":true' in body for body in shown) == 1
        # It goes on following: what comes later is kept again, without a gap.
        later = await post(server, receiver, name="later")
        await sequence(database)
        async with asyncio.timeout(10):
            while not any(later.encode() in message.body for message in tail._kept):
                await asyncio.sleep(0.01)
        positions = [message.position for message in await tail.read(0)]
        assert positions == list(range(1, len(positions) + 1))
    await tail.close()


async def test_messages_that_were_being_read_are_not_kept(server: Served, receiver: str, database: Database, database_url: str) -> None:
    event_id = await post(server, receiver)
    await sequence(database)
    read, go_on, reads = asyncio.Event(), asyncio.Event(), 0

    class Slow(Database):
        """The position is read at once, then the messages behind it, slowly."""

        @asynccontextmanager
        async def connection(self) -> AsyncIterator[Connection]:
            nonlocal reads
            reads += 1
            is_slow = reads == 2
            async with database.connection() as connection:
                yield connection
            if is_slow:
                read.set()
                await go_on.wait()

    tail = Tail(Slow(database_url, connections_min=1, connections_max=1, connect_timeout_s=1))
    looking = asyncio.create_task(tail._look())
    await read.wait()
    await redact(server, event_id)
    tail.forget(event_id)
    go_on.set()
    await looking
    assert all(SECRET.encode() not in message.body for message in tail._kept)
    assert all(SECRET.encode() not in message.body for message in await tail.read(0))


async def test_the_house_listens(database_url: str, cast: dict[str, Principal]) -> None:
    news = FakeNews(database_url)
    async with served(database_url, cast, news) as server:
        assert news._callbacks == {"receiver": [server.house.recorder.receivers.forget], "event": [server.house.tail.forget]}


# --- client and command line


def test_client_and_command_line(shared_installation: Installation, http: httpx2.Client) -> None:
    receiver = make_receiver(http)
    first, second = (post_event(http, receiver, payload={"log": SECRET}) for _ in range(2))
    with Client(shared_installation.url) as client:
        redaction_id = client.redact_event(first, "it held a password", idempotency_key="mine")
        assert client.redact_event(first, "it held a password", idempotency_key="mine") == redaction_id
        assert client.get_event(first).payload_value["redaction_id"] == redaction_id
        with pytest.raises(ProblemError) as raised:
            client.redact_event(first, "again")
        assert raised.value.status == 409
    cli = Cli(shared_installation.url)
    assert cli.json("event", "redact", second, "--reason", "it held a password")["id"] == cli.json("event", "show", second)["payload"]["redaction_id"]
    assert "was redacted already" in cli.fails(1, "event", "redact", second, "--reason", "again")
    assert "Missing option '--reason'" in cli.fails(2, "event", "redact", second)
