"""New connections of a worker, from the socket that all workers listen on: a few at a time, so that each worker gets its share.

Connections are kept for long, and whoever took one answers its requests. A worker that takes all that wait at once (as the loop's own server does)
can end with every connection of a client's pool while its neighbours idle. So after each turn a worker leaves the socket to the others for a moment,
unless it has next to nothing; the one with fewer connections is back sooner or takes them meanwhile. Nobody waits for this but a burst: what comes to
a worker at rest is taken at once.

A worker that has as many connections as it may leaves the socket to the others until some have gone. What none of them takes waits in the system's
queue: connections that say nothing are closed within seconds, and an error at once would make impatient clients of patient ones.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

# So few connections are no burden yet.
FREE: Final = 4
# The least that a timer of the loop can do.
PAUSE_S: Final = 0.001
# So many more are taken in a turn for each of these that are there, so that thousands do not take seconds.
STEP: Final = 16
# Without descriptors or memory: until somebody has let go of some.
SHORTAGE_S: Final = 1.0
# With as many as there may be.
FULL_S: Final = 0.05
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Begins at once. make_protocol: of one connection; count: of connections that are open in this process; most: how many that may be."""

    def __init__(self, listening: socket.socket, make_protocol: Callable[[], asyncio.Protocol], count: Callable[[], int], most: int) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._make_protocol = make_protocol
        self._count = count
        self._most = most
        self._is_full = False
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[Any]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._look()

    def close(self) -> None:
        """No new ones; the socket stays as it is."""
        self._loop.remove_reader(self._listening)
        if self._pause is not None:
            self._pause.cancel()

    async def wait_closed(self) -> None:
        """As servers of the loop have it: when those that were taken last have begun."""
        await asyncio.gather(*self._beginning, return_exceptions=True)

    def _look(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening, self._take)

    def _take(self) -> None:
        """Some wait, or did: a neighbour may have taken them."""
        have = self._count() + len(self._beginning)
        if have >= self._most:
            if not self._is_full:
                log.warning("accept.full", connections=have)
            self._is_full = True
            self._leave_for(FULL_S)
            return
        self._is_full = False
        for _ in range(min(1 + have // STEP, self._most - have)):
            try:
                connection, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _SHORTAGES:
                    raise
                log.exception("accept.shortage", reason=error.strerror)
                self._leave_for(SHORTAGE_S)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._make_protocol, connection))
            self._beginning.add(task)
            task.add_done_callback(self._begun)
        if have >= FREE:
            self._leave_for(PAUSE_S)

    def _leave_for(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._pause = self._loop.call_later(seconds, self._look)

    def _begun(self, task: asyncio.Task[Any]) -> None:
        self._beginning.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("accept.failed", reason=str(error))
