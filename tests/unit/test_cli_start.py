"""The command is there at once: what help does not need is not loaded, and the client needs nothing of the server."""

import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import xzepr_client

from xzepr.cli.connection import DEFAULT_URL

XZEPR = str(Path(sys.executable).with_name("xzepr"))
START_MAX_S = 0.2
HEAVY = {"asyncio", "asyncpg", "httpx2", "jsonschema_rs", "msgspec", "rich", "starlette", "uvicorn", "yaml"}


def loaded_by(code: str) -> set[str]:
    """Top names of the modules that a fresh interpreter has afterwards."""
    script = f"import sys\n{code}\nimport json; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def seconds_of(*arguments: str) -> float:
    began_s = time.perf_counter()
    subprocess.run([XZEPR, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began_s


@pytest.mark.alone
@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("event", "--help"),
        ("group", "status", "--help"),
        ("login", "--help"),
        ("admin", "--help"),
        ("api-key", "--help"),
        ("--version",),
    ],
)
def test_help_comes_within_200_ms(arguments: tuple[str, ...]) -> None:
    seconds_of(*arguments)  # compiles what was never compiled
    measured = [seconds_of(*arguments) for _ in range(5)]
    print(f"xzepr {' '.join(arguments)}: {statistics.median(measured) * 1000:.0f} ms")
    assert statistics.median(measured) < START_MAX_S, measured


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["event", "--help"],
        ["group", "status", "--help"],
        ["apply", "--help"],
        ["login", "--help"],
        ["whoami", "--help"],
        ["api-key", "create", "--help"],
        ["admin", "create-user", "--help"],
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"from xzepr.cli.main import main\ntry:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert end.code == 0\n"
    # The list of all commands has a line from each module; `config` and what it needs is older than the client's commands.
    allowed = {"msgspec"} if arguments == ["--help"] else set()
    assert (loaded_by(code) & HEAVY) - allowed == set()


def test_the_client_needs_no_module_of_the_server() -> None:
    loaded = loaded_by("import xzepr_client, xzepr_client.stream")
    assert "xzepr_client" in loaded
    assert "xzepr" not in loaded


def test_what_is_written_twice_is_the_same() -> None:
    assert xzepr_client.DEFAULT_URL == DEFAULT_URL
    assert version("xzepr-client") == xzepr_client.__version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: str) -> None:
    done = subprocess.run([XZEPR, "completion", shell], capture_output=True, text=True, check=True)
    assert "_XZEPR_COMPLETE" in done.stdout


def test_completion_knows_commands_that_are_not_loaded_yet() -> None:
    environ = {**os.environ, "_XZEPR_COMPLETE": "bash_complete", "COMP_WORDS": "xzepr group sta", "COMP_CWORD": "2"}
    done = subprocess.run([XZEPR], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["plain,status"]


def test_an_unknown_command_is_wrong_usage() -> None:
    done = subprocess.run([XZEPR, "evnt", "list"], capture_output=True, text=True, check=False)
    assert (done.returncode, "No such command 'evnt'" in done.stderr) == (2, True)
