"""What a log line may show."""

import subprocess
import sys

import pytest

PROGRAM = """
import structlog, sys
from xzepr.telemetry import configure_logging

configure_logging("info", json_logs=sys.argv[1] == "json")
password = "".join(["hun", "ter2"])
try:
    open("/nowhere/at/all")
except OSError:
    structlog.get_logger("x").exception("something.failed")
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_shows_no_local_variable(form: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, form], capture_output=True, text=True, check=True)
    assert "FileNotFoundError" in done.stderr
    assert "something.failed" in done.stderr
    assert "hunter2" not in done.stderr
