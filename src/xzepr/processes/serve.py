"""The parent: everything that `xzepr serve` starts, in order, and its end in reverse.

Start: embedded PostgreSQL (when no database is configured), signing keys, migrations, partitions, the listening socket, web workers, the relay.
While it runs: a dead child is started again; a dead relay's lease is freed at once. SIGTERM or SIGINT: web workers drain, then the relay ends, then
the database. A parent that is killed leaves nothing: children see the end of their standard input, PostgreSQL gets its death signal.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import structlog

from xzepr import __version__, clock
from xzepr.audit.start import record_start
from xzepr.auth.bootstrap import ensure_administrator, find_first_login
from xzepr.auth.key_files import KeyFiles, KeysError, make_missing, read_keys
from xzepr.db import migrate as migrations
from xzepr.db.pool import CONNECTION_LOST, Database
from xzepr.embedded import EmbeddedPostgres, default_state_dir
from xzepr.errors import Unavailable
from xzepr.events.partitions import ensure_partitions
from xzepr.processes import relay
from xzepr.processes.orders import Orders, orders_for
from xzepr.processes.supervisor import Child, StartFailed
from xzepr.settings import Settings
from xzepr.stream.lead import free_lead

log = structlog.get_logger(__name__)

WORKERS_AUTO_MAX: Final = 8
READY_S: Final = 60.0
# A little longer than a worker gives its open requests.
WEB_DRAIN_S: Final = 25.0
RELAY_DRAIN_S: Final = 10.0
BACKLOG: Final = 2048
# The relay's pool, its listening connection, and one for the parent.
CONNECTIONS_RESERVED: Final = relay.CONNECTIONS + 2


class ServeError(Exception):
    """The installation cannot start; one clear line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Connections of one web worker: an even share of what `database.max_connections` leaves after the relay."""

    workers: int
    connections_min: int
    connections_max: int

    @classmethod
    def of(cls, settings: Settings) -> "Shares":
        """Raises ServeError when there are not two connections for each worker."""
        workers = settings.server.workers
        count = min(os.cpu_count() or 1, WORKERS_AUTO_MAX) if workers == "auto" else workers
        share = (settings.database.max_connections - CONNECTIONS_RESERVED) // count
        if share < 1:
            needed = count + CONNECTIONS_RESERVED
            raise ServeError(f"database.max_connections: {settings.database.max_connections} is too few for {count} workers; at least {needed}")
        return cls(workers=count, connections_min=max(1, min(settings.database.min_connections // count, share)), connections_max=share)


async def serve(settings: Settings, *, with_relay: bool, with_migrations: bool, announce: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT. announce: gets the lines that a person at the terminal is to see.

    Raises ServeError, EmbeddedError, MigrationError, StartFailed: each one clear line.
    """
    stop = _stop_signal()
    shares = Shares.of(settings)
    async with database_of(settings) as with_database:
        ready_settings = with_keys(with_database)
        await prepare_database(ready_settings, with_migrations=with_migrations)
        first_login = await _ensure_administrator(ready_settings, announce)
        await _record_start(settings, ready_settings, "serve" if with_relay else "serve --no-relay")
        with _listen(settings) as listening:
            web = [_web_child(ready_settings, shares, listening.fileno(), number) for number in range(shares.workers)]
            relays = [_relay_child(ready_settings)] if with_relay else []
            async with _running([*web, *relays], stop) as started:
                if started:
                    _announce(settings, listening, announce, first_login)
                    await stop.wait()
                log.info("serve.draining")
                await asyncio.gather(*(child.drain(WEB_DRAIN_S) for child in web))
                await asyncio.gather(*(child.drain(RELAY_DRAIN_S) for child in relays))
    log.info("serve.ended")


async def run_relay_alone(settings: Settings) -> None:
    """`xzepr relay`: one relay under a parent that starts it again when it dies. Raises as serve()."""
    stop = _stop_signal()
    async with database_of(settings) as with_database:
        ready_settings = with_keys(with_database)
        await prepare_database(ready_settings, with_migrations=False)
        await _record_start(settings, ready_settings, "relay")
        child = _relay_child(ready_settings)
        async with _running([child], stop) as started:
            if started:
                await stop.wait()
            await child.drain(RELAY_DRAIN_S)


@asynccontextmanager
async def database_of(settings: Settings) -> AsyncIterator[Settings]:
    """The settings with a database URL in them: the configured one, or that of the embedded PostgreSQL, watched meanwhile."""
    if settings.database.url is not None:
        yield settings
        return
    state_dir = Path(settings.server.state_dir) if settings.server.state_dir else default_state_dir()
    bindir = settings.database.embedded.bindir
    embedded = EmbeddedPostgres(state_dir, bindir=Path(bindir) if bindir else None)
    url = await embedded.start()
    watch = asyncio.create_task(embedded.watch(), name="embedded-watch")
    watch.add_done_callback(_report_end)
    try:
        yield msgspec.structs.replace(settings, database=msgspec.structs.replace(settings.database, url=url))
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        await embedded.stop()


def with_keys(settings: Settings) -> Settings:
    """The settings with the files of the signing keys in them: the configured ones, or those of the state directory, made when they are not there.

    Here and not in the children, so that a key that cannot be used is one clear line. Raises ServeError.
    """
    try:
        files = KeyFiles.of(settings)
        if files.ours:
            make_missing(files)
        read_keys(files)
    except KeysError as error:
        raise ServeError(str(error)) from None
    public = str(files.public) if files.public is not None else None
    jwt = msgspec.structs.replace(settings.jwt, private_key_path=str(files.private), public_key_path=public)
    return msgspec.structs.replace(settings, jwt=jwt)


def _report_end(watch: asyncio.Task[None]) -> None:
    """watch() ends by being cancelled and by nothing else: another end is a fault of ours, and nobody watches the server any more."""
    if not watch.cancelled():
        log.error("embedded.watch_ended", error=repr(watch.exception()))


async def prepare_database(settings: Settings, *, with_migrations: bool) -> None:
    """Migrate (or check), make partitions ahead, and see that there is room for our connections. Raises ServeError, MigrationError."""
    if with_migrations:
        with _one_clear_line():
            await migrations.migrate(_direct_url(settings))
    async with checked_database(settings) as database:
        async with database.connection() as connection:
            facts = await connection.fetchrow(migrations.queries["server_facts"])
        assert facts is not None
        if facts["connections_max"] < settings.database.max_connections:
            allowed = facts["connections_max"]
            raise ServeError(f"database.max_connections: {settings.database.max_connections}, but PostgreSQL allows {allowed} (its max_connections)")
        await ensure_partitions(database, clock.now())


async def _record_start(settings: Settings, ready_settings: Settings, command: str) -> None:
    """settings: as they were given; ready_settings: with a database URL."""
    async with checked_database(ready_settings) as database, database.transaction() as connection:
        await record_start(connection, settings, command)


@asynccontextmanager
async def checked_database(settings: Settings, *, application_name: str = "xzepr") -> AsyncIterator[Database]:
    """A connection to a database of this version's schema, for a command that works on it directly. settings: with a database URL.

    Raises ServeError, also when the database goes away meanwhile; MigrationError.
    """
    timeout_s = settings.database.connection_timeout_seconds
    database = Database(_direct_url(settings), connections_min=1, connections_max=1, connect_timeout_s=timeout_s, application_name=application_name)
    with _one_clear_line():
        await database.open()
        try:
            async with database.connection() as connection:
                await migrations.check_schema(connection)
            yield database
        finally:
            await database.close()


async def _ensure_administrator(settings: Settings, announce: Callable[[str], None]) -> Path | None:
    """The made-up password of a first administrator is for a person's eyes, or for a file; never for a log. The file, while it opens the door."""
    state_dir = Path(settings.server.state_dir) if settings.server.state_dir else default_state_dir()
    try:
        async with checked_database(settings, application_name="xzepr-serve") as database:
            await ensure_administrator(database, settings, state_dir, announce if sys.stdout.isatty() else None)
            return await find_first_login(database, state_dir) if settings.auth.enable_local_auth else None
    except OSError as error:
        raise ServeError(f"server.state_dir: the password of the first administrator cannot be written to {state_dir}: {error.strerror}") from None


def _direct_url(settings: Settings) -> str:
    url = settings.database.direct_url or settings.database.url
    assert url is not None
    return url


@contextlib.contextmanager
def _one_clear_line() -> Iterator[None]:
    """What a database that cannot be worked with raises, as ServeError."""
    try:
        yield
    except Unavailable as error:
        raise ServeError(f"database.url: {error.__cause__ or error.message}") from None
    except (*CONNECTION_LOST, asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
        raise ServeError(f"database.url: {error or type(error).__name__}") from None


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _listen(settings: Settings) -> socket.socket:
    """Bound here, before any child starts, so that a port in use is one clear line."""
    host, port = settings.server.host, settings.server.port
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise ServeError(f"server.host, server.port: {host}:{port}: {error.strerror or error}") from None
    listening.set_inheritable(True)
    return listening


def _web_child(settings: Settings, shares: Shares, listen_fd: int, number: int) -> Child:
    packed = orders_for(settings)

    def orders() -> Orders:
        return Orders(
            role="web",
            name=f"web-{number}",
            settings=packed,
            connections_min=shares.connections_min,
            connections_max=shares.connections_max,
            listen_fd=listen_fd,
        )

    return Child(orders)


def _relay_child(settings: Settings) -> Child:
    packed = orders_for(settings)

    def orders() -> Orders:
        return Orders(role="relay", name=relay.new_holder(), settings=packed, connections_max=relay.CONNECTIONS)

    async def free(dead: Orders) -> None:
        """Its lease would run for three seconds more."""
        assert settings.database.url is not None
        database = Database(settings.database.url, connections_min=1, connections_max=1, connect_timeout_s=2)
        with contextlib.suppress(Unavailable):
            await database.open()
            await free_lead(database, dead.name)
        await database.close()

    return Child(orders, on_death=free)


@asynccontextmanager
async def _running(children: list[Child], stop: asyncio.Event) -> AsyncIterator[bool]:
    """All of them kept running; yields whether they are ready (False: stopped before that). Raises StartFailed, ServeError."""
    readies = [asyncio.Event() for _ in children]
    tasks = [asyncio.create_task(child.run(ready)) for child, ready in zip(children, readies, strict=True)]
    all_ready = asyncio.create_task(_all_set(readies))
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([all_ready, stopped, *tasks], timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task in done and (error := task.exception()) is not None:
                raise error
        if not done:
            raise ServeError(f"the children were not ready within {READY_S:.0f} s")
        yield all_ready in done
    finally:
        # After a drain these have ended; after a failure they are killed.
        everything: list[asyncio.Task[Any]] = [all_ready, stopped, *tasks]
        for each in everything:
            each.cancel()
        await asyncio.gather(*everything, return_exceptions=True)


async def _all_set(events: list[asyncio.Event]) -> bool:
    for event in events:
        await event.wait()
    return True


def _announce(settings: Settings, listening: socket.socket, announce: Callable[[str], None], first_login: Path | None) -> None:
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104  only shown
    announce(f"XZepr {__version__} listens on http://{shown}:{port}  (API pages: http://{shown}:{port}/docs)")
    if first_login is not None:
        announce(f"First login: {first_login}")
    if roles := settings.auth.anonymous_roles:
        networks = ", ".join(settings.auth.anonymous_networks)
        announce(f"OPEN: callers without credentials from {networks} have the roles: {', '.join(roles)} (auth.anonymous_roles)")


__all__ = ["ServeError", "StartFailed", "checked_database", "database_of", "prepare_database", "run_relay_alone", "serve", "with_keys"]
