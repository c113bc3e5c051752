"""A seeded drill under load: in each round a part of the installation is killed, paused, cut off, or told a wrong time.

After the rounds: each acknowledged event is stored once; nothing is stored that was answered with 4xx; a retried Idempotency-Key gave one event;
positions have no holes; every fact is in the stream once; every decision is what a model decides that sees the public stream alone.
"""

import asyncio
import contextlib
import json
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from support.audit import Row, StreamAudit, audit_rows, audit_watched
from support.cast import ARTIFACT_FIELDS
from support.clock_shift import ShiftedClock
from support.drill_faults import Faults
from support.drill_load import Load, Watcher, World
from support.installation import Installation
from support.ledger import Ledger
from support.own_postgres import OwnPostgres
from support.raw_stream import envelopes
from support.rounds import rounds, seeded

ROUNDS = 200
# The server answers again by itself within this time after a fault ends.
RECOVERY_S = 30.0
ACKNOWLEDGED_BEFORE_NEXT = 10
SHOWN_MAX = 20


@pytest.fixture
def faults(first_server: str) -> Iterator[Faults]:
    """An installation with two web workers on a PostgreSQL and a clock of its own."""
    chance = seeded("fault drill")
    with contextlib.ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="xzepr-clock-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        clock = ShiftedClock(directory)
        postgres = OwnPostgres()
        stack.callback(postgres.close)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        environ = {"XZEPR__DATABASE__URL": postgres.url, "XZEPR__SERVER__WORKERS": "2", "XZEPR__SERVER__PORT": port, **clock.environ}
        made = Faults(postgres, clock, lambda: Installation(environ).ready(), chance)
        stack.callback(made.close)
        yield made


def plan(faults: Faults, count: int, chance: random.Random) -> list[Callable[[], str]]:
    """The jump of the clock once, every other kind at least once when there are rounds for it, the rest by chance."""
    kinds = faults.kinds()
    chance.shuffle(kinds)
    chosen = [*kinds, *(chance.choice(kinds) for _ in range(count))][: count - 1]
    chance.shuffle(chosen)
    chosen.insert(chance.randint(0, len(chosen)), faults.jump_of_the_clock)
    return chosen


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_and_no_decision_differs_whatever_fails(faults: Faults) -> None:
    with httpx2.Client(base_url=faults.running.url, timeout=30) as http:
        world = World.make(http)
    ledger, told = Ledger(), [f"batches are {'in the mix' if world.batches else 'not served here'}"]
    faults.load = load = Load(faults.running.url, world, ledger, faults.chance)
    watcher = Watcher(faults.running.url)
    load.start()
    try:
        load.wait_for_acknowledged(100, RECOVERY_S)
        for number, fault in enumerate(plan(faults, rounds(ROUNDS, part=10), faults.chance), start=1):
            ledger.round = number
            told.append(f"round {number}: {fault.__name__}")
            done = fault()
            recovered_s = load.wait_for_acknowledged(ACKNOWLEDGED_BEFORE_NEXT, RECOVERY_S)
            told[-1] += f": {done}; {recovered_s:.1f} s until events were acknowledged; {ledger.acknowledged} so far"
            print(told[-1], flush=True)
            time.sleep(faults.chance.uniform(0.5, 1.0))
        load.stop()
        found = [*ledger.faults, *audit(faults, ledger, watcher)]
    except (AssertionError, OSError, httpx2.HTTPError) as error:
        load.stopping.set()
        found = [*ledger.faults, f"{type(error).__name__}: {error}"]
    print(f"{ledger.acknowledged} events acknowledged, {ledger.unanswered()} of unknown fate; answers: {dict(sorted(ledger.answers.items()))}")
    assert not found, report(found, told, faults)
    assert faults.running.stop() == 0


def audit(faults: Faults, ledger: Ledger, watcher: Watcher) -> Iterator[str]:
    """One line per fault, when the load has ended."""
    with httpx2.Client(base_url=faults.running.url, timeout=30) as http:
        yield from when_quiet(http)
        rows, versions, newest, count = asyncio.run(stored(faults.postgres.url))
        yield from audit_rows(ledger, rows)
        if newest != count:
            yield f"the stream has {count} rows, its last position is {newest}"
            return
        stream = StreamAudit()
        yield from stream.read(up_to(envelopes(http, 0, seconds=30 + newest / 500), newest))
        yield from stream.audit(ledger, rows, versions)
        watcher.finish(newest, 60)
        yield from watcher.faults
        yield from audit_watched(watcher.seen, stream.message_ids)
        if "groups" in stream.counts:
            yield from audit_status(http, stream.counts, faults.chance)
        print(
            f"{newest} messages: { ({name: value for name, value in stream.counts.items() if isinstance(value, int)}) }; resumed {watcher.resumed} times"
        )


def when_quiet(http: httpx2.Client) -> Iterator[str]:
    """Everything is sequenced and healthy, by itself."""
    for what, ask in {
        "facts are waiting to be sequenced": lambda: http.get("/api/v1/stream/position").json()["pending"] == 0,
        "it is not healthy": lambda: http.get("/health").json()["status"] == "healthy",
    }.items():
        deadline = time.monotonic() + RECOVERY_S
        while not ask():
            if time.monotonic() > deadline:
                yield f"{what} {RECOVERY_S:.0f} s after the load ended: {http.get('/health').text}"
                break
            time.sleep(0.1)


async def stored(url: str) -> tuple[list[Row], dict[str, int], int, int]:
    """Events, versions by group, the newest position, and how many rows the stream has."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        rows = await connection.fetch("select e.id, e.seq, e.payload ->> 'marker' as marker from events e")
        groups = await connection.fetch(
            "select v.event_receiver_group_id as id, count(*) as count from event_receiver_group_versions v group by v.event_receiver_group_id"
        )
        newest = await connection.fetchval("select s.last_position from sequencer s")
        count = await connection.fetchval("select count(*) from stream")
    finally:
        await connection.close()
    return [Row(row["id"], row["seq"], row["marker"]) for row in rows], {row["id"]: row["count"] for row in groups}, newest, count


def up_to(bodies: Iterator[bytes], newest: int) -> Iterator[bytes]:
    """As many as there are positions."""
    for _ in range(newest):
        yield next(bodies)


def audit_status(http: httpx2.Client, counts: dict[str, Any], chance: random.Random) -> Iterator[str]:
    """What a release manager is told is what the model makes of the stream."""
    artifacts = sorted({artifact for artifact, _ in counts["newest"]})
    for artifact in chance.sample(artifacts, min(20, len(artifacts))):
        for group_id, group in counts["groups"].items():
            fields = dict(zip(ARTIFACT_FIELDS, json.loads(artifact), strict=True))
            shown = http.get(f"/api/v1/groups/{group_id}/status", params=fields).json()
            gates = [counts["newest"].get((artifact, member), (0, False, ""))[1] for member in group["event_receiver_ids"]]
            if shown["complete"] != (group["enabled"] and all(gates)):
                yield f"the status of group {group_id} for {artifact} says {shown['summary']!r}; by the stream: enabled {group['enabled']}, gates {gates}"


def report(found: list[str], told: list[str], faults: Faults) -> str:
    """What is wrong, what was done, and what the server said, whose whole log is kept."""
    log = Path(tempfile.mkdtemp(prefix="xzepr-drill-log-")) / "server.log"
    log.write_text("\n".join(faults.server_log(1_000_000)), "utf-8")
    more = [f"… and {len(found) - SHOWN_MAX} more"] if len(found) > SHOWN_MAX else []
    shown = [
        *found[:SHOWN_MAX],
        *more,
        "",
        *told,
        "",
        f"the server's last lines (all of them: {log}):",
        *faults.server_log(60),
    ]
    return "\n".join(["the drill found:", *shown])
