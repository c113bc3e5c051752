"""The shim moves the wall clock of a running process, and no wait."""

import os
import subprocess
import sys
import time
from pathlib import Path

from support.clock_shift import ShiftedClock

PROGRAM = """
import datetime, sys, threading, time
for _ in sys.stdin:
    began = time.monotonic()
    threading.Event().wait(0.05)
    time.sleep(0.05)
    print(time.time(), time.time_ns() / 1e9, datetime.datetime.now().timestamp(), began, time.monotonic() - began, flush=True)
"""


def test_the_wall_clock_moves_while_the_process_runs_and_waits_do_not(tmp_path: Path) -> None:
    clock = ShiftedClock(tmp_path)
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, env={**os.environ, **clock.environ}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for seconds in (0, 3600, -7200, 200 * 86400):
            clock.shift(seconds)
            print(file=process.stdin, flush=True)
            *walls, monotonic, waited = (float(text) for text in process.stdout.readline().split())
            assert all(abs(wall - time.time() - clock.offset_s) < 5 for wall in walls), (clock.offset_s, walls)
            assert abs(monotonic - time.monotonic()) < 5
            assert 0.09 < waited < 2
        process.stdin.close()
