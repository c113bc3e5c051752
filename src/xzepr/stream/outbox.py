"""The outbox: the queue, in PostgreSQL, of facts that are committed and not yet in the stream.

A row is written by the statement or the transaction that writes the fact itself, under the fact's own number, so that state and
message are one commit. The statements that create things carry that insert within them (events/, receivers/, groups/ queries.sql).
This module is the other end: what the sequencer takes, and the word that it need not wait for its next look.
"""

import asyncio
import time
from typing import Final

import structlog

from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import Unavailable

log = structlog.get_logger(__name__)
queries = Queries("xzepr.stream")

CHANNEL: Final = "xzepr_outbox"
# A NOTIFY inside a transaction serialises every commit of the database, and a busy sequencer looks by itself; so at most one in
# this time, after the commit, on a connection of its own.
RING_INTERVAL_S: Final = 0.05


class Bell:
    """Tells the sequencer, from one process, that there is something to take. Losing a ring costs a quarter of a second, nothing else."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last_rung_s = 0.0
        self._ringing: asyncio.Task[None] | None = None

    def ring(self) -> None:
        """Call after a commit; nobody waits for it. Rings unless it rang a moment ago."""
        now_s = time.monotonic()
        if now_s - self._last_rung_s < RING_INTERVAL_S or (self._ringing is not None and not self._ringing.done()):
            return
        self._last_rung_s = now_s
        self._ringing = asyncio.get_running_loop().create_task(self._ring())

    async def _ring(self) -> None:
        try:
            async with self._database.connection() as connection:
                await connection.execute(queries["ring"])
        except Unavailable as error:
            # The fact is committed and acknowledged; the sequencer finds it at its next look.
            log.debug("outbox.ring_failed", reason=error.message)
