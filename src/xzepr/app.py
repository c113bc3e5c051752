"""Where the parts are joined: one web process, with every door on it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from xzepr import health
from xzepr.artifacts import http as artifacts
from xzepr.auth.authenticate import Authenticator
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
ROUTES: Sequence[Route] = (*events.ROUTES, *artifacts.ROUTES, *receivers.ROUTES, *groups.ROUTES, *stream.ROUTES, *health.ROUTES)


def build_house(settings: Settings, *, connections_min: int, connections_max: int) -> House:
    """The parts of one web process, not yet connected. settings.database.url must be set."""
    assert settings.database.url is not None
    database = Database(
        settings.database.url,
        connections_min=connections_min,
        connections_max=connections_max,
        connect_timeout_s=settings.database.connection_timeout_seconds,
        application_name="xzepr-web",
    )
    checker = PayloadChecker()
    recorder = Recorder(database, Receivers(database), checker, Bell(database))
    return House(settings=settings, database=database, checker=checker, recorder=recorder, reads=EventReads(database), tail=Tail(database))


def build_app(house: House) -> Doorway:
    """The ASGI application; it connects when its lifespan begins and lets go of everything when it ends."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await house.database.open()
        try:
            yield
        finally:
            await house.tail.close()
            await house.recorder.close()
            await house.reads.close()
            await house.checker.close()
            await house.database.close()

    table = [*ROUTES, *pages.routes(ROUTES)]
    return build_asgi(table, house=house, settings=house.settings, lifespan=lifespan, static_directory=pages.STATIC_DIRECTORY)


def build_hot_route(house: House, doorway: Doorway) -> HotRoute:
    """The short way of POST /api/v1/events, beside the application."""
    [route] = [route for route in events.ROUTES if route.handler is events.post_event]
    return HotRoute(
        route,
        doorway,
        Authenticator(house.settings),
        body_max_bytes=house.settings.security.validation.max_body_size,
        take=partial(take_event, house.recorder),
    )
