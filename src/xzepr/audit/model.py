"""A row of the audit log, as a reader meets it."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from xzepr.fields import PAGE_LIMIT_DEFAULT, PageLimit, ShortText
from xzepr.ids import AuditId

# record.Outcome, written out: a list's parameter has no type of its own in the document.
Outcomes = Literal["success", "failure", "denied"]


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who did it, and how that was found out. id: null for the installation itself and for callers without credentials."""

    id: str | None
    name: str
    how: str


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One act. details: what else a reader needs, different for each act; address, request_id: of the request, null where there was none."""

    id: AuditId
    at: str
    actor: Actor
    act: str
    object_id: str | None
    outcome: Outcomes
    address: str | None
    request_id: str | None
    details: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]


class AuditPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Which rows to list; newest first. actor: id or name; act: as it stands, or with `*` at its end all that begin so.

    from: inclusive, to: exclusive; after: the cursor of the page before.
    """

    actor: ShortText | None = None
    act: ShortText | None = None
    outcome: Outcomes | None = None
    from_: datetime | None = None
    to: datetime | None = None
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    after: AuditId | None = None
