"""Is this installation well? The database decides whether it can serve at all; other parts only degrade it."""

from typing import Literal

import asyncpg
import msgspec

from xzepr import __version__
from xzepr.auth.oidc import Oidc
from xzepr.auth.permissions import PUBLIC
from xzepr.db.migrate import known_migrations
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import Unavailable
from xzepr.house import House
from xzepr.web.call import Answer, Call
from xzepr.web.routes import Route

queries = Queries("xzepr.db")

State = Literal["healthy", "degraded", "unhealthy", "disabled"]


class Components(msgspec.Struct, frozen=True, kw_only=True):
    """Each part; `disabled` where it is not configured."""

    database: State
    migrations: State
    relay: State
    kafka: State = "disabled"
    redis: State = "disabled"
    oidc: State = "disabled"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The whole, and its parts."""

    status: Literal["healthy", "degraded", "unhealthy"]
    service: Literal["xzepr"] = "xzepr"
    version: str = __version__
    components: Components


class Alive(msgspec.Struct, frozen=True):
    """This process answers."""

    status: Literal["alive"] = "alive"


class Ready(msgspec.Struct, frozen=True):
    """This process may be given requests."""

    status: Literal["ready", "not ready"]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks first."""

    status: Literal["ok"] = "ok"
    service: Literal["xzepr"] = "xzepr"
    version: str = __version__
    api_versions: list[str]
    dialect: str


async def check(database: Database, oidc: Oidc | None = None) -> Health:
    """One look at the database; never raises for a part that is down. oidc: of which the last exchange with the provider counts."""
    provider: State = "disabled" if oidc is None else "healthy" if oidc.provider.is_reachable else "degraded"
    try:
        async with database.connection() as connection:
            row = await connection.fetchrow(queries["health"])
    except (Unavailable, asyncpg.UndefinedTableError):
        return Health(status="unhealthy", components=Components(database="unhealthy", migrations="unhealthy", relay="unhealthy", oidc=provider))
    assert row is not None
    current = row["migration"] == known_migrations()[-1].number
    leads = bool(row["sequencer_leads"])
    parts = Components(database="healthy", migrations="healthy" if current else "degraded", relay="healthy" if leads else "degraded", oidc=provider)
    return Health(status="healthy" if current and leads and provider != "degraded" else "degraded", components=parts)


async def show_health(call: Call[House]) -> Answer:
    health = await check(call.house.database, call.house.oidc)
    return Answer(health, status=503 if health.status == "unhealthy" else 200)


async def show_alive(call: Call[House]) -> Answer:
    return Answer(Alive())


async def show_ready(call: Call[House]) -> Answer:
    health = await check(call.house.database)
    if health.status == "unhealthy":
        return Answer(Ready("not ready"), status=503)
    return Answer(Ready("ready"))


async def show_status(call: Call[House]) -> Answer:
    return Answer(Status(api_versions=["v1"], dialect=call.house.settings.server.dialect))


ROUTES = (
    Route(
        method="GET",
        path="/health",
        handler=show_health,
        permission=PUBLIC,
        answer=Health,
        tag="service",
        summary="Health of the installation and its parts",
        description="503 when it is unhealthy, with the same body.",
    ),
    Route(method="GET", path="/health/live", handler=show_alive, permission=PUBLIC, answer=Alive, tag="service", summary="Does this process answer?"),
    Route(
        method="GET",
        path="/health/ready",
        handler=show_ready,
        permission=PUBLIC,
        answer=Ready,
        tag="service",
        summary="May this process be given requests?",
        description="503 when not, with the same body.",
    ),
    Route(
        method="GET",
        path="/api/v1/status",
        handler=show_status,
        permission=PUBLIC,
        answer=Status,
        tag="service",
        summary="What this server is",
    ),
)
