"""A whole installation as a user starts it: `xzepr serve` in a process of its own, on a database of its own."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from support.processes import living

XZEPR = str(Path(sys.executable).with_name("xzepr"))
READY_S = 60.0


class Installation:
    """url: of the server; process: the parent. `lines`: what it printed so far."""

    def __init__(
        self, environ: dict[str, str], arguments: tuple[str, ...] = ("serve",), command: tuple[str, ...] = (XZEPR,), **options: object
    ) -> None:
        self._state_dir = tempfile.mkdtemp(prefix="xzepr-state-")
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("XZEPR")},
            "XZEPR__SERVER__PORT": "0",
            "XZEPR__SERVER__STATE_DIR": self._state_dir,
            "XZEPR__AUTH__ANONYMOUS_ROLES": "admin",
            **environ,
        }
        self.lines: list[str] = []
        self.url = ""
        self._heard = threading.Condition()
        self.process = subprocess.Popen(
            [*command, *arguments],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            start_new_session=True,
            **options,
        )  # type: ignore[call-overload]
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._heard:
                self.lines.append(line.rstrip())
                self._heard.notify_all()

    def wait_for(self, pattern: str, seconds: float = READY_S, *, after: int = 0) -> re.Match[str]:
        """The first line that matches, from line number `after` on."""
        deadline = time.monotonic() + seconds
        with self._heard:
            while True:
                for line in self.lines[after:]:
                    if match := re.search(pattern, line):
                        return match
                ended = self.process.poll() is not None and not self._listener.is_alive()
                if ended or time.monotonic() >= deadline:
                    why = f"it ended with {self.process.returncode} before" if ended else f"within {seconds} s there was no"
                    raise AssertionError(f"{why} {pattern!r}:\n" + "\n".join(self.lines[-40:]))
                # In slices: the end of the process wakes nobody.
                self._heard.wait(0.1)

    def ready(self, seconds: float = READY_S) -> "Installation":
        self.url = self.wait_for(r"listens on (http://\S+)", seconds)[1]
        return self

    def children(self, role: str) -> list[psutil.Process]:
        """Live processes of a role, by the names that the log gave them last."""
        pids = [int(match[1]) for line in self.lines if (match := re.search(rf"process\.ready .*pid=(\d+).*role={role}", line))]
        return living(pids)

    def tree(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def stop(self, seconds: float = 40) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        self._close()
        return code

    def kill(self) -> None:
        """The whole tree, at once."""
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(20)
        self._close()

    def _close(self) -> None:
        self._listener.join(10)
        if self.process.stdout is not None:
            self.process.stdout.close()
        shutil.rmtree(self._state_dir, ignore_errors=True)


@contextlib.contextmanager
def installation(**environ: str) -> Iterator[Installation]:
    """Started, ready, and stopped by SIGTERM, which must end it with 0."""
    running = Installation(environ)
    try:
        yield running.ready()
    finally:
        code = running.stop()
    assert code == 0, "\n".join(running.lines[-40:])
