"""Where the parts are joined: one web process, with every door on it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from xzepr import health
from xzepr.artifacts import http as artifacts
from xzepr.audit import http as audit
from xzepr.audit.denials import Denials
from xzepr.auth import http as accounts
from xzepr.auth import jwks_http as jwks
from xzepr.auth import oidc_http
from xzepr.auth.authenticate import Authenticator
from xzepr.auth.changes import EVENT, Changes
from xzepr.auth.keys import SigningKeys
from xzepr.auth.logins import Logins
from xzepr.auth.model import LogsIn
from xzepr.auth.oidc import Oidc
from xzepr.auth.passwords import Passwords
from xzepr.auth.tokens import AccessTokens
from xzepr.auth.trusted import TrustedIssuers
from xzepr.db.pool import Database
from xzepr.events import http as events
from xzepr.events.hot import take_event
from xzepr.events.record import Recorder
from xzepr.events.search import EventReads
from xzepr.groups import http as groups
from xzepr.house import House
from xzepr.receivers import http as receivers
from xzepr.receivers.manage import Receivers
from xzepr.receivers.payload import PayloadChecker
from xzepr.settings import Settings
from xzepr.stream import http as stream
from xzepr.stream.follow import Tail
from xzepr.stream.outbox import Bell
from xzepr.web import pages
from xzepr.web.asgi import build_asgi
from xzepr.web.hot import HotRoute
from xzepr.web.middleware import Doorway
from xzepr.web.routes import Route

# The doors. A route that names neither a permission nor PUBLIC stops the start.
ROUTES: Sequence[Route] = (
    *events.ROUTES,
    *artifacts.ROUTES,
    *receivers.ROUTES,
    *groups.ROUTES,
    *stream.ROUTES,
    *accounts.ROUTES,
    *oidc_http.ROUTES,
    *jwks.ROUTES,
    *audit.ROUTES,
    *health.ROUTES,
)


def build_house(settings: Settings, *, connections_min: int, connections_max: int, provider_logins: LogsIn | None = None) -> House:
    """The parts of one web process, not yet connected. settings.database.url must be set. Raises KeysError when our keys cannot be used.

    provider_logins: who makes token pairs for those that a provider knows, in place of our own.
    """
    # Changes of accounts are read on a connection of their own: they must be heard also when all others are busy.
    database = _database(settings, connections_min, max(1, connections_max - 1))
    heard = Changes(_database(settings, 1, 1), settings.jwt.access_token_expiration + settings.jwt.leeway_seconds)
    checker = PayloadChecker()
    denials = Denials(database)
    recorder = Recorder(database, Receivers(database), checker, Bell(database), denials)
    keys = SigningKeys.of(settings)
    tokens, trusted, passwords = AccessTokens(settings, keys), TrustedIssuers(settings), Passwords()
    logins = Logins(settings, database, tokens, passwords, denials)
    tail = Tail(database)
    # What is kept in memory and changed elsewhere.
    recorder.receivers.listen(heard)
    heard.subscribe(EVENT, tail.forget)
    return House(
        settings=settings,
        database=database,
        checker=checker,
        recorder=recorder,
        reads=EventReads(database),
        tail=tail,
        denials=denials,
        keys=keys,
        tokens=tokens,
        trusted=trusted,
        changes=heard,
        authenticator=Authenticator(settings, database, tokens, trusted, heard),
        passwords=passwords,
        logins=logins,
        oidc=Oidc(settings, database, provider_logins or logins, denials) if settings.auth.enable_oidc else None,
    )


def _database(settings: Settings, connections_min: int, connections_max: int) -> Database:
    assert settings.database.url is not None
    return Database(
        settings.database.url,
        connections_min=connections_min,
        connections_max=connections_max,
        connect_timeout_s=settings.database.connection_timeout_seconds,
        application_name="xzepr-web",
    )


@asynccontextmanager
async def opened(house: House) -> AsyncIterator[None]:
    """Connected, and let go of everything at the end."""
    await house.database.open()
    await house.changes.open()
    house.authenticator.uses.open()
    house.denials.start()
    try:
        yield
    finally:
        await house.tail.close()
        await house.recorder.close()
        await house.reads.close()
        await house.checker.close()
        await house.trusted.close()
        if house.oidc is not None:
            await house.oidc.close()
        await house.authenticator.uses.close()
        await house.denials.close()
        await house.changes.close()
        house.passwords.close()
        await house.database.close()


def build_app(house: House) -> Doorway:
    """The ASGI application; it connects when its lifespan begins and lets go of everything when it ends."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        async with opened(house):
            yield

    table = [*ROUTES, *pages.routes(ROUTES)]
    return build_asgi(
        table,
        house=house,
        settings=house.settings,
        authenticator=house.authenticator,
        lifespan=lifespan,
        static_directory=pages.STATIC_DIRECTORY,
    )


def build_hot_route(house: House, doorway: Doorway) -> HotRoute:
    """The short way of POST /api/v1/events, beside the application."""
    [route] = [route for route in events.ROUTES if route.handler is events.post_event]
    return HotRoute(
        route,
        doorway,
        house.authenticator,
        body_max_bytes=house.settings.security.validation.max_body_size,
        take=partial(take_event, house.recorder),
    )
