"""The lease: at most one sequencer leads, by the clock of the database.

One row holds epoch, holder and expiry. A leader renews it each second, good for three; a standby looks four times a second and takes it when it has
expired. Each sequencing transaction locks the row and checks its epoch, so a leader that was paused and woke up late writes
nothing: it finds another epoch and stands by again. When the database is away nobody leads, and nothing can be sequenced anyway.
"""

import asyncio
from typing import Final

import structlog
from asyncpg.exceptions import LockNotAvailableError

from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import Unavailable

log = structlog.get_logger(__name__)
queries = Queries("xzepr.stream")

LEASE_S: Final = 3.0
RENEW_INTERVAL_S: Final = 1.0
STANDBY_INTERVAL_S: Final = 0.25


class Lead:
    """One contender. holder: a name that is this process's alone. epoch: of the lease held now, None while standing by."""

    def __init__(self, database: Database, holder: str) -> None:
        self._database = database
        self.holder = holder
        self.epoch: int | None = None
        self._held = asyncio.Event()

    async def held(self) -> int:
        """Wait until this process leads; the epoch."""
        while self.epoch is None:
            await self._held.wait()
        return self.epoch

    def lose(self) -> None:
        """Stand by: another leads, or the lease could not be renewed in time."""
        if self.epoch is not None:
            log.warning("lead.lost", holder=self.holder, epoch=self.epoch)
        self.epoch = None
        self._held.clear()

    async def run(self) -> None:
        """Contend until cancelled, then free the lease."""
        try:
            while True:
                try:
                    await self._renew() if self.epoch is not None else await self._acquire()
                except (Unavailable, LockNotAvailableError) as error:
                    # Away, or a paused leader's transaction still holds the row: the database ends that one by its own timeout.
                    log.debug("lead.not_now", reason=str(error))
                await asyncio.sleep(RENEW_INTERVAL_S if self.epoch is not None else STANDBY_INTERVAL_S)
        finally:
            await free_lead(self._database, self.holder)

    async def _acquire(self) -> None:
        async with self._database.connection() as connection:
            epoch = await connection.fetchval(queries["acquire_lead"], self.holder, LEASE_S)
        if epoch is not None:
            log.info("lead.acquired", holder=self.holder, epoch=epoch)
            self.epoch = epoch
            self._held.set()

    async def _renew(self) -> None:
        async with self._database.connection() as connection:
            if await connection.fetchval(queries["renew_lead"], self.epoch, LEASE_S) is None:
                self.lose()


async def free_lead(database: Database, holder: str) -> None:
    """End this holder's lease at once; harmless when it holds none. A database that is away frees it by the expiry."""
    try:
        async with database.connection() as connection:
            await connection.execute(queries["free_lead"], holder)
    except Unavailable as error:
        log.warning("lead.not_freed", holder=holder, reason=error.message)
