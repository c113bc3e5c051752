"""Named SQL: every statement stands in a `queries.sql` beside the code that runs it, under a line `-- name: what_it_does`.

Loaded once, when the module that owns it is imported; an unknown or repeated name is an error at that moment, not at the first request.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final

_NAME: Final = re.compile(r"^-- name: ([a-z][a-z0-9_]*)[ \t]*$", re.MULTILINE)
# The rooms that own a queries.sql. A test prepares all of them on the migrated schema.
ROOMS: Final = tuple(f"xzepr.{room}" for room in ("db", "events", "artifacts", "receivers", "groups", "stream", "retention", "auth", "audit"))


class Queries:
    """The statements of one room: `queries["find_events"]`."""

    def __init__(self, room: str) -> None:
        self.room = room
        self._sql = split_named(files(room).joinpath("queries.sql").read_text("utf-8"), room)

    def __getitem__(self, name: str) -> str:
        try:
            return self._sql[name]
        except KeyError:
            raise LookupError(f"{self.room}/queries.sql has no statement named {name!r}") from None

    def all(self) -> Mapping[str, str]:
        """Name to statement."""
        return MappingProxyType(self._sql)


def split_named(text: str, where: str) -> dict[str, str]:
    """Name to statement, without the lines before the first name. Raises ValueError for a name given twice or an empty statement."""
    pieces = _NAME.split(text)
    named: dict[str, str] = {}
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        statement = body.strip()
        if name in named or not statement:
            raise ValueError(f"{where}: statement {name!r} is empty or stands there twice")
        named[name] = statement
    return named
