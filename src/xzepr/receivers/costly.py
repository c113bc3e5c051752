"""Checks that may take long, in helper processes that are killed when they do.

The engine holds the interpreter while it runs, so neither a thread nor a timer could stop it. A helper is started when the first costly check
comes, and kept for the next; it is killed when one order takes over ORDER_S, and ends by itself when its parent is gone. At most HELPERS_MAX run in
one process; who finds none free waits, up to a bound, and nobody else waits for them. States of a helper: starting, free, at work, dead.

Run as a module this is the helper itself: orders and answers are JSON behind four bytes of length, over standard input and output.
"""

import asyncio
import contextlib
import struct
import sys
from typing import Any, Final

import msgspec

from xzepr.errors import Fault, Unavailable
from xzepr.json_text import parse_strict

HELPERS_MAX: Final = 4
ORDER_S: Final = 1.0
START_S: Final = 20.0
WAITING_MAX: Final = 64
WAIT_S: Final = 15.0
IDLE_S: Final = 60.0
# Of address space: a list of faults may quote the payload a thousand times.
MEMORY_MAX_BYTES: Final = 2 << 30
_LENGTH: Final = struct.Struct("!I")


class TooCostly(Exception):
    """The helper was killed, or died, over this order."""


class HelperAnswer(msgspec.Struct):
    """valid: of a payload; faults: what was found, up to a bound; more: how many were not listed."""

    valid: bool
    faults: list[Fault]
    more: int = 0


class Helpers:
    """The helpers of one process."""

    def __init__(self) -> None:
        self._free: list[_Helper] = []
        self._places = asyncio.Semaphore(HELPERS_MAX)
        self._waiting = 0
        self._sweep: asyncio.TimerHandle | None = None

    async def ask(self, order: dict[str, str]) -> HelperAnswer:
        """The answer. Raises TooCostly, Unavailable when too many wait already or the wait is too long."""
        if self._waiting >= WAITING_MAX:
            raise Unavailable("too many costly checks are waiting; try again")
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable("costly checks take all helpers; try again") from None
        finally:
            self._waiting -= 1
        try:
            helper = self._free.pop() if self._free else await _Helper.start()
            try:
                answer = await helper.ask(order)
            except BaseException:
                await helper.kill()
                raise
            self._free.append(helper)
            self._sweep_later()
            return answer
        finally:
            self._places.release()

    async def close(self) -> None:
        """End them all."""
        if self._sweep is not None:
            self._sweep.cancel()
        while self._free:
            await self._free.pop().kill()

    def _sweep_later(self) -> None:
        """Helpers that nobody asked for a while give their memory back."""
        loop = asyncio.get_running_loop()
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = loop.call_later(IDLE_S, lambda: loop.create_task(self.close()))


class _Helper:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._in, self._out = process, process.stdin, process.stdout

    @classmethod
    async def start(cls) -> "_Helper":
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "xzepr.receivers.costly", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        helper = cls(process)
        try:
            async with asyncio.timeout(START_S):
                await helper._out.readexactly(1)
        except (TimeoutError, asyncio.IncompleteReadError):
            await helper.kill()
            raise Unavailable("a helper process for costly checks does not start") from None
        return helper

    async def ask(self, order: dict[str, str]) -> HelperAnswer:
        body = msgspec.json.encode(order)
        try:
            async with asyncio.timeout(ORDER_S):
                self._in.write(_LENGTH.pack(len(body)) + body)
                await self._in.drain()
                (length,) = _LENGTH.unpack(await self._out.readexactly(_LENGTH.size))
                return msgspec.json.decode(await self._out.readexactly(length), type=HelperAnswer)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            raise TooCostly from None

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._in.close()


def _answer(order: dict[str, Any]) -> HelperAnswer:
    """Helper's side."""
    from xzepr.receivers.payload import compile_validator, payload_faults, schema_faults

    schema = parse_strict(order["schema"].encode())
    if order["act"] == "schema":
        faults = schema_faults(schema, order["default_draft"])
        return HelperAnswer(not faults, faults)
    key = (order["default_draft"], order["schema"])
    validator = _compiled.get(key)
    if validator is None:
        if len(_compiled) >= 16:
            _compiled.clear()
        validator = _compiled[key] = compile_validator(schema, order["default_draft"])
    payload = parse_strict(order["payload"].encode())
    if validator.is_valid(payload):
        return HelperAnswer(True, [])
    return HelperAnswer(False, *payload_faults(validator, payload))


_compiled: dict[tuple[str, str], Any] = {}


def main() -> None:
    """Serve orders until the end of standard input."""
    import os
    import resource

    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import xzepr.receivers.payload  # noqa: F401  loaded before the first order's time begins to count

    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(b"+")
    answers.flush()
    while head := orders.read(_LENGTH.size):
        (length,) = _LENGTH.unpack(head)
        body = msgspec.json.encode(_answer(msgspec.json.decode(orders.read(length))))
        answers.write(_LENGTH.pack(len(body)) + body)
        answers.flush()


if __name__ == "__main__":
    main()
