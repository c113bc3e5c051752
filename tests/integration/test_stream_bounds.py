"""What one reader of the stream can cost: pages in bytes, a filter that finds little, readers of one principal."""

import asyncio
import contextlib
import json
import secrets
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import asyncpg
import httpx2
import pytest

from support import old
from support.installation import Installation, installation
from xzepr import clock
from xzepr.auth.permissions import Role
from xzepr.auth.principal import Principal
from xzepr.db.pool import Database
from xzepr.errors import PositionExpired
from xzepr.groups.manage import change_group, create_group
from xzepr.groups.model import EventReceiverGroupChange, NewEventReceiverGroup
from xzepr.page import PAGE_BYTES_MAX
from xzepr.preconditions import IfMatch
from xzepr.stream import http as stream_http
from xzepr.stream.filter import Filter
from xzepr.stream.follow import PAGE_MESSAGES_MAX, READERS_MAX, WALK_MESSAGES_MAX, Tail
from xzepr.stream.http import StreamQuery, _frames
from xzepr.stream.message import Message, message_of

MEGABYTE = 1 << 20
ADMIN = Principal(name="alice", roles=frozenset({Role.ADMIN}))


def looked_at(plan: dict[str, Any]) -> tuple[int, list[str]]:
    """Rows that its scans touched, and tables of which more than a few rows were read one after the other."""
    rows, whole = 0, []
    if "Relation Name" in plan:
        rows = round((plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"])
        whole = [plan["Relation Name"]] if plan["Node Type"] == "Seq Scan" and rows > 50 else []
    for child in plan.get("Plans", ()):
        more = looked_at(child)
        rows, whole = rows + more[0], whole + more[1]
    return rows, whole


async def read_everything(tail: Tail, wanted: Filter | None = None) -> list[list[Message]]:
    """Page by page, from the beginning."""
    pages, after = [], 0
    while True:
        page, looked_to = await tail.read_wanted(after, wanted) if wanted is not None else (await tail.read(after), after)
        if wanted is None and page:
            looked_to = page[-1].position
        if looked_to == after:
            return pages
        pages.append(page)
        after = looked_to


async def test_a_page_of_the_stream_ends_with_its_bytes(database: Database) -> None:
    receiver = await old.make_receiver(database, "t")
    await old.store(database, receiver, 1, count=30, queued=True)
    async with database.connection() as connection:
        await connection.execute("update events set payload = $1", json.dumps(secrets.token_hex(MEGABYTE // 2)))
        await connection.execute("update event_receiver_versions set schema = $1", json.dumps({"title": "x" * MEGABYTE}))
    await old.sequence(database)
    tail = Tail(database)
    for wanted in (None, Filter(StreamQuery(type="t"))):
        pages = await read_everything(tail, wanted)
        assert [message.position for page in pages for message in page] == list(range(1, 31))
        # Payload, and the schema twice.
        assert all(sum(len(message.body) for message in page) < PAGE_BYTES_MAX + 4 * MEGABYTE for page in pages)
        assert [len(page) for page in pages] == [3] * 10
    # The same out of memory.
    tail._keep([message for page in pages for message in page[:1]])
    kept = tail._kept[0].position - 1
    assert [len(await tail.read(kept)), len((await tail.read_wanted(kept, Filter(StreamQuery(success=True))))[0])] == [3, 3]


async def test_a_filter_in_the_database_and_in_memory_say_the_same(database: Database) -> None:
    """Every field, for every kind of message."""
    receivers = [await old.make_receiver(database, kind) for kind in ("t", "u", "epr.event.receiver.group.created")]
    group_id = await create_group(
        database,
        ADMIN,
        NewEventReceiverGroup(name="g", type="g.complete", version="3", description="", enabled=True, event_receiver_ids=receivers[:1]),
        clock.now(),
    )
    await change_group(database, ADMIN, group_id, EventReceiverGroupChange(name="g2"), IfMatch.of(None), clock.now())
    for place, receiver in enumerate(receivers):
        for success in (True, False):
            await old.store(database, receiver, 1, name=f"api-{place % 2}", success=success, queued=True)
    async with database.connection() as connection:
        for place, receiver in enumerate(receivers):
            await connection.execute(
                "insert into outbox (seq, kind, event_receiver_id, event_receiver_version) values (nextval('fact_seq'), $1, $2, 1)",
                ("receiver.created", "receiver.modified", "receiver.deleted")[place],
                receiver,
            )
    await old.sequence(database)
    tail = Tail(database)
    everything = [message for page in await read_everything(tail) for message in page]
    kinds = {json.loads(message.body)["type"] for message in everything}
    assert {"g.complete", "xzepr.event.receiver.group.broken", "epr.event.receiver.created", "epr.event.receiver.group.modified"} <= kinds
    asked = 0
    for message in everything:
        values = {field: getattr(message, field) for field in Filter._COMPARED}
        queries: list[dict[str, Any]] = [{field: value} for field, value in values.items() if value is not None]
        queries += [{**query, "success": message.success} for query in queries]
        queries += [values, {**values, "name": "another"}, {"type": message.type, "name": message.name}]
        for query in queries:
            wanted = Filter(StreamQuery(**query))
            found = [each.position for page in await read_everything(tail, wanted) for each in page]
            assert found == [each.position for each in everything if wanted(each)], query
            asked += bool(found)
    assert asked > len(everything) * 8


async def test_what_is_not_wanted_is_not_fetched_and_the_others_get_their_turn(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = await old.make_receiver(database, "t")
    count = 2 * WALK_MESSAGES_MAX + 100
    await old.store(database, receiver, 1, count=count, queued=True)
    await old.sequence(database)
    made: list[int] = []
    pauses: list[float] = []

    def heard(row: Any) -> Message:
        made.append(row["position"])
        return message_of(row)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr("xzepr.stream.follow.message_of", heard)
    monkeypatch.setattr(stream_http, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(stream_http, "HEARTBEAT_S", 0.0)
    tail = Tail(database)
    async with contextlib.aclosing(_frames(tail, 0, Filter(StreamQuery(name="zzz")), AsyncMock(), "alice")) as frames:  # type: ignore[type-var]
        seen = [await anext(frames) for _ in range(4)]
    await tail.close()
    assert seen == [b"id: %d\n\n" % position for position in (0, WALK_MESSAGES_MAX, 2 * WALK_MESSAGES_MAX, count)]
    assert pauses == [stream_http.WALK_PAUSE_S] * 3
    # Those that the tail keeps for everybody.
    assert all(position > count - PAGE_MESSAGES_MAX for position in made)


async def test_a_sparse_filter_finds_every_message_in_order(database: Database) -> None:
    receiver, rare = await old.make_receiver(database, "t"), await old.make_receiver(database, "rare")
    for _ in range(3):
        await old.store(database, receiver, 1, count=700, queued=True)
        await old.store(database, rare, 1, count=PAGE_MESSAGES_MAX + 1, queued=True)
    await old.sequence(database)
    expected = [place + 1 for place in range(3 * (700 + PAGE_MESSAGES_MAX + 1)) if place % (700 + PAGE_MESSAGES_MAX + 1) >= 700]
    for query in ({"type": "rare"}, {"event_receiver_id": rare}, {"type": "rare", "name": "api", "success": True}):
        found = await read_everything(Tail(database), Filter(StreamQuery(**query)))
        assert [message.position for page in found for message in page] == expected


async def test_a_filter_is_not_led_over_what_was_trimmed(database: Database) -> None:
    receiver = await old.make_receiver(database, "t")
    await old.store(database, receiver, 1, count=30, queued=True)
    await old.sequence(database)
    async with database.connection() as connection:
        await connection.execute("delete from stream s where s.position <= 20")
    with pytest.raises(PositionExpired):
        await Tail(database).read_wanted(5, Filter(StreamQuery(name="zzz")))
    assert await Tail(database).read_wanted(20, Filter(StreamQuery(name="zzz"))) == ([], 30)
    assert await Tail(database).read_wanted(30, Filter(StreamQuery(name="zzz"))) == ([], 30)


async def test_a_look_behind_a_filter_goes_by_keys(database: Database, database_url: str) -> None:
    """Also while the planner knows nothing of the tables: no table is read whole but the part of the stream that is looked at."""
    receiver = await old.make_receiver(database, "t")
    await old.store(database, receiver, 1, count=1500, queued=True)
    await old.sequence(database)
    sql = stream_http.queries["match_stream"]
    for query in (StreamQuery(name="zzz"), StreamQuery(type="zzz"), StreamQuery(release="zzz", success=True)):
        for mode in ("force_custom_plan", "force_generic_plan"):
            connection = await asyncpg.connect(database_url, server_settings={"plan_cache_mode": mode, "jit": "off"})
            text = await connection.fetchval(f"explain (analyze, format json) {sql}", 0, WALK_MESSAGES_MAX, 50, *Filter(query).values)
            await connection.close()
            rows, whole = looked_at(json.loads(text)[0]["Plan"])
            # Of each message its own row, and its event or its receiver.
            assert (rows <= 3 * WALK_MESSAGES_MAX, [name for name in whole if not name.startswith("stream")]) == (True, []), text


def test_one_principal_has_a_bounded_number_of_readers(empty_url: str) -> None:
    with installation(XZEPR__DATABASE__URL=empty_url, XZEPR__SERVER__WORKERS="1") as running:
        asyncio.run(_fill_readers(running))


async def _fill_readers(running: Installation) -> None:
    limits = httpx2.Limits(max_connections=READERS_MAX + 10)
    async with httpx2.AsyncClient(base_url=running.url, timeout=60, limits=limits) as client:
        answers = [await client.send(client.build_request("GET", "/api/v1/stream"), stream=True) for _ in range(READERS_MAX)]
        # Held: a body whose iterator goes is closed.
        bodies = [aiter(answer.aiter_raw()) for answer in answers]
        assert {answer.status_code for answer in answers} == {200}
        for body in bodies:
            assert (await anext(body)).startswith(b"id: ")
        refused = await client.send(client.build_request("GET", "/api/v1/stream"), stream=True)
        assert refused.status_code == 429
        await refused.aread()
        assert (refused.status_code, refused.json()["error"], refused.headers["retry-after"]) == (429, "too_many_readers", "1")
        assert (await client.get("/api/v1/stream/position")).status_code == 200
        await answers[0].aclose()
        async with asyncio.timeout(30):
            while True:
                async with client.stream("GET", "/api/v1/stream") as again:
                    if again.status_code == 200:
                        break
                await asyncio.sleep(0.05)
        for answer in answers[1:]:
            await answer.aclose()
