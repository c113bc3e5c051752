"""What turns into the server: `python -I -S launch.py PARENT_PID UID GID PROGRAM ARGUMENT...`. Imports nothing but the standard library.

Changes the account first and asks for the death signal then: the kernel forgets it at a change of account. The signal comes when the *thread*
that started this process ends, so it is started from a main thread. SIGINT is PostgreSQL's fast shutdown. Between the start and the asking
the parent may have died already: then this is somebody else's child by now, and ends.

Only Linux has this signal. Elsewhere a server whose parent was killed with SIGKILL goes on, and the next start on its state directory fails with a
line that says so.
"""

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str]) -> str:
    """Becomes the program. Returns why it could not."""
    parent, uid, gid = (int(text) for text in arguments[:3])
    command = arguments[3:]
    try:
        if os.geteuid() != uid:
            os.setgroups([gid])
            os.setgid(gid)
            os.setuid(uid)
        os.umask(0o077)
        os.chdir("/")
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:
            return "its parent is gone"
        os.execve(command[0], command, _environment())  # noqa: S606  a program of PostgreSQL, found by us
    except OSError as error:
        return f"{command[0]}: {error.strerror}"


def _environment() -> dict[str, str]:
    """The caller's, less what would change PostgreSQL's settings and languages behind our back."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG", "XZEPR"))}
    return {**kept, "LC_ALL": "C"}


if __name__ == "__main__":
    sys.exit(f"xzepr: PostgreSQL is not started: {main(sys.argv[1:])}")
