"""Which account the server runs under, and what that account can reach.

PostgreSQL refuses to run as root. Started by root, it runs under an account that exists already; none is created, and no directory above ours has
its mode changed. Started by anybody else it runs as they do.
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# In this order; the first that exists. Debian's and Red Hat's packages make `postgres`; `nobody` is everywhere.
_ACCOUNTS: Final = ("postgres", "nobody")


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot run here; the message says why, and which setting helps."""


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
        for directory in [*reversed(resolved.parents), resolved]:
            if not self._may(directory.stat(), stat.S_IXUSR, stat.S_IXGRP, stat.S_IXOTH):
                return directory
        return None

    def can_read_tree(self, directory: Path) -> bool:
        """Whether it can reach the directory and read what lies in it (the top level stands for all: packages install alike)."""
        if self.can_traverse(directory) is not None:
            return False
        return all(self._may(entry.stat(), stat.S_IRUSR, stat.S_IRGRP, stat.S_IROTH) for entry in directory.iterdir())

    def _may(self, info: os.stat_result, user: int, group: int, other: int) -> bool:
        if info.st_uid == self.uid:
            return bool(info.st_mode & user)
        if info.st_gid == self.gid:
            return bool(info.st_mode & group)
        return bool(info.st_mode & other)


def server_account() -> Account:
    """Raises EmbeddedError when root finds no account to run it under."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), pwd.getpwuid(os.geteuid()).pw_name, switch=False)
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid, name, switch=True)
    raise EmbeddedError(f"PostgreSQL does not run as root, and there is none of the accounts {', '.join(_ACCOUNTS)}: run xzepr as another user, or set database.url")


def default_state_dir() -> Path:
    """/var/lib/xzepr as root, else $XDG_STATE_HOME/xzepr, by default ~/.local/state/xzepr."""
    if os.geteuid() == 0:
        return Path("/var/lib/xzepr")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "xzepr"


def make_state_dir(path: Path, account: Account) -> None:
    """Make it when it is not there; check that the account can reach it. Raises EmbeddedError naming the directory and the setting."""
    try:
        # Open to be passed through, not to be listed, when another account must get to its data directory.
        path.mkdir(mode=0o711 if account.switch else 0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(f"the state directory {path} cannot be made: {error.strerror}; set server.state_dir to another one") from None
    closed = account.can_traverse(path)
    if closed is not None:
        raise EmbeddedError(
            f"the account {account.name}, under which PostgreSQL runs, cannot pass through {closed} to the state directory {path}: "
            "set server.state_dir to one that it can reach"
        )


def socket_dir(state_dir: Path, account: Account) -> Path:
    """A short directory for the socket, one for each state directory: a socket's path has at most 107 bytes.

    Raises EmbeddedError when somebody else owns what stands at its place (/tmp is everybody's).
    """
    import hashlib

    name = hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:12]
    if os.geteuid() == 0:
        parent = Path("/run/xzepr") if Path("/run").is_dir() else Path("/var/run/xzepr")
    else:
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        parent = Path(runtime) / "xzepr" if runtime and Path(runtime).is_dir() and len(runtime) < 60 else Path(f"/tmp/xzepr-{os.geteuid()}")  # noqa: S108  owner checked below
    _own_directory(parent, 0o711 if account.switch else 0o700, os.geteuid())
    directory = parent / name
    _own_directory(directory, 0o700, account.uid, account.gid if account.switch else None)
    return directory


def _own_directory(path: Path, mode: int, owner: int, group: int | None = None) -> None:
    """Made, or found as a real directory of the right owner that others cannot write to."""
    try:
        path.mkdir(mode=mode)
        if os.geteuid() == 0 and owner != 0:
            os.chown(path, owner, -1 if group is None else group)
    except FileExistsError:
        pass
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid not in (owner, os.geteuid()) or info.st_mode & 0o022:
        raise EmbeddedError(f"{path} should be a directory of our own for PostgreSQL's socket, and is not: remove it")
    if os.geteuid() == 0 and info.st_uid != owner:
        os.chown(path, owner, -1 if group is None else group)
