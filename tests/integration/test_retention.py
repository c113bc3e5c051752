"""What is removed by age, what must not be, and what remains of it."""

import asyncio
import json
import os
import pty
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock

import asyncpg
import httpx2
import pytest

from support import old
from support.installation import XZEPR, Installation, installation
from support.old import NOW, age_stream, artifact, events_left, make_group, make_receiver, sequence, store, value
from xzepr import ids
from xzepr.artifacts.model import ArtifactPage
from xzepr.artifacts.read import search_artifacts
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import InvalidInput, NotFound, PositionExpired, Unavailable
from xzepr.ids import HoldId
from xzepr.retention import rows
from xzepr.retention.apply import apply_rules
from xzepr.retention.holds import add_hold, list_holds, remove_hold
from xzepr.retention.model import Disposition, Plan, due_by
from xzepr.retention.months import drop_months
from xzepr.retention.plan import make_plan
from xzepr.retention.rounds import keep_applying, keep_trimming
from xzepr.retention.trim import trim_stream
from xzepr.settings import Settings
from xzepr.settings.model import Retention, RetentionRule
from xzepr.stream.filter import Filter
from xzepr.stream.follow import Tail
from xzepr.stream.http import StreamQuery, _frames
from xzepr.stream.lead import Lead

queries = Queries("xzepr.retention")
EVERYTHING = (("*", 100),)


def rules(given: Sequence[tuple[str, int]]) -> list[RetentionRule]:
    return [RetentionRule(event_receiver_type=kind, older_than_days=days) for kind, days in given]


async def plan(database: Database, given: Sequence[tuple[str, int]], *, stream_days: int = 30) -> Plan:
    return await make_plan(database, rules(given), stream_days=stream_days, now=NOW)


async def numbers(database: Database, given: Sequence[tuple[str, int]], **options: int) -> list[tuple[str | None, int, int, int, int]]:
    made = await plan(database, given, **options)
    return [(line.event_receiver_type, line.due, line.held, line.in_stream, line.removable) for line in made.lines]


async def apply(
    database: Database, given: Sequence[tuple[str, int]] = EVERYTHING, *, stream_days: int = 30, batch_rows: int = 5_000
) -> list[Disposition]:
    applied = apply_rules(database, rules(given), stream_days=stream_days, now=NOW, actor="test", batch_rows=batch_rows)
    return [made async for made in applied]


async def recorded(database: Database, subject: str = "events") -> int:
    """How many the dispositions say were removed."""
    found = await value(database, "select coalesce(sum(d.removed), 0) from retention_dispositions d where d.subject = $1", subject)
    return int(str(found))


async def partitions(database: Database) -> set[str]:
    async with database.connection() as connection:
        return {row["name"] for row in await connection.fetch(queries["partitions_of"], "events")}


def month(days: float) -> str:
    return f"events_{NOW - timedelta(days=days):%Y_%m}"


# --- rules and plan


async def test_the_plan_says_what_is_due_and_the_first_rule_that_matches_counts(database: Database) -> None:
    scans, builds, signatures = [await make_receiver(database, kind) for kind in ("artifact.scanned", "build.finished", "artifact.signed")]
    await store(database, scans, 400, count=3)
    await store(database, scans, 20, count=2)
    await store(database, builds, 400, count=4)
    await store(database, signatures, 5000, count=5)
    given = (("artifact.signed", 10_000), ("artifact.*", 365), ("artefact.*", 1))
    assert await numbers(database, given) == [("artifact.signed", 0, 0, 0, 0), ("artifact.scanned", 3, 0, 0, 3), (None, 0, 0, 0, 0)]
    made = await plan(database, given)
    assert (made.removable, made.messages, made.holds) == (3, 0, 0)
    assert made.lines[1].oldest_at is not None
    assert made.lines[1].oldest_at[:10] == f"{NOW - timedelta(days=400):%Y-%m-%d}"
    before = await events_left(database)
    assert sum(each.removed for each in await apply(database, given)) == 3
    assert len(before - await events_left(database)) == 3
    assert await numbers(database, given) == [("artifact.signed", 0, 0, 0, 0), ("artifact.scanned", 0, 0, 0, 0), (None, 0, 0, 0, 0)]


async def test_without_a_rule_everything_is_kept(database: Database) -> None:
    await store(database, await make_receiver(database, "build.finished"), 9_000, count=3)
    assert await apply(database, ()) == []
    assert await apply(database, (("artifact.*", 1),)) == []
    assert len(await events_left(database)) == 3


async def test_events_of_a_deleted_receiver_fall_to_its_rule(database: Database) -> None:
    receiver = await make_receiver(database, "build.finished")
    await store(database, receiver, 400)
    await value(database, "update event_receivers set deleted_at = $1 where id = $2", NOW, receiver)
    assert sum(each.removed for each in await apply(database)) == 1


async def test_the_age_is_that_of_the_id_to_the_millisecond(database: Database) -> None:
    receiver = await make_receiver(database, "build.finished")
    await store(database, receiver, 100)
    assert await numbers(database, (("*", 100),)) == [("build.finished", 0, 0, 0, 0)]
    (older,) = await store(database, receiver, 100.00001)
    await store(database, receiver, 99.99999)
    assert [each.first for each in await apply(database, (("*", 100),))] == [older]


async def test_a_receiver_that_was_given_another_type_meanwhile_keeps_its_events(database: Database) -> None:
    receiver = await make_receiver(database, "build.finished")
    await store(database, receiver, 400)
    (stale,) = due_by(rules(EVERYTHING), [(receiver, "build.started")], NOW)
    assert [made async for made in rows.remove_rows(database, stale, below="~", actor="test", go_on=lambda: True)] == []
    months = drop_months(database, [stale], now=NOW, actor="test", go_on=lambda: True)
    assert [made async for made in months] == []
    assert len(await events_left(database)) == 1


# --- holds


async def test_a_hold_keeps_an_artifact_or_a_receiver_until_it_is_taken_off(database: Database) -> None:
    scans, builds = await make_receiver(database, "artifact.scanned"), await make_receiver(database, "build.finished")
    kept = set(await store(database, scans, 400, count=3, name="held") + await store(database, builds, 400, count=2, name="api"))
    await store(database, scans, 400, count=4, name="api")
    by_artifact = await add_hold(database, artifact("held"), reason="a lawsuit", actor="alice")
    by_receiver = await add_hold(database, builds, reason="an audit", actor="alice")
    assert [(each.id, each.event_receiver_id, each.name, each.reason, each.created_by) for each in await list_holds(database)] == [
        (by_artifact, None, "held", "a lawsuit", "alice"),
        (by_receiver, builds, None, "an audit", "alice"),
    ]
    assert await numbers(database, EVERYTHING) == [("artifact.scanned", 7, 3, 0, 4), ("build.finished", 2, 2, 0, 0)]
    assert sum(each.removed for each in await apply(database)) == 4
    assert await events_left(database) == kept
    await remove_hold(database, by_artifact, actor="bob")
    await remove_hold(database, by_receiver, actor="bob")
    assert await list_holds(database) == []
    assert await value(database, "select h.removed_by from retention_holds h where h.id = $1", by_artifact) == "bob"
    assert sum(each.removed for each in await apply(database)) == 5


async def test_one_other_field_is_another_artifact_and_not_held(database: Database) -> None:
    receiver = await make_receiver(database, "build.finished")
    await store(database, receiver, 400, name="held")
    for field in ("name", "version", "release", "platform_id", "package"):
        await add_hold(database, artifact("held")._replace(**{field: "other"}), reason="r", actor="a")
    assert sum(each.removed for each in await apply(database)) == 1


async def test_a_hold_that_cannot_be_is_refused(database: Database) -> None:
    with pytest.raises(NotFound):
        await add_hold(database, ids.mint(HoldId), reason="r", actor="a")
    with pytest.raises(InvalidInput, match="reason"):
        await add_hold(database, artifact("x"), reason=" ", actor="a")
    with pytest.raises(InvalidInput, match="release"):
        await add_hold(database, artifact("x")._replace(release=""), reason="r", actor="a")
    with pytest.raises(NotFound):
        await remove_hold(database, ids.mint(HoldId), actor="a")


async def test_a_hold_added_while_rules_are_applied_counts_from_the_next_batch_on(database: Database) -> None:
    receiver = await make_receiver(database, "build.finished")
    await store(database, receiver, 400, count=35)
    # A hold on something else keeps the month from being dropped as a whole.
    await store(database, receiver, 400, name="held")
    await add_hold(database, artifact("held"), reason="r", actor="a")
    removed = 0
    async for made in apply_rules(database, rules(EVERYTHING), stream_days=30, now=NOW, actor="test", batch_rows=10):
        removed += made.removed
        if removed == 20:
            await add_hold(database, receiver, reason="stop", actor="a")
    assert removed == 20
    assert len(await events_left(database)) == 16


async def test_a_hold_waits_for_the_batch_under_way_and_gives_up_after_five_seconds(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(queries["lock_holds"])
        adding = asyncio.create_task(add_hold(database, artifact("x"), reason="r", actor="a"))
        while not await value(database, "select exists (select from pg_locks l where not l.granted and l.relation = 'retention_holds'::regclass)"):
            await asyncio.sleep(0.01)
        assert not adding.done()
    assert ids.is_ulid(await adding)
    async with database.transaction() as connection:
        await connection.execute("set local idle_in_transaction_session_timeout = 0")
        await connection.execute(queries["lock_holds"])
        with pytest.raises(Unavailable, match="the hold was not added"):
            await add_hold(database, artifact("y"), reason="r", actor="a")
    assert len(await list_holds(database)) == 1


# --- the stream


async def test_what_the_kept_stream_still_shows_is_not_removable_until_it_is_trimmed(database: Database) -> None:
    receiver = await make_receiver(database, "build.finished")
    await store(database, receiver, 400, count=3, queued=True)
    await store(database, receiver, 400, count=2)
    assert await numbers(database, EVERYTHING) == [("build.finished", 5, 0, 3, 2)], "queued"
    await sequence(database)
    assert await numbers(database, EVERYTHING) == [("build.finished", 5, 0, 3, 2)], "sequenced"
    assert sum(each.removed for each in await apply(database)) == 2
    assert len(await events_left(database)) == 3
    await age_stream(database, 40)
    made = await plan(database, EVERYTHING)
    assert (made.removable, made.messages) == (3, 3)
    assert [(each.subject, each.removed) for each in await apply(database)] == [("messages", 3), ("events", 3)]
    assert await events_left(database) == set()


async def test_the_trigger_of_a_kept_decision_is_shown_too(database: Database) -> None:
    receiver = await make_receiver(database, "build.finished")
    group = await make_group(database, [receiver])
    (event_id,) = await store(database, receiver, 400, queued=True)
    await sequence(database)
    await age_stream(database, 40)
    await evaluate(database, group)
    assert await value(database, "select count(*) from stream t where t.event_id = $1", event_id) == 3
    made = await apply(database)
    assert [each.subject for each in made] == ["messages"]
    assert await events_left(database) == {event_id}
    assert await numbers(database, EVERYTHING) == [("build.finished", 1, 0, 1, 0)]


async def evaluate(database: Database, group: str, name: str = "api") -> None:
    await value(
        database,
        """insert into outbox (seq, kind, artifact_id, event_receiver_group_id, event_receiver_group_version)
        values (nextval('fact_seq'), 'evaluation.requested', $1, $2, 1)""",
        artifact(name).artifact_id,
        group,
    )
    await sequence(database)


async def test_a_message_that_comes_while_its_event_is_being_removed_keeps_it(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = await make_receiver(database, "build.finished")
    group = await make_group(database, [receiver])
    (told,) = await store(database, receiver, 400, queued=True)
    await sequence(database)
    async for _ in trim_stream(database, NOW + timedelta(days=1), actor="test"):
        pass
    # Not droppable as a whole, and walked over: nothing is in the stream.
    other = await make_receiver(database, "other")
    await store(database, other, 400)
    put = rows.dispositions.put
    raced = []

    async def racing(connection: Any, made: Disposition) -> None:
        if not raced:
            raced.append(made.first)
            await evaluate(database, group)
        await put(connection, made)

    monkeypatch.setattr(rows.dispositions, "put", racing)
    assert await apply(database, (("build.*", 100),)) == []
    assert raced == [told]
    assert told in await events_left(database)
    assert await value(database, "select count(*) from stream t where t.event_id = $1", told) == 1
    assert await recorded(database) == 0


async def test_the_stream_is_trimmed_from_its_beginning_in_batches_and_positions_go_on(database: Database) -> None:
    receiver = await make_receiver(database, "build.finished")
    await store(database, receiver, 2, count=25, queued=True)
    await sequence(database)
    await age_stream(database, 40)
    await value(database, "update stream set sequenced_at = $1 where position in (24, 25)", NOW)
    before = NOW - timedelta(days=30)
    made = [each async for each in trim_stream(database, before, actor="test", batch_messages=10)]
    assert [(each.removed, each.first, each.last) for each in made] == [(10, "1", "10"), (10, "11", "20"), (3, "21", "23")]
    assert await recorded(database, "messages") == 23
    tail = Tail(database)
    for too_old in (0, 22):
        with pytest.raises(PositionExpired) as expired:
            await tail.start_of(too_old)
        assert expired.value.extra == {"oldest": 24}
    assert await tail.start_of(23) == 23
    assert [message.position for message in await tail.read(23)] == [24, 25]
    with pytest.raises(PositionExpired):
        # Was let in before the trim, and has not read since: its answer ends, and it is told when it resumes.
        await tail.read(5)
    assert [frame async for frame in _frames(tail, 5, Filter(StreamQuery()), AsyncMock())] == [b"id: 5\n\n"]

    assert [each.removed async for each in trim_stream(database, NOW + timedelta(days=1), actor="test")] == [2]
    assert await tail.start_of(None) == 25
    assert await tail.start_of(25) == 25
    with pytest.raises(PositionExpired) as expired:
        await tail.start_of(24)
    assert expired.value.extra == {"oldest": 26}
    await store(database, receiver, 1, queued=True)
    await sequence(database)
    assert await value(database, "select min(t.position) from stream t") == 26


async def test_a_message_that_looks_young_keeps_what_stands_behind_it(database: Database) -> None:
    await store(database, await make_receiver(database, "build.finished"), 2, count=5, queued=True)
    await sequence(database)
    await age_stream(database, 40)
    await value(database, "update stream set sequenced_at = $1 where position = 3", NOW + timedelta(days=365))
    assert [each.removed async for each in trim_stream(database, NOW - timedelta(days=30), actor="test")] == [2]
    assert await value(database, "select min(t.position) from stream t") == 3


async def test_a_piece_of_the_stream_that_is_wholly_old_is_dropped(database: Database) -> None:
    await store(database, await make_receiver(database, "build.finished"), 2, count=5, queued=True)
    await sequence(database)
    await age_stream(database, 40)
    # As if ten million positions had been given, and the first ones were trimmed.
    await value(database, "update stream set position = position + 9999996")
    await value(database, "update stream set sequenced_at = $1 where position > 10000000", NOW)
    await value(database, "update sequencer set last_position = 10000001")
    made = [each async for each in trim_stream(database, NOW - timedelta(days=30), actor="test")]
    assert [(each.removed, each.first, each.last, each.partition) for each in made] == [
        (3, "9999997", "9999999", "stream_000000"),
        (1, "10000000", "10000000", None),
    ]
    assert await value(database, "select to_regclass('stream_000000') is null and to_regclass('stream_000001') is not null")
    assert await value(database, "select count(*) from stream") == 1


async def test_a_reader_that_resumes_before_what_is_kept_is_answered_410_and_one_at_the_end_goes_on(database_url: str, database: Database) -> None:
    receiver = await make_receiver(database, "build.finished")
    await store(database, receiver, 400, count=3, queued=True)
    with installation(XZEPR__DATABASE__URL=database_url, XZEPR__SERVER__WORKERS="1") as running:
        async with httpx2.AsyncClient(base_url=running.url, timeout=30) as client:
            while (await client.get("/api/v1/stream/position")).json() != {"oldest": 1, "newest": 3, "pending": 0}:
                await asyncio.sleep(0.02)
            await age_stream(database, 40)
            assert [each.removed async for each in trim_stream(database, NOW - timedelta(days=30), actor="test")] == [3]
            assert (await client.get("/api/v1/stream/position")).json() == {"oldest": None, "newest": 3, "pending": 0}
            refused = await client.get("/api/v1/stream", headers={"Last-Event-ID": "2"})
            assert (refused.status_code, refused.json()["error"], refused.json()["oldest"]) == (410, "position_expired", 4)
            async with client.stream("GET", "/api/v1/stream", params={"after": 3}) as answer:
                posted = await store(database, receiver, 1, queued=True)
                async for line in answer.aiter_lines():
                    if line.startswith("data:"):
                        assert (json.loads(line[5:])["id"], json.loads(line[5:])["position"]) == (posted[0], 4)
                        break


# --- what remains


async def test_gates_keep_what_removed_events_decided(database_url: str, database: Database) -> None:
    scans, builds = await make_receiver(database, "artifact.scanned"), await make_receiver(database, "build.finished")
    group = await make_group(database, [scans, builds])
    fields = artifact("api")._asdict()
    owner = ids.mint(ids.UserId)
    await store(database, scans, 500, owner=owner, queued=True)
    await store(database, builds, 450, queued=True, success=False, owner=owner)
    await store(database, builds, 400, queued=True)
    # Broken by one that is no head any more.
    await store(database, scans, 390, queued=True, name="web")
    await store(database, builds, 390, queued=True, name="web")
    (breaking,) = await store(database, builds, 380, queued=True, name="web", success=False)
    await store(database, builds, 370, queued=True, name="web", success=False)
    await sequence(database)
    with installation(XZEPR__DATABASE__URL=database_url, XZEPR__SERVER__WORKERS="1") as running, httpx2.Client(base_url=running.url) as http:

        def seen() -> tuple[Any, Any, Any]:
            status = http.get(f"/api/v1/groups/{group}/status", params=fields).json()
            listed = http.get(f"/api/v1/groups/{group}/artifacts").json()["data"]
            complete = http.get(f"/api/v1/groups/{group}/artifacts", params={"complete": True}).json()["data"]
            return status, listed, complete

        before = seen()
        assert before[0]["complete"] is True
        assert before[0]["gates"][0]["decided_by"] == owner
        assert [(each["name"], each["complete"]) for each in before[1]] == [("web", False), ("api", True)]
        assert before[1][0]["event_id"] == breaking
        timeline = http.get("/api/v1/artifacts/timeline", params=fields).json()
        assert len(timeline["events"]) == 3
        await age_stream(database, 40)
        removed = await apply(database)
        assert sum(each.removed for each in removed if each.subject == "events") == 7
        assert await events_left(database) == set()
        assert seen() == before
        timeline = http.get("/api/v1/artifacts/timeline", params=fields).json()
        assert timeline["events"] == []
        assert timeline["groups"][0]["complete"] is True
        # Only what decided something is kept of it: four heads, and the one that broke the group.
        assert await value(database, "select count(*) from removed_heads") == 5

        # A message that tells of a removed event says so.
        evaluated = http.post(f"/api/v1/groups/{group}/evaluations", json=fields).json()
        assert evaluated["complete"] is True
        with http.stream("GET", "/api/v1/stream", params={"after": evaluated["position"] - 1}) as answer:
            message = next(json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:"))
        event = message["data"]["events"][0]
        assert (message["message_id"], message["truncated"], message["event_receiver_version"]) == (evaluated["message_id"], True, 1)
        assert (event["name"], event["payload"], event["description"], event["success"]) == ("api", {}, "", True)
        assert event["EventReceiver"]["type"] == "build.finished"
        posted = {**fields, "description": "", "payload": {}, "success": False, "event_receiver_id": builds}
        assert http.post("/api/v1/events", json=posted).status_code == 201
        assert http.get(f"/api/v1/groups/{group}/status", params=fields).json()["complete"] is False


async def test_what_is_removed_in_rows_keeps_the_same_as_a_dropped_month(database: Database) -> None:
    receiver = await make_receiver(database, "build.finished")
    group = await make_group(database, [receiver])
    await store(database, receiver, 400, queued=True, count=12)
    await store(database, receiver, 400, queued=True, name="held")
    await sequence(database)
    await age_stream(database, 40)
    await add_hold(database, artifact("held"), reason="r", actor="a")
    made = await apply(database, batch_rows=5)
    assert [(each.subject, each.partition) for each in made] == [("messages", None)] + [("events", None)] * 3
    assert await value(database, "select array_agg(k.name) from removed_heads k") == ["api"]
    assert await value(database, "select count(*) from group_states s where s.event_receiver_group_id = $1", group) == 2


async def test_an_artifact_is_listed_as_long_as_any_event_of_it_is_there(database: Database) -> None:
    kept, going = await make_receiver(database, "artifact.signed"), await make_receiver(database, "build.finished")
    (signed,) = await store(database, kept, 400, queued=True)
    (built,) = await store(database, going, 399, queued=True)
    await store(database, going, 398, queued=True, name="web")
    await sequence(database)
    await age_stream(database, 40)

    async def listed() -> list[tuple[str, str]]:
        page = await search_artifacts(database, ArtifactPage())
        return [(each.name, each.last_event_id) for each in page.data]

    assert [name for name, _ in await listed()] == ["web", "api"]
    # What is kept ahead of a removal that does not come changes nothing.
    await value(
        database,
        """insert into removed_heads (event_id, event_receiver_version, name, version, release, platform_id, package, success, created_at)
        select e.id, 1, e.name, e.version, e.release, e.platform_id, e.package, true, e.created_at from events e where e.id = $1""",
        built,
    )
    assert dict(await listed())["api"] == built
    await apply(database, (("build.*", 100),))
    assert await listed() == [("api", signed)]


# --- partitions


async def test_a_month_that_is_wholly_due_is_dropped_and_its_dispositions_say_so(database: Database) -> None:
    one, two = await make_receiver(database, "a.one"), await make_receiver(database, "a.two")
    await store(database, one, 400, count=7)
    await store(database, two, 400, count=5)
    assert month(400) in await partitions(database)
    made = await apply(database, (("a.one", 100), ("*", 200)))
    assert [(each.event_receiver_id, each.removed, each.partition, str(each.rule)) for each in made] == [
        (one, 7, month(400), "a.one > 100 d"),
        (two, 5, month(400), "* > 200 d"),
    ]
    assert month(400) not in await partitions(database)
    assert await recorded(database) == 12
    assert await events_left(database) == set()


@pytest.mark.parametrize("reason", ["a hold on the receiver", "a hold on an artifact", "a receiver without a rule", "a message", "the queue"])
async def test_a_month_that_something_keeps_is_not_dropped(database: Database, reason: str) -> None:
    receiver = await make_receiver(database, "a.one")
    await store(database, receiver, 400, count=7)
    keeps = receiver
    if reason == "a hold on the receiver":
        await add_hold(database, receiver, reason="r", actor="a")
    elif reason == "a hold on an artifact":
        await store(database, receiver, 400, name="held")
        await add_hold(database, artifact("held"), reason="r", actor="a")
    elif reason == "a receiver without a rule":
        keeps = await make_receiver(database, "b.two")
        await store(database, keeps, 400)
    else:
        await store(database, receiver, 400, queued=True)
        if reason == "a message":
            await sequence(database)
    made = await apply(database, (("a.*", 100),))
    assert month(400) in await partitions(database)
    assert all(each.partition is None for each in made)
    left = await events_left(database)
    assert len(left) == (7 if reason == "a hold on the receiver" else 1)
    assert await recorded(database) == sum(each.removed for each in made) == 7 - (len(left) if len(left) == 7 else 0)


async def test_a_month_that_is_in_use_goes_in_rows_and_is_dropped_when_it_is_empty(database_url: str, database: Database) -> None:
    receiver = await make_receiver(database, "a.one")
    await store(database, receiver, 400, count=7)
    reader = await asyncpg.connect(database_url)
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch(f"select e.id from {month(400)} e")
    made = await apply(database)
    assert [(each.removed, each.partition) for each in made] == [(7, None)]
    assert month(400) in await partitions(database)
    await transaction.rollback()
    await reader.close()
    assert await apply(database) == []
    assert month(400) not in await partitions(database)


async def test_empty_old_months_go_also_without_rules_and_the_last_month_stays(database: Database) -> None:
    receiver = await make_receiver(database, "a.one")
    await store(database, receiver, 400)
    await value(database, "delete from events")
    there = await partitions(database)
    await apply(database, ())
    assert there - await partitions(database) == {month(400)}
    last = (datetime(NOW.year, NOW.month, 1, tzinfo=UTC) - timedelta(days=1)).replace(day=1)
    assert {f"events_{last:%Y_%m}", f"events_{NOW:%Y_%m}", "events_default"} <= await partitions(database)


async def test_rows_of_months_before_in_the_default_partition_go_in_rows(database: Database) -> None:
    receiver = await make_receiver(database, "a.one")
    (event_id,) = await store(database, receiver, 400)
    await value(database, f"with moved as (delete from {month(400)} returning *) insert into events select * from moved")
    await value(database, f"alter table events detach partition {month(400)}")
    await value(database, f"insert into events_default select * from {month(400)}")
    await value(database, f"drop table {month(400)}")
    made = await apply(database)
    assert [(each.first, each.partition) for each in made] == [(event_id, None)]


# --- crashes, dispositions


async def test_a_run_that_is_cut_off_loses_nothing_and_the_next_one_finishes(database: Database) -> None:
    receiver = await make_receiver(database, "a.one")
    held = await store(database, receiver, 400, name="held")
    await add_hold(database, artifact("held"), reason="r", actor="a")
    before = set(held + await store(database, receiver, 400, count=400) + await store(database, receiver, 300, count=100, name="web"))
    cut = 0
    for delay_s in (0.02, 0.05, 0.08, 0.11, 0.14):
        run = asyncio.create_task(apply(database, batch_rows=10))
        await asyncio.sleep(delay_s)
        cut += not run.done()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        left = await events_left(database)
        assert len(before) - len(left) == await recorded(database)
        assert set(held) <= left
    assert cut > 0
    await apply(database, batch_rows=10)
    assert await events_left(database) == set(held)
    assert await recorded(database) == 500


async def test_two_runs_at_once_count_nothing_twice(database: Database) -> None:
    receiver = await make_receiver(database, "a.one")
    await store(database, receiver, 400, name="held")
    await add_hold(database, artifact("held"), reason="r", actor="a")
    await store(database, receiver, 400, count=200)
    both = await asyncio.gather(apply(database, batch_rows=10), apply(database, batch_rows=10))
    assert sum(each.removed for made in both for each in made) == 200 == await recorded(database)


async def test_a_disposition_says_what_when_by_which_rule_and_by_whom(database: Database) -> None:
    receiver = await make_receiver(database, "a.one")
    first, *_, last = await store(database, receiver, 400, count=5)
    await store(database, receiver, 10)
    await apply(database, (("a.*", 30),))
    async with database.connection() as connection:
        (row,) = await connection.fetch("select d.* from retention_dispositions d")
    assert (row["subject"], row["rule_type"], row["rule_days"], row["event_receiver_id"], row["event_receiver_type"]) == (
        "events",
        "a.*",
        30,
        receiver,
        "a.one",
    )
    assert (row["removed"], row["first"], row["last"], row["actor"], row["partition"]) == (5, first, last, "test", month(400))
    assert (row["oldest_at"], row["newest_at"]) == (ids.time_of(first), ids.time_of(last))


# --- the relay


async def test_the_leader_trims_and_applies_also_when_idle_and_a_standby_does_not(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    receiver = await make_receiver(database, "a.one")
    await store(database, receiver, 400, count=3, queued=True)
    await sequence(database)
    await age_stream(database, 40)
    settings = Settings(retention=Retention(rules=rules((("a.*", 100),))))
    standby = Lead(database, "standby")
    idle = [asyncio.create_task(each(database, standby, settings, first_s=0, interval_s=0.01)) for each in (keep_trimming, keep_applying)]
    await asyncio.sleep(0.2)
    assert await value(database, "select count(*) from stream") == 3
    leader = Lead(database, "leader")
    await value(database, "update sequencer set expires_at = '-infinity'")
    await leader._acquire()
    # A broken round is told and tried again.
    await value(database, "alter table retention_dispositions rename to hidden")
    busy = [asyncio.create_task(each(database, leader, settings, first_s=0, interval_s=0.01)) for each in (keep_trimming, keep_applying)]
    await asyncio.sleep(0.2)
    assert not any(task.done() for task in [*idle, *busy])
    await value(database, "alter table hidden rename to retention_dispositions")
    async with asyncio.timeout(20):
        while await events_left(database) or await value(database, "select count(*) from stream"):
            await asyncio.sleep(0.02)
    for task in [*idle, *busy]:
        task.cancel()
    await asyncio.gather(*idle, *busy, return_exceptions=True)
    assert await value(database, "select array_agg(distinct d.actor) from retention_dispositions d") == ["relay leader"]


def test_a_misspelt_rule_stops_the_start(database_url: str) -> None:
    rule = json.dumps([{"event_receiver_type": "artifact.*", "older_then_days": 365}])
    running = Installation({"XZEPR__DATABASE__URL": database_url, "XZEPR__RETENTION__RULES": rule})
    assert running.process.wait(30) == 1
    assert running.wait_for("error: XZEPR__RETENTION__RULES: .*older_then_days")
    running.stop()


# --- the command line


class Cli:
    """`xzepr retention` on a database."""

    def __init__(self, url: str, **rule: int) -> None:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("XZEPR") and name not in ("COLUMNS", "FORCE_COLOR", "TERM")}
        given = [{"event_receiver_type": kind, "older_than_days": days} for kind, days in rule.items()]
        self.environ = {**kept, "XZEPR__DATABASE__URL": url, "XZEPR__RETENTION__RULES": json.dumps(given)}

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [XZEPR, "retention", *arguments]
        return subprocess.run(command, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, cwd="/")

    def ok(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


async def test_the_command_plans_holds_and_removes(database_url: str, database: Database) -> None:
    receiver = await make_receiver(database, "build")
    await store(database, receiver, 400, count=3)
    await store(database, receiver, 400, name="held")
    cli = Cli(database_url, build=100, artefact=1)
    held = [f"--{field.replace('_', '-')}={text}" for field, text in artifact("held")._asdict().items()]
    by_artifact = await asyncio.to_thread(cli.ok, "hold", "add", *held, "--reason", "a lawsuit")
    by_receiver = json.loads(await asyncio.to_thread(cli.ok, "hold", "add", "--receiver", receiver.lower(), "--reason", "an audit", "--json"))["id"]
    listed = json.loads(await asyncio.to_thread(cli.ok, "hold", "list", "--json"))
    assert [(each["id"], each["reason"]) for each in listed] == [(by_artifact, "a lawsuit"), (by_receiver, "an audit")]
    assert "an audit" in await asyncio.to_thread(cli.ok, "hold", "list")
    await asyncio.to_thread(cli.ok, "hold", "remove", by_receiver, "--yes")

    made = json.loads(await asyncio.to_thread(cli.ok, "plan", "--json"))
    assert (made["removable"], made["messages"], made["holds"]) == (3, 0, 1)
    first = {**made["lines"][0], "oldest_at": None}
    assert first == {
        "rule": {"event_receiver_type": "build", "older_than_days": 100},
        "event_receiver_type": "build",
        "due": 4,
        "held": 1,
        "in_stream": 0,
        "removable": 3,
        "oldest_at": None,
    }
    told = await asyncio.to_thread(cli.ok, "plan")
    assert "(no receiver)" in told
    assert "events removable: 3" in told

    refused = await asyncio.to_thread(cli.run, "apply")
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert len(await events_left(database)) == 4
    told = await asyncio.to_thread(cli.ok, "apply", "--yes")
    assert "events removable: 3" in told
    assert "events removed: 3; messages removed: 0; dispositions written: 1" in told
    assert len(await events_left(database)) == 1
    assert "@" in str(await value(database, "select d.actor from retention_dispositions d"))


async def test_apply_asks_on_a_terminal(database_url: str, database: Database) -> None:
    await store(database, await make_receiver(database, "build"), 400, count=3)
    cli = Cli(database_url, build=100)
    for answer, code, left in (("n", 1, 3), ("y", 0, 0)):
        mine, its = pty.openpty()
        process = await asyncio.create_subprocess_exec(XZEPR, "retention", "apply", env=cli.environ, stdin=its, stdout=subprocess.PIPE, cwd="/")
        os.write(mine, f"{answer}\n".encode())
        told, _ = await process.communicate()
        os.close(mine)
        os.close(its)
        assert b"Remove 3 events and 0 messages for good?" in told
        assert (process.returncode, len(await events_left(database))) == (code, left)


async def test_wrong_usage_and_what_is_not_there_are_told(database_url: str, empty_url: str) -> None:
    cli = Cli(database_url)
    for arguments in (("--receiver", ids.mint(HoldId), "--name", "x"), ("--name", "x"), (), ("--receiver", "nonsense")):
        assert (await asyncio.to_thread(cli.run, "hold", "add", "--reason", "r", *arguments)).returncode == 2
    for arguments in (
        ("hold", "add", "--reason", "r", "--receiver", ids.mint(HoldId)),
        ("hold", "remove", ids.mint(HoldId)),
        ("hold", "remove", "x"),
    ):
        done = await asyncio.to_thread(cli.run, *arguments)
        assert (done.returncode, done.stderr.startswith("error: "), done.stderr.count("\n")) == (1, True, 1), done.stderr
    assert "there are no rules" in (await asyncio.to_thread(cli.run, "plan")).stderr
    away = await asyncio.to_thread(Cli("postgresql://x@127.0.0.1:1/x").run, "plan")
    assert (away.returncode, away.stderr.startswith("error: database.url: ")) == (1, True)


def test_the_helpers_put_events_into_their_months() -> None:
    assert ids.is_ulid(old.old_id(NOW))
