"""The benchmark itself: it runs, it notices what is wrong, and it refuses to measure a stranger."""

import asyncio
import contextlib
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.fill import stored_nvrpp
from benchmarks.load import Plan, run_load
from benchmarks.report import CREDENTIALS, percentile, read
from benchmarks.requests import CREATED, post_numbered
from benchmarks.rows import all_rows
from benchmarks.server import PortInUse, require_free
from benchmarks.stage import Options, Stage, stage
from xzepr.ids import is_ulid, time_of

ROOT = Path(__file__).parents[2]
NO_COUNTERPART = ("post to sse", "sequencer")
ID = b"01M88Q7AG504QSGMQWKDMNZ1V6"


def free_port() -> int:
    """Of two neighbours that are free, below those that systems give out by themselves: the bare server binds its port anew for each row."""
    while True:
        port = random.randrange(20_000, 30_000, 2)
        with contextlib.suppress(PortInUse):
            require_free((port, port + 1))
            return port


def quick(only: str) -> Options:
    return Options(duration_s=0.3, warmup_s=0.1, rounds=1, port=free_port(), only=only)


@pytest.mark.slow
def test_a_tiny_run_has_every_row_and_no_errors(tmp_path: Path) -> None:
    latest = tmp_path / "latest.json"
    options = "--base 1k --size 1k --duration 0.3 --warmup 0.1 --rounds 1 --facts 900 --guide 1".split()
    command = [sys.executable, "-m", "benchmarks", "run", *options, "--port", str(free_port()), "--output", str(latest)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert latest.exists(), done.stdout + done.stderr
    report = read(latest)
    posts = [f"post c={connections} no group" for connections in (1, 16, 64, 256)]
    names = ["get by id", "list 50", "timeline", "status", *posts, "post c=64 group of three", "batch 1000", *CREDENTIALS, "post to sse", "sequencer"]
    assert sorted(row.name for row in report.rows) == sorted(f"{name} 1k" for name in names)
    measured = [row for row in report.rows if not row.note.startswith("absent")]
    assert [(row.name, row.errors, row.note) for row in measured if row.errors] == [], done.stdout
    assert all(row.throughput for row in measured)
    assert [row.name for row in measured if (row.ratio is None) is not row.name.startswith(NO_COUNTERPART)] == []
    assert report.guide is not None
    assert report.guide.errors == 0
    assert 0 < report.guide.cpu <= 1
    assert 0 < report.guide.memory < 1
    assert "default configuration except rate limits" in done.stdout
    assert done.returncode == (0 if len(measured) == len(report.rows) else 1), done.stderr


async def execute(built: Stage, *statements: str) -> None:
    connection = await asyncpg.connect(built.postgres.url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


# A database that loses one row in ten, although the server acknowledged it.
LOSE = """
create function lose() returns trigger language plpgsql as $$ begin if random() < 0.1 then return null; end if; return new; end $$;
create trigger lose before insert on events for each row execute function lose()
"""


@pytest.mark.anyio
async def test_rows_that_were_acknowledged_and_are_not_stored_are_errors() -> None:
    async with stage(quick("post c=16 no group"), "1k") as built:
        await filled_consistently(built)
        (row,) = await all_rows(built, lambda _: None)
        assert (row.errors, row.note) == (0, "")
        assert row.pending is not None
        await execute(built, LOSE)
        (row,) = await all_rows(built, lambda _: None)
        assert row.errors > 0


async def filled_consistently(built: Stage) -> None:
    """The SQL makes what the server would have made."""
    connection = await asyncpg.connect(built.postgres.url)
    rows = await connection.fetch("select e.id, e.seq, e.artifact_id, e.name, e.version, e.created_at from events e order by e.id")
    heads = await connection.fetchval("select count(*) from gate_heads")
    partitions = await connection.fetchval("select count(distinct e.tableoid) from events e where e.tableoid <> 'events_default'::regclass")
    await connection.close()
    assert (len(rows), heads, partitions) == (1000, 1000, 36)
    assert [row["seq"] for row in rows] == list(range(1, 1001))
    for row in rows:
        nvrpp = stored_nvrpp(row["seq"] - 1, 1000)
        assert (row["name"], row["version"], row["artifact_id"]) == (nvrpp.name, nvrpp.version, nvrpp.artifact_id)
        assert is_ulid(row["id"])
        assert time_of(row["id"]) == row["created_at"]
    assert {event.id for event in built.stored} == {row["id"] for row in rows}


@pytest.mark.parametrize("neighbour", [0, 1], ids=["xzepr", "bare"])
def test_a_port_in_use_is_refused(neighbour: int) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port + neighbour)):
        refused = CliRunner().invoke(main, ["run", "--port", str(port)])
    assert refused.exit_code == 1
    assert f"port {port + neighbour} is in use" in refused.output


@asynccontextmanager
async def answering(body: bytes, stall_s: float = 0.0, stall_at: int = -1) -> AsyncIterator[int]:
    """A server that stores nothing and always gives this answer; it stops once for a while. Its port."""
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        while head := (await reader.readuntil(b"\r\n\r\n")).lower():
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r")[0]))
            seen += 1
            if seen == stall_at:
                await asyncio.sleep(stall_s)
            writer.write(b"HTTP/1.1 201 Created\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async def until_it_goes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(until_it_goes, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def plan(port: int, rate: float | None = None, connections: int = 1) -> Plan:
    templates = post_numbered(port, ID.decode())
    return Plan(
        port=port,
        connections=connections,
        warmup_s=0.0,
        duration_s=1.0,
        templates=templates,
        tokens=[CREATED],
        ids=True,
        rate=rate,
        requests_max=None,
    )


@pytest.mark.anyio
async def test_an_answer_without_an_id_and_an_id_given_twice_are_noticed() -> None:
    async with answering(b'{"date":"%s"}' % ID) as port:
        outcome = await run_load(plan(port))
        assert (outcome.answered, outcome.bad > 0) == (0, True)
        assert "201 Created" in outcome.problem
    async with answering(b'{"data":"%s"}' % ID) as port:
        outcome = await run_load(plan(port))
        assert outcome.repeated_ids == outcome.answered - 1 > 0


@pytest.mark.anyio
async def test_an_open_loop_charges_a_stall_for_everything_that_waited() -> None:
    body = b'{"data":"%s"}' % ID
    async with answering(body, stall_s=0.5, stall_at=40) as port:
        opened = (await run_load(plan(port, rate=200.0))).sorted_latencies()
        assert len(opened) == pytest.approx(200, abs=2)
    async with answering(body, stall_s=0.5, stall_at=40) as port:
        closed = (await run_load(plan(port))).sorted_latencies()
    # Half of the second's requests were due while nothing was answered: 250 ms on average. A closed loop had one slow request.
    assert percentile(opened, 0.75) > 0.1
    assert percentile(closed, 0.75) < 0.1
