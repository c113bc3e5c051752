"""Where rows are measured: a fresh PostgreSQL with so many events in it, XZepr on it, and what both are asked."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from benchmarks import bare, plain
from benchmarks.fill import Definitions, Stored, define, event_count, fill, sample
from benchmarks.postgres import Postgres, temporary_postgres
from benchmarks.server import SETTINGS, Running, require_free, serving
from xzepr.ids import lowest_at
from xzepr.processes.serve import WORKERS_AUTO_MAX

# A run of the load may use this many numbers before the next one's begin.
_NUMBERS_PER_RUN: Final = 1_000_000
DRAINED_S: Final = 60.0


class Options(msgspec.Struct, kw_only=True, frozen=True):
    """How long and where. duration_s: of each round of each side, behind warmup_s; port: XZepr's, the bare server takes the next one.

    only: a pattern; rows whose name it does not find are left out. facts: of the sequencer's row. directory: on the disk to measure.
    """

    duration_s: float = 8.0
    warmup_s: float = 2.0
    rounds: int = 2
    port: int = 18042
    only: str = ""
    facts: int = 50_000
    guide_s: float = 60.0
    directory: Path | None = None

    @property
    def ports(self) -> tuple[int, int]:
        """Both."""
        return self.port, self.port + 1


class Stage:
    """One size. `server` is None while it is stopped. is_first: of the run's sizes; what does not hang on the size is measured there alone."""

    def __init__(self, options: Options, size: str, postgres: Postgres, definitions: Definitions, stored: list[Stored], *, is_first: bool) -> None:
        self.options = options
        self.size = size
        self.postgres = postgres
        self.definitions = definitions
        self.stored = stored
        self.is_first = is_first
        self.server: Running | None = None
        self._runs = 0
        # A minute of room: the server's ids are of its own clock.
        self._begun = lowest_at(datetime.now(UTC) - timedelta(minutes=1))

    def first_number(self) -> int:
        """For the next run of the load, so that its artifacts are new."""
        self._runs += 1
        return self._runs * _NUMBERS_PER_RUN

    async def value(self, statement: str) -> int:
        """One number from the database."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return int(await connection.fetchval(statement, timeout=120))
        finally:
            await connection.close()

    async def events(self) -> int:
        """Stored by XZepr since the filling: what was filled in lies before that moment and has the numbers of imports."""
        return await self.value(f"select count(*) from events e where e.id >= '{self._begun}' and e.seq >= 1000000000000")  # noqa: S608

    async def bare_events(self) -> int:
        """Stored by the bare server."""
        return await self.value("select count(*) from bare.events")

    async def pending(self) -> int:
        """Facts that wait for the sequencer."""
        return await self.value("select count(*) from outbox")

    async def drained(self, seconds: float = DRAINED_S) -> float | None:
        """Wait until nothing is pending; after how many seconds that was, or None when it was not."""
        begun = time.monotonic()
        while time.monotonic() - begun <= seconds:
            if not await self.value("select exists (select from outbox)::int"):
                return time.monotonic() - begun
            await asyncio.sleep(0.05)
        return None


def workers() -> int:
    """Of XZepr by default, and so of the bare server."""
    return min(os.cpu_count() or 1, WORKERS_AUTO_MAX)


@asynccontextmanager
async def stage(options: Options, size: str, *, is_first: bool = True) -> AsyncIterator[Stage]:
    """Started, filled, and stopped. Raises PortInUse, NotDurable, EmbeddedError, RuntimeError."""
    require_free(options.ports)
    async with temporary_postgres(options.directory) as postgres, serving(postgres.url, options.port) as server:
        definitions = await asyncio.to_thread(define, options.port)
        count = event_count(size)
        await fill(postgres.url, definitions, count, datetime.now(UTC))
        await bare.make_table(postgres.url)
        await plain.make_tables(postgres.url)
        built = Stage(options, size, postgres, definitions, await sample(postgres.url, count), is_first=is_first)
        await built.drained()
        built.server = server
        yield built


def settings_told() -> str:
    """What differs from the default configuration, in one line."""
    return ", ".join(f"{name}={value}" for name, value in SETTINGS.items() if "RATE_LIMIT" in name)
