"""A PostgreSQL of one test's own, durable as in production, that the test stops, kills, freezes and starts again.

What `pg_ctl stop -m fast` and `-m immediate` do is one signal each; they are sent here, because pg_ctl does not run as root.
"""

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Iterator

import psutil

from support import servers

START_S = 40.0
STOP = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "killed": signal.SIGKILL}


class OwnPostgres:
    """url: of the application's role. Made and running when the constructor returns."""

    def __init__(self) -> None:
        found = servers.available()
        label = "system" if "system" in found else "wheel"
        self._cluster, self.directory = servers.make_cluster(found[label], "xzepr-drill-")
        self.start()
        asyncio.run(self._cluster.ensure_database())
        self.url = self._cluster.url

    def start(self) -> None:
        """Until it takes connections. One whose postmaster was killed cannot begin before the last of its old processes has ended."""
        deadline = time.monotonic() + START_S
        while True:
            self._process = servers.run_server(self._cluster)
            while self._process.poll() is None:
                if self._cluster.is_ready(self._process.pid):
                    return
                assert time.monotonic() < deadline, f"PostgreSQL does not start: {self._cluster.log_end()}"
                time.sleep(0.02)
            assert time.monotonic() < deadline, f"PostgreSQL does not start: {self._cluster.log_end()}"
            time.sleep(0.1)

    def stop(self, how: str) -> None:
        """how: a key of STOP."""
        self._process.send_signal(STOP[how])
        self._process.wait(30)

    def everything(self) -> list[psutil.Process]:
        """The postmaster and all its processes."""
        postmaster = psutil.Process(self._process.pid)
        return [postmaster, *postmaster.children()]

    def backends(self) -> list[psutil.Process]:
        """Those that serve a client."""
        found = []
        for process in self.everything()[1:]:
            with contextlib.suppress(psutil.Error):
                if "[local]" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def close(self) -> None:
        if self._process.poll() is None:
            for process in self.everything():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()
            self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def stopped(processes: list[psutil.Process]) -> Iterator[None]:
    """SIGSTOP, and SIGCONT whatever happens; one that ended meanwhile is no matter."""
    try:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
