"""A page is bounded in bytes as well as in rows, and whoever follows its cursors sees every row once."""

import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
import pytest

from support import old
from xzepr.artifacts.model import TimelinePage
from xzepr.artifacts.read import get_timeline
from xzepr.db.pool import Database
from xzepr.events.model import EventPage
from xzepr.events.search import search_events
from xzepr.groups.manage import search_groups
from xzepr.groups.model import EventReceiverGroupPage
from xzepr.ids import EventId, EventReceiverGroupId, EventReceiverId
from xzepr.page import PAGE_BYTES_MAX, Pagination
from xzepr.receivers.manage import KEPT_CHARS_MAX, Receivers, search_receivers
from xzepr.receivers.model import EventReceiverPage

MEGABYTE = 1 << 20
# As it comes, as it is stored when it can be compressed, and small.
TEXTS = {"random": secrets.token_hex(MEGABYTE // 2), "repeated": "x" * MEGABYTE, "small": "x"}
# Of rows that hold a little more than a megabyte, the row that goes beyond the bound included.
LARGE_ROWS_MAX = PAGE_BYTES_MAX // MEGABYTE

# One page: data and pagination, behind a cursor.
Read = Callable[[str | None], Awaitable[tuple[list[Any], Pagination]]]


async def pages_of(read: Read) -> list[list[Any]]:
    """All of a list, by its cursors."""
    pages: list[list[Any]] = []
    after = None
    while True:
        data, pagination = await read(after)
        pages.append(data)
        assert pagination.has_more == (pagination.next is not None)
        if not pagination.has_more:
            return pages
        after = pagination.next


async def store_large(database: Database, text: str, days: list[float]) -> list[str]:
    """One event for each of these days, with a payload that holds the text; newest first."""
    receiver = await old.make_receiver(database, "t")
    stored = [event_id for each in days for event_id in await old.store(database, receiver, each)]
    async with database.connection() as connection:
        await connection.execute("update events set payload = $1", json.dumps({"text": text}))
    return sorted(stored, reverse=True)


@pytest.mark.parametrize("kind", ["random", "repeated"])
@pytest.mark.parametrize("limit", [7, 8, 9, 1000])
async def test_a_page_of_events_ends_with_its_bytes(database: Database, monkeypatch: pytest.MonkeyPatch, kind: str, limit: int) -> None:
    stored = await store_large(database, TEXTS[kind], [1 + place / 100 for place in range(20)])
    fetched: list[int] = []
    real = asyncpg.Connection.fetch

    async def heard(self: Any, *arguments: Any, **more: Any) -> Any:
        rows = await real(self, *arguments, **more)
        fetched.append(len(rows))
        return rows

    monkeypatch.setattr(asyncpg.Connection, "fetch", heard)

    async def read(after: str | None) -> tuple[list[Any], Pagination]:
        page = await search_events(database, EventPage(limit=limit, after=EventId(after) if after else None))
        return page.data, page.pagination

    pages = await pages_of(read)
    assert [event.id for page in pages for event in page] == stored
    assert all(1 <= len(page) <= min(limit, LARGE_ROWS_MAX) for page in pages)
    assert max(fetched) <= LARGE_ROWS_MAX


@pytest.mark.parametrize("filters", [{}, {"success": True}, {"description": None}])
async def test_a_page_that_looks_at_several_months_ends_with_its_bytes(database: Database, filters: dict[str, Any]) -> None:
    stored = await store_large(database, TEXTS["random"], [1, 2, 3, 40, 41, 42, 43, 200, 201, 202, 203, 204, 300, 400, 500, 600, 700, 701, 702])
    filters = {name: value for name, value in filters.items() if value is not None}

    async def read(after: str | None) -> tuple[list[Any], Pagination]:
        page = await search_events(database, EventPage(limit=1000, after=EventId(after) if after else None, **filters))
        return page.data, page.pagination

    pages = await pages_of(read)
    assert [event.id for page in pages for event in page] == stored
    # Each of the two looks behind the first adds one at most.
    assert all(len(page) <= LARGE_ROWS_MAX + 2 for page in pages)


async def test_small_rows_fill_a_page_as_before(database: Database) -> None:
    stored = await store_large(database, TEXTS["small"], [1 + place / 100 for place in range(60)])
    page = await search_events(database, EventPage(limit=59))
    assert ([event.id for event in page.data], page.pagination.next) == (stored[:59], stored[58])
    page = await search_events(database, EventPage(limit=60))
    assert (len(page.data), page.pagination.has_more, page.pagination.next) == (60, False, None)


async def test_a_row_beyond_the_bound_comes_alone(database: Database) -> None:
    stored = await store_large(database, secrets.token_hex(PAGE_BYTES_MAX // 2 + 1), [1, 2, 3])

    async def read(after: str | None) -> tuple[list[Any], Pagination]:
        page = await search_events(database, EventPage(after=EventId(after) if after else None))
        return page.data, page.pagination

    assert [[event.id for event in page] for page in await pages_of(read)] == [[each] for each in stored]


async def test_descriptions_count(database: Database) -> None:
    await store_large(database, TEXTS["small"], [1 + place / 1000 for place in range(500)])
    async with database.connection() as connection:
        await connection.execute("update events set description = repeat($1, 5000)", "\U0001f600")
    page = await search_events(database, EventPage(limit=1000))
    assert (len(page.data), page.pagination.has_more) == (PAGE_BYTES_MAX // 20_000 + 1, True)


async def test_a_timeline_ends_with_its_bytes(database: Database) -> None:
    stored = await store_large(database, TEXTS["random"], [1 + place / 100 for place in range(20)])
    of = old.artifact("api")._asdict()

    async def read(after: str | None) -> tuple[list[Any], Pagination]:
        timeline = await get_timeline(database, TimelinePage(**of, limit=1000, after=after), with_groups=False)
        return timeline.events, timeline.pagination

    pages = await pages_of(read)
    assert [event.seq for page in pages for event in page] == sorted(event.seq for page in pages for event in page)
    assert {event.id for page in pages for event in page} == set(stored)
    assert [len(page) for page in pages] == [8, 8, 4]


async def test_a_page_of_receivers_ends_with_its_bytes(database: Database) -> None:
    stored = [await old.make_receiver(database, f"t{place}") for place in range(20)]
    async with database.connection() as connection:
        await connection.execute("update event_receivers set schema = $1", json.dumps({"title": TEXTS["random"]}))

    async def by_cursor(after: str | None) -> tuple[list[Any], Pagination]:
        page = await search_receivers(database, EventReceiverPage(limit=1000, after=EventReceiverId(after) if after else None))
        return page.data, page.pagination

    pages = await pages_of(by_cursor)
    assert [len(page) for page in pages] == [8, 8, 4]
    assert [receiver.id for page in pages for receiver in page] == sorted(stored, reverse=True)
    seen: list[str] = []
    while True:
        page = await search_receivers(database, EventReceiverPage(limit=1000, offset=len(seen)))
        assert (len(page.data) <= LARGE_ROWS_MAX, page.pagination.total) == (True, 20)
        seen += [receiver.id for receiver in page.data]
        if not page.pagination.has_more:
            break
    assert seen == sorted(stored, reverse=True)


async def test_a_page_of_groups_ends_with_its_bytes(database: Database) -> None:
    receiver = await old.make_receiver(database, "t")
    stored = [await old.make_group(database, [receiver], f"g{place}") for place in range(450)]
    async with database.connection() as connection:
        await connection.execute("update event_receiver_groups set description = repeat($1, 5000)", "\U0001f600")

    async def read(after: str | None) -> tuple[list[Any], Pagination]:
        page = await search_groups(database, EventReceiverGroupPage(limit=1000, after=EventReceiverGroupId(after) if after else None))
        return page.data, page.pagination

    pages = await pages_of(read)
    assert [group.id for page in pages for group in page] == sorted(stored, reverse=True)
    assert [len(page) for page in pages] == [419, 31]


async def test_receivers_in_memory_are_bounded_by_their_schemas(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = [EventReceiverId(await old.make_receiver(database, f"t{place}")) for place in range(6)]
    text = json.dumps({"title": "x" * 1000})
    async with database.connection() as connection:
        await connection.execute("update event_receivers set schema = $1", text)
    monkeypatch.setattr("xzepr.receivers.manage.KEPT_CHARS_MAX", 3 * len(text))
    assert KEPT_CHARS_MAX <= 64 << 20
    receivers = Receivers(database)
    for receiver_id in [*stored, *stored]:
        assert await receivers.get(receiver_id) is not None
    assert [receivers.kept(each) is not None for each in stored] == [False] * 3 + [True] * 3
    # One that is read anew, or dropped, is counted once.
    for _ in range(5):
        await receivers.reload(stored[5])
    receivers.forget(stored[4])
    await receivers.get(stored[0])
    assert [receivers.kept(each) is not None for each in stored] == [True, False, False, True, False, True]
    monkeypatch.setattr("xzepr.receivers.manage.KEPT_CHARS_MAX", 1)
    await receivers.get(stored[1])
    assert [receivers.kept(each) is not None for each in stored] == [False, True, False, False, False, False]


def test_the_bound_is_no_part_of_an_answer() -> None:
    assert {field.name for field in msgspec.structs.fields(Pagination)} == {"limit", "next", "has_more", "offset", "total"}
