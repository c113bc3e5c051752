"""The data directory: made in a temporary place and renamed when it is finished, so a half-made one is never taken for a cluster.

In the state directory: `data` (owned by the server's account, 0700), `postgres.log`, `postgres.lock` (who supervises), `postgres-superuser.password` and
`postgres-xzepr.password` (0600). The server listens on a Unix socket alone and asks everybody for a password (SCRAM).
"""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

from xzepr.embedded.account import Account, EmbeddedError
from xzepr.embedded.binaries import Binaries

LAUNCH: Final = str(Path(__file__).with_name("launch.py"))
LOG_MAX_BYTES: Final = 10 << 20
_SUPERUSER: Final = "postgres"
ROLE: Final = "xzepr"

# Nothing here weakens durability: fsync, full_page_writes and synchronous_commit stay as they are, on.
_CONFIGURATION: Final = {
    "listen_addresses": "''",
    "unix_socket_permissions": "0700",
    "password_encryption": "'scram-sha-256'",
    "max_connections": "100",
    "shared_buffers": "'128MB'",
    "max_wal_size": "'1GB'",
    "jit": "off",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "logging_collector": "off",
    "log_min_messages": "warning",
    "log_line_prefix": "'%m [%p] '",
}


class Cluster:
    """One data directory with the programs for it."""

    def __init__(self, state_dir: Path, sockets: Path, binaries: Binaries, account: Account) -> None:
        self.state_dir = state_dir
        self.sockets = sockets
        self.binaries = binaries
        self.account = account
        self.data = state_dir / "data"

    @property
    def url(self) -> str:
        """For the application's role; asyncpg's form."""
        return self._url(ROLE, ROLE)

    def _url(self, role: str, database: str) -> str:
        password = quote(self._password(role), safe="")
        return f"postgresql://{role}:{password}@/{database}?host={quote(str(self.sockets), safe='/')}"

    def _password(self, role: str) -> str:
        name = "superuser" if role == _SUPERUSER else role
        path = self.state_dir / f"postgres-{name}.password"
        try:
            return path.read_text("utf-8")
        except FileNotFoundError:
            password = secrets.token_urlsafe(32)
            unfinished = path.with_suffix(f".{os.getpid()}")
            unfinished.unlink(missing_ok=True)
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(password)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
            return password

    def make(self) -> None:
        """initdb, unless it is done. Call under the lock. Raises EmbeddedError with what initdb said."""
        for left_over in self.state_dir.glob("data.unfinished*"):
            shutil.rmtree(left_over)
        if self.data.exists():
            return
        unfinished = self.state_dir / "data.unfinished"
        unfinished.mkdir(mode=0o700)
        self._give(unfinished)
        # initdb reads the password from a file that the server's account can open; it lies in the directory that is given away, beside the cluster.
        password_file = unfinished / "password"
        password_file.write_text(self._password(_SUPERUSER), "utf-8")
        self._give(password_file)
        made = unfinished / "cluster"
        arguments = [
            *(f"--pgdata={made}", f"--username={_SUPERUSER}", f"--pwfile={password_file}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions"),
        ]
        done = subprocess.run(  # noqa: S603
            self.command(self.binaries.bindir / "initdb", arguments), capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode != 0:
            raise EmbeddedError(f"initdb of PostgreSQL {self.binaries.version} failed: {' '.join((done.stderr or done.stdout).split())[-500:]}")
        with (made / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = {value}\n" for name, value in _CONFIGURATION.items())
            file.flush()
            os.fsync(file.fileno())
        made.rename(self.data)
        shutil.rmtree(unfinished)
        _sync_directory(self.state_dir)

    def command(self, program: Path, arguments: list[str]) -> list[str]:
        """Through the launcher: under the server's account, dying with this process."""
        return [
            *(sys.executable, "-I", "-S", LAUNCH, str(os.getpid()), str(self.account.uid), str(self.account.gid)),
            *(str(program), *arguments),
        ]

    def server_command(self) -> list[str]:
        return self.command(self.binaries.bindir / "postgres", ["-D", str(self.data), "-k", str(self.sockets)])

    def open_log(self) -> int:
        """A descriptor for the server's log; a large log makes room for a new one first."""
        path = self.state_dir / "postgres.log"
        if path.exists() and path.stat().st_size > LOG_MAX_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def is_ready(self, pid: int) -> bool:
        """Whether postmaster.pid is of this very process and says ready; a file of a dead server says so for ever."""
        try:
            lines = (self.data / "postmaster.pid").read_text("utf-8").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    async def ensure_database(self) -> None:
        """The application's role, not a superuser, and its database. Done again at each start: it may have been cut off last time."""
        connection = await asyncpg.connect(self._url(_SUPERUSER, "postgres"), timeout=5)
        try:
            password = self._password(ROLE).replace("'", "''")
            if not await connection.fetchval("select exists (select from pg_roles r where r.rolname = $1)", ROLE):
                await connection.execute(f"create role {ROLE} login")
            await connection.execute(f"alter role {ROLE} password '{password}'")
            if not await connection.fetchval("select exists (select from pg_database d where d.datname = $1)", ROLE):
                await connection.execute(f"create database {ROLE} owner {ROLE}")
        finally:
            await connection.close(timeout=5)

    def _give(self, path: Path) -> None:
        if self.account.switch:
            os.chown(path, self.account.uid, self.account.gid)


def data_major(state_dir: Path) -> int | None:
    """Of an existing data directory; None: there is none."""
    try:
        return int((state_dir / "data" / "PG_VERSION").read_text("utf-8").strip())
    except FileNotFoundError:
        return None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
