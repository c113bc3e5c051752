"""A wall clock that a test moves while the server runs; the machine's own clock, and every wait, stay as they are."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("clock_shift.c")


class ShiftedClock:
    """The clock of every process that is started with `environ`. directory: for the shim and its file; reachable for those processes."""

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("the clock is moved by a shim in C: install a C compiler (cc)")
        self._library = directory / "clock_shift.so"
        subprocess.run([compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl"], check=True)
        self._file = directory / "clock_shift"
        self.offset_s = 0
        self._write()

    @property
    def environ(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CLOCK_SHIFT_FILE": str(self._file)}

    def shift(self, seconds: int) -> None:
        """Forward, or back when negative, from where it is now."""
        self.offset_s += seconds
        self._write()

    def _write(self) -> None:
        # In place: the file is mapped. Eight aligned bytes are written at once.
        with self._file.open("r+b" if self._file.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("=q", self.offset_s))
