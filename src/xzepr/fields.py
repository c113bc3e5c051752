"""Bounds of the text fields that every door takes, and the settings. Source: contract `rest.md`, "Objects". NUL is refused for the whole body."""

from typing import Annotated

from msgspec import Meta

from xzepr.nvrpp import FIELD_MAX_CHARS

DESCRIPTION_MAX_CHARS = 5000

# Characters, not bytes; at least one that is no white space.
ShortText = Annotated[str, Meta(min_length=1, max_length=FIELD_MAX_CHARS, pattern=r"\S")]
Description = Annotated[str, Meta(max_length=DESCRIPTION_MAX_CHARS)]
# What can be told from other names by looking at it. The end of a pattern: without the last part Python takes a line's end for it.
Username = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$(?!\n)")]
PageLimit = Annotated[int, Meta(ge=1, le=1000)]
PageOffset = Annotated[int, Meta(ge=0, le=1_000_000)]
PAGE_LIMIT_DEFAULT = 50
