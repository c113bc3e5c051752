"""The read path: one event by id, and lists."""

import asyncio
from typing import Any

import asyncpg
import msgspec

from xzepr.clock import rfc3339
from xzepr.db.conditions import Conditions
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import NotFound
from xzepr.events.model import Event, EventPage
from xzepr.events.walk import newest_first
from xzepr.ids import EventId
from xzepr.nvrpp import Nvrpp
from xzepr.page import PAGE_BYTES_MAX, Page

queries = Queries("xzepr.events")


class EventReads:
    """Reads by id of one process: those that come while one statement is under way share the next one, so a lone read waits for nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[EventId, asyncio.Future[Event | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, event_id: EventId) -> Event:
        """Raises NotFound, Unavailable. As the database has it at a moment after the call."""
        answered = self._waiting.get(event_id)
        if answered is None:
            answered = self._waiting[event_id] = asyncio.get_running_loop().create_future()
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run())
        # One that leaves must not take the answer from the others.
        event = await asyncio.shield(answered)
        if event is None:
            raise NotFound(f"there is no event {event_id}")
        return event

    async def close(self) -> None:
        """Until everybody has an answer."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                await self._answer(waiting)
        finally:
            self._task = None

    async def _answer(self, waiting: dict[EventId, "asyncio.Future[Event | None]"]) -> None:
        try:
            async with self._database.connection() as connection:
                rows = await connection.fetch(queries["find_events"], list(waiting))
            found = {row["id"]: _event(row) for row in rows}
        except Exception as error:  # noqa: BLE001 - it is raised again, where somebody waits for it
            for answered in waiting.values():
                answered.set_exception(error)
                # Looked at here in case that everybody has gone.
                answered.exception()
            return
        for event_id, answered in waiting.items():
            answered.set_result(found.get(event_id))


async def search_events(database: Database, page: EventPage) -> Page[Event]:
    """Newest first."""
    conditions = _conditions(page)
    return await newest_first(
        database,
        conditions,
        queries["search_events"],
        queries["search_events_stop"],
        _event,
        lambda event: event.id,
        limit=page.limit,
        after=page.after,
        since=page.from_,
        to=page.to,
        is_filtered=conditions.has_filters,
        is_narrow=_artifact_id(page) is not None,
        bytes_max=PAGE_BYTES_MAX,
    )


def _conditions(page: EventPage) -> Conditions:
    """One index walks: the artifact's when all five fields are given, else the name's, the receiver's, the owner's, in this order."""
    conditions = Conditions()
    equals: list[tuple[str, Any]] = [("name = ", page.name), ("event_receiver_id = ", page.event_receiver_id), ("owner_id = ", page.owner_id)]
    given = [(comparison, value) for comparison, value in equals if value is not None]
    artifact_id = _artifact_id(page)
    if artifact_id is not None:
        conditions.walk("artifact_id = ", artifact_id)
    elif given:
        conditions.walk(*given.pop(0))
    for comparison, value in given:
        conditions.filter(comparison, value)
    for field in ("version", "release", "platform_id", "package", "success"):
        conditions.filter(f"{field} = ", getattr(page, field))
    return conditions


def _artifact_id(page: EventPage) -> bytes | None:
    """When all five fields are given: the narrowest index there is."""
    fields = (page.name, page.version, page.release, page.platform_id, page.package)
    return Nvrpp(*fields).artifact_id if all(fields) else None  # type: ignore[arg-type]


def _event(row: asyncpg.Record) -> Event:
    fields: dict[str, Any] = dict(row)
    fields.pop("bytes_before", None)
    fields.pop("followed", None)
    fields["payload"] = msgspec.Raw(fields["payload"].encode())
    fields["created_at"] = rfc3339(fields["created_at"])
    return Event(**fields)
