"""SIGKILL of the parent, the postmaster, or both, at random moments while rows are being written: no acknowledged row is lost."""

import asyncio
import contextlib
import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import asyncpg
import psutil
import pytest

from support import embedded
from support.embedded import RESTART_S, Holder
from support.rounds import rounds, seeded

ROUNDS = 20
WRITERS = 3
BETWEEN_KILLS_S = 0.4


# A server that takes its leave between two requests makes the driver lose its place (InternalClientError).
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Writing:
    """Writers of one row a transaction, that go on through every loss of the server.

    acked: numbers whose commit was answered; servers: how many were acknowledged by each server, by the time that it was started. Children of a killed
    server go on answering until they notice.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.acked: list[int] = []
        self.servers: Counter[datetime] = Counter()
        self._numbers = itertools.count(1)
        self._grown = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Writing"]:
        self._tasks = [asyncio.create_task(self._write()) for _ in range(WRITERS)]
        try:
            yield self
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_until(self, holds: Callable[[], bool], seconds: float) -> None:
        """Asked after each acknowledgement."""
        try:
            async with asyncio.timeout(seconds), self._grown:
                await self._grown.wait_for(holds)
        except TimeoutError:
            raise AssertionError(f"the writers wait: {self._tasks}") from None

    async def _write(self) -> None:
        while True:
            connection = None
            try:
                connection = await asyncpg.connect(self.url, timeout=5)
                server = await connection.fetchval("select pg_postmaster_start_time()")
                for number in self._numbers:
                    await connection.execute("insert into written (number) values ($1)", number)
                    self.acked.append(number)
                    self.servers[server] += 1
                    async with self._grown:
                        self._grown.notify_all()
            except LOST:
                await asyncio.sleep(0.02)
            finally:
                if connection is not None:
                    connection.terminate()


async def missing_rows(url: str, acked: list[int]) -> list[int]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        query = "select a.number from unnest($1::bigint[]) as a (number) where not exists (select from written w where w.number = a.number)"
        return [row["number"] for row in await connection.fetch(query, acked)]
    finally:
        await connection.close()


def targets(what: str, holder: Holder, chance: random.Random) -> list[psutil.Process]:
    parent, server = psutil.Process(holder.process.pid), embedded.postmaster(holder.state_dir)
    chosen = {"parent": [parent], "postmaster": [server], "both": [parent, server]}[what]
    chance.shuffle(chosen)
    return chosen


async def one_round(start: Callable[[], Holder], holder: Holder, writing: Writing, what: str, chance: random.Random) -> tuple[Holder, float]:
    """Kill; start anew what was the tester's to start; seconds until a row is acknowledged again."""
    goal = len(writing.acked) + 1 + chance.randrange(20)
    await writing.wait_until(lambda: len(writing.acked) >= goal, RESTART_S)
    await asyncio.sleep(chance.random() * BETWEEN_KILLS_S)
    order = targets(what, holder, chance)
    servers, began = set(writing.servers), time.monotonic()
    for process in order:
        process.kill()
    if what != "postmaster":
        holder.kill()
        holder = start()
        up = await asyncio.to_thread(holder.up)
        assert up["owner"]
        assert up["up"] == writing.url
    await writing.wait_until(lambda: bool(writing.servers.keys() - servers), 60)
    return holder, time.monotonic() - began


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the death signal")
@pytest.mark.parametrize("kind", ["system", "wheel"])
@pytest.mark.parametrize("label", embedded.users())
async def test_no_acknowledged_row_is_lost_however_the_server_dies(label: str, kind: str) -> None:
    who, programs = embedded.user(label), embedded.bindir(kind)
    chance = seeded(f"embedded kill {label} {kind}")
    with embedded.new_place() as place:
        state_dir = place.state_dir(who)

        def start() -> Holder:
            return place.hold(who, state_dir, programs)

        holder = start()
        url = str((await asyncio.to_thread(holder.up))["up"])
        connection = await asyncpg.connect(url)
        await connection.execute("create table written (number bigint primary key)")
        await connection.close()
        whats = ["parent", "postmaster", "both"]
        plan = [*whats, *(chance.choice(whats) for _ in range(rounds(ROUNDS) - len(whats)))]
        chance.shuffle(plan)
        async with Writing(url).running() as writing:
            for number, what in enumerate(plan, start=1):
                holder, seconds = await one_round(start, holder, writing, what, chance)
                print(f"round {number}: {what} killed, up again after {seconds:.2f} s, {len(writing.acked)} rows acknowledged")
                assert seconds < RESTART_S, f"round {number}: {what}"
                assert not await missing_rows(url, list(writing.acked)), f"round {number}: {what}"
        assert not await missing_rows(url, writing.acked)
        holder.kill()
        await asyncio.to_thread(embedded.eventually, lambda: not embedded.inhabitants(state_dir), RESTART_S, "the last parent left no orphan")
    assert os.environ.get("XZEPR_ROUNDS") != "all" or len(plan) == ROUNDS
