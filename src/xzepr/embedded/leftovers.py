"""Processes of a server that is gone or going, on our data directory, and the file that it left.

A new server starts only when the last process of the old one has ended, and refuses for ever when the old one's postmaster.pid names a number that
has been given to somebody else since (a container that was started again). Both are settled here, before a start, by asking who really lives in the
directory: PostgreSQL's processes have the data directory as their working directory, and only Linux tells. Elsewhere this finds nobody, touches
nothing, and the start is tried until it works.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

import structlog

from xzepr.embedded.account import EmbeddedError

log = structlog.get_logger(__name__)

# The old server has got its death signal, its children look after their parent: this is for those that are stuck.
ENDING_S: Final = 2.5
# Without their server: a child that is busy looks up late, and what it still does nobody will see.
ORPHANS_S: Final = 0.5
POLL_S: Final = 0.05
_PROC: Final = Path("/proc")


async def clear_leftovers(data: Path, sockets: Path, uid: int) -> None:
    """Returns when nobody lives in the data directory any more, as far as we can see. Call under the lock, without a server of our own.

    What does not end by itself within ENDING_S (ORPHANS_S) is told to quit at once, and then killed: the next start recovers from the log. uid: of
    the server's account. Raises EmbeddedError when somebody else's server runs there.
    """
    if sys.platform != "linux":
        return
    for number, seconds in ((None, ENDING_S), (signal.SIGQUIT, ENDING_S / 2), (signal.SIGKILL, ENDING_S / 2)):
        deadline_s = time.monotonic() + seconds
        pids, all_seen = _inhabitants(data, uid)
        if number is not None:
            _refuse_strangers(pids, data, sockets)
            _signal(pids, number)
        orphaned_s = time.monotonic() + ORPHANS_S
        while pids and time.monotonic() < (deadline_s if _number(data) in pids else min(deadline_s, orphaned_s)):
            await asyncio.sleep(POLL_S)
            pids, all_seen = _inhabitants(data, uid)
        if not pids:
            if all_seen:
                _remove_stale_file(data)
            return
    raise EmbeddedError(f"processes of an earlier PostgreSQL in {data} cannot be ended: {', '.join(map(str, pids))}")


def _inhabitants(data: Path, uid: int) -> tuple[list[int], bool]:
    """PostgreSQL's processes that work in this directory, and whether all that may be such could be asked.

    In a container root may lack the capability to look, and then must not conclude that nobody is there.
    """
    resolved = data.resolve()
    found, all_seen = [], True
    for process in _PROC.glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == resolved and (process / "exe").readlink().name.startswith("postgres"):
                found.append(int(process.name))
        except PermissionError:
            all_seen = all_seen and not _may_be_one(process, uid)
        except OSError:
            continue  # it ended meanwhile
    return found, all_seen


def _may_be_one(process: Path, uid: int) -> bool:
    """By what everybody may read: its name and its account."""
    try:
        status = (process / "status").read_text("utf-8", "replace")
    except OSError:
        return False
    return status.startswith("Name:\tpostgres") and f"\nUid:\t{uid}\t" in status


def _remove_stale_file(data: Path) -> None:
    """When its number is that of a living process, which is none of the server's: PostgreSQL would refuse for ever. All else it judges itself."""
    pid = _number(data)
    if pid is not None and (_PROC / str(pid)).exists():
        log.warning("embedded.stale_file", file=str(data / "postmaster.pid"), pid=pid)
        (data / "postmaster.pid").unlink(missing_ok=True)


def _number(data: Path) -> int | None:
    """That of the server, by its file; negative in a single-user session."""
    try:
        return abs(int((data / "postmaster.pid").read_text("utf-8").split(maxsplit=1)[0]))
    except (OSError, ValueError, IndexError):
        return None


def _refuse_strangers(pids: list[int], data: Path, sockets: Path) -> None:
    """A server that a person started by hand, or a single-user session, is not ours to end. Children write their role over their command line."""
    for pid in pids:
        with contextlib.suppress(OSError):
            command = (_PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            if command[0] and not command[0].startswith(b"postgres:") and os.fsencode(sockets) not in command:
                raise EmbeddedError(f"a PostgreSQL that xzepr did not start runs in {data}: process {pid}; stop it first")


def _signal(pids: list[int], number: signal.Signals) -> None:
    log.warning("embedded.ending_leftovers", pids=pids, signal=number.name)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
