"""A PostgreSQL of the benchmark's own: a fresh cluster in a temporary directory, configured as the embedded one is, thrown away afterwards.

Nothing is tuned. That it writes durably is checked, since a number without it would mean nothing.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from xzepr.embedded.account import server_account
from xzepr.embedded.binaries import find_binaries, reachable
from xzepr.embedded.cluster import Cluster

START_S: Final = 60.0
DURABLE: Final = ("fsync", "full_page_writes", "synchronous_commit")


class NotDurable(Exception):
    """This server may lose what it acknowledged."""


@dataclass(frozen=True)
class Postgres:
    """url: of the role that owns the database `xzepr`. pid: of the postmaster. settings: what PostgreSQL says of itself."""

    url: str
    pid: int
    version: str
    settings: dict[str, str]


@asynccontextmanager
async def temporary_postgres(parent: Path | None = None) -> AsyncIterator[Postgres]:
    """parent: a directory on the disk to measure; by default the system's temporary one. Raises EmbeddedError, NotDurable."""
    directory = Path(tempfile.mkdtemp(prefix="xzepr-bench-", dir=parent))
    try:
        cluster = _make(directory)
        process = _start(cluster)
        try:
            await _wait_until_ready(cluster, process)
            await cluster.ensure_database()
            yield Postgres(cluster.url, process.pid, cluster.binaries.version, await _checked_settings(cluster.url))
        finally:
            process.send_signal(signal.SIGINT)
            await asyncio.to_thread(process.wait, 60)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _make(directory: Path) -> Cluster:
    account = server_account()
    # Root's server runs under another account, which must get to its data.
    directory.chmod(0o711 if account.switch else 0o700)
    sockets = directory / "s"
    sockets.mkdir(mode=0o700)
    if account.switch:
        os.chown(sockets, account.uid, account.gid)
    cluster = Cluster(directory, sockets, reachable(find_binaries(None, None), account, directory), account)
    cluster.make()
    return cluster


def _start(cluster: Cluster) -> subprocess.Popen[bytes]:
    with contextlib.closing(os.fdopen(cluster.open_log(), "ab")) as log:
        return subprocess.Popen(  # noqa: S603  PostgreSQL's own program, found by us
            cluster.server_command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


async def _wait_until_ready(cluster: Cluster, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while not cluster.is_ready(process.pid):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL does not start: {cluster.log_end()}")
        await asyncio.sleep(0.02)


async def _checked_settings(url: str) -> dict[str, str]:
    connection = await asyncpg.connect(url)
    try:
        found = {name: str(await connection.fetchval(f"show {name}")) for name in (*DURABLE, "shared_buffers", "max_wal_size")}
    finally:
        await connection.close()
    off = [name for name in DURABLE if found[name] != "on"]
    if off:
        raise NotDurable(f"{', '.join(off)} must be on")
    return found
