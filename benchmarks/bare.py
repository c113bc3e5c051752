"""The yardstick: the least that a Python server can do and still store an event durably before it answers.

One protocol, httptools, msgspec, one COPY per batch into one table with the indexes of `events`. It checks no schema, knows no permission, writes
no outbox and cannot fail well. It shares no code with XZepr, so that a change there never moves the yardstick. Each worker is a process of its own
on the same port: `python -m benchmarks.bare PORT` with the database's URL in BARE_URL; it says `ready` and ends with its standard input.
"""

import asyncio
import hashlib
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, cast

import asyncpg
import httptools
import msgspec
import uvloop

from benchmarks import ROOT

BATCH_ROWS_MAX: Final = 1_000
# `like … including indexes` brings the primary key and the four indexes. Checks and partitions are what XZepr adds.
_TABLE: Final = (
    "create schema if not exists bare",
    "create sequence bare.seq cache 1000",
    "create table bare.events (like public.events including indexes)",
    "alter table bare.events alter column seq set default nextval('bare.seq')",
    "alter table bare.events alter column created_at set default now()",
    "alter table bare.events alter column event_receiver_version set default 1",
)
_COLUMNS: Final = (
    "id",
    "artifact_id",
    "name",
    "version",
    "release",
    "platform_id",
    "package",
    "description",
    "payload",
    "success",
    "event_receiver_id",
)
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [a + b for a in _ALPHABET for b in _ALPHABET]
_SHIFTS: Final = range(120, -1, -10)


class _Body(msgspec.Struct, gc=False):
    """What is posted."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str
    payload: msgspec.Raw
    success: bool
    event_receiver_id: str
    description: str = ""


_decode = msgspec.json.Decoder(_Body).decode
_chance = random.SystemRandom()


class _Ids:
    """Rising ULIDs."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> str:
        """One id, higher than the one before."""
        floor = time.time_ns() // 1_000_000 << 80
        # Chance once a millisecond; within it they count on.
        self._last = number = self._last + 1 if self._last >= floor else floor | _chance.getrandbits(79)
        return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


class _Writer:
    """One COPY at a time; what comes meanwhile is the next batch."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection
        self._rows: list[tuple[Any, ...]] = []
        self._answers: list[Callable[[str], None]] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, row: tuple[Any, ...], answer: Callable[[str], None]) -> None:
        """answer: called with the id after the commit."""
        self._rows.append(row)
        self._answers.append(answer)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._rows:
            rows, self._rows = self._rows[:BATCH_ROWS_MAX], self._rows[BATCH_ROWS_MAX:]
            answers, self._answers = self._answers[:BATCH_ROWS_MAX], self._answers[BATCH_ROWS_MAX:]
            await self._connection.copy_records_to_table("events", schema_name="bare", records=rows, columns=_COLUMNS)
            for row, answer in zip(rows, answers, strict=True):
                answer(row[0])
        self._task = None


class _Protocol(asyncio.Protocol):
    """One connection, one request at a time on it."""

    def __init__(self, writer: _Writer, ids: _Ids) -> None:
        self._writer = writer
        self._ids = ids
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Called by the parser, once or more."""
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        """Called by the parser: queue the row."""
        body = _decode(self._body)
        self._body = b""
        fields = (body.name, body.version, body.release, body.platform_id, body.package)
        joined = b"".join([len(text).to_bytes(4, "big") + text for text in [field.encode() for field in fields]])
        artifact_id = hashlib.sha256(joined).digest()[:16]
        payload = str(body.payload, "utf-8")
        self._writer.add((self._ids.next(), artifact_id, *fields, body.description, payload, body.success, body.event_receiver_id), self._answer)

    def _answer(self, event_id: str) -> None:
        if self._transport is not None:
            # An id has 26 characters, so the body has 37 bytes.
            self._transport.write(
                b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 37\r\n\r\n{"data":"%s"}' % event_id.encode()
            )


async def _serve(port: int, url: str) -> None:
    connection = await asyncpg.connect(url)
    writer, ids = _Writer(connection), _Ids()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Protocol(writer, ids), "127.0.0.1", port, reuse_port=True, backlog=1024)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)
    await connection.close()


async def make_table(url: str) -> None:
    """The table of the bare server, in a schema of its own beside the migrated one."""
    connection = await asyncpg.connect(url)
    try:
        for statement in _TABLE:
            await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def bare_server(port: int, url: str, workers: int) -> AsyncIterator[None]:
    """As many workers as XZepr has; the table must be there and the port free (workers share it, so nothing else would notice)."""
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            await stack.enter_async_context(_worker(port, url))
        yield


@asynccontextmanager
async def _worker(port: int, url: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.bare", str(port)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "BARE_URL": url},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError("the bare server does not start; its message stands above")
        yield
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1]), os.environ["BARE_URL"]))
