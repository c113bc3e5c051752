"""New connections are shared out among the workers on one socket."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from xzepr.processes import accept
from xzepr.processes.accept import Acceptor


class Worker:
    """What a worker has of the shared socket."""

    def __init__(self, listening: socket.socket, most: int = 10_000) -> None:
        self.transports: list[asyncio.BaseTransport] = []
        # As each process has a descriptor of its own.
        self.listening = listening.dup()
        self.acceptor = Acceptor(self.listening, self._protocol, lambda: len(self.transports), most)

    def _protocol(self) -> asyncio.Protocol:
        worker = self

        class Kept(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                worker.transports.append(transport)

        return Kept()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as made:
        yield made


def burst(listening: socket.socket, number: int) -> list[socket.socket]:
    """Connections that all wait before anybody looks."""
    return [socket.create_connection(listening.getsockname()) for _ in range(number)]


async def end(workers: list[Worker], clients: list[socket.socket]) -> None:
    for worker in workers:
        worker.acceptor.close()
        await worker.acceptor.wait_closed()
        worker.listening.close()
        for transport in worker.transports:
            transport.close()
    for client in clients:
        client.close()
    # A transport lets go of its socket in the next turns of the loop.
    await asyncio.sleep(0.05)


async def until_all(workers: list[Worker], number: int) -> None:
    async with asyncio.timeout(10):
        while sum(len(worker.transports) for worker in workers) < number:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("number", [8, 64, 400])
async def test_a_burst_is_shared_out(listening: socket.socket, number: int) -> None:
    clients = burst(listening, number)
    workers = [Worker(listening) for _ in range(3)]
    await until_all(workers, number)
    counts = [len(worker.transports) for worker in workers]
    assert max(counts) - min(counts) <= max(4, number // 10), counts
    await end(workers, clients)


async def test_a_full_worker_leaves_the_rest_to_the_others_and_goes_on_when_some_have_gone(listening: socket.socket) -> None:
    full, other = Worker(listening, most=20), Worker(listening, most=30)
    clients = burst(listening, 60)
    await until_all([full, other], 50)
    await asyncio.sleep(0.2)
    assert [len(worker.transports) for worker in (full, other)] == [20, 30]
    for _ in range(10):
        full.transports.pop().close()
    await until_all([full, other], 50)
    await end([full, other], clients)


async def test_thousands_do_not_take_seconds(listening: socket.socket) -> None:
    worker = Worker(listening)
    clients = burst(listening, 1_000)
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    await until_all([worker], 1_000)
    assert loop.time() - begun_s < 2
    await end([worker], clients)


async def test_without_descriptors_it_waits_and_goes_on(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "SHORTAGE_S", 0.05)

    class Short:
        """The socket of a process that has no descriptor left, at first."""

        failures = 3

        def __getattr__(self, name: str) -> Any:
            return getattr(listening, name)

        def dup(self) -> "Short":
            return self

        def close(self) -> None:
            """Not ours."""

        def accept(self) -> Any:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return listening.accept()

    short = Short()
    worker = Worker(short)  # type: ignore[arg-type]
    clients = burst(listening, 2)
    await until_all([worker], 2)
    assert short.failures == 0
    await end([worker], clients)


async def test_after_close_nobody_is_taken(listening: socket.socket) -> None:
    worker = Worker(listening)
    worker.acceptor.close()
    clients = burst(listening, 2)
    await asyncio.sleep(0.05)
    assert worker.transports == []
    await end([worker], clients)
