"""SIGKILL of the parent, the postmaster, or both, at random moments while rows are being written: no acknowledged row is lost."""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from support import embedded
from support.embedded import RESTART_S, Holder, Place, User
from support.rounds import rounds, seeded

ROUNDS = 20
WRITERS = 3
BETWEEN_KILLS_S = 0.4


class Writing:
    """Writers of one row a transaction, that go on through every loss of the server. acked: numbers whose commit was answered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.acked: list[int] = []
        self._next = 0
        self._grown = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Writing"]:
        tasks = [asyncio.create_task(self._write()) for _ in range(WRITERS)]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends

    async def wait_for_acks(self, count: int, seconds: float) -> None:
        """That many more than now."""
        goal = len(self.acked) + count
        async with asyncio.timeout(seconds), self._grown:
            await self._grown.wait_for(lambda: len(self.acked) >= goal)

    async def _write(self) -> None:
        while True:
            try:
                connection = await asyncpg.connect(self.url, timeout=5)
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.02)
                continue
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                while True:
                    self._next += 1
                    number = self._next
                    await connection.execute("insert into written (number) values ($1)", number)
                    self.acked.append(number)
                    async with self._grown:
                        self._grown.notify_all()
            connection.terminate()


async def missing_rows(url: str, acked: list[int]) -> list[int]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        query = "select a.number from unnest($1::bigint[]) as a (number) where not exists (select from written w where w.number = a.number)"
        return [row["number"] for row in await connection.fetch(query, acked)]
    finally:
        await connection.close()


def strike(what: str, holder: Holder, order: list[psutil.Process]) -> None:
    for process in order:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    if what != "postmaster":
        holder.kill()


def targets(what: str, holder: Holder, state_dir: Path, chance: random.Random) -> list[psutil.Process]:
    parent, server = psutil.Process(holder.process.pid), embedded.postmaster(state_dir)
    chosen = {"parent": [parent], "postmaster": [server], "both": [parent, server]}[what]
    chance.shuffle(chosen)
    return chosen


async def one_round(
    place: Place, who: User, programs: Path, holder: Holder, writing: Writing, what: str, chance: random.Random
) -> tuple[Holder, float]:
    """Kill; start anew what was the tester's to start; seconds until a row is acknowledged again."""
    state_dir = holder.state_dir
    await writing.wait_for_acks(1 + chance.randrange(20), RESTART_S)
    await asyncio.sleep(chance.random() * BETWEEN_KILLS_S)
    order = targets(what, holder, state_dir, chance)
    began = time.monotonic()
    strike(what, holder, order)
    if what != "postmaster":
        holder = place.hold(who, state_dir, programs)
        up = await asyncio.to_thread(holder.up)
        assert up["owner"]
        assert up["up"] == writing.url
    # Acknowledgements still under way when the kill struck are in by then: a server is gone at once, and a parent's is gone before the next is up.
    await writing.wait_for_acks(WRITERS + 1, 60)
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
        holder = place.hold(who, state_dir, programs)
        url = str((await asyncio.to_thread(holder.up))["up"])
        connection = await asyncpg.connect(url)
        await connection.execute("create table written (number bigint primary key)")
        await connection.close()
        whats = ["parent", "postmaster", "both"]
        plan = [*whats, *(chance.choice(whats) for _ in range(rounds(ROUNDS) - len(whats)))]
        chance.shuffle(plan)
        async with Writing(url).running() as writing:
            for number, what in enumerate(plan, start=1):
                holder, seconds = await one_round(place, who, programs, holder, writing, what, chance)
                print(f"round {number}: {what} killed, up again after {seconds:.2f} s, {len(writing.acked)} rows acknowledged")
                assert seconds < RESTART_S, f"round {number}: {what}"
                assert not await missing_rows(url, list(writing.acked)), f"round {number}: {what}"
        assert not await missing_rows(url, writing.acked)
        holder.kill()
        await asyncio.to_thread(embedded.eventually, lambda: not embedded.inhabitants(state_dir), RESTART_S, "the last parent left no orphan")
    assert os.environ.get("XZEPR_ROUNDS") != "all" or len(plan) == ROUNDS
