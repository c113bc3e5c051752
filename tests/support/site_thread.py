"""Our application on a real socket of this process, for a browser: localhost, a port of its own."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from support.logins import PlainLogins
from xzepr.app import build_app, build_house
from xzepr.settings import Settings


@contextlib.contextmanager
def free_port() -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens, and the URL of what will answer there."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened, f"http://localhost:{opened.getsockname()[1]}"


@contextlib.contextmanager
def served(settings: Settings, listening: socket.socket) -> Iterator[PlainLogins]:
    """Until the end of the block, in a thread with a loop of its own."""
    logins = PlainLogins()
    app = build_app(build_house(settings, connections_min=1, connections_max=4, provider_logins=logins))
    with in_thread(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2), listening):
        yield logins


@contextlib.contextmanager
def in_thread(config: uvicorn.Config, listening: socket.socket) -> Iterator[None]:
    """A server that has started, until the end of the block, in a thread with a loop of its own."""
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the application does not start"
            time.sleep(0.02)
        yield
    finally:
        server.should_exit = True
        thread.join(20)
