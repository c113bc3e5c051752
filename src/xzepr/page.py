"""Lists: a page and the cursor of the next. Source: contract `rest.md`, "Lists"."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Self, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from xzepr.errors import InvalidInput

Item = TypeVar("Item")

# Of payloads, schemas and descriptions on one page; the row that goes beyond it is the last one. `limit` counts rows, which may have a megabyte each.
# The statement of a list cuts the page, so that PostgreSQL does not send what is left off: it takes the bytes as a parameter, and each row tells by
# `followed` whether a row of this page comes behind it. What is stored uncompressed is not read to be counted.
PAGE_BYTES_MAX: Final = 8 << 20


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
        *,
        cut: bool = False,
    ) -> Self:
        """From up to limit + 1 rows: the one too many only tells that there is more. cut: there is more, although the rows are fewer."""
        shown = rows[:limit]
        has_more = cut or len(rows) > limit
        after = cursor(shown[-1]) if has_more else None
        return cls(data=shown, pagination=Pagination(limit=limit, next=after, has_more=has_more, offset=offset, total=total))


def was_cut(rows: Sequence[Any]) -> bool:
    """Whether the bytes of a page were used up before its rows."""
    return bool(rows) and rows[-1]["followed"]


def require_one_way(after: str | None, offset: int | None) -> None:
    """Raises InvalidInput when both ways of paging are used at once."""
    if after is not None and offset is not None:
        raise InvalidInput.at("?offset", "goes without after: a list is paged in one way")


class Created(msgspec.Struct, frozen=True):
    """The id of what was made."""

    data: str
