"""A web worker: uvicorn on the socket that the parent bound. SIGTERM: no new connections, open requests are answered, followers of the
stream are let go (they resume by their position), then it ends."""

import asyncio
import resource
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Final

import uvicorn

from xzepr.app import build_app, build_hot_route, build_house
from xzepr.house import House
from xzepr.processes.accept import Acceptor
from xzepr.processes.orders import Orders
from xzepr.settings import Settings
from xzepr.web.hot import HotProtocol

# An open request may take this long to be answered after SIGTERM.
DRAIN_S: Final = 20
KEEP_ALIVE_S: Final = 75
# Of files that a process may have open: for all that is no connection of a client.
OTHER_FILES: Final = 100


class _Server(uvicorn.Server):
    """uvicorn, told what to do at the beginning and the end."""

    def __init__(self, config: uvicorn.Config, house: House, ready: Callable[[], None], connections_max: int) -> None:
        super().__init__(config)
        self._house = house
        self._ready = ready
        self._connections_max = connections_max

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        if self.started:
            for listening in sockets or ():
                acceptor = Acceptor(listening, self._protocol, lambda: len(self.server_state.connections), self._connections_max)
                self.servers.append(acceptor)  # type: ignore[arg-type]
            self._ready()

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Followers would hold the drain up until its end.
        self._house.tail.closed.set()
        super().handle_exit(sig, frame)


def _files_max() -> int:
    """As many as the system lets this process open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 31


def run_web(orders: Orders, settings: Settings, ready: Callable[[], None]) -> int:
    """Serve until SIGTERM; the exit code."""
    assert orders.listen_fd is not None
    house = build_house(settings, connections_min=orders.connections_min, connections_max=orders.connections_max)
    app = build_app(house)
    config = uvicorn.Config(
        app,
        http=partial(HotProtocol, hot=build_hot_route(house, app)),  # type: ignore[arg-type]
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    # Clients must not use up the files that the database needs.
    clients_max = max(1, min(settings.server.max_connections, _files_max() - OTHER_FILES - orders.connections_max))
    server = _Server(config, house, ready, clients_max)
    listening = socket.socket(fileno=orders.listen_fd)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listening]))
    return 0 if server.started else 1
