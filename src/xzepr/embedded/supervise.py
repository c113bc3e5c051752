"""Keeps the embedded PostgreSQL running for every xzepr process of one state directory.

A lock on a file decides who supervises: the *owner* runs the server as its child; the others *join* it. The kernel frees the lock when the owner
dies, however it dies, and the server then stops by its death signal; a joiner that gets the lock starts it again. States: starting, owner, joiner,
stopped. A server that dies under its owner is started again. A start waits for the end of what is left of the old server, and is tried until it
works; one that recovers from a crash takes the time that it takes. A start that fails leaves nothing running.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

import asyncpg
import structlog

from xzepr.embedded.account import Account, EmbeddedError, make_state_dir, server_account, socket_dir
from xzepr.embedded.binaries import Binaries, find_binaries, reachable, remove_other_copies
from xzepr.embedded.cluster import FAILED, Cluster, data_major
from xzepr.embedded.leftovers import clear_leftovers

log = structlog.get_logger(__name__)

START_S: Final = 60.0
POLL_S: Final = 0.05
WATCH_S: Final = 0.25
# Between two attempts of a server that does not start.
PAUSE_MAX_S: Final = 1.0
STOP_FAST_S: Final = 20.0
STOP_IMMEDIATE_S: Final = 5.0
_ADVICE: Final = "for production, use your own PostgreSQL (database.url)"


class EmbeddedPostgres:
    """The server of one state directory, as this process sees it. Use it from the main thread: the server dies with the thread that started it.

    bindir: the setting database.embedded.bindir. version: of the programs, such as "15.18", after start().
    """

    def __init__(self, state_dir: Path, *, bindir: Path | None = None) -> None:
        # The server has a working directory of its own, so a relative path would mean another place there.
        self._state_dir = state_dir.expanduser().absolute()
        self._bindir = bindir.expanduser().absolute() if bindir is not None else None
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
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("EmbeddedPostgres.start() belongs in the main thread: the server dies with the thread that started it")
        try:
            cluster = await self._own_or_join()
            url = cluster.url
        except OSError as error:
            await self.stop()
            advice = "; set server.state_dir to another one" if isinstance(error, PermissionError) else ""
            raise EmbeddedError(f"PostgreSQL in {self._state_dir} cannot be started: {error}{advice}") from error
        except BaseException:
            await self.stop()
            raise
        log.warning("embedded.started" if self.owner else "embedded.joined", version=self.version, state_dir=str(self._state_dir), advice=_ADVICE)
        return url

    async def watch(self) -> None:
        """Until cancelled: start the server again when it dies; take over when its owner is gone."""
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                if self.owner:
                    await self._keep_running()
                elif self._try_lock():
                    await self._take_over()
            except (EmbeddedError, OSError) as error:
                log.error("embedded.not_running", reason=str(error))  # noqa: TRY400  the line says it all
                await asyncio.sleep(PAUSE_MAX_S)

    async def stop(self) -> None:
        """Owner: fast shutdown, immediate when that takes too long. Joiner: nothing. Others that use it take over by their watch()."""
        await self._stop_server()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _own_or_join(self) -> Cluster:
        """As the first of this state directory or as one more. While another process still makes or starts the server, it is waited for."""
        make_state_dir(self._state_dir, self._account())
        deadline_s = time.monotonic() + START_S
        while not self._try_lock():
            if (cluster := self._joined()) is not None:
                with contextlib.suppress(*FAILED):  # its database may not be there yet
                    if await cluster.takes_connections():
                        return cluster
            if time.monotonic() > deadline_s:
                raise EmbeddedError(f"another xzepr process holds {self._state_dir}, and its PostgreSQL does not answer; see postgres.log there")
            await asyncio.sleep(POLL_S)
        return await self._own()

    def _joined(self) -> Cluster | None:
        """The cluster of another owner, when it is made. Its programs are looked up once: this process may need them to take over."""
        if self._cluster is None and (self._state_dir / "postgres-xzepr.password").exists() and (self._state_dir / "data").exists():
            account = self._account()
            self._cluster = Cluster(self._state_dir, socket_dir(self._state_dir, account), self._find(), account)
        return self._cluster

    async def _own(self) -> Cluster:
        """Under the lock: all that a start needs, and the start. Raises EmbeddedError, OSError."""
        account = self._account()
        found = self._find()
        # Files of tens of megabytes are copied, and initdb takes seconds.
        binaries = await asyncio.to_thread(reachable, found, account, self._state_dir)
        await asyncio.to_thread(remove_other_copies, self._state_dir, binaries)
        cluster = Cluster(self._state_dir, socket_dir(self._state_dir, account), binaries, account)
        await asyncio.to_thread(cluster.make)
        self._cluster = cluster
        await self._run_server(cluster)
        return cluster

    async def _take_over(self) -> None:
        log.warning("embedded.taking_over", state_dir=str(self._state_dir))
        try:
            await self._own()
        except BaseException:
            # Another joiner may have what this one lacks.
            await self.stop()
            raise
        log.warning("embedded.restarted", version=self.version)

    async def _keep_running(self) -> None:
        assert self._cluster is not None
        code = self._process.poll() if self._process is not None else None
        if self._process is not None and code is None:
            if self._cluster.socket.exists():
                return
            # Somebody cleaned up: nobody finds the server any more.
            log.error("embedded.socket_gone", socket=str(self._cluster.socket))
            await self._stop_server()
        else:
            log.error("embedded.died", code=code)
        socket_dir(self._state_dir, self._cluster.account)
        await self._run_server(self._cluster)
        log.warning("embedded.restarted", version=self.version)

    async def _run_server(self, cluster: Cluster) -> None:
        """Start it until it takes connections. Raises EmbeddedError, with the end of its log, when it does not within START_S."""
        deadline_s = time.monotonic() + START_S
        pause_s = POLL_S
        while True:
            await clear_leftovers(cluster.data, cluster.sockets, cluster.account.uid)
            process = self._spawn(cluster)
            while process.poll() is None and time.monotonic() < deadline_s:
                status = cluster.status(process.pid)
                if status == "ready" and await _is_usable(cluster):
                    return
                if status == "starting":
                    # It may be recovering, which must not be cut off: it would begin anew.
                    deadline_s = time.monotonic() + START_S
                await asyncio.sleep(POLL_S)
            if time.monotonic() >= deadline_s:
                await self._stop_server()
                raise EmbeddedError(f"PostgreSQL {self.version} does not start; the end of {self._state_dir}/postgres.log: {cluster.log_end()}")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_MAX_S)

    def _spawn(self, cluster: Cluster) -> subprocess.Popen[bytes]:
        descriptor = cluster.open_log()
        try:
            # A session of its own: Ctrl-C is for the parent, which stops the server last.
            self._process = subprocess.Popen(  # noqa: S603
                cluster.server_command(), stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True
            )
        finally:
            os.close(descriptor)
        return self._process

    async def _stop_server(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        for number, seconds in ((signal.SIGINT, STOP_FAST_S), (signal.SIGQUIT, STOP_IMMEDIATE_S), (signal.SIGKILL, STOP_IMMEDIATE_S)):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            if await _ended(process, seconds):
                return
        log.error("embedded.not_stopped", pid=process.pid)

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

    def _account(self) -> Account:
        return server_account(self._state_dir / "data")

    def _find(self) -> Binaries:
        binaries = find_binaries(self._bindir, data_major(self._state_dir))
        self.version = binaries.version
        return binaries


async def _is_usable(cluster: Cluster) -> bool:
    """Whether the application's role gets in; if not, it and its database are made, for the next time. Raises EmbeddedError when nobody gets in."""
    try:
        if not cluster.is_new:
            return await cluster.takes_connections()
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError):
        pass  # the first start was cut off here, or the password file is a new one
    except FAILED as error:
        log.debug("embedded.not_usable_yet", reason=str(error))
        return False
    try:
        await cluster.ensure_database()
        cluster.is_new = False
    except asyncpg.InvalidPasswordError as error:
        raise EmbeddedError(f"the password in {cluster.state_dir}/postgres-superuser.password is not the server's: {error}") from None
    except FAILED as error:
        log.debug("embedded.not_usable_yet", reason=str(error))
    return False


async def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            return True
        await asyncio.sleep(POLL_S)
    return process.poll() is not None
