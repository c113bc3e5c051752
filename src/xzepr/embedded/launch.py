"""What turns into the server: `python -I -S launch.py PARENT_PID UID GID PROGRAM ARGUMENT...`. Imports nothing but the standard library.

Changes the account first and asks for the death signal then: the kernel forgets it at a change of account. The signal comes when the *thread*
that started this process ends, so it is started from a main thread. SIGINT is PostgreSQL's fast shutdown. Between the start and the asking
the parent may have died already: then this is somebody else's child by now, and ends.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Becomes the program, or exits with 1 when the parent is gone."""
    parent, uid, gid = (int(text) for text in sys.argv[1:4])
    if os.geteuid() == 0 and uid != 0:
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    os.umask(0o077)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    os.chdir("/")
    os.execv(sys.argv[4], sys.argv[4:])


if __name__ == "__main__":
    main()
