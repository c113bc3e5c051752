"""The commands of the first tutorial, word for word, in a shell, against a real server."""

import json
import os
import re
import subprocess
from pathlib import Path

from support.installation import Installation

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "getting_started.md"


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", TUTORIAL.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_the_tutorial_works_word_for_word(shared_installation: Installation) -> None:
    # A line after each block tells where its output ends.
    script = "set -u\n" + "".join(f"{block}\nprintf '\\n@@@\\n'\n" for block in blocks())
    environ = {**os.environ, "XZEPR_URL": shared_installation.url}
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, timeout=120, check=True)
    outputs = [output.strip() for output in done.stdout.split("@@@")]
    assert done.stderr == ""
    health, _, receivers, _, posted, refused, first_status, repaired, stream = outputs[0:9]
    assert json.loads(health)["status"] == "healthy"
    assert re.fullmatch(r"tests: \S{26}, signature: \S{26}", receivers)
    # The first event and the one that is refused are two blocks.
    assert set(json.loads(posted)) == {"data"}
    assert {fault["pointer"] for fault in json.loads(refused)["errors"]} == {"/payload", "/payload/passed"}
    before = json.loads(first_status)
    assert before["complete"] is False
    assert "unit tests" in before["summary"]
    assert "signature" in before["summary"]
    assert repaired.endswith("}")
    assert '"complete":true' in repaired
    messages = [json.loads(line[5:]) for line in stream.splitlines() if line.startswith("data:")]
    assert messages[-1]["type"] == "com.example.release.approved"
    assert messages[-1]["first"] is True


def test_the_demo_runs_and_explains(shared_installation: Installation) -> None:
    demo = Path(__file__).parents[2] / "demo" / "pipeline.py"
    environ = {**os.environ, "XZEPR_URL": shared_installation.url, "COLUMNS": "200"}
    import sys

    done = subprocess.run([sys.executable, str(demo)], env=environ, capture_output=True, text=True, timeout=120, check=True)
    assert "mailer 0.9.1: held back" in done.stdout
    assert "checkout 1.1.0: released" in done.stdout
    assert re.search(r"Why is mailer 0\.9\.1 not released\?\s+mailer 0\.9\.1 .*may not move on to release.*sign", done.stdout)
    absent = subprocess.run(
        [sys.executable, str(demo)], env={**environ, "XZEPR_URL": "http://127.0.0.1:1"}, capture_output=True, text=True, check=False
    )
    assert (absent.returncode, "make run" in absent.stdout) == (1, True)
