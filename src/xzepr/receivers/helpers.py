"""Checks that may take long, in helper processes that are killed when they do.

The engine holds the interpreter while it runs, so neither a thread nor a timer could stop it. A helper is started when the first costly check
comes, is kept for the next, and ends after IDLE_S without one. At most HELPERS_MAX run in one process, at most SHARE_MAX of them for one receiver,
so that no single receiver keeps the others out; who finds none free waits in line, WAIT_S at the most, and nobody else waits for them.

States of a helper: starting, free, at work, dead. It dies of itself when one order has used a second of processor time (the kernel's timer, which
needs no interpreter), when it wants more than a gigabyte of memory, and when its parent is gone (death signal, end of standard input); the parent
kills it when an order takes ORDER_WALL_S, or when the one who asked has gone. A helper that dies over an order means TooCostly, and is replaced.

The helper's own side is costly.py.
"""

import asyncio
import contextlib
import os
import sys
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from xzepr.errors import Fault, Unavailable
from xzepr.receivers.costly import EXIT_BROKEN, LENGTH, READY, HelperAnswer, HelperOrder, framed

HELPERS_MAX: Final = 4
SHARE_MAX: Final = 2
ORDER_WALL_S: Final = 5.0
START_S: Final = 20.0
WAITING_MAX: Final = 64
WAIT_S: Final = 15.0
IDLE_S: Final = 60.0
# Less than the processes that answer requests.
NICE: Final = 10
# What a helper sees of the environment: no secrets of the server.
_ENVIRONMENT: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE")


class TooCostly(Exception):
    """The helper died over this order. faults: what it had found by then, of a payload that is known not to be valid."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__()
        self.faults = faults


class Helpers:
    """The helpers of one process, of one event loop."""

    def __init__(self) -> None:
        self._free: list[_Helper] = []
        self._at_work: set[_Helper] = set()
        self._places = asyncio.Semaphore(HELPERS_MAX)
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._waiting = 0
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def ask(self, order: HelperOrder, share: str) -> HelperAnswer:
        """The answer. share: whose turn it is, such as a receiver's id. Raises TooCostly; Unavailable when too many wait or the wait is too long."""
        if self._waiting >= WAITING_MAX:
            raise Unavailable("too many costly checks are waiting; try again")
        own_places = self._shares.setdefault(share, asyncio.Semaphore(SHARE_MAX))
        async with contextlib.AsyncExitStack() as held:
            self._waiting += 1
            try:
                async with asyncio.timeout(WAIT_S):
                    await held.enter_async_context(own_places)
                    await held.enter_async_context(self._places)
            except TimeoutError:
                raise Unavailable("costly checks take all helpers; try again") from None
            finally:
                self._waiting -= 1
            return await self._ask_one(order)

    async def close(self) -> None:
        """End them all, also those at work: whoever waits for one of these gets Unavailable, not the blame."""
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        for helper in list(self._at_work):
            self._end(helper)
        self._end_free()
        await asyncio.gather(*self._ending)

    async def _ask_one(self, order: HelperOrder) -> HelperAnswer:
        helper = self._take_free() or await _Helper.start()
        self._at_work.add(helper)
        try:
            answer = await helper.ask(order)
        except BaseException as error:
            self._end(helper)
            if self._closed and isinstance(error, TooCostly):
                raise Unavailable("the server is stopping; try again") from None
            raise
        else:
            self._free.append(helper)
            self._end_later()
            return answer
        finally:
            self._at_work.discard(helper)

    def _take_free(self) -> "_Helper | None":
        while self._free:
            helper = self._free.pop()
            if helper.is_alive:
                return helper
        return None

    def _end_later(self) -> None:
        """Helpers that nobody asked for a while give their memory back."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._end_free)

    def _end_free(self) -> None:
        free, self._free = self._free, []
        for helper in free:
            self._end(helper)

    def _end(self, helper: "_Helper") -> None:
        helper.end()
        task = asyncio.create_task(helper.ended())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _Helper:
    """One process, as its parent sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._in, self._out = process, process.stdin, process.stdout
        # A stream has one reader at a time, and who ends a helper at work reads behind the one who asked it.
        self._reading = asyncio.Lock()

    @classmethod
    async def start(cls) -> "_Helper":
        """Ready for orders. Raises Unavailable when it does not become so."""
        helper = cls(
            await asyncio.create_subprocess_exec(
                # -P: what lies in the current directory is no module of ours.
                *(sys.executable, "-P", "-m", "xzepr.receivers.costly"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            )
        )
        try:
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, helper._process.pid, NICE)
            async with asyncio.timeout(START_S):
                await helper._out.readexactly(len(READY))
        except BaseException as error:
            helper.end()
            await helper.ended()
            if isinstance(error, TimeoutError | asyncio.IncompleteReadError):
                raise Unavailable("a helper process for costly checks does not start") from None
            raise
        return helper

    @property
    def is_alive(self) -> bool:
        """As far as this process has been told."""
        return self._process.returncode is None

    async def ask(self, order: HelperOrder) -> HelperAnswer:
        """Raises TooCostly when it dies over the order, RuntimeError when it breaks (its own words are on standard error)."""
        found: list[Fault] = []
        try:
            async with asyncio.timeout(ORDER_WALL_S):
                self._in.write(framed(order))
                await self._in.drain()
                async with self._reading:
                    while not (answer := await self._read()).final:
                        found = answer.faults
                return answer
        except TimeoutError:
            raise TooCostly(found) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            self.end()
            if await self._process.wait() == EXIT_BROKEN:
                raise RuntimeError("a helper process for costly checks broke; see standard error") from None
            raise TooCostly(found) from None

    async def _read(self) -> HelperAnswer:
        (length,) = LENGTH.unpack(await self._out.readexactly(LENGTH.size))
        return msgspec.json.decode(await self._out.readexactly(length), type=HelperAnswer)

    def end(self) -> None:
        """At once, whatever it is doing."""
        self._in.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> None:
        """When nothing of it is left, neither the process nor our ends of its pipes."""
        await self._process.wait()
        async with self._reading:
            await self._out.read()
        with contextlib.suppress(ConnectionError):
            await self._in.wait_closed()
