"""Keeps the embedded PostgreSQL running for every xzepr process of one state directory.

A lock on a file decides who supervises: the *owner* runs the server as its child; the others *join* it. The kernel frees the lock when the owner dies, however it
dies, and the server then stops by its death signal; a joiner that gets the lock starts it again. States: starting, owner, joiner,
stopped. A server that dies under its owner is started again; after a kill the old one's children may hold its memory for a moment, so a start is
tried until it works.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import asyncpg
import structlog

from xzepr.embedded.account import EmbeddedError, make_state_dir, server_account, socket_dir
from xzepr.embedded.binaries import find_binaries, reachable
from xzepr.embedded.cluster import Cluster, data_major

log = structlog.get_logger(__name__)

START_S: Final = 60.0
POLL_S: Final = 0.05
WATCH_S: Final = 0.25
STOP_FAST_S: Final = 20.0
STOP_IMMEDIATE_S: Final = 5.0


class EmbeddedPostgres:
    """The server of one state directory, as this process sees it. Use it from the main thread: the server dies with the thread that started it."""

    def __init__(self, state_dir: Path, *, bindir: Path | None = None) -> None:
        self._state_dir = state_dir
        self._bindir = bindir
        self._cluster: Cluster | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self.version = ""

    @property
    def owner(self) -> bool:
        """Whether this process runs the server, or joined another's."""
        return self._lock is not None

    async def start(self) -> str:
        """Its URL, once it takes connections. Raises EmbeddedError with one clear line."""
        account = server_account()
        make_state_dir(self._state_dir, account)
        sockets = socket_dir(self._state_dir, account)
        deadline_s = time.monotonic() + START_S
        while True:
            if self._try_lock():
                binaries = find_binaries(self._bindir, data_major(self._state_dir))
                self.version = binaries.version
                self._cluster = Cluster(self._state_dir, sockets, reachable(binaries, account, self._state_dir), account)
                await asyncio.to_thread(self._make_in_thread)
                await self._run_server(deadline_s)
                log.warning("embedded.started", version=self.version, state_dir=str(self._state_dir), advice="for production, use your own PostgreSQL")
                return self._cluster.url
            if (major := data_major(self._state_dir)) is not None:
                binaries = find_binaries(self._bindir, major)
                self.version = binaries.version
                self._cluster = Cluster(self._state_dir, sockets, reachable(binaries, account, self._state_dir), account)
                if await self._takes_connections():
                    log.warning("embedded.joined", version=self.version, state_dir=str(self._state_dir), advice="for production, use your own PostgreSQL")
                    return self._cluster.url
            if time.monotonic() > deadline_s:
                raise EmbeddedError(f"another xzepr process holds {self._state_dir}, and its PostgreSQL does not answer; see postgres.log there")
            await asyncio.sleep(POLL_S)

    async def watch(self) -> None:
        """Until cancelled: start the server again when it dies; take over when its owner is gone."""
        while True:
            await asyncio.sleep(WATCH_S)
            if not self.owner:
                if not self._try_lock():
                    continue
                log.warning("embedded.taking_over", state_dir=str(self._state_dir))
            elif self._process is not None and self._process.poll() is None:
                continue
            else:
                log.error("embedded.died", code=self._process.returncode if self._process else None)
            try:
                await self._run_server(time.monotonic() + START_S)
                log.warning("embedded.restarted", version=self.version)
            except EmbeddedError as error:
                log.error("embedded.not_restarted", reason=str(error))

    async def stop(self) -> None:
        """Owner: fast shutdown, immediate when that takes too long. Joiner: nothing. Others that use it take over by their watch()."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            for number, seconds in ((signal.SIGINT, STOP_FAST_S), (signal.SIGQUIT, STOP_IMMEDIATE_S), (signal.SIGKILL, STOP_IMMEDIATE_S)):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
                if await _ended(process, seconds):
                    break
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _try_lock(self) -> bool:
        """The kernel frees it with the last descriptor; descriptors of this process are not inherited by the server."""
        descriptor = os.open(self._state_dir / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def _make_in_thread(self) -> None:
        assert self._cluster is not None
        self._cluster.make()

    async def _run_server(self, deadline_s: float) -> None:
        """Start it until it takes connections. Raises EmbeddedError at the deadline, with the end of its log."""
        assert self._cluster is not None
        while True:
            descriptor = self._cluster.open_log()
            try:
                # A session of its own: Ctrl-C is for the parent, which stops the server last.
                self._process = subprocess.Popen(  # noqa: S603
                    self._cluster.server_command(), stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True
                )
            finally:
                os.close(descriptor)
            while self._process.poll() is None and time.monotonic() < deadline_s:
                if self._cluster.is_ready(self._process.pid) and await self._is_usable():
                    return
                await asyncio.sleep(POLL_S)
            if time.monotonic() >= deadline_s:
                raise EmbeddedError(f"PostgreSQL {self.version} does not start; the end of {self._state_dir}/postgres.log: {self._log_end()}")
            await asyncio.sleep(POLL_S * 2)

    async def _is_usable(self) -> bool:
        assert self._cluster is not None
        try:
            await self._cluster.ensure_database()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.debug("embedded.not_usable_yet", reason=str(error))
            return False
        return True

    async def _takes_connections(self) -> bool:
        assert self._cluster is not None
        try:
            connection = await asyncpg.connect(self._cluster.url, timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close(timeout=5)
        return True

    def _log_end(self) -> str:
        with contextlib.suppress(OSError):
            return " ".join((self._state_dir / "postgres.log").read_text("utf-8", "replace")[-600:].split())
        return ""


async def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            return True
        await asyncio.sleep(POLL_S)
    return process.poll() is not None
