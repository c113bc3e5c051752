"""The database is there and does something else: holds a lock, makes a partition, says what nobody expected. Nobody is told a falsehood for it."""

import asyncio
from datetime import timedelta

import asyncpg
import msgspec
import pytest

from support.cast import event
from xzepr import clock, ids
from xzepr.auth.permissions import Role
from xzepr.auth.principal import Principal
from xzepr.db.pool import Database
from xzepr.errors import Unavailable
from xzepr.events.model import NewEvent
from xzepr.events.partitions import ensure_partitions
from xzepr.events.posted import Posted
from xzepr.events.record import Recorder, record_event
from xzepr.events.search import EventReads
from xzepr.ids import EventId, EventReceiverId
from xzepr.receivers.manage import Receivers, create_receiver
from xzepr.receivers.model import NewEventReceiver
from xzepr.receivers.payload import PayloadChecker
from xzepr.stream.follow import Tail
from xzepr.stream.lead import Lead
from xzepr.stream.outbox import Bell
from xzepr.stream.sequencer import Sequencer

ALICE = Principal(roles=frozenset({Role.ADMIN}))


async def new_receiver(database: Database, checker: PayloadChecker) -> EventReceiverId:
    body = NewEventReceiver(name="r", type="r.done", version="1", schema=msgspec.Raw(b"{}"))
    return await create_receiver(database, checker, ALICE, body, clock.now())


async def test_a_lock_that_somebody_holds_means_try_again(database: Database, database_url: str) -> None:
    holder = await asyncpg.connect(database_url)
    try:
        async with holder.transaction():
            await holder.execute("lock table events in access exclusive mode")
            with pytest.raises(Unavailable):
                async with database.transaction() as connection:
                    await connection.execute("set local lock_timeout = '50ms'")
                    await connection.fetch("select e.id from events e limit 1")
    finally:
        await holder.close()


async def test_followers_survive_an_error_that_nobody_expected(database: Database) -> None:
    checker, tail = PayloadChecker(), Tail(database)
    try:
        async with tail.following(), database.connection() as connection:
            await connection.execute("alter table sequencer rename to sequencer_away")
            await asyncio.sleep(0.2)
            await connection.execute("alter table sequencer_away rename to sequencer")
            await new_receiver(database, checker)
            await connection.execute("update sequencer set epoch = 1")
            assert await Sequencer(database, Lead(database, "test")).step(1) == 1
            await tail.wait(0, 5)
            assert [message.position for message in await tail.read(0)] == [1]
    finally:
        await tail.close()
        await checker.close()


async def test_a_partition_made_under_load_loses_no_reader_and_no_writer(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of a wrong clock are moved from the default partition while others write and read there."""
    checker = PayloadChecker()
    receiver_id = await new_receiver(database, checker)
    recorder = Recorder(database, Receivers(database), checker, Bell(database))
    stored: list[EventId] = []
    reads = EventReads(database)
    done = asyncio.Event()

    async def write() -> None:
        while not done.is_set():
            new = msgspec.json.decode(msgspec.json.encode(event(receiver_id)), type=NewEvent)
            event_id, _ = await record_event(recorder, ALICE, Posted(new, {}, "{}"))
            stored.append(event_id)

    async def read() -> None:
        while not done.is_set():
            if stored:
                assert await reads.get(stored[-1])
            await asyncio.sleep(0)

    moment = clock.now()
    async with asyncio.TaskGroup() as everybody:
        for act in (write, write, write, read, read, read):
            everybody.create_task(act())
        for _ in range(10):
            moment += timedelta(days=160)
            at_ms = int(moment.timestamp() * 1000)
            monkeypatch.setattr(ids, "unix_ms", lambda at_ms=at_ms: at_ms)
            await asyncio.sleep(0.1)
            assert await ensure_partitions(database, moment) > 0
            async with database.connection() as connection:
                assert await connection.fetchval("select count(*) from events_default") == 0
        done.set()
    async with database.connection() as connection:
        assert await connection.fetchval("select count(*) from events") == len(stored)
    await checker.close()
