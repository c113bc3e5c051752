"""A child process that is kept running: started, watched, started again when it dies, drained when it is told to.

A child that dies right after its start is started again more and more slowly, at most every RESTART_MAX_S. Children stand in a session of their
own, so that Ctrl-C reaches the parent alone, which drains them in order.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from xzepr.processes.orders import READY, Orders, give

log = structlog.get_logger(__name__)

RESTART_MIN_S: Final = 0.05
RESTART_MAX_S: Final = 5.0
# A child that lived this long died of something new.
SETTLED_S: Final = 10.0


class StartFailed(Exception):
    """A child ended before it was ready for the first time."""


class Child:
    """One place in the installation, whatever process fills it now. orders: made anew for each process."""

    def __init__(self, orders: Callable[[], Orders], on_death: Callable[[Orders], Awaitable[None]] | None = None) -> None:
        self._orders = orders
        self._on_death = on_death
        self._process: asyncio.subprocess.Process | None = None
        # Set by drain() while run() waits.
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the process that fills the place now."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def run(self, ready: asyncio.Event) -> None:
        """Keep it running until drain(). Sets `ready` at the first readiness; raises StartFailed when there is none."""
        delay_s = RESTART_MIN_S
        while not self._ended.is_set():
            orders = self._orders()
            started_s = time.monotonic()
            code = await self._run_once(orders, ready)
            if self._ended.is_set():
                return
            if not ready.is_set():
                raise StartFailed(f"{orders.role} ended with code {code} before it was ready; its log lines stand above")
            log.warning("process.died", role=orders.role, name=orders.name, code=code)
            if self._on_death is not None:
                await self._on_death(orders)
            delay_s = RESTART_MIN_S if time.monotonic() - started_s >= SETTLED_S else min(delay_s * 2, RESTART_MAX_S)
            await asyncio.sleep(delay_s)

    async def drain(self, seconds: float) -> None:
        """SIGTERM, then SIGKILL to what is still there after that time."""
        self._ended.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            log.warning("process.killed", pid=process.pid, after_s=seconds)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _run_once(self, orders: Orders, ready: asyncio.Event) -> int:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._process = process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "xzepr.processes.child",
                    stdin=theirs.fileno(),
                    pass_fds=() if orders.listen_fd is None else (orders.listen_fd,),
                    start_new_session=True,
                )
            try:
                with contextlib.suppress(BrokenPipeError):
                    give(orders, ours)
                ours.setblocking(False)
                said = asyncio.create_task(self._hear(ours, orders, ready))
                code = await process.wait()
                said.cancel()
                return code
            except asyncio.CancelledError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                raise

    async def _hear(self, ours: socket.socket, orders: Orders, ready: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            if await asyncio.get_running_loop().sock_recv(ours, 1) == READY:
                assert self._process is not None
                log.info("process.ready", role=orders.role, name=orders.name, pid=self._process.pid)
                ready.set()
