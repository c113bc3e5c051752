"""Lists: a page and the cursor of the next. Source: contract `rest.md`, "Lists"."""

from collections.abc import Callable
from typing import Generic, Self, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from xzepr.errors import InvalidInput

Item = TypeVar("Item")


class Pagination(msgspec.Struct, frozen=True, kw_only=True):
    """next: the `after` of the next page, null on the last one. A page may be short while has_more is true.

    offset, total: where a list was asked for by offset.
    """

    limit: int
    next: str | None
    has_more: bool
    offset: int | UnsetType = UNSET
    total: int | UnsetType = UNSET


class Page(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """One page of a list."""

    data: list[Item]
    pagination: Pagination

    @classmethod
    def of(
        cls,
        rows: list[Item],
        limit: int,
        cursor: Callable[[Item], str],
        offset: int | UnsetType = UNSET,
        total: int | UnsetType = UNSET,
    ) -> Self:
        """From up to limit + 1 rows: the one too many only tells that there is more."""
        shown = rows[:limit]
        has_more = len(rows) > limit
        after = cursor(shown[-1]) if has_more else None
        return cls(data=shown, pagination=Pagination(limit=limit, next=after, has_more=has_more, offset=offset, total=total))


def require_one_way(after: str | None, offset: int | None) -> None:
    """Raises InvalidInput when both ways of paging are used at once."""
    if after is not None and offset is not None:
        raise InvalidInput.at("?offset", "goes without after: a list is paged in one way")


class Created(msgspec.Struct, frozen=True):
    """The id of what was made."""

    data: str
