"""Every decision of the sequencer against a plain sequential model that sees the public stream alone, over random histories.

Histories mix what a company does in a year: shared receivers, disabled groups, groups made late or edited, failures after success, artifacts
that differ in one field, writers at once, commits that come late (a lower number that becomes visible after a higher one was sequenced).
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.cast import event
from support.model import replay
from support.rounds import rounds
from xzepr import clock, ids
from xzepr.auth.permissions import Role
from xzepr.auth.principal import Principal
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.events.group_commit import row_of
from xzepr.events.model import NewEvent
from xzepr.events.posted import Posted
from xzepr.events.record import Recorder, record_event
from xzepr.groups.manage import change_group, create_group, delete_group
from xzepr.groups.model import EventReceiverGroupChange, NewEventReceiverGroup
from xzepr.ids import EventId, EventReceiverGroupId, EventReceiverId
from xzepr.preconditions import IfMatch
from xzepr.receivers.manage import Receivers, create_receiver
from xzepr.receivers.model import NewEventReceiver
from xzepr.receivers.payload import PayloadChecker
from xzepr.stream.follow import Tail
from xzepr.stream.lead import Lead
from xzepr.stream.outbox import Bell
from xzepr.stream.sequencer import LeadLost, Sequencer

ALICE = Principal(roles=frozenset({Role.ADMIN}))
RECEIVERS = 4
# The same artifact but for one field each.
ARTIFACTS = [{}, {"version": "1.4.3"}, {"package": "deb"}, {"name": "API"}]

events = Queries("xzepr.events")
group_queries = Queries("xzepr.groups")

# Leaning towards what decides something: few receivers and artifacts, mostly successes, a group from the start, late commits of what is posted again.
receiver = st.sampled_from([0, 0, 1, 1, 2, 3])
artifact = st.sampled_from([0, 0, 0, 0, 1, 2, 3])
success = st.sampled_from([True, True, True, False])
members = st.lists(receiver, min_size=1, max_size=3, unique=True)
place = st.integers(0, 3)
post = st.tuples(st.just("post"), receiver, artifact, success)
step = st.tuples(st.just("step"), st.sampled_from([1, 3, 2000]))
acts = st.one_of(
    post,
    post,
    post,
    st.tuples(st.just("together"), st.lists(post, min_size=2, max_size=5)),
    st.tuples(st.just("overtaken"), receiver, artifact, success, success),
    st.tuples(st.just("hold"), receiver, artifact, success),
    st.tuples(st.just("release"), place),
    st.tuples(st.just("group"), members, st.sampled_from([True, True, False])),
    st.tuples(st.just("enable"), place, st.booleans()),
    st.tuples(st.just("edit"), place, members),
    st.tuples(st.just("evaluate"), place, artifact),
    st.tuples(st.just("delete"), place),
    step,
    step,
    st.tuples(st.just("lead")),
)
beginnings = st.lists(st.tuples(st.just("group"), members, st.just(True)), min_size=1, max_size=3)
histories = st.builds(lambda beginning, rest: beginning + rest, beginnings, st.lists(acts, min_size=25, max_size=70))


@dataclass
class World:
    """One history being made."""

    database: Database
    url: str
    recorder: Recorder
    receivers: list[EventReceiverId] = field(default_factory=list)
    groups: list[EventReceiverGroupId] = field(default_factory=list)
    held: list[tuple[Any, Any]] = field(default_factory=list)
    epoch: int = 1

    async def reset(self) -> None:
        async with self.database.connection() as connection:
            await connection.execute(
                """truncate evaluations, events, outbox, stream, gate_heads, group_states, sequenced_groups, group_members,
                event_receiver_group_versions, event_receiver_groups"""
            )
            await connection.execute("update sequencer set epoch = 1, expires_at = '-infinity', last_position = 0")
        self.groups.clear()
        self.new_leader()

    def new_event(self, receiver: int, artifact: int, success: bool) -> NewEvent:
        body = event(self.receivers[receiver], success=success, **ARTIFACTS[artifact])
        return msgspec.json.decode(msgspec.json.encode(body), type=NewEvent)

    async def post(self, receiver: int, artifact: int, success: bool) -> None:
        await record_event(self.recorder, ALICE, Posted(self.new_event(receiver, artifact, success), {}, "{}"))

    async def hold(self, receiver: int, artifact: int, success: bool) -> None:
        """An event that has its number and is not committed yet."""
        if len(self.held) >= 4:
            return
        new = self.new_event(receiver, artifact, success)
        event_id = ids.mint(EventId)
        connection = await asyncpg.connect(self.url)
        transaction = connection.transaction()
        await transaction.start()
        row = row_of(event_id, new, "{}", 1, None, None)
        assert not await connection.fetch(events["record_events"], [row], [new.event_receiver_id], [1])
        self.held.append((connection, transaction))

    async def overtaken(self, receiver: int, artifact: int, late: bool, newest: bool) -> None:
        """A later event is sequenced before an earlier one is committed."""
        await self.hold(receiver, artifact, late)
        await self.post(receiver, artifact, newest)
        await self.step(2000)
        await self.release(-1)

    async def release(self, place: int) -> None:
        if self.held:
            connection, transaction = self.held.pop(place % len(self.held))
            await transaction.commit()
            await connection.close()

    async def group(self, members: list[int], enabled: bool) -> None:
        body = NewEventReceiverGroup(
            name="g", type="g.complete", version="1", enabled=enabled, event_receiver_ids=[self.receivers[member] for member in members]
        )
        self.groups.append(await create_group(self.database, ALICE, body, clock.now()))

    async def enable(self, place: int, enabled: bool) -> None:
        if self.groups:
            await self.change(place, EventReceiverGroupChange(enabled=enabled))

    async def change(self, place: int, change: EventReceiverGroupChange) -> None:
        await change_group(self.database, ALICE, self.groups[place % len(self.groups)], change, IfMatch.of(None), clock.now())

    async def delete(self, place: int) -> None:
        if len(self.groups) > 1:
            await delete_group(self.database, ALICE, self.groups.pop(place % len(self.groups)), IfMatch.of(None), clock.now())

    async def evaluate(self, place: int, artifact: int) -> None:
        if not self.groups:
            return
        nvrpp = self.new_event(0, artifact, True).nvrpp
        async with self.database.connection() as connection:
            await connection.fetchval(group_queries["request_evaluation"], nvrpp.artifact_id, self.groups[place % len(self.groups)], 1)

    async def edit(self, place: int, members: list[int]) -> None:
        if not self.groups:
            return
        await self.change(place, EventReceiverGroupChange(event_receiver_ids=[self.receivers[member] for member in members]))

    def new_leader(self) -> None:
        """Begins from what is stored; the one before kept its definitions in memory."""
        self.sequencer = Sequencer(self.database, Lead(self.database, "test"))

    async def step(self, facts_max: int) -> int:
        self.sequencer.batch_facts_max = facts_max
        return await self.sequencer.step(self.epoch)

    async def take(self, act: tuple[Any, ...]) -> None:
        name, *rest = act
        if name == "together":
            await asyncio.gather(*(self.post(*one[1:]) for one in rest[0]))
        elif name == "lead":
            self.new_leader()
        else:
            await getattr(self, name)(*rest)

    async def finish(self) -> list[bytes]:
        while self.held:
            await self.release(0)
        while await self.step(2000):
            pass
        tail, bodies = Tail(self.database), []
        while messages := await tail.read(len(bodies)):
            bodies += [message.body for message in messages]
        return bodies


@pytest.fixture
async def world(database: Database, database_url: str) -> AsyncIterator[World]:
    checker = PayloadChecker()
    made = World(database, database_url, Recorder(database, Receivers(database), checker, Bell(database)))
    for number in range(RECEIVERS):
        body = NewEventReceiver(name=f"r{number}", type=f"r{number}.done", version="1", schema=msgspec.Raw(b"{}"))
        made.receivers.append(await create_receiver(database, checker, ALICE, body, clock.now()))
    yield made
    await checker.close()


@given(history=histories)
@settings(max_examples=rounds(500), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_every_decision_equals_the_model_over_random_histories(world: World, history: list[tuple[Any, ...]]) -> None:
    await world.reset()
    for act in history:
        await world.take(act)
    replay(await world.finish())
    assert not await fold_differs(world)


async def fold_differs(world: World) -> list[Any]:
    """Rows of the fold's heads that are not what the events say, when everything is sequenced."""
    async with world.database.connection() as connection:
        return await connection.fetch(
            """select h.artifact_id, h.event_receiver_id from gate_heads h
            full join (
                select distinct on (e.artifact_id, e.event_receiver_id) e.artifact_id, e.event_receiver_id, e.id, e.seq, e.success
                from events e order by e.artifact_id, e.event_receiver_id, e.seq desc
            ) n on n.artifact_id = h.artifact_id and n.event_receiver_id = h.event_receiver_id
            where h.event_id is distinct from n.id or h.seq is distinct from n.seq or h.success is distinct from n.success"""
        )


async def test_success_failure_success_in_one_batch_owes_three_messages(world: World) -> None:
    await world.reset()
    await world.group([0, 1], True)
    await world.post(0, 0, True)
    for success in (True, False, True):
        await world.post(1, 0, success)
    seen = replay(await world.finish())
    assert (seen["complete"], seen["broken"], seen["first"]) == (2, 1, 1)


async def test_a_late_commit_is_recorded_and_changes_nothing(world: World) -> None:
    await world.reset()
    await world.group([0], True)
    await world.hold(0, 0, False)
    await world.post(0, 0, True)
    await world.step(2000)
    await world.release(0)
    seen = replay(await world.finish())
    assert (seen["events"], seen["late"], seen["complete"], seen["broken"]) == (2, 1, 1, 0)


async def test_broken_is_owed_also_when_complete_was_never_told(world: World) -> None:
    await world.reset()
    await world.post(0, 0, True)
    await world.post(1, 0, True)
    await world.group([0, 1], True)
    await world.post(1, 0, False)
    seen = replay(await world.finish())
    assert (seen["complete"], seen["broken"]) == (0, 1)


async def test_a_paused_leader_of_an_older_epoch_writes_nothing(world: World) -> None:
    await world.reset()
    await world.post(0, 0, True)
    async with world.database.connection() as connection:
        await connection.execute("update sequencer set epoch = 2")
    with pytest.raises(LeadLost):
        await world.step(2000)
    async with world.database.connection() as connection:
        assert await connection.fetchval("select count(*) from stream") == 0
        assert await connection.fetchval("select count(*) from outbox") == 1
    world.epoch = 2
    assert replay(await world.finish())["events"] == 1
