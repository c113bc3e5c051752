"""The data directory: made in a temporary place and renamed when it is finished, so a half-made one is never taken for a cluster.

In the state directory: `data` (owned by the server's account, 0700), `postgres.log`, `postgres.lock` (who supervises), `postgres-superuser.password`
and `postgres-xzepr.password` (0600). The server listens on a Unix socket alone and asks everybody for a password (SCRAM); pages carry checksums; text
is UTF-8 and compared byte by byte, which means the same in every version and on every system.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

from xzepr.embedded.account import Account, EmbeddedError
from xzepr.embedded.binaries import Binaries

LAUNCH: Final = str(Path(__file__).with_name("launch.py"))
LOG_MAX_BYTES: Final = 10 << 20
INITDB_S: Final = 300
CONNECT_S: Final = 5
PORT: Final = 5432
ROLE: Final = "xzepr"
# How a connection can fail while a server comes or goes; one that leaves between two requests makes the driver lose its place.
FAILED: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_SUPERUSER: Final = "postgres"
_UNFINISHED: Final = "data.unfinished."

# Nothing here weakens durability: fsync, full_page_writes and synchronous_commit stay as they are, on.
_CONFIGURATION: Final = """
# xzepr: sensible for one installation of its own; change them here.
max_connections = 100
shared_buffers = '128MB'
max_wal_size = '1GB'
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = warning
log_line_prefix = '%m [%p] '
"""


class Cluster:
    """One data directory with the programs for it. is_new: made by this object, so ensure_database() is still to be called."""

    def __init__(self, state_dir: Path, sockets: Path, binaries: Binaries, account: Account) -> None:
        self.state_dir = state_dir
        self.sockets = sockets
        self.binaries = binaries
        self.account = account
        self.data = state_dir / "data"
        self.is_new = False
        self.socket = sockets / f".s.PGSQL.{PORT}"

    @property
    def url(self) -> str:
        """For the application's role; asyncpg's form. Raises OSError before make() has been called by anybody."""
        return self._url(ROLE, ROLE)

    def _url(self, role: str, database: str) -> str:
        password = quote(self._password_file(role).read_text("utf-8"), safe="")
        # Stated in full, or PGPORT and PGSSLMODE, which the user set for another server, would count; a socket knows no TLS.
        return f"postgresql://{role}:{password}@/{database}?host={quote(str(self.sockets), safe='/')}&port={PORT}&sslmode=disable"

    def _password_file(self, role: str) -> Path:
        return self.state_dir / f"postgres-{'superuser' if role == _SUPERUSER else role}.password"

    def make(self) -> None:
        """initdb, unless it is done, and the passwords. Call under the lock; takes seconds. Raises EmbeddedError with what initdb said."""
        for left_over in self.state_dir.glob(f"{_UNFINISHED}*"):
            # An initdb whose parent was killed may still be busy in there: what resists goes next time.
            shutil.rmtree(left_over, ignore_errors=True)
        if self.data.exists() and not self._password_file(_SUPERUSER).exists():
            raise EmbeddedError(f"{self._password_file(_SUPERUSER)} is missing: without it nobody gets into {self.data}; put it back from a backup")
        for role in (_SUPERUSER, ROLE):
            _make_password(self._password_file(role))
        if not self.data.exists():
            self._initdb()

    def _initdb(self) -> None:
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.state_dir))
        self._give(unfinished)
        # initdb reads the password from a file that the server's account can open; it lies in the directory that is given away, beside the cluster.
        password_file = unfinished / "password"
        _write_private(password_file, self._password_file(_SUPERUSER).read_text("utf-8"))
        self._give(password_file)
        made = unfinished / "cluster"
        arguments = [
            *(f"--pgdata={made}", f"--username={_SUPERUSER}", f"--pwfile={password_file}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions"),
        ]
        if (failure := _failure_of(self.command("initdb", arguments))) is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise EmbeddedError(f"initdb of PostgreSQL {self.binaries.version} failed: {failure}")
        with (made / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(_CONFIGURATION)
            file.flush()
            os.fsync(file.fileno())
        made.rename(self.data)
        self.is_new = True
        _sync_directory(self.state_dir)
        shutil.rmtree(unfinished)

    def command(self, program: str, arguments: list[str]) -> list[str]:
        """Through the launcher: under the server's account, ending with this process."""
        return [
            *(sys.executable, "-I", "-S", LAUNCH, str(os.getpid()), str(self.account.uid), str(self.account.gid)),
            *(str(self.binaries.bindir / program), *arguments),
        ]

    def server_command(self) -> list[str]:
        """Who may reach the server stands here and not in its files, where an edit could open it."""
        closed = ("listen_addresses=", "unix_socket_permissions=0700", "password_encryption=scram-sha-256", "logging_collector=off")
        settings = [word for setting in closed for word in ("-c", setting)]
        return self.command("postgres", ["-D", str(self.data), "-k", str(self.sockets), "-p", str(PORT), *settings])

    def open_log(self) -> int:
        """A descriptor for the server's log; a large log makes room for a new one first."""
        path = self.state_dir / "postgres.log"
        if path.exists() and path.stat().st_size > LOG_MAX_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def log_end(self) -> str:
        """The last lines of the server's log, in one."""
        with contextlib.suppress(OSError), (self.state_dir / "postgres.log").open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 600, 0))
            return " ".join(file.read().decode("utf-8", "replace").split())
        return ""

    def status(self, pid: int) -> str | None:
        """What postmaster.pid says of this very process: "starting", "ready", "stopping"; None: nothing. A file of a dead server says so for ever."""
        try:
            lines = (self.data / "postmaster.pid").read_text("utf-8").splitlines()
        except OSError:
            return None
        if not lines or lines[0].strip() != str(pid):
            return None
        return lines[7].strip() if len(lines) > 7 else "starting"

    def is_ready(self, pid: int) -> bool:
        """Whether the server with this pid says that it takes connections."""
        return self.status(pid) == "ready"

    async def takes_connections(self) -> bool:
        """Whether a real connection as the application's role works. Raises as asyncpg when the server is there and refuses."""
        try:
            connection = await asyncpg.connect(self.url, timeout=CONNECT_S)
            await connection.close(timeout=CONNECT_S)
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
            return False
        return True

    async def ensure_database(self) -> None:
        """The application's role, not a superuser, with our password, and its database. May be done again: it may have been cut off."""
        connection = await asyncpg.connect(self._url(_SUPERUSER, "postgres"), timeout=CONNECT_S)
        try:
            if not await connection.fetchval("select exists (select from pg_roles r where r.rolname = $1)", ROLE):
                await connection.execute(f"create role {ROLE} login")
            # ALTER ROLE takes no parameters; the server quotes.
            password = self._password_file(ROLE).read_text("utf-8")
            await connection.execute(await connection.fetchval(f"select format('alter role {ROLE} login password %L', $1::text)", password))
            if not await connection.fetchval("select exists (select from pg_database d where d.datname = $1)", ROLE):
                await connection.execute(f"create database {ROLE} owner {ROLE}")
        finally:
            await connection.close(timeout=CONNECT_S)

    def _give(self, path: Path) -> None:
        if self.account.switch:
            os.chown(path, self.account.uid, self.account.gid)


def data_major(state_dir: Path) -> int | None:
    """Of an existing data directory; None: there is none. Raises EmbeddedError when there is something else at its place."""
    data = state_dir / "data"
    if not data.exists():
        return None
    try:
        return int((data / "PG_VERSION").read_text("utf-8").split(".")[0])
    except (OSError, ValueError):
        raise EmbeddedError(f"{data} is no data directory of PostgreSQL that we can read: move it away, or set another server.state_dir") from None


def _failure_of(command: list[str]) -> str | None:
    """Run it; None when it went well, else what it said last, in one line."""
    try:
        # A session of its own: Ctrl-C is for the parent.
        subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=INITDB_S, check=True, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        return f"not done within {INITDB_S} s"
    except subprocess.CalledProcessError as error:
        return " ".join(error.stdout.decode("utf-8", "replace").split())[-500:]
    return None


def _make_password(path: Path) -> None:
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        _write_private(unfinished, secrets.token_urlsafe(32))
        unfinished.rename(path)
        _sync_directory(path.parent)


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
