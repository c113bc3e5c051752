"""The real `xzepr` as a program or a person runs it."""

import json
import os
import pty
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.installation import XZEPR


class Cli:
    """`xzepr` with XZEPR_URL set to the installation. config_home: where it keeps its logins; None: where there are none."""

    def __init__(self, url: str, config_home: Path | None = None, **environ: str) -> None:
        # Like a CI job's environment: no terminal, no width, nothing of the test run's own.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XZEPR") and name not in ("COLUMNS", "FORCE_COLOR", "TERM")}
        self.environ = {**kept, "XZEPR_URL": url, "XDG_CONFIG_HOME": str(config_home or "/nonexistent"), **environ}

    def run(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run([XZEPR, *arguments], env=self.environ, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def ok(self, *arguments: str, stdin: str = "") -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, code: int, *arguments: str, stdin: str = "") -> str:
        """Standard error."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stderr

    def at_a_terminal(self, *arguments: str, types: Sequence[str] = ()) -> tuple[int, str]:
        """Exit code and what was shown, where a person types a line whenever something is asked for (a prompt ends with `: `)."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen([XZEPR, *arguments], env=self.environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        shown, answered, lines = "", 0, iter(types)
        while True:
            try:
                read = os.read(ours, 4096)
            except OSError:
                break
            if not read:
                break
            shown += read.decode()
            if shown[answered:].endswith(": ") and (line := next(lines, None)) is not None:
                answered = len(shown)
                os.write(ours, f"{line}\n".encode())
        os.close(ours)
        return process.wait(60), shown
