"""The files that people copy from, and the page they look things up in, say what the code does."""

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from xzepr.settings import Settings, SettingsError, load_settings
from xzepr.settings.checks import NOT_THERE_YET
from xzepr.settings.model import SECRETS
from xzepr.settings.names import KNOBS, variable
from xzepr.settings.sample import reference_page, sample_yaml

ROOT = Path(__file__).parents[2]
SAMPLE, PAGE = ROOT / "config" / "default.yaml", ROOT / "docs" / "reference" / "configuration.md"


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        path = prefix + key
        found |= {path: value} if path in KNOBS or not isinstance(value, dict) else leaves(value, path + ".")
    return found


def test_the_sample_is_the_one_that_the_model_writes() -> None:
    assert SAMPLE.read_text("utf-8") == sample_yaml(), "write it again: python -m xzepr.settings.sample yaml > config/default.yaml"


def test_the_sample_holds_every_key_with_its_default_and_nothing_else(tmp_path: Path) -> None:
    given = leaves(yaml.safe_load(SAMPLE.read_text("utf-8")))
    assert list(given) == list(KNOBS)
    (tmp_path / "config").mkdir()
    shutil.copy(SAMPLE, tmp_path / "config")
    loaded = load_settings(environ={}, cwd=tmp_path)
    assert loaded.settings == Settings()
    assert loaded.warnings == []
    assert set(loaded.sources.values()) == {str(tmp_path / "config" / "default.yaml")}


def test_every_key_of_the_sample_has_a_comment_above_it() -> None:
    lines = SAMPLE.read_text("utf-8").splitlines()
    keys = [(before, line) for before, line in pairwise(lines) if re.match(r" +\w+: (?!\s*#)", line)]
    assert len(keys) == len(KNOBS)
    bare = [line for before, line in keys if not before.strip().startswith("# ")]
    assert bare == []


def test_the_reference_page_is_the_one_that_the_model_writes() -> None:
    assert PAGE.read_text("utf-8") == reference_page(), "write it again: python -m xzepr.settings.sample page > docs/reference/configuration.md"


def test_the_reference_page_names_every_key_its_variable_and_the_file_of_a_secret() -> None:
    page = PAGE.read_text("utf-8")
    assert [path for path in KNOBS if f"| `{path}` |" not in page or f"| `{variable(path)}` |" not in page] == []
    assert [path for path in SECRETS if f"`{variable(path)}_FILE`" not in page] == []


@pytest.mark.parametrize(("name", "written"), [("yaml", sample_yaml), ("page", reference_page)])
def test_the_command_in_the_page_writes_it(name: str, written: Any) -> None:
    run = subprocess.run([sys.executable, "-m", "xzepr.settings.sample", name], capture_output=True, text=True, check=True, encoding="utf-8")
    assert run.stdout == written()
    wrong = subprocess.run([sys.executable, "-m", "xzepr.settings.sample"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr) == (1, "usage: python -m xzepr.settings.sample yaml|page\n")


def test_the_files_of_the_repository_start_a_development_server_as_they_are() -> None:
    loaded = load_settings(environ={}, cwd=ROOT)
    assert loaded.settings == Settings()
    assert loaded.warnings == []


def production(tmp_path: Path, change: dict[str, Any]) -> list[str]:
    """Problems with config/production.yaml, its keys made and with the changes; a key that is None leaves the file."""
    settings = yaml.safe_load((ROOT / "config" / "production.yaml").read_text("utf-8"))
    for path in ("private_key_path", "public_key_path"):
        key = tmp_path / path
        key.write_text("key")
        key.chmod(0o600)
        settings["jwt"][path] = str(key)
    for section, keys in change.items():
        if keys is None:
            del settings[section]
        else:
            settings[section] |= keys
    file = tmp_path / "production.yaml"
    file.write_text(yaml.safe_dump(settings))
    try:
        load_settings(file, environ={"XZEPR_ENV": "production", "XZEPR__DATABASE__URL": "postgresql://db/xzepr"}, cwd=tmp_path)
    except SettingsError as error:
        return error.problems
    return []


def test_the_production_sample_lacks_only_what_is_not_there_yet(tmp_path: Path) -> None:
    stopping = tuple(beginning for beginning, reason in NOT_THERE_YET.items() if reason is not None)
    lacking = [path for path in ("server.enable_https", "tls.cert_path", "tls.key_path") if path.startswith(stopping)]
    assert [problem.partition(":")[0] for problem in production(tmp_path, {})] == lacking


def test_the_production_sample_starts_behind_a_proxy_as_its_comment_says(tmp_path: Path) -> None:
    behind_a_proxy = {"server": {"enable_https": False, "trusted_proxies": ["10.0.0.1"], "allowed_hosts": ["xzepr.example.com"]}, "tls": None}
    assert production(tmp_path, behind_a_proxy) == []
