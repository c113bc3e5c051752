"""A server in this process on a real database, whose callers are who they say they are: `Authorization: Bearer <name>` names a principal.

What is tested with it is what a principal may do; how one is found out is tested elsewhere.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import httpx2
import pytest
import uvicorn
from starlette.datastructures import Headers

from xzepr.app import build_app, build_hot_route, build_house
from xzepr.auth.authenticate import Authenticator, Known
from xzepr.auth.changes import EVENT
from xzepr.auth.credentials import Credential
from xzepr.auth.principal import Principal
from xzepr.house import House
from xzepr.receivers.manage import News
from xzepr.settings import Settings
from xzepr.settings.model import DatabaseSettings
from xzepr.web.hot import HotProtocol


class Served:
    """url: of the server; house: its parts. callers: by name; whoever names none of them has no credentials."""

    def __init__(self, house: House, url: str, callers: Mapping[str, Principal]) -> None:
        self.house = house
        self.url = url
        self.callers = callers

    def as_(self, name: str | None) -> httpx2.AsyncClient:
        """A client of this caller; None: without credentials."""
        return httpx2.AsyncClient(base_url=self.url, timeout=30, headers={"Authorization": f"Bearer {name}"} if name else {})


def believe(patch: pytest.MonkeyPatch, callers: Mapping[str, Principal]) -> None:
    """Every authenticator takes callers at their word from now on."""

    def known(_: Authenticator, credential: Credential) -> Known | None:
        principal = callers.get(credential.secret)
        return Known(principal, float("inf"), None, 0, None, time.monotonic()) if principal is not None else None

    async def authenticate(_: Authenticator, _peer: str | None, headers: Headers, _request_id: str | None, _method: str) -> Principal:
        return callers.get(headers.get("authorization", "").removeprefix("Bearer "), Principal())

    patch.setattr(Authenticator, "known", known)
    patch.setattr(Authenticator, "authenticate", authenticate)


@asynccontextmanager
async def served(url: str, callers: Mapping[str, Principal], news: News | None = None) -> AsyncIterator[Served]:
    """url: of a migrated database. callers: may be added to later. news: what tells this process of changes."""
    with pytest.MonkeyPatch.context() as patch:
        believe(patch, callers)
        house = build_house(Settings(database=DatabaseSettings(url=url)), connections_min=1, connections_max=5)
        if news is not None:
            # In place of the real ones, which would tell the same a moment later.
            house.changes._listeners.clear()
            house.recorder.receivers.listen(news)
            news.subscribe(EVENT, house.tail.forget)
        app = build_app(house)
        protocol = partial(HotProtocol, hot=build_hot_route(house, app))
        server = uvicorn.Server(uvicorn.Config(app, port=0, http=protocol, ws="none", log_config=None))  # type: ignore[arg-type]
        serving = asyncio.create_task(server.serve())
        while not server.started:
            assert not serving.done(), "the server ended"
            await asyncio.sleep(0.02)
        try:
            yield Served(house, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", callers)
        finally:
            server.should_exit = True
            await serving
