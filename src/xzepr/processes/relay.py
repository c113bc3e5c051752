"""The relay: the process in which the sequencer runs (and, with Kafka and webhooks, the sinks).

Any number of relays may run; one leads, the others stand by. The leader also removes what is old (retention/) and seals the audit log; each makes
partitions ahead. A part
that fails is logged and tried again; only SIGTERM ends the process, and it then frees the lease, so that a standby need not wait for its expiry.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import asyncpg
import structlog
import uvloop

from xzepr import clock, idempotency
from xzepr.audit.seal import keep_sealing
from xzepr.auth import changes, logins, oidc, throttle
from xzepr.db.pool import BY_INDEX_ONLY, CONNECTION_LOST, SERVER_SETTINGS, Database
from xzepr.db.queries import Queries
from xzepr.errors import Unavailable
from xzepr.events.partitions import ensure_partitions
from xzepr.processes.orders import Orders
from xzepr.retention.rounds import keep_applying, keep_trimming
from xzepr.settings import Settings
from xzepr.stream.lead import Lead
from xzepr.stream.outbox import CHANNEL
from xzepr.stream.sequencer import Sequencer

log = structlog.get_logger(__name__)
queries = Queries("xzepr.stream")

PARTITIONS_INTERVAL_S: Final = 60.0
SWEEP_INTERVAL_S: Final = 600.0
EVALUATIONS_KEPT_FOR: Final = timedelta(hours=1)
LISTEN_RETRY_S: Final = 1.0
# Sequencer, lease, partitions, retention; the listening connection is one more, outside the pool.
CONNECTIONS: Final = 4
# Of these, for the sequencer and its lease.
FOLD_CONNECTIONS: Final = 2


def new_holder() -> str:
    """A name for the lease that no other process has."""
    return f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"


def run_relay(orders: Orders, settings: Settings, ready: Callable[[], None]) -> int:
    """Relay until SIGTERM; the exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(relay(settings, orders.name, ready))


async def relay(settings: Settings, holder: str, ready: Callable[[], None]) -> int:
    """The relay on this loop. holder: the name under which it leads."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    assert settings.database.url is not None
    database = _database(settings, CONNECTIONS - FOLD_CONNECTIONS)
    fold = _database(settings, FOLD_CONNECTIONS, BY_INDEX_ONLY)
    await database.open()
    await fold.open()
    lead = Lead(fold, holder)
    sequencer = Sequencer(fold, lead)
    tasks = [
        asyncio.create_task(lead.run(), name="lead"),
        asyncio.create_task(sequencer.run(), name="sequencer"),
        asyncio.create_task(_listen(settings.database.direct_url or settings.database.url, sequencer), name="listen"),
        asyncio.create_task(_make_partitions(database), name="partitions"),
        asyncio.create_task(_sweep(database), name="sweep"),
        asyncio.create_task(keep_trimming(database, lead, settings), name="trim"),
        asyncio.create_task(keep_applying(database, lead, settings), name="retention"),
        asyncio.create_task(keep_sealing(database, lead, settings), name="audit"),
    ]
    ready()
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    broken = [task for task in done if task is not stopped]
    for task in broken:
        log.error("relay.part_ended", part=task.get_name(), error=repr(task.exception()))
    # The lease last: while it is held nobody else begins, and what is under way is finished or rolled back.
    for task in [*tasks[1:], tasks[0]]:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
    stopped.cancel()
    await fold.close()
    await database.close()
    return 1 if broken else 0


def _database(settings: Settings, connections_max: int, session_settings: Mapping[str, str] | None = None) -> Database:
    assert settings.database.url is not None
    return Database(
        settings.database.url,
        connections_min=1,
        connections_max=connections_max,
        connect_timeout_s=settings.database.connection_timeout_seconds,
        application_name="xzepr-relay",
        session_settings=session_settings,
    )


async def _listen(url: str, sequencer: Sequencer) -> None:
    """Wake the sequencer when a writer rings. Without it (a pooler that cannot listen) it looks four times a second all the same."""
    while True:
        lost = asyncio.Event()
        with contextlib.suppress(*CONNECTION_LOST):
            connection = await asyncpg.connect(url, timeout=10, server_settings=SERVER_SETTINGS | {"application_name": "xzepr-relay-listen"})
            connection.add_termination_listener(lambda _, lost=lost: lost.set())
            try:
                await connection.add_listener(CHANNEL, _waker(sequencer))
                await lost.wait()
            finally:
                connection.terminate()
        await asyncio.sleep(LISTEN_RETRY_S)


def _waker(sequencer: Sequencer) -> Callable[..., None]:
    def wake(*_: Any) -> None:
        sequencer.wake()

    return wake


async def _sweep(database: Database) -> None:
    """Remove what nobody can ask for any more: idempotency keys that count as new, evaluations that nobody waits for, logins that are over or were
    never finished, changes that every process has heard of, counts of guesses that count no more."""
    while True:
        try:
            now = clock.now()
            await idempotency.sweep(database, now)
            await logins.sweep(database, now)
            await changes.sweep(database)
            await throttle.sweep(database, now)
            await oidc.sweep(database, now)
            async with database.connection() as connection:
                await connection.execute(queries["sweep_evaluations"], now - EVALUATIONS_KEPT_FOR)
        except (Unavailable, asyncpg.PostgresError) as error:
            log.warning("sweep.round_failed", reason=str(error))
        await asyncio.sleep(SWEEP_INTERVAL_S)


async def _make_partitions(database: Database) -> None:
    """Ahead of need, all day: the stream fills its partitions by count, not by time."""
    while True:
        try:
            await ensure_partitions(database, clock.now())
        except (Unavailable, asyncpg.PostgresError) as error:
            log.warning("partition.round_failed", reason=str(error))
        await asyncio.sleep(PARTITIONS_INTERVAL_S)
