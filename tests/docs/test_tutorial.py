"""The commands of the first tutorial, word for word, in a shell, against a real server."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2

from support.accounts import ADMIN, PASSWORD
from support.installation import Installation

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "getting_started.md"


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", TUTORIAL.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_the_tutorial_works_word_for_word(reader: dict[str, str]) -> None:
    # A line after each block tells where its output ends.
    script = "set -u\n" + "".join(f"{block}\nprintf '\\n@@@\\n'\n" for block in blocks())
    done = subprocess.run(["bash", "-c", script], env=reader, capture_output=True, text=True, timeout=120, check=True)
    outputs = [output.strip() for output in done.stdout.split("@@@")]
    assert re.fullmatch(r"id \S{26}, ends \S+ \S+; the key is not shown again\. .*\n", done.stderr)
    health, me, _, receivers, _, posted, refused, first_status, repaired, stream = outputs[0:10]
    assert json.loads(health)["status"] == "healthy"
    assert re.search(r"user +admin *\n", me)
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


def test_the_demo_lives_a_year_and_explains(shared_installation: Installation, http: httpx2.Client, tmp_path: Path) -> None:
    demo = Path(__file__).parents[2] / "demo" / "pipeline.py"
    environ = {**os.environ, "XZEPR_URL": shared_installation.url, "COLUMNS": "200", "XZEPR_USERNAME": ADMIN, "XZEPR_PASSWORD": PASSWORD}
    done = subprocess.run([sys.executable, str(demo)], env=environ, capture_output=True, text=True, timeout=120, check=True)
    figures = re.search(r"(\d+) events in ([\d.]+) s", done.stdout)
    assert figures is not None
    assert 900 <= int(figures[1]) <= 1100
    assert float(figures[2]) < 30
    assert re.search(r"What happened to checkout 1\.17\.0", done.stdout)
    assert re.search(r"scan\s+│ failure", done.stdout)
    assert re.search(r"Why is mailer 1\.39\.0 not released\?\s+mailer 1\.39\.0 .*may not move on to release.*sign", done.stdout)
    assert "checkout 1.17.0: exit code 0" in done.stdout
    assert "mailer 1.39.0: exit code 3" in done.stdout
    # What it could do ends with it.
    (key,) = [each for each in http.get("/api/v1/api-keys").json()["data"] if each["name"] == "make demo"]
    assert key["revoked_at"] is not None
    # The first login of a state directory is as good.
    (tmp_path / "first-login.json").write_text(json.dumps({"username": ADMIN, "password": "wrong"}))
    strangers = {name: value for name, value in environ.items() if name not in ("XZEPR_USERNAME", "XZEPR_PASSWORD")}
    for state_dir, says in ((tmp_path, "cannot log in: 401"), (tmp_path / "absent", "Set XZEPR_USERNAME and XZEPR_PASSWORD")):
        strange = {**strangers, "XZEPR__SERVER__STATE_DIR": str(state_dir)}
        refused = subprocess.run([sys.executable, str(demo)], env=strange, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert (refused.returncode, says in refused.stderr) == (1, True), refused.stderr
    absent = subprocess.run(
        [sys.executable, str(demo)], env={**environ, "XZEPR_URL": "http://127.0.0.1:1"}, capture_output=True, text=True, check=False
    )
    assert (absent.returncode, "make run" in absent.stdout) == (1, True)
