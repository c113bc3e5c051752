"""Group commit: shared transactions, one faulty event alone, unknown commits, a bounded queue, keys that somebody else holds."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest

from support.cast import event
from xzepr import clock, ids
from xzepr.auth.permissions import Role
from xzepr.auth.principal import Principal
from xzepr.db.pool import SERVER_SETTINGS, Database
from xzepr.errors import Conflict, InFlight, InvalidInput, Unavailable
from xzepr.events.group_commit import GroupCommit, NotStorable, Stale, Stored
from xzepr.events.model import NewEvent
from xzepr.events.posted import Posted
from xzepr.events.record import Recorder, record_event
from xzepr.idempotency import Answered, Claim, Replayed
from xzepr.ids import EventId, EventReceiverId
from xzepr.preconditions import IfMatch
from xzepr.receivers.manage import Receivers, change_receiver, create_receiver
from xzepr.receivers.model import EventReceiverChange, NewEventReceiver
from xzepr.receivers.payload import PayloadChecker
from xzepr.stream.outbox import Bell

ADMIN = Principal(roles=frozenset({Role.ADMIN}))
Row = tuple[Any, ...]


@pytest.fixture
async def checker() -> AsyncIterator[PayloadChecker]:
    made = PayloadChecker()
    yield made
    await made.close()


@pytest.fixture
async def receiver_id(database: Database, checker: PayloadChecker) -> EventReceiverId:
    new = NewEventReceiver(name="r", type="t", version="1", schema=msgspec.Raw(b"{}"))
    return await create_receiver(database, checker, ADMIN, new, clock.now())


@pytest.fixture
def commit(database: Database) -> GroupCommit:
    return GroupCommit(database, Bell(database))


def row(receiver_id: str, name: str = "api", version: int = 1) -> Row:
    event_id = ids.mint(EventId)
    return (event_id, bytes(16), name, "1", "1", "p", "oci", "", "{}", True, receiver_id, version, None, ids.time_of(event_id), None)


def claim(key: str, body: bytes = b"b", wait_s: float = 1.0, *, lasting: bool = False) -> Claim:
    return Claim("", "POST /api/v1/events", key, body * 32, clock.now(), wait_s, lasting)


async def count(url: str, where: str = "true") -> int:
    connection = await asyncpg.connect(url)
    found = await connection.fetchval(f"select count(*) from events where {where}")
    await connection.close()
    return int(found)


async def test_concurrent_events_share_transactions(database: Database, database_url: str, commit: GroupCommit, receiver_id: str) -> None:
    rows = [row(receiver_id) for _ in range(200)]
    outcomes = await asyncio.gather(*(commit.store([each]) for each in rows))
    assert all(isinstance(outcome, Stored) for outcome in outcomes)
    connection = await asyncpg.connect(database_url)
    found = await connection.fetch("select id, seq, xmin::text as x from events order by seq")
    assert [each["id"] for each in found] == [each[0] for each in rows], "numbered in the order in which they came"
    assert len({each["x"] for each in found}) <= 3
    assert await connection.fetchval("select count(*) from outbox o join events e on e.id = o.event_id and e.seq = o.seq") == 200
    await connection.close()


async def test_lone_event_waits_for_nobody(commit: GroupCommit, receiver_id: str) -> None:
    await commit.store([row(receiver_id)])
    took_s = []
    for _ in range(20):
        began_s = time.perf_counter()
        await commit.store([row(receiver_id)])
        took_s.append(time.perf_counter() - began_s)
    assert sorted(took_s)[10] < 0.02


async def test_faulty_event_fails_alone(database_url: str, commit: GroupCommit, receiver_id: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("alter table events add constraint no_bad check (name <> 'bad')")
    await connection.close()
    names = ["bad" if place in (3, 40) else "api" for place in range(64)]
    outcomes = await asyncio.gather(*(commit.store([row(receiver_id, name)]) for name in names), return_exceptions=True)
    assert [isinstance(outcome, NotStorable) for outcome in outcomes] == [name == "bad" for name in names]
    assert await count(database_url) == 62


async def test_neither_answer_nor_log_quotes_what_cannot_be_stored(
    database_url: str, commit: GroupCommit, receiver_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("alter table events add constraint no_bad check (name <> 'bad')")
    await connection.close()
    # What the database tells of a row that it refuses is the row; what the driver tells of a value that it cannot send is the value.
    refused, unsent = (list(row(receiver_id, name)) for name in ("bad", "api"))
    refused[8], unsent[6] = '{"token": "a secret"}', {"token": "a secret"}
    outcomes = await asyncio.gather(commit.store([tuple(refused)]), commit.store([tuple(unsent)]), return_exceptions=True)
    assert isinstance(outcomes[0], NotStorable)
    assert str(outcomes[0]) == "the database refuses what was made of an event: CheckViolationError (23514), constraint no_bad"
    assert isinstance(outcomes[1], InvalidInput)
    assert outcomes[1].message.startswith("body: the database cannot store this event: DataError")
    assert all(outcome.__cause__ is None for outcome in outcomes if isinstance(outcome, Exception))
    printed = capsys.readouterr()
    assert "no_bad" in printed.out + printed.err
    assert "secret" not in printed.out + printed.err + str(outcomes)


async def test_a_batch_is_stored_whole_or_not_at_all(database_url: str, commit: GroupCommit, receiver_id: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("alter table events add constraint no_bad check (name <> 'bad')")
    await connection.close()
    good, bad = [row(receiver_id) for _ in range(5)], [row(receiver_id), row(receiver_id, "bad")]
    outcomes = await asyncio.gather(commit.store(good), commit.store(bad), return_exceptions=True)
    assert isinstance(outcomes[0], Stored)
    assert isinstance(outcomes[1], NotStorable)
    assert await count(database_url) == 5


async def test_an_old_version_of_a_receiver_is_stale_and_nobody_elses_matter(
    database: Database, database_url: str, checker: PayloadChecker, commit: GroupCommit, receiver_id: str
) -> None:
    gone = ids.mint(EventReceiverId)
    other = await create_receiver(database, checker, ADMIN, NewEventReceiver(name="o", type="t", version="1", schema=msgspec.Raw(b"{}")), clock.now())
    outcomes = await asyncio.gather(
        commit.store([row(other)]),
        commit.store([row(receiver_id), row(receiver_id, version=2)]),
        commit.store([row(gone)]),
    )
    assert outcomes[0] == Stored()
    assert [isinstance(outcome, Stale) for outcome in outcomes] == [False, True, True]
    assert await count(database_url) == 1


async def test_what_is_posted_after_a_change_meets_the_new_schema(database: Database, checker: PayloadChecker, receiver_id: EventReceiverId) -> None:
    recorder = Recorder(database, Receivers(database), checker, Bell(database))
    body = msgspec.json.decode(msgspec.json.encode(event(receiver_id)), type=NewEvent)
    await record_event(recorder, ADMIN, Posted(body, {}, "{}"))
    change = EventReceiverChange(schema=msgspec.Raw(b'{"required":["a"]}'))
    await change_receiver(database, checker, ADMIN, receiver_id, change, IfMatch(None), clock.now())
    with pytest.raises(Exception, match=r"required property"):
        await record_event(recorder, ADMIN, Posted(body, {}, "{}"))


async def test_a_full_queue_refuses_at_once(database: Database, database_url: str, receiver_id: str) -> None:
    commit = GroupCommit(database, Bell(database), rows_max=10)
    locker = await asyncpg.connect(database_url)
    transaction = locker.transaction()
    await transaction.start()
    await locker.execute("lock table outbox in access exclusive mode")
    first = asyncio.create_task(commit.store([row(receiver_id)]))
    await asyncio.sleep(0.2)
    waiting = [asyncio.create_task(commit.store([row(receiver_id)])) for _ in range(10)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="too many"):
        await commit.store([row(receiver_id)])
    await transaction.rollback()
    await locker.close()
    assert all(isinstance(outcome, Stored) for outcome in await asyncio.gather(first, *waiting))
    await commit.store([row(receiver_id)])
    assert await count(database_url) == 12


async def test_an_event_is_stored_also_when_its_caller_leaves(database_url: str, commit: GroupCommit, receiver_id: str) -> None:
    leaving = asyncio.create_task(commit.store([row(receiver_id)]))
    await asyncio.sleep(0)
    leaving.cancel()
    staying = await commit.store([row(receiver_id)])
    assert isinstance(staying, Stored)
    await commit.close()
    assert await count(database_url) == 2


async def test_a_lost_connection_is_looked_up_and_nothing_is_stored_twice(
    database: Database, database_url: str, commit: GroupCommit, receiver_id: str
) -> None:
    killer = await asyncpg.connect(database_url)
    stop = asyncio.Event()

    async def keep_killing() -> None:
        while not stop.is_set():
            await killer.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()"
            )
            await asyncio.sleep(0.03)

    killing = asyncio.create_task(keep_killing())
    acknowledged: list[str] = []

    async def post() -> None:
        for _ in range(60):
            each = row(receiver_id)
            if isinstance(await commit.store([each]), Stored):
                acknowledged.append(each[0])

    await asyncio.gather(*(post() for _ in range(8)))
    stop.set()
    await killing
    found = await killer.fetch("select id from events")
    await killer.close()
    assert len(acknowledged) == 480
    assert sorted(each["id"] for each in found) == sorted(acknowledged)


async def test_keys_are_claimed_once_and_conflicts_told(commit: GroupCommit, receiver_id: str, database_url: str) -> None:
    rows = [row(receiver_id) for _ in range(3)]
    keyed = [(claim("k", body), Answered(rows[place][0])) for place, body in enumerate((b"a", b"a", b"b"))]
    outcomes = await asyncio.gather(*(commit.store([each], key) for each, key in zip(rows, keyed, strict=True)), return_exceptions=True)
    assert isinstance(outcomes[0], Stored)
    assert isinstance(outcomes[1], Replayed)
    assert outcomes[1].answer.id == rows[0][0]
    assert isinstance(outcomes[2], Conflict)
    assert await count(database_url) == 1


async def test_single_events_bring_keys_of_their_own(commit: GroupCommit, receiver_id: str, database_url: str) -> None:
    first = [row(receiver_id), row(receiver_id)]
    own = {place: (claim(f"c{place}", lasting=True), Answered(each[0])) for place, each in enumerate(first)}
    assert await commit.store(first, own=own) == Stored()
    again = [row(receiver_id), row(receiver_id)]
    own = {1: (claim("c0", lasting=True), Answered(again[1][0]))}
    assert await commit.store(again, own=own) == Stored({1: first[0][0]})
    assert await count(database_url) == 3
    with pytest.raises(Conflict):
        await commit.store([row(receiver_id)], own={0: (claim("c0", b"x", lasting=True), Answered("Y"))})


async def test_a_key_that_is_held_elsewhere_holds_nobody_else_up(database_url: str, commit: GroupCommit, receiver_id: str) -> None:
    holder = await asyncpg.connect(database_url)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute(
        "insert into idempotency_keys (principal_id, route, key, body_sha256, answer_id, created_at) values ('', 'POST /api/v1/events', 'held', $1, 'X', now())",
        b"b" * 32,
    )
    each = row(receiver_id)
    held = asyncio.create_task(commit.store([each], (claim("held", wait_s=2.0), Answered(each[0]))))
    took_s = []
    for _ in range(10):
        began_s = time.monotonic()
        await commit.store([row(receiver_id)])
        took_s.append(time.monotonic() - began_s)
        await asyncio.sleep(0.05)
    assert max(took_s) < 1.0
    with pytest.raises(InFlight):
        await held
    await transaction.rollback()
    await holder.close()
    again = row(receiver_id)
    assert await commit.store([again], (claim("held"), Answered(again[0]))) == Stored()


async def test_two_processes_with_the_same_keys_in_another_order_do_not_deadlock(database: Database, receiver_id: str) -> None:
    commits = [GroupCommit(database, Bell(database)) for _ in range(4)]

    async def post(commit: GroupCommit, reverse: bool) -> None:
        keys = sorted((f"key{number}" for number in range(30)), reverse=reverse)
        for _ in range(5):
            made = [row(receiver_id) for _ in keys]
            tasks = [commit.store([each], (claim(key), Answered(each[0]))) for each, key in zip(made, keys, strict=True)]
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, Stored | Replayed) for outcome in outcomes), outcomes

    await asyncio.gather(*(post(commit, bool(place % 2)) for place, commit in enumerate(commits)))


async def test_a_session_that_stops_between_its_statements_is_ended_within_5_s(database: Database, database_url: str, receiver_id: str) -> None:
    """A worker that is paused while it holds a key: the database ends its transaction."""
    commit = GroupCommit(database, Bell(database))
    paused = await asyncpg.connect(database_url, server_settings=SERVER_SETTINGS)
    transaction = paused.transaction()
    await transaction.start()
    await paused.execute(
        "insert into idempotency_keys (principal_id, route, key, body_sha256, answer_id, created_at) values ('', 'POST /api/v1/events', 'p', $1, 'X', now())",
        b"b" * 32,
    )
    began_s = time.monotonic()
    each = row(receiver_id)
    assert await commit.store([each], (claim("p", wait_s=20), Answered(each[0]))) == Stored()
    assert time.monotonic() - began_s < 5.5
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await paused.execute("select 1")
    paused.terminate()


async def test_a_locked_table_is_a_wait_and_no_loss(database_url: str, commit: GroupCommit, receiver_id: str) -> None:
    locker = await asyncpg.connect(database_url)
    transaction = locker.transaction()
    await transaction.start()
    await locker.execute("lock table events in access exclusive mode")
    waiting = [asyncio.create_task(commit.store([row(receiver_id)])) for _ in range(20)]
    await asyncio.sleep(6)
    await transaction.rollback()
    await locker.close()
    assert all(isinstance(outcome, Stored) for outcome in await asyncio.gather(*waiting))
    assert await count(database_url) == 20
