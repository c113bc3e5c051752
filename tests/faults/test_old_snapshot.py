"""While another session holds an old snapshot, deleted outbox rows stay: the sequencer must keep up all the same. Ten minutes in `make drill`."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.rounds import rounds

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.alone
def test_an_old_snapshot_slows_neither_the_sequencer_nor_the_writers() -> None:
    minutes = 10 if rounds(5) == 5 else 1
    command = [sys.executable, "-m", "benchmarks", "snapshot", "--minutes", str(minutes)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 * minutes + 400, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
