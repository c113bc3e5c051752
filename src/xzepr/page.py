"""Lists: a page and the cursor of the next. Source: contract `rest.md`, "Lists"."""

from collections.abc import Callable
from typing import Generic, Self, TypeVar

import msgspec

Item = TypeVar("Item")


class Pagination(msgspec.Struct, frozen=True, kw_only=True):
    """next: the `after` of the next page, null on the last one. A page may be short while has_more is true."""

    limit: int
    next: str | None
    has_more: bool


class Page(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """One page of a list."""

    data: list[Item]
    pagination: Pagination

    @classmethod
    def of(cls, rows: list[Item], limit: int, cursor: Callable[[Item], str]) -> Self:
        """From up to limit + 1 rows: the one too many only tells that there is more."""
        shown = rows[:limit]
        has_more = len(rows) > limit
        return cls(data=shown, pagination=Pagination(limit=limit, next=cursor(shown[-1]) if has_more else None, has_more=has_more))


class Created(msgspec.Struct, frozen=True):
    """The id of what was made."""

    data: str
