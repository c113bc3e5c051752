"""Lists of what events show, newest first, at the price of a page however many months are stored.

A partitioned table in the order of ids is read by looking into every month at once, forty of them. What is asked for lies in the newest ones most of
the time: so a page looks at this month first, then at the few before it, and only then at all others. Each look walks one index and at no more than
SCAN_ROWS_MAX rows. Source: DESIGN §6.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeVar

import asyncpg

from xzepr import clock, ids
from xzepr.db.conditions import Conditions
from xzepr.db.pool import Database
from xzepr.page import Page, Pagination

Item = TypeVar("Item")

# Beyond it a page comes back short, with has_more true.
SCAN_ROWS_MAX: Final = 50_000
# How many months back the looks after the first one begin; behind the last of them lies the rest.
_LOOKS_MONTHS: Final = (0, 3)


class Walk:
    """What is walked. conditions: those of the caller, without the range of ids; find, stop: statements, which db/conditions.py fills in.

    after, oldest, to: ids; below, from and below which one looks. is_filtered: whether a row that is walked may be passed over.
    is_narrow: the index leads to a handful of rows, wherever they lie: one look.
    """

    def __init__(
        self,
        conditions: Conditions,
        find: str,
        stop: str,
        *,
        after: str | None,
        oldest: str | None = None,
        to: str | None = None,
        is_filtered: bool,
        is_narrow: bool = False,
    ) -> None:
        self._conditions = conditions
        self._find = find
        self._stop = stop
        self._after = after
        self._oldest = oldest
        self._to = to
        self._is_filtered = is_filtered
        self._looks_months = () if is_narrow else _LOOKS_MONTHS

    async def page(self, database: Database, limit: int, make: Callable[[asyncpg.Record], Item], cursor: Callable[[Item], str]) -> Page[Item]:
        """One page of one moment. cursor: of an item, the id of its event."""
        rows: list[asyncpg.Record] = []
        stopped_at: str | None = None
        async with database.transaction(snapshot=True) as connection:
            for conditions in self._looks():
                rows += await connection.fetch(conditions.sql(self._find), *conditions.values, limit + 1 - len(rows), SCAN_ROWS_MAX)
                if len(rows) > limit:
                    break
                if self._is_filtered:
                    statement = conditions.sql(self._stop, walk_only=True)
                    stopped_at = await connection.fetchval(statement, *conditions.walk_values, SCAN_ROWS_MAX - 1)
                    if stopped_at is not None:
                        break
        found = Page.of([make(row) for row in rows], limit, cursor)
        if found.pagination.has_more or stopped_at is None:
            return found
        return Page(data=found.data, pagination=Pagination(limit=limit, next=stopped_at, has_more=True))

    def _looks(self) -> list[Conditions]:
        """One after the other, together the whole range."""
        upper: list[tuple[str, Any]] = [("id < ", bound) for bound in (self._after, self._to) if bound is not None]
        begin_at = _month_of(ids.time_of(min([ids.lowest_at(clock.now()), *(bound for _, bound in upper)])))
        looks = []
        for back in self._looks_months:
            edge = ids.lowest_at(_months_before(begin_at, back))
            if self._oldest is not None and edge <= self._oldest:
                break
            looks.append(self._conditions.with_walk(*upper, ("id >= ", edge)))
            upper = [("id < ", edge)]
        lower = [("id >= ", self._oldest)] if self._oldest is not None else []
        return [*looks, self._conditions.with_walk(*upper, *lower)]


def _month_of(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _months_before(month: datetime, count: int) -> datetime:
    """The first one there is, when there are no so many."""
    months = max(month.year * 12 + month.month - 1 - count, 1970 * 12)
    return month.replace(year=months // 12, month=months % 12 + 1)
