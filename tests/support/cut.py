"""A way to a PostgreSQL's socket that can be cut for a while: connections stay, nothing passes, and nobody is told."""

import asyncio
import contextlib
import tempfile
import threading
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit


class Cut:
    """`with Cut(url) as way`: way.url leads through it."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        query = parse_qs(self._parts.query)
        self._target = Path(query["host"][0]) / f".s.PGSQL.{query.get('port', ['5432'])[0]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open = asyncio.Event()
        self._directory = tempfile.TemporaryDirectory(prefix="xzepr-cut-")
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        host = quote(self._directory.name, safe="/")
        self.url = self._parts._replace(query=f"host={host}&port=5432&sslmode=disable").geturl()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._directory.cleanup()

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._open.clear)

    def mend(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)

    async def _listen(self) -> None:
        self._open.set()
        self._server = await asyncio.start_unix_server(self._connected, Path(self._directory.name) / ".s.PGSQL.5432")

    async def _close(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_unix_connection(self._target)
        try:
            await asyncio.gather(self._carry(reader, there[1]), self._carry(there[0], writer))
        finally:
            writer.close()
            there[1].close()

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                await self._open.wait()
                target.write(data)
                await target.drain()
            target.close()
