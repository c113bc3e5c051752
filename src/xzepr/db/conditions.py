"""Conditions that are put into a statement: those that an index walks, and those that are checked on the way.

A statement says where: `true /* walk */` in its inner part (alias w), `true /* filters */` in its outer part (alias e). Its own parameters are
numbered as if there were no others, and move behind those of the conditions. Columns and operators come from our code, values only as parameters.
"""

import re
from typing import Any


class Conditions:
    """Of one search, in the order in which they were given."""

    def __init__(self) -> None:
        self._walk: list[tuple[str, Any]] = []
        self._filters: list[tuple[str, Any]] = []
        self._sorts = False

    def walk(self, comparison: str, value: Any) -> None:
        """comparison: such as "name = ". None: no condition."""
        if value is not None:
            self._walk.append((comparison, value))

    def sort(self) -> None:
        """The walk's index is not in the order of ids: what it finds is sorted. Else the planner may walk the ids instead, over everything."""
        self._sorts = True

    def filter(self, comparison: str, value: Any) -> None:
        """As walk(), checked on the way."""
        if value is not None:
            self._filters.append((comparison, value))

    def with_walk(self, *walk: tuple[str, Any]) -> "Conditions":
        """Others, with these to walk besides."""
        made = Conditions()
        made._walk, made._filters, made._sorts = [*self._walk, *walk], self._filters, self._sorts
        return made

    @property
    def has_filters(self) -> bool:
        """Whether a row that is walked may be passed over."""
        return bool(self._filters)

    @property
    def walk_values(self) -> list[Any]:
        """Parameters of a statement with the walk alone."""
        return [value for _, value in self._walk]

    @property
    def values(self) -> list[Any]:
        """Parameters of a statement with both."""
        return self.walk_values + [value for _, value in self._filters]

    def sql(self, statement: str, *, walk_only: bool = False) -> str:
        """The statement with the conditions in it."""
        before = len(self.walk_values if walk_only else self.values)
        own = re.sub(r"\$(\d+)", lambda match: f"${int(match[1]) + before}", statement)
        walk = [f"w.{comparison}${place}" for place, (comparison, _) in enumerate(self._walk, start=1)]
        filters = [f"e.{comparison}${place}" for place, (comparison, _) in enumerate(self._filters, start=len(walk) + 1)]
        if self._sorts:
            own = own.replace("order by w.id desc", "order by w.id || '' desc")
        return own.replace("true /* walk */", " and ".join(walk) or "true").replace("true /* filters */", " and ".join(filters) or "true")
