"""A provider of keys on the loopback: discovery document and key set, and every way of not giving them that a test asks for."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from jwt.algorithms import ECAlgorithm, RSAAlgorithm

DISCOVERY, JWKS = "/.well-known/openid-configuration", "/jwks"


def jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    """The public half of a private key, as a provider publishes it."""
    public = key.public_key()
    kind = RSAAlgorithm if hasattr(public.public_numbers(), "n") else ECAlgorithm
    return {**json.loads(kind.to_jwk(public)), "kid": kid, "use": "sig", **more}  # type: ignore[attr-defined]


class Provider:
    """issuer: its URL. keys: what it publishes now. requests: the paths that it was asked for.

    status, body, headers: instead of what a good provider answers, for `misbehaves_at`. held: clear it, and answers wait until it is set.
    """

    def __init__(self) -> None:
        self.issuer = ""
        self.keys: list[dict[str, Any]] = []
        self.discovery: dict[str, Any] = {}
        self.requests: list[str] = []
        self.misbehaves_at = JWKS
        self.status: int | None = None
        self.body: bytes | Callable[[], AsyncIterator[bytes]] | None = None
        self.headers: dict[str, str] = {}
        self.hangs_up = False
        self.held = asyncio.Event()
        self.held.set()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def jwks_url(self) -> str:
        return self.issuer + JWKS

    async def start(self) -> None:
        """Again on the port that it had."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.issuer = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Nobody listens any more."""
        if self._server is not None:
            self._server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    def behave(self) -> None:
        self.status, self.body, self.headers, self.hangs_up = None, None, {}, False
        self.held.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.requests.append(path)
            await self.held.wait()
            if not (self.hangs_up and path == self.misbehaves_at):
                await self._answer(path, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # who asked has left, or this provider ends
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self._serving.discard(task)

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        good = {
            DISCOVERY: {"issuer": self.issuer, "jwks_uri": self.jwks_url, **self.discovery},
            JWKS: {"keys": self.keys},
        }
        status, headers, body = (200, {}, json.dumps(good[path]).encode()) if path in good else (404, {}, b"{}")
        own: Any = body
        if path == self.misbehaves_at:
            status, headers, own = self.status or status, self.headers, body if self.body is None else self.body
        lines = [
            f"HTTP/1.1 {status} x",
            "Content-Type: application/json",
            "Connection: close",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if isinstance(own, bytes):
            writer.write(own)
        else:
            async for piece in own():
                writer.write(piece)
                await writer.drain()
        await writer.drain()


@contextlib.asynccontextmanager
async def running_provider() -> AsyncIterator[Provider]:
    provider = Provider()
    await provider.start()
    try:
        yield provider
    finally:
        await provider.stop()
