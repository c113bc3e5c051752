"""A small program that holds an embedded PostgreSQL: `embedded_owner.py STATE_DIR [BINDIR]`. Says on standard output what it got, in JSON.

{"up": url, "owner": bool, "version": text} once it takes connections, or {"failed": reason} and exit code 1. Runs until SIGTERM.
"""

import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

import structlog

from xzepr.embedded import EmbeddedError, EmbeddedPostgres


def say(**words: object) -> None:
    print(json.dumps(words), flush=True)


async def main() -> int:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    embedded = EmbeddedPostgres(Path(sys.argv[1]), bindir=Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    try:
        url = await embedded.start()
    except EmbeddedError as error:
        say(failed=str(error))
        return 1
    say(up=url, owner=embedded.owner, version=embedded.version)
    watch = asyncio.create_task(embedded.watch())
    await stop.wait()
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch
    await embedded.stop()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
