"""Logins of this user on this machine: one for each server, in `credentials.json` in the user's configuration directory.

The file is for its owner alone: mode 0600 in a directory of mode 0700, written whole or not at all. One that others can read is refused, for what it
holds may be known to them. Two commands at once take turns by a lock on a file beside it, so that they do not both turn the same refresh token in.

`StoredLogin` gives a client its token. A token with less than a minute left, or one that the server refused, is renewed: under the lock, and only
when nobody else has done it meanwhile. Failures: when the server says that the login is over, the entry is removed and ProblemError `invalid_token`
goes on; when it is not reached, the old token is sent while it lasts.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from xzepr_client import Client, ClientError, ProblemError, TokenPair
from xzepr_client.auth import renew_before_s
from xzepr_client.transport import may_recover

from xzepr.cli.connection import Failure

FILE_NAME: Final = "credentials.json"
# For somebody else's answer to reach the file, after the server said that the refresh token was turned in a moment ago.
SUPERSEDED_WAIT_S: Final = 3.0
_PAUSE_S: Final = 0.1
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A login as it is kept. expires_at: of the access token, seconds since 1970 by this machine's clock; lifetime_s: how long it lived then."""

    username: str
    access_token: str
    refresh_token: str
    expires_at: float
    lifetime_s: float

    @classmethod
    def of(cls, pair: TokenPair, now: float) -> "Entry":
        """As answered just now."""
        return cls(
            username=pair.user.username,
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            expires_at=now + pair.expires_in,
            lifetime_s=pair.expires_in,
        )

    def is_due(self, now: float) -> bool:
        """Whether it is to be renewed."""
        return self.expires_at - now < renew_before_s(self.lifetime_s)


class _File(msgspec.Struct, frozen=True):
    servers: dict[str, Entry]


class Logins:
    """The file. directory: None for the user's own."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or default_directory()
        self.path = self.directory / FILE_NAME

    def find(self, url: str) -> Entry | None:
        """The login at a server. Raises Failure for a file that others can read, or that is none of ours."""
        return self._read().get(server_of(url))

    def put(self, url: str, entry: Entry) -> None:
        """In place of the one before. Call it under lock()."""
        self._write({**self._read(), server_of(url): entry})

    def remove(self, url: str) -> None:
        """Call it under lock()."""
        entries = self._read()
        if entries.pop(server_of(url), None) is not None:
            self._write(entries)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process at a time; the others wait."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.directory.stat().st_mode & 0o077:
                self.directory.chmod(0o700)
            # Kept: a lock on a file that was removed keeps nobody out.
            descriptor = os.open(self.directory / f"{FILE_NAME}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, Entry]:
        try:
            with self.path.open("rb") as opened:
                facts = os.fstat(opened.fileno())
                if facts.st_mode & 0o077:
                    mode = facts.st_mode & 0o777
                    raise Failure(
                        f"{self.path} can be read by others (mode {mode:04o}), so the logins in it may be known to them",
                        advice=f"`rm {self.path}`, change the password if somebody may have read it, and `xzepr login` again",
                    )
                if facts.st_uid not in (os.geteuid(), 0):
                    raise Failure(f"{self.path} belongs to another user", advice=f"`rm {self.path}`, and `xzepr login` again")
                text = opened.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unusable(error) from error
        try:
            return msgspec.json.decode(text, type=_File).servers
        except msgspec.MsgspecError as error:
            raise Failure(f"{self.path} is not as `xzepr login` writes it: {error}", advice=f"`rm {self.path}`, and `xzepr login` again") from None

    def _write(self, entries: dict[str, Entry]) -> None:
        try:
            # Of mode 0600 by itself.
            descriptor, unfinished = tempfile.mkstemp(prefix=f"{FILE_NAME}.", dir=self.directory)
            try:
                with os.fdopen(descriptor, "wb") as opened:
                    opened.write(msgspec.json.format(msgspec.json.encode(_File(entries))) + b"\n")
                    opened.flush()
                    os.fsync(opened.fileno())
                Path(unfinished).replace(self.path)
            except BaseException:
                Path(unfinished).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> Failure:
        named = error.filename or self.path
        return Failure(
            f"logins cannot be kept in {self.directory}: {named}: {error.strerror}",
            advice="XDG_CONFIG_HOME names another directory; XZEPR_API_KEY and XZEPR_TOKEN need none",
        )


class StoredLogin:
    """A TokenSource of the client. entry: as read from the file; refresh: turns a refresh token in, sending no credential."""

    def __init__(self, logins: Logins, url: str, entry: Entry, refresh: Callable[[str], TokenPair]) -> None:
        self._logins = logins
        self._url = url
        self._entry = entry
        self._refresh = refresh

    def token(self) -> str:
        """With some time left, where that is to be had."""
        if self._entry.is_due(time.time()):
            try:
                self._renew()
            except ClientError as error:
                superseded = isinstance(error, ProblemError) and error.code == "refresh_superseded"
                if self._entry.expires_at <= time.time() or not (superseded or may_recover(error)):
                    raise
        return self._entry.access_token

    def renewed(self, refused: str) -> str:
        """Another one, from the file or from the server."""
        if self._entry.access_token == refused:
            self._renew()
        return self._entry.access_token

    def _renew(self) -> None:
        with self._logins.lock():
            kept = self._logins.find(self._url)
            if kept is not None and self._take_other(kept):
                return
            try:
                pair = self._refresh(self._entry.refresh_token)
            except ProblemError as error:
                if error.code == "refresh_superseded" and self._await_other():
                    return
                if error.code == "invalid_token" and kept is not None:
                    self._logins.remove(self._url)
                raise
            self._entry = Entry.of(pair, time.time())
            # A logout meanwhile has removed it; it stays so.
            if kept is not None:
                self._logins.put(self._url, self._entry)

    def _take_other(self, kept: Entry) -> bool:
        """Whether somebody else has renewed it."""
        if kept.refresh_token == self._entry.refresh_token:
            return False
        self._entry = kept
        return not kept.is_due(time.time())

    def _await_other(self) -> bool:
        """Whoever turned the token in without our lock (a file that several machines share) writes what they got in a moment."""
        deadline_s = time.monotonic() + SUPERSEDED_WAIT_S
        while time.monotonic() < deadline_s:
            kept = self._logins.find(self._url)
            if kept is not None and self._take_other(kept):
                return True
            time.sleep(_PAUSE_S)
        return False


def client_of(logins: Logins, url: str, entry: Entry, timeout_s: float) -> Client:
    """A client that shows this login, and renews it in the file. Raises ValueError for a url that is none."""

    def refresh(refresh_token: str) -> TokenPair:
        return client.refresh(refresh_token)

    client = Client(url, auth=StoredLogin(logins, url, entry, refresh), timeout_s=timeout_s)
    return client


def default_directory() -> Path:
    """`$XDG_CONFIG_HOME/xzepr`, or `~/.config/xzepr`."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification: a path that is not absolute does not count.
    try:
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".config") / "xzepr"
    except RuntimeError:
        raise Failure("this user has no home directory to keep logins in", advice="XDG_CONFIG_HOME names another; XZEPR_API_KEY needs none") from None


def server_of(url: str) -> str:
    """A server under one name, however its address is written. What is no address is left as it is: the client refuses it."""
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    try:
        port = parts.port or _DEFAULT_PORTS.get(scheme, 0)
    except ValueError:
        return url
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path.rstrip('/')}"
