"""Longer trials: the guide's table, an old snapshot beside the sequencer, the memory of the server."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import psutil

from benchmarks import requests
from benchmarks.load import Outcome, Plan, run_load
from benchmarks.report import Bar, Guide, percentile
from benchmarks.rows import batch_plan, errors_of
from benchmarks.server import cpu_s, memory_bytes
from benchmarks.stage import Stage

CONNECTIONS: Final = 64
# A little more than 1,000, so that more than 1,000 a second can be answered.
GUIDE_RATE: Final = 1_010.0
SNAPSHOT_RATE: Final = 1_000.0
SAMPLE_INTERVAL_S: Final = 1.0
SNAPSHOT_P99_MAX: Final = 1.5
MEMORY_GROWTH_MAX: Final = 0.10


async def guide(stage: Stage) -> Guide:
    """The table, with what server and database took of the machine meanwhile."""
    pids = _pids(stage)
    await stage.drained()
    before, cpu_before = await stage.events(), cpu_s(pids)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    task = asyncio.create_task(run_load(open_loop(stage, GUIDE_RATE, stage.options.guide_s)))
    sizes = [memory_bytes(pids)]
    while not (await asyncio.wait([task], timeout=SAMPLE_INTERVAL_S))[0]:
        sizes.append(memory_bytes(pids))
    outcome = task.result()
    seconds = loop.time() - begun
    used = (cpu_s(pids) - cpu_before) / seconds / (psutil.cpu_count() or 1)
    ordered = _latencies(outcome)
    return Guide(
        offered=GUIDE_RATE,
        throughput=outcome.in_window / outcome.seconds,
        p50_ms=1000 * percentile(ordered, 0.50),
        p95_ms=1000 * percentile(ordered, 0.95),
        p99_ms=1000 * percentile(ordered, 0.99),
        answers=outcome.answered,
        errors=errors_of(outcome, await stage.events() - before),
        cpu=used,
        memory=max(sizes) / psutil.virtual_memory().total,
        note=" ".join(outcome.problem.split())[:80],
    )


def open_loop(stage: Stage, rate: float, seconds: float) -> Plan:
    """Single events without a group, at this many a second."""
    return Plan(
        port=stage.options.port,
        connections=CONNECTIONS,
        warmup_s=stage.options.warmup_s,
        duration_s=seconds,
        templates=requests.posts(stage.options.port, [stage.definitions.lone]),
        tokens=[requests.CREATED],
        first=stage.first_number(),
        rate=rate,
        ids=True,
    )


async def snapshot(stage: Stage, seconds: float) -> list[Bar]:
    """Posts at 1,000 a second, first alone (at most a minute), then while another session holds an old snapshot all the time."""
    without, errors_without = await _posted(stage, min(seconds, 60.0))
    await stage.drained()
    async with _old_snapshot(stage.postgres.url):
        beside, errors = await _posted(stage, seconds)
        pending = await stage.pending()
    p99_ms, p99_without_ms = (1000 * percentile(_latencies(outcome), 0.99) for outcome in (beside, without))
    return [
        Bar(name="facts pending at the end", limit=f"≤ {SNAPSHOT_RATE:.0f}", seen=f"{pending:,}", held=pending <= SNAPSHOT_RATE),
        Bar(
            name="post p99 by that without the snapshot",
            limit=f"≤ {SNAPSHOT_P99_MAX}",
            seen=f"{p99_ms / p99_without_ms:.2f} ({p99_ms:.1f} ms, {p99_without_ms:.1f} ms)",
            held=p99_ms <= SNAPSHOT_P99_MAX * p99_without_ms,
        ),
        Bar(name="errors", limit="0", seen=str(errors + errors_without), held=errors + errors_without == 0),
    ]


async def _posted(stage: Stage, seconds: float) -> tuple[Outcome, int]:
    before = await stage.events()
    outcome = await run_load(open_loop(stage, SNAPSHOT_RATE, seconds))
    return outcome, errors_of(outcome, await stage.events() - before)


@asynccontextmanager
async def _old_snapshot(url: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            # The first statement takes the snapshot.
            await connection.fetchval("select count(*) from sequencer")
            yield
    finally:
        await connection.close()


async def memory(stage: Stage, events: int) -> list[Bar]:
    """Memory of XZepr's processes while so many events come in batches: the last quarter's mean beside the second's."""
    assert stage.server is not None
    batches = events // requests.BATCH_EVENTS
    before = await stage.events()
    task = asyncio.create_task(run_load(batch_plan(stage, batches)))
    # By progress, not by time, so that a slower end does not move the quarters.
    samples: list[tuple[int, int]] = []
    while not (await asyncio.wait([task], timeout=SAMPLE_INTERVAL_S / 2))[0]:
        samples.append((await stage.value("select last_value from fact_seq"), memory_bytes([stage.server.pid])))
    outcome = task.result()
    errors = errors_of(outcome, await stage.events() - before, requests.BATCH_EVENTS)
    second, last = quarters(samples)
    growth = last / second - 1 if second and last else None
    seen = "-" if growth is None else f"{growth:+.1%} ({second / 2**20:.0f} MiB, {last / 2**20:.0f} MiB)"
    held = None if growth is None else abs(growth) <= MEMORY_GROWTH_MAX
    problem = " ".join(outcome.problem.split())[:80]
    return [
        Bar(name="memory of the last quarter by that of the second", limit=f"within {MEMORY_GROWTH_MAX:.0%}", seen=seen, held=held),
        Bar(name="errors", limit="0", seen=f"{errors} {problem}".strip(), held=errors == 0),
    ]


def quarters(samples: list[tuple[int, int]]) -> tuple[float, float]:
    """Mean memory of the second and the last quarter of the way; 0 where there is no sample. samples: (progress, bytes), in order."""
    if not samples:
        return 0.0, 0.0
    first, end = samples[0][0], samples[-1][0]

    def mean(low: float, high: float) -> float:
        among = [size for progress, size in samples if low <= (progress - first) / max(end - first, 1) <= high]
        return statistics.fmean(among) if among else 0.0

    return mean(0.25, 0.50), mean(0.75, 1.0)


def _latencies(outcome: Outcome) -> list[float]:
    """Raises RuntimeError when there are none."""
    ordered = outcome.sorted_latencies()
    if not ordered:
        raise RuntimeError(f"nothing was answered: {outcome.problem}")
    return ordered


def _pids(stage: Stage) -> list[int]:
    assert stage.server is not None
    return [stage.server.pid, stage.postgres.pid]
