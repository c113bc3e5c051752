"""Our application with a login through a provider, in process, on a real database; and a browser of its own."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import msgspec

from support.logins import PlainLogins
from support.oidc_provider import CLIENT_ID, CLIENT_SECRET, ScriptedProvider
from xzepr.app import build_app, build_house
from xzepr.house import House
from xzepr.settings import Settings

LOGIN, CALLBACK, LOGOUT = "/api/v1/auth/oidc/login", "/api/v1/auth/oidc/callback", "/api/v1/auth/oidc/logout"
ROLE_MAP = {"release-manager": ["event_manager"], "release-viewer": ["event_viewer"], "xzepr-admin": ["admin"]}
JSON, HTML = {"Accept": "application/json"}, {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def oidc_settings(database_url: str, provider: ScriptedProvider | None, *, own_url: str = "http://localhost:8042", **keycloak: Any) -> Settings:
    """provider None: logins through a provider are off, unless issuer_url names another."""
    section = {
        "issuer_url": provider.issuer if provider else None,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "redirect_url": own_url + CALLBACK,
        "role_map": ROLE_MAP,
        **keycloak,
    }
    tree = {
        "database": {"url": database_url},
        "server": {"allowed_hosts": [urlsplit(own_url).hostname]},
        "auth": {"enable_oidc": section["issuer_url"] is not None, "keycloak": section},
    }
    return msgspec.convert(tree, Settings)


class Site:
    """One web process. logins: whom it gave tokens."""

    def __init__(self, settings: Settings, own_url: str = "http://localhost:8042") -> None:
        self.logins = PlainLogins()
        self.house: House = build_house(settings, connections_min=1, connections_max=4, provider_logins=self.logins)
        self.app = build_app(self.house)
        self._own_url = own_url

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Site"]:
        async with self.app._app.lifespan_context(None):
            yield self

    def browser(self, address: str = "127.0.0.1", **headers: str) -> httpx2.AsyncClient:
        """With cookies of its own; sends on nothing by itself."""
        transport = httpx2.ASGITransport(app=self.app, client=(address, 1234), raise_app_exceptions=False)
        return httpx2.AsyncClient(transport=transport, base_url=self._own_url, headers={"X-Request-ID": secrets.token_hex(8), **headers})

    async def acts(self, browser: httpx2.AsyncClient) -> list[dict[str, Any]]:
        """Rows of the audit log by this browser's requests, oldest first."""
        sql = "select act, outcome, actor_name, actor_kind, object_id, details::text, address from audit_log where request_id = $1 order by id"
        async with self.house.database.connection() as connection:
            rows = await connection.fetch(sql, browser.headers["X-Request-ID"])
        return [{**dict(row), "details": msgspec.json.decode(row["details"])} for row in rows]


async def begin(browser: httpx2.AsyncClient, **query: str) -> str:
    """Where the provider is."""
    answer = await browser.get(LOGIN, params=query)
    assert answer.status_code == 302, answer.text
    return str(answer.headers["location"])


async def log_in(browser: httpx2.AsyncClient, provider: ScriptedProvider, **query: str) -> httpx2.Response:
    """The answer to the callback."""
    return await browser.get(provider.come_back(await begin(browser, **query)))


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))
