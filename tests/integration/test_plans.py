"""What each read looks at, on a table of 100,000 events in 36 months, and how many statements a request takes.

Every address that reads is asked over HTTP, in this process. Each statement that it runs is then explained with its own arguments, as the planner
makes it the first time (a custom plan) and later on (a generic one).
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import asyncpg
import httpx2
import pytest

from benchmarks.fill import Definitions, Stored, fill, sample
from support import old
from support.users import make_users
from xzepr import clock
from xzepr.app import ROUTES, build_app, build_house
from xzepr.auth.permissions import Role
from xzepr.clock import rfc3339
from xzepr.db.pool import Database
from xzepr.settings.model import Auth, DatabaseSettings, Settings

EVENTS = 100_000
# A page is 50; what else one look may touch: the first row of each month, heads and definitions. For a page of artifacts the five events of each, and
# for each of these the five heads of the artifact.
ROWS_MAX = 400
ARTIFACT_ROWS_MAX = 51 * 5 * 6 + 100
# All that a hundredth of the names matches, and their heads: a prefix is found by name, and sorted.
PREFIX_ROWS_MAX = EVENTS // 100 * 6
# Asked of the database: opening and closing a transaction counts. A list looks up to three times, and where it passes rows over it asks each time
# whether it was stopped: a page that does not fill costs eight.
STATEMENTS = {
    "/api/v1/events/{id}": 1,
    "/api/v1/events": 3,
    "/api/v1/events?name": 5,
    "/api/v1/events?name,version": 8,
    "/api/v1/events?event_receiver_id": 3,
    "/api/v1/events?event_receiver_id,success": 3,
    "/api/v1/events?owner_id": 5,
    "/api/v1/events?success": 3,
    "/api/v1/events?from,to": 3,
    "/api/v1/events?after": 3,
    "/api/v1/events?all five": 4,
    "/api/v1/artifacts": 3,
    "/api/v1/artifacts?name": 8,
    "/api/v1/artifacts?name_prefix": 7,
    "/api/v1/artifacts/timeline": 5,
    "/api/v1/receivers": 3,
    "/api/v1/receivers?name": 3,
    "/api/v1/receivers?offset": 4,
    "/api/v1/receivers/{id}": 1,
    "/api/v1/groups": 3,
    "/api/v1/groups?event_receiver_id": 3,
    "/api/v1/groups/{id}": 1,
    "/api/v1/groups/{id}/status": 1,
    "/api/v1/groups/{id}/artifacts": 4,
    "/api/v1/groups/{id}/artifacts?complete": 4,
    "/api/v1/groups/{id}/members": 4,
    "/api/v1/admin/users": 1,
    "/api/v1/admin/users?username": 1,
    "/api/v1/admin/users/{id}": 1,
    "/api/v1/admin/audit": 5,
    "/api/v1/admin/audit?actor,act": 8,
    "/api/v1/stream/position": 1,
}


@dataclass
class Bench:
    """A filled database, the application on it, and what it asked the database for since the last look."""

    url: str
    http: httpx2.AsyncClient
    definitions: Definitions
    stored: list[Stored]
    asked: list[tuple[str, tuple[Any, ...]]]
    user_id: str

    def requests(self) -> dict[str, str]:
        """Name to address; the names of STATEMENTS."""
        event = self.stored[0]
        five = event.nvrpp._asdict()
        receiver, group = self.definitions.receiver_ids[0], self.definitions.group_id
        month = rfc3339(clock.now() - timedelta(days=400)), rfc3339(clock.now() - timedelta(days=390))
        lists: dict[str, dict[str, Any]] = {
            "/api/v1/events": {},
            "/api/v1/events?name": {"name": event.nvrpp.name},
            "/api/v1/events?name,version": {"name": event.nvrpp.name, "version": event.nvrpp.version},
            "/api/v1/events?event_receiver_id": {"event_receiver_id": receiver},
            "/api/v1/events?event_receiver_id,success": {"event_receiver_id": receiver, "success": "true"},
            "/api/v1/events?owner_id": {"owner_id": receiver},
            "/api/v1/events?success": {"success": "true"},
            "/api/v1/events?from,to": {"from": month[0], "to": month[1]},
            "/api/v1/events?after": {"after": event.id},
            "/api/v1/events?all five": five,
            "/api/v1/artifacts": {},
            "/api/v1/artifacts?name": {"name": event.nvrpp.name},
            "/api/v1/artifacts?name_prefix": {"name_prefix": "service-000"},
            "/api/v1/artifacts/timeline": five,
            "/api/v1/receivers": {},
            "/api/v1/receivers?name": {"name": "scan"},
            "/api/v1/receivers?offset": {"offset": "1"},
            "/api/v1/groups": {},
            "/api/v1/groups?event_receiver_id": {"event_receiver_id": receiver},
            "/api/v1/groups/{id}/status": five,
            "/api/v1/groups/{id}/artifacts": {},
            "/api/v1/groups/{id}/artifacts?complete": {"complete": "true"},
            "/api/v1/groups/{id}/members": {},
            "/api/v1/admin/users": {},
            "/api/v1/admin/users?username": {"username": "nobody"},
            "/api/v1/admin/audit": {},
            "/api/v1/admin/audit?actor,act": {"actor": receiver, "act": "user.*"},
        }
        named = {name: f"{name.partition('?')[0]}?{urlencode(query)}" for name, query in lists.items()}
        bare = ("/api/v1/events/{id}", "/api/v1/receivers/{id}", "/api/v1/groups/{id}", "/api/v1/admin/users/{id}", "/api/v1/stream/position")
        ids = {"events": event.id, "receivers": receiver, "groups": group, "admin": self.user_id}
        return {name: path.replace("{id}", ids.get(name.split("/")[3], "")) for name, path in {**named, **{each: each for each in bare}}.items()}

    async def ask(self, path: str) -> list[tuple[str, tuple[Any, ...]]]:
        """The statements of one request, which must succeed."""
        self.asked.clear()
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return list(self.asked)


@contextmanager
def listened(asked: list[tuple[str, tuple[Any, ...]]]) -> Iterator[None]:
    """Everything that goes to the database meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fetch", "fetchrow", "fetchval", "execute"):
            original = getattr(asyncpg.Connection, name)

            async def heard(self: Any, statement: str, *arguments: Any, original: Any = original, **more: Any) -> Any:
                asked.append((statement, arguments))
                return await original(self, statement, *arguments, **more)

            patch.setattr(asyncpg.Connection, name, heard)
        yield


@pytest.fixture
async def bench(database: Database, database_url: str) -> AsyncIterator[Bench]:
    receivers = [await old.make_receiver(database, kind) for kind in ("build", "scan", "test", "sign", "stage")]
    definitions = Definitions(receivers, await old.make_group(database, receivers[:3]))
    await old.sequence(database)
    await fill(database_url, definitions, EVENTS, clock.now())
    user_id = (await make_users(database_url, ["alice"]))["alice"]
    house = build_house(
        Settings(database=DatabaseSettings(url=database_url), auth=Auth(anonymous_roles=[Role.ADMIN])), connections_min=1, connections_max=2
    )
    app = build_app(house)
    await house.database.open()
    asked: list[tuple[str, tuple[Any, ...]]] = []
    transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 1234))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        with listened(asked):
            yield Bench(database_url, http, definitions, await sample(database_url, EVENTS), asked, user_id)
    await house.tail.close()
    await house.checker.close()
    await house.database.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def looked_at(plan: dict[str, Any]) -> tuple[int, list[str]]:
    """Rows that its scans of stored tables touched, and those tables that were read whole although they hold more than a few rows."""
    rows, whole = 0, []
    for node in nodes(plan):
        if "Relation Name" not in node:
            continue
        touched = round(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)) * node["Actual Loops"]
        )
        rows += touched
        if node["Node Type"] == "Seq Scan" and touched > 50:
            whole.append(node["Relation Name"])
    return rows, whole


async def test_reads_cost_a_page_whatever_is_stored(bench: Bench) -> None:
    found: dict[str, int] = {}
    faults: list[str] = []
    connections = {
        mode: await asyncpg.connect(bench.url, server_settings={"plan_cache_mode": mode, "jit": "off"})
        for mode in ("force_custom_plan", "force_generic_plan")
    }
    for name, path in bench.requests().items():
        await bench.ask(path)
        asked = await bench.ask(path)
        found[name] = len(asked)
        for statement, arguments in asked:
            if statement.startswith(("BEGIN", "COMMIT", "SET")):
                continue
            for mode, connection in connections.items():
                explained = await connection.fetchval(f"explain (analyze, format json) {statement}", *arguments)
                rows, whole = looked_at(json.loads(explained)[0]["Plan"])
                most = PREFIX_ROWS_MAX if "prefix" in name else ARTIFACT_ROWS_MAX if name.startswith("/api/v1/artifacts") else ROWS_MAX
                if rows > most or whole:
                    faults.append(f"{name} ({mode}): {rows} rows, whole tables: {whole}\n{statement}")
    for connection in connections.values():
        await connection.close()
    assert not faults, "\n\n".join(faults)
    assert found == STATEMENTS


def test_each_address_that_reads_is_asked() -> None:
    reading = {route.path for route in ROUTES if route.method == "GET" and route.path.startswith("/api/v1/") and route.permissions}
    assert reading - {"/api/v1/stream"} == {name.partition("?")[0] for name in STATEMENTS}
