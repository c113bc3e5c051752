"""The sequencer killed or paused at random under load: same decisions, positions without a hole, nothing acknowledged is missing."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import httpx2
import psutil
import pytest

from support.cast import event, make_group, make_receiver
from support.installation import Installation
from support.model import replay
from support.rounds import rounds, seeded
from support.stream import read_all


@contextlib.asynccontextmanager
async def load(url: str, receivers: list[str], writers: int = 8) -> AsyncIterator[list[str]]:
    """Events in the background; the ids that were answered with 201."""
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def write(client: httpx2.AsyncClient, number: int) -> None:
        count = 0
        while not stop.is_set():
            body = event(receivers[count % len(receivers)], name=f"load-{number}-{count // 12}", success=count % 7 != 0)
            answer = await client.post("/api/v1/events", json=body)
            if answer.status_code == 201:
                acknowledged.append(answer.json()["data"])
            count += 1

    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        tasks = [asyncio.create_task(write(client, number)) for number in range(writers)]
        try:
            yield acknowledged
        finally:
            stop.set()
            await asyncio.gather(*tasks)


async def live_relay(running: Installation) -> psutil.Process:
    while not (live := running.children("relay")):
        await asyncio.sleep(0.01)
    return live[-1]


@pytest.mark.slow
async def test_a_killed_or_paused_sequencer_changes_no_decision(shared_installation: Installation, http: httpx2.Client) -> None:
    trials = rounds(50)
    chance = seeded("sequencer killed or paused")
    receivers = [make_receiver(http, name=f"r{number}") for number in range(3)]
    make_group(http, receivers[:2], name="pair")
    make_group(http, receivers, name="all")
    async with load(shared_installation.url, receivers) as acknowledged:
        for _ in range(trials):
            await asyncio.sleep(chance.uniform(0.05, 0.6))
            relay = await live_relay(shared_installation)
            if chance.random() < 0.5:
                relay.kill()
                await asyncio.to_thread(relay.wait, 10)
            else:
                relay.send_signal(signal.SIGSTOP)
                await asyncio.sleep(chance.choice([0.2, 1.0, 3.5]))
                relay.send_signal(signal.SIGCONT)
    counted = replay(await read_all(shared_installation.url, pending_s=60))
    assert set(acknowledged) <= counted["event_ids"]
    assert counted["complete"] > 0
    assert counted["broken"] > 0


@pytest.mark.slow
async def test_a_standby_takes_over_from_a_paused_leader(shared_installation: Installation, http: httpx2.Client) -> None:
    """A second relay on the same database: the first is stopped in its tracks, wakes up later, and writes nothing of its own."""
    receivers = [make_receiver(http, name="standby")]
    make_group(http, receivers)
    second = Installation({"XZEPR__DATABASE__URL": shared_installation.environ["XZEPR__DATABASE__URL"]}, arguments=("relay",))
    try:
        await asyncio.to_thread(second.wait_for, r"process\.ready .*role=relay")
        leader = await live_relay(shared_installation)
        leader.send_signal(signal.SIGSTOP)
        try:
            async with load(shared_installation.url, receivers, writers=2) as acknowledged:
                await asyncio.to_thread(second.wait_for, r"lead\.acquired", 20)
                counted = replay(await read_all(shared_installation.url, pending_s=60))
        finally:
            leader.send_signal(signal.SIGCONT)
        assert counted["events"] > 0
        counted = replay(await read_all(shared_installation.url, pending_s=60))
        assert set(acknowledged) <= counted["event_ids"]
    finally:
        assert second.stop() == 0
