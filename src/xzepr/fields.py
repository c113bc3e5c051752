"""Bounds of the text fields that every door takes. Source: contract `rest.md`, "Objects". NUL is refused for the whole body."""

from typing import Annotated

from msgspec import Meta

from xzepr.nvrpp import FIELD_MAX_CHARS

DESCRIPTION_MAX_CHARS = 5000

# Characters, not bytes; at least one that is no white space.
ShortText = Annotated[str, Meta(min_length=1, max_length=FIELD_MAX_CHARS, pattern=r"\S")]
Description = Annotated[str, Meta(max_length=DESCRIPTION_MAX_CHARS)]
PageLimit = Annotated[int, Meta(ge=1, le=1000)]
PageOffset = Annotated[int, Meta(ge=0, le=1_000_000)]
PAGE_LIMIT_DEFAULT = 50
