"""XZepr as a user starts it, for measuring: `xzepr serve` on a database, with the default configuration except rate limits."""

import asyncio
import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import psutil

READY_S: Final = 60.0
STOP_S: Final = 45.0
# Callers on this machine may do everything, so that most rows need no credential. 0: no limit, since one caller stands for many.
USERNAME: Final = "bench"
PASSWORD: Final = secrets.token_urlsafe(24)
SETTINGS: Final = {
    "XZEPR__AUTH__ANONYMOUS_ROLES": "admin",
    "XZEPR__AUTH__BOOTSTRAP_ADMIN__USERNAME": USERNAME,
    "XZEPR__AUTH__BOOTSTRAP_ADMIN__PASSWORD": PASSWORD,
    "XZEPR__SECURITY__RATE_LIMIT__SERVICE_RPM": "0",
    "XZEPR__SECURITY__RATE_LIMIT__EVENTS_PER_MINUTE__SERVICE": "0",
}


class PortInUse(Exception):
    """Somebody else would answer for what is to be measured."""


def require_free(ports: Iterable[int]) -> None:
    """Raises PortInUse. Asked before anything starts: a stale server on a shared port answers for the new one, and nobody notices."""
    for port in ports:
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            raise PortInUse(f"port {port} is in use ({error.strerror}): stop what listens there, or choose another with PORT") from None


class Running:
    """One started program of ours. pid: of the parent, whose children do the work."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        """Of the parent."""
        return self.process.pid

    async def wait_for(self, pattern: str) -> None:
        """Until the log says so. Raises RuntimeError with the log's end when it does not, or the program ends."""
        try:
            async with asyncio.timeout(READY_S):
                while not re.search(pattern, self.log.read_text("utf-8", "replace")):
                    if self.process.returncode is not None:
                        raise RuntimeError(f"xzepr ended with {self.process.returncode}: {self.end_of_log()}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise RuntimeError(f"xzepr did not say {pattern!r} within {READY_S:.0f} s: {self.end_of_log()}") from None

    def end_of_log(self) -> str:
        """The last lines."""
        return self.log.read_text("utf-8", "replace")[-2000:]

    async def stop(self) -> None:
        """SIGTERM, as an operator does; SIGKILL to what does not drain."""
        if self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def running(url: str, port: int, *arguments: str) -> AsyncIterator[Running]:
    """`xzepr` with these arguments on that database. Its log goes away with it; warnings and errors in it do not stop the run."""
    with tempfile.TemporaryDirectory(prefix="xzepr-bench-log-") as directory:
        log = Path(directory) / "log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("XZEPR")}
        environ = {**inherited, **SETTINGS, "XZEPR__DATABASE__URL": url, "XZEPR__SERVER__PORT": str(port), "XZEPR__SERVER__STATE_DIR": directory}
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(str(Path(sys.executable).with_name("xzepr")), *arguments),
                # Where no settings file lies.
                cwd=directory,
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        program = Running(process, log)
        try:
            yield program
        finally:
            await program.stop()


@asynccontextmanager
async def serving(url: str, port: int, *arguments: str) -> AsyncIterator[Running]:
    """`xzepr serve`, once it listens."""
    async with running(url, port, "serve", *arguments) as server:
        await server.wait_for(r"listens on http")
        yield server


def busy_share(seconds: float = 1.0) -> float:
    """Of the processors, with whatever runs now: called before we start anything, it is what others take from the measurement."""
    return float(psutil.cpu_percent(seconds)) / 100


def tree(pids: Iterable[int]) -> list[psutil.Process]:
    """Live processes: these and all below them."""
    found: list[psutil.Process] = []
    for pid in pids:
        try:
            parent = psutil.Process(pid)
            found += [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of processor that the trees used, children that ended included."""
    total = 0.0
    for process in tree(pids):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of the trees: what several share is counted once. Resident size where the system does not tell."""
    return sum(_memory_bytes(process) for process in tree(pids))


def _memory_bytes(process: psutil.Process) -> int:
    try:
        try:
            report = Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii")
        except (FileNotFoundError, PermissionError):
            return int(process.memory_info().rss)
        found = re.search(r"^Pss:\s+(\d+) kB", report, re.MULTILINE)
        return int(found[1]) << 10 if found else 0
    except (psutil.NoSuchProcess, ProcessLookupError):
        return 0
