"""Which account the server runs under, and what that account can reach.

PostgreSQL refuses to run as root. Started by root, it runs under an account that exists already: the owner of the data directory, if there is one,
else the first of a short list. None is created, and no directory that we did not make has its mode changed. Started by anybody else it runs as they
do.
"""

import hashlib
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# In this order; the first that exists. Debian's and Red Hat's packages make `postgres`; `nobody` is everywhere.
_ACCOUNTS: Final = ("postgres", "nobody")


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot run here; the message is one line that says why, and which setting helps."""


@dataclass(frozen=True, slots=True)
class Account:
    """uid and gid of the server; switch: whether the launcher must change to them."""

    uid: int
    gid: int
    name: str
    switch: bool

    def can_traverse(self, path: Path) -> Path | None:
        """None when every directory from the root down to `path`, itself included, lets the account through; else the first that does not."""
        resolved = path.resolve()
        return next((directory for directory in [*reversed(resolved.parents), resolved] if not self._may(directory, os.X_OK)), None)

    def can_run(self, program: Path) -> bool:
        """Whether it can reach the file, read and execute it."""
        return self.can_traverse(program.parent) is None and self._may(program, os.R_OK) and self._may(program, os.X_OK)

    def _may(self, path: Path, want: int) -> bool:
        if not self.switch:
            return os.access(path, want)
        # By the mode bits: the launcher leaves it one group. Access lists are not looked at; what they refuse, PostgreSQL's own message names.
        info = path.stat()
        shift = 6 if info.st_uid == self.uid else 3 if info.st_gid == self.gid else 0
        return bool(info.st_mode >> shift & want)


def server_account(data: Path | None = None) -> Account:
    """data: the data directory, whose owner counts when it exists. Raises EmbeddedError when there is no account to run under, or it is not ours."""
    owner = data.stat().st_uid if data is not None and data.exists() else None
    me = os.geteuid()
    if me != 0:
        if owner not in (None, me):
            raise EmbeddedError(f"the data directory {data} belongs to {_name(owner or 0)}: run xzepr as that user, or set another server.state_dir")
        return Account(me, os.getegid(), _name(me), switch=False)
    for entry in _entries(owner):
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, switch=True)
    if owner is not None:
        raise EmbeddedError(f"the data directory {data} belongs to {_name(owner)}, and PostgreSQL cannot run under that: give it to another account")
    raise EmbeddedError(
        f"PostgreSQL does not run as root, and there is none of the accounts {', '.join(_ACCOUNTS)}: run xzepr as another user, or set database.url"
    )


def _entries(owner: int | None) -> list[pwd.struct_passwd]:
    found: list[pwd.struct_passwd] = []
    for known in _ACCOUNTS if owner is None else (owner,):
        try:
            found.append(pwd.getpwnam(known) if isinstance(known, str) else pwd.getpwuid(known))
        except KeyError:
            continue
    return found


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"  # a container may run under a number without a name


def default_state_dir() -> Path:
    """/var/lib/xzepr as root, else $XDG_STATE_HOME/xzepr, by default ~/.local/state/xzepr."""
    if os.geteuid() == 0:
        return Path("/var/lib/xzepr")
    chosen = os.environ.get("XDG_STATE_HOME", "")
    # The XDG rules: a relative path is to be ignored.
    return (Path(chosen) if chosen.startswith("/") else Path.home() / ".local" / "state") / "xzepr"


def make_state_dir(path: Path, account: Account) -> None:
    """Make it when it is not there; check that the account can reach it. Raises EmbeddedError naming the directory and the setting."""
    try:
        # Open to be passed through, not to be listed, when another account must get to its data directory.
        make_directories(path, 0o711 if account.switch else 0o700, 0o755)
    except OSError as error:
        raise EmbeddedError(f"the state directory {path} cannot be made: {error.strerror}; set server.state_dir to another one") from None
    if not path.is_dir():
        raise EmbeddedError(f"{path} is not a directory: set server.state_dir to another one")
    closed = account.can_traverse(path)
    if closed is not None:
        raise EmbeddedError(
            f"the account {account.name}, under which PostgreSQL runs, cannot pass through {closed} to the state directory {path}: "
            "set server.state_dir to one that it can reach"
        )
    if not os.access(path, os.W_OK):
        raise EmbeddedError(f"the state directory {path} cannot be written to: set server.state_dir to another one")


def make_directories(path: Path, mode: int, mode_above: int) -> None:
    """path and what is missing above it. Ours get their mode whatever the umask says; those that exist keep theirs. Raises OSError."""
    if path.exists():
        return
    make_directories(path.parent, mode_above, mode_above)
    try:
        path.mkdir()
    except FileExistsError:
        return  # another process was faster
    path.chmod(mode)


def socket_dir(state_dir: Path, account: Account) -> Path:
    """A short directory for the socket, made when it is not there: a socket's path has at most 107 bytes (103 on some systems).

    It depends on the user and the state directory alone, so that all processes which share a state directory find the same one. For this reason
    it is not $XDG_RUNTIME_DIR: that differs between a login and a cron job, and goes away at a logout with the server still running.
    Raises EmbeddedError when somebody else owns what stands at its place (/tmp is everybody's).
    """
    name = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:12]
    me = os.geteuid()
    parent = Path("/run/xzepr") if me == 0 and os.access("/run", os.W_OK) else Path(f"/tmp/xzepr-{me}")  # noqa: S108  its owner is checked
    try:
        _own_directory(parent, 0o711 if account.switch else 0o700, me)
        _own_directory(parent / name, 0o700, account.uid, account.gid)
    except OSError as error:
        raise EmbeddedError(f"no directory for PostgreSQL's socket can be made: {error}") from None
    return parent / name


def _own_directory(path: Path, mode: int, uid: int, gid: int = -1) -> None:
    """Made, or found as a real directory of the right owner that nobody else can write to."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        path.chmod(mode)
        if uid != os.geteuid():
            os.chown(path, uid, gid)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_mode & 0o022 or info.st_uid not in (uid, os.geteuid()):
        raise EmbeddedError(f"{path} should be a directory of our own for PostgreSQL's socket, and is not: remove it")
    if info.st_uid != uid:
        # Root was interrupted between the making and the giving.
        os.chown(path, uid, gid)
