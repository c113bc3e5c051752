"""The load: one light process that sends prepared requests and checks every answer. The same one for XZepr and for the bare server.

Closed loop: each connection sends its next request when it has the answer to the last. Open loop: requests fall due at a steady rate, whatever the
server does, and a latency counts from the moment a request was *due*: a server that stalls is charged for everything that had to wait (no coordinated
omission). With `follow` a further connection reads the stream, and the latency is that from due to message.

An answer is good when its status is the expected one and a token occurs in its body as often as it must. Everything else is an error: another
answer, none within DRAIN_S after the end, a connection that ends. `python -m benchmarks.load` reads a Plan from standard input and writes an
Outcome (msgpack).
"""

import asyncio
import gc
import re
import sys
from array import array
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final, TypeVar, cast

import msgspec
import uvloop

from benchmarks import ROOT

Given = TypeVar("Given")

# Stands in a template where the number of the request goes: ten digits, so that lengths stay.
NUMBER: Final = b"@@@@@@@@@@"
DRAIN_S: Final = 10.0
CONNECT_S: Final = 10.0
# Timers of the loop have whole milliseconds: a request leaves at most about that much after it was due, and is charged for it.
TICK_S: Final = 0.001
_HEAD_END: Final = b"\r\n\r\n"
_FOLLOW: Final = b"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n"
_NUMBER_IN_MESSAGE: Final = re.compile(rb'"1\.(\d{10})"')


class Plan(msgspec.Struct, kw_only=True, frozen=True):
    """What to send. Request n is template n modulo their number, with `first` + n div their number at each NUMBER.

    rate: requests a second of the open loop; None: closed loop. tokens: one for all, or one each template. requests_max: end after so many.
    ids: answers are `{"data":"<id>"}`, and the ids must differ. follow: one template, whose artifact's version is `1.` and NUMBER.
    """

    port: int
    connections: int
    warmup_s: float
    duration_s: float
    templates: list[bytes]
    tokens: list[bytes]
    occurrences: int = 1
    status: int = 201
    first: int = 0
    rate: float | None = None
    requests_max: int | None = None
    ids: bool = False
    follow: bool = False


class Outcome(msgspec.Struct, kw_only=True):
    """What came back. answered: good answers in all, warm-up and drain included; in_window: in the measured `seconds` alone (open loop: to
    requests that were due in the measured time, until the last of them was answered).

    latencies: doubles, seconds, of the measured time. problem: the first bad answer, shortened. messages: read from the stream.
    """

    answered: int = 0
    in_window: int = 0
    seconds: float = 0.0
    bad: int = 0
    unanswered: int = 0
    repeated_ids: int = 0
    messages: int = 0
    problem: str = ""
    latencies: bytes = b""

    def sorted_latencies(self) -> list[float]:
        """Seconds, lowest first."""
        values = array("d")
        values.frombytes(self.latencies)
        return sorted(values)


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way. due: when it was to be sent, on perf_counter."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._have = b""
        self._transport: asyncio.Transport | None = None
        self.number = -1
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self, exc)

    def send(self, number: int, due: float) -> None:
        """Request `number`."""
        assert self._transport is not None
        self.number, self.due = number, due
        self._transport.write(self._load.request(number))

    def close(self) -> None:
        """At the end of all."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._have:
            data = self._have + data
        end = data.find(_HEAD_END)
        if end < 0 or len(data) < (length := end + 4 + _content_length(data, end)):
            self._have = data
            return
        self._have = b""
        self._load.answer(self, data, end + 4, whole=len(data) == length)


class _Follower(asyncio.Protocol):
    """Reads server-sent events; a frame is never cut by a chunk, as each chunk holds whole frames."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._have = b""
        self.begun = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(_FOLLOW % self._load.plan.port)

    def data_received(self, data: bytes) -> None:
        *frames, self._have = (self._have + data).split(b"\n\n")
        if frames:
            self.begun.set()
        for frame in frames:
            if found := _NUMBER_IN_MESSAGE.search(frame):
                self._load.message(int(found[1]))


class _Load:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.outcome = Outcome(seconds=plan.duration_s)
        self.finished = asyncio.Event()
        self._pieces = [template.split(NUMBER) for template in plan.templates]
        self._status = b"%d" % plan.status
        self._latencies = array("d")
        self._ids: list[bytes] = []
        self._connections: list[_Connection] = []
        self._idle: deque[_Connection] = deque()
        self._next = 0
        self._under_way = 0
        self._begin = self._from = self._until = 0.0
        self._last_answer = 0.0
        self._ending = False

    def request(self, number: int) -> bytes:
        """The bytes of request `number`."""
        kinds = len(self._pieces)
        return (b"%010d" % (self.plan.first + number // kinds)).join(self._pieces[number % kinds])

    async def run(self) -> Outcome:
        """Connect, send, drain."""
        loop, plan = asyncio.get_running_loop(), self.plan
        for _ in range(plan.connections):
            async with asyncio.timeout(CONNECT_S):
                self._connections.append((await loop.create_connection(lambda: _Connection(self), "127.0.0.1", plan.port))[1])
        if plan.follow:
            await self._follow()
        self._begin = perf_counter()
        self._from = self._begin + plan.warmup_s
        self._until = self._from + plan.duration_s
        if plan.rate is None:
            for connection in self._connections:
                self._send(connection, perf_counter())
        else:
            self._idle.extend(self._connections)
            self._tick()
        await self._end()
        return self._count()

    def answer(self, connection: _Connection, data: bytes, body_at: int, *, whole: bool) -> None:
        """Called with a complete answer."""
        now, plan, outcome = perf_counter(), self.plan, self.outcome
        self._under_way -= 1
        token = plan.tokens[connection.number % len(plan.tokens)]
        if whole and data[9:12] == self._status and data.count(token, body_at) == plan.occurrences:
            outcome.answered += 1
            if self._from <= (now if plan.rate is None else connection.due) <= self._until:
                outcome.in_window += 1
                self._last_answer = now
            if plan.ids:
                self._ids.append(data[body_at + 9 : body_at + 35])
        else:
            outcome.bad += 1
            outcome.problem = outcome.problem or data[:500].decode("utf-8", "replace")
        # Open loop: those that were due in the measured time, however late they are answered.
        if not plan.follow and self._from <= (now if plan.rate is None else connection.due) <= self._until:
            self._latencies.append(now - connection.due)
        if plan.rate is None:
            self._send(connection, now)
        else:
            self._idle.append(connection)
            self._send_due(now)
        self._finish_when_done()

    def message(self, number: int) -> None:
        """Called with the number in a message of the stream."""
        assert self.plan.rate is not None
        due = self._begin + (number - self.plan.first) / self.plan.rate
        self.outcome.messages += 1
        if self._from <= due <= self._until:
            self._latencies.append(perf_counter() - due)
        self._finish_when_done()

    def lost(self, connection: _Connection, error: Exception | None) -> None:
        """Called when a connection ends: an error, unless we end it."""
        if self.finished.is_set():
            return
        self.outcome.bad += 1
        self.outcome.problem = self.outcome.problem or f"the connection ended: {error or 'closed by the server'}"
        self._connections.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        else:
            self._under_way -= 1
        if not self._connections:
            self._ending = True
        self._finish_when_done()

    async def _follow(self) -> None:
        follower = (await asyncio.get_running_loop().create_connection(lambda: _Follower(self), "127.0.0.1", self.plan.port))[1]
        async with asyncio.timeout(CONNECT_S):
            await follower.begun.wait()

    def _send(self, connection: _Connection, due: float) -> None:
        if self._ending or due > self._until or self._next == self.plan.requests_max:
            self._ending = True
            return
        self._under_way += 1
        connection.send(self._next, due)
        self._next += 1

    def _send_due(self, now: float) -> None:
        assert self.plan.rate is not None
        while self._idle and not self._ending and (due := self._begin + self._next / self.plan.rate) <= now:
            if due > self._until:
                self._ending = True
                return
            self._send(self._idle.popleft(), due)

    def _tick(self) -> None:
        self._send_due(perf_counter())
        if not self._ending:
            asyncio.get_running_loop().call_later(TICK_S, self._tick)
        else:
            self._finish_when_done()

    def _finish_when_done(self) -> None:
        if self._ending and not self._under_way and (not self.plan.follow or self.outcome.messages >= self.outcome.answered):
            self.finished.set()

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(self.plan.warmup_s + self.plan.duration_s + DRAIN_S):
                await self.finished.wait()
        except TimeoutError:
            # What an open loop never came to send is unanswered, too.
            self.finished.set()
        for connection in self._connections:
            connection.close()

    def _count(self) -> Outcome:
        outcome, plan = self.outcome, self.plan
        outcome.unanswered = self._under_way
        if plan.rate is not None:
            due = int(plan.rate * (plan.warmup_s + plan.duration_s)) if plan.requests_max is None else plan.requests_max
            outcome.unanswered += max(0, due - self._next)
            # A server that lags behind the schedule answers until later: its rate is lower than what was due.
            outcome.seconds = max(plan.duration_s, self._last_answer - self._from)
        if plan.requests_max is not None:
            outcome.seconds = perf_counter() - self._from
        outcome.repeated_ids = len(self._ids) - len(set(self._ids))
        outcome.latencies = self._latencies.tobytes()
        return outcome


def _content_length(data: bytes, end: int) -> int:
    """Of the body behind a head that ends there; an answer without the field has none that we could read."""
    head = data[:end].lower()
    at = head.find(b"content-length:")
    return int(head[at + 15 :].split(b"\r", 1)[0]) if at >= 0 else 0


async def run_load(plan: Plan) -> Outcome:
    """In a process of its own. Raises RuntimeError when it fails as a whole (nothing listens)."""
    return msgspec.msgpack.decode(await run_process("benchmarks.load", msgspec.msgpack.encode(plan)), type=Outcome)


async def run_process(module: str, given: bytes) -> bytes:
    """Standard output of `python -m module`. Raises RuntimeError with the last of its standard error; ends it when cancelled."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, said = await process.communicate(given)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"{module} ended with {process.returncode}: {said.decode('utf-8', 'replace')[-1000:]}")
    return output


def carry_out(kind: type[Given], run: Callable[[Given], Awaitable[Outcome]]) -> None:
    """What such a process does: a plan from standard input, its outcome to standard output."""
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=kind)
    # A collection over a growing list of ids would be measured as a stall of the server; nothing here makes cycles.
    gc.disable()

    async def outcome() -> Outcome:
        return await run(plan)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.msgpack.encode(runner.run(outcome())))


if __name__ == "__main__":
    carry_out(Plan, lambda plan: _Load(plan).run())
