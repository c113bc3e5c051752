"""Lists of what events show, newest first, at the price of a page however many months are stored.

A partitioned table in the order of ids is read by looking into every month at once, forty of them. What is asked for lies in the newest ones most of
the time: so a page looks at this month first, then at the few before it, and only then at all others. Each look walks one index and at no more than
SCAN_ROWS_MAX rows. Source: DESIGN §6.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final, TypeVar

import asyncpg

from xzepr import clock, ids
from xzepr.db.conditions import Conditions
from xzepr.db.pool import Database
from xzepr.page import Page, Pagination, was_cut

Item = TypeVar("Item")
# Comparisons with their ids, as Conditions takes them.
Bounds = list[tuple[str, str]]

# Beyond it a page comes back short, with has_more true.
SCAN_ROWS_MAX: Final = 50_000
# How many months back the looks after the first one begin; behind the last of them lies the rest.
_LOOKS_MONTHS: Final = (0, 3)


async def newest_first(
    database: Database,
    conditions: Conditions,
    find: str,
    stop: str,
    make: Callable[[asyncpg.Record], Item],
    cursor: Callable[[Item], str],
    *,
    limit: int,
    after: str | None,
    since: datetime | None = None,
    to: datetime | None = None,
    is_filtered: bool,
    is_narrow: bool = False,
    bytes_max: int | None = None,
) -> Page[Item]:
    """One page of one moment. conditions: those of the caller, without the range of ids; find, stop: statements, which db/conditions.py fills in.

    cursor: of an item, the id of its event. after: the id below which, since, to: the moments from and before which one looks. is_filtered: whether a
    row that is walked may be passed over. is_narrow: the index leads to a handful of rows, wherever they lie: one look. bytes_max: of the page, where
    the rows can be large; the statement then takes it, as page.py has it, and tells of each row how much stands before it.
    """
    rows: list[asyncpg.Record] = []
    cut = False
    stopped_at: str | None = None
    oldest = ids.lowest_at(since) if since is not None else None
    newest = ids.lowest_at(to) if to is not None else None
    upper: Bounds = [("id < ", bound) for bound in (after, newest) if bound is not None]
    async with database.transaction(snapshot=True) as connection:
        for bounds in _looks(upper, oldest, () if is_narrow else _LOOKS_MONTHS):
            look = conditions.with_walk(*bounds)
            bounded = () if bytes_max is None else (bytes_max,)
            seen = await connection.fetch(look.sql(find), *look.values, limit + 1 - len(rows), SCAN_ROWS_MAX, *bounded)
            rows += seen
            if len(rows) > limit:
                break
            if bytes_max is not None and seen:
                cut = was_cut(seen)
                if cut:
                    break
                # What its last row holds is not counted: a look more may add a row more.
                bytes_max = max(bytes_max - seen[-1]["bytes_before"], 1)
            if is_filtered:
                stopped_at = await connection.fetchval(look.sql(stop, walk_only=True), *look.walk_values, SCAN_ROWS_MAX - 1)
                if stopped_at is not None:
                    break
    found = Page.of([make(row) for row in rows], limit, cursor, cut=cut)
    if found.pagination.has_more or stopped_at is None:
        return found
    return Page(data=found.data, pagination=Pagination(limit=limit, next=stopped_at, has_more=True))


def _looks(upper: Bounds, oldest: str | None, months: Sequence[int]) -> Iterator[Bounds]:
    """One after the other, together the whole range. months: how far back each but the last begins."""
    newest = min([ids.lowest_at(clock.now()), *(bound for _, bound in upper)])
    begin_at = _month_of(ids.time_of(newest))
    for back in months:
        edge = ids.lowest_at(_months_before(begin_at, back))
        if oldest is not None and edge <= oldest:
            break
        yield [*upper, ("id >= ", edge)]
        upper = [("id < ", edge)]
    yield upper if oldest is None else [*upper, ("id >= ", oldest)]


def _month_of(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _months_before(month: datetime, count: int) -> datetime:
    """The first one there is, when there are no so many."""
    months = max(month.year * 12 + month.month - 1 - count, 1970 * 12)
    return month.replace(year=months // 12, month=months % 12 + 1)
