"""What tests ask about processes that may end while they ask."""

import contextlib
from collections.abc import Iterable

import psutil


def is_living(process: psutil.Process) -> bool:
    """Neither gone nor a zombie, which is what an orphan becomes where nobody collects it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def living(pids: Iterable[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return [process for process in found if is_living(process)]


def arguments(process: psutil.Process) -> list[str]:
    """Its command line; nothing of one that is gone."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
