"""Reading the public stream as any watcher does."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx2


async def follow(client: httpx2.AsyncClient, after: int, **filters: str) -> AsyncIterator[tuple[int, bytes | None]]:
    """(position, envelope) as they come; envelope None for an id without data."""
    async with client.stream("GET", "/api/v1/stream", headers={"Last-Event-ID": str(after)}, params=filters) as answer:
        assert answer.status_code == 200, await answer.aread()
        position, data = after, None
        async for line in answer.aiter_lines():
            if line.startswith("id:"):
                position = int(line[3:])
            elif line.startswith("data:"):
                data = line[5:].strip().encode()
            elif not line:
                yield position, data
                data = None


async def read_all(url: str, *, pending_s: float = 30) -> list[bytes]:
    """Every envelope from position 1 to the end, once nothing is waiting to be sequenced any more.

    A marker is posted, and the stream read until it comes: whatever was acknowledged before stands before it.
    """
    async with httpx2.AsyncClient(base_url=url, timeout=pending_s) as client:
        marker = (await client.post("/api/v1/receivers", json={"name": "marker", "type": "marker", "version": "1", "schema": {}})).json()["data"]
        bodies: list[bytes] = []
        async with asyncio.timeout(pending_s + 60):
            async for _, body in follow(client, 0):
                if body is not None:
                    bodies.append(body)
                    if json.loads(body)["id"] == marker:
                        return bodies
    raise AssertionError("the stream ended before the marker")
