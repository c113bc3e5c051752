"""One web process inside this one, on a real socket and a real database, with accounts as they are: its parts can be reached, its clock moved."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import uvicorn

from support.accounts import ADMIN, PASSWORD, bearer, log_in
from support.site_thread import in_thread
from xzepr.app import build_app, build_hot_route, build_house
from xzepr.auth.bootstrap import ensure_administrator
from xzepr.db.pool import Database
from xzepr.house import House
from xzepr.settings import Settings
from xzepr.web.hot import HotProtocol

KEEP_ALIVE_S = 3


class Site:
    """url: of the server; http: a client without a credential; admin: the administrator's header."""

    def __init__(self, house: House, url: str) -> None:
        self.house = house
        self.url = url
        self.http = httpx2.Client(base_url=url, timeout=20)
        self.admin = bearer(log_in(self.http))

    def pass_time(self, seconds: float) -> None:
        """For what is heard of ended credentials, and what is kept of verified ones; until the process has heard again."""
        heard = self.house.changes
        before = heard.monotonic
        heard.monotonic = lambda: before() + seconds
        deadline = time.monotonic() + 10
        while not heard.is_fresh():
            assert time.monotonic() < deadline
            time.sleep(0.02)


async def _make_administrator(settings: Settings, state_dir: Path) -> None:
    assert settings.database.url is not None
    database = await Database(settings.database.url, connections_min=1, connections_max=1, connect_timeout_s=10).open()
    try:
        await ensure_administrator(database, settings, state_dir, None)
    finally:
        await database.close()


@contextlib.contextmanager
def own_site(database_url: str, state_dir: Path, **sections: dict[str, Any]) -> Iterator[Site]:
    """database_url: of a migrated database. sections: of the settings."""
    tree: dict[str, Any] = {
        "database": {"url": database_url},
        "server": {"state_dir": str(state_dir), **sections.pop("server", {})},
        "auth": {"bootstrap_admin": {"username": ADMIN, "password": PASSWORD}, **sections.pop("auth", {})},
        **sections,
    }
    settings = msgspec.convert(tree, Settings)
    asyncio.run(_make_administrator(settings, state_dir))
    house = build_house(settings, connections_min=1, connections_max=6)
    app = build_app(house)
    protocol = partial(HotProtocol, hot=build_hot_route(house, app))
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=2,
    )
    with in_thread(config, listening):
        site = Site(house, f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield site
        site.http.close()
