"""The read path of the audit log: a page of rows."""

import asyncpg
import msgspec

from xzepr import ids
from xzepr.audit.model import Actor, AuditPage, AuditRow
from xzepr.clock import rfc3339
from xzepr.db.conditions import Conditions
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.events.walk import newest_first
from xzepr.ids import AuditId
from xzepr.page import Page

queries = Queries("xzepr.audit")


async def search_acts(database: Database, page: AuditPage) -> Page[AuditRow]:
    """Newest first. One request looks at a bounded number of rows, so a page may be short while there is more."""
    conditions = _conditions(page)
    return await newest_first(
        database,
        conditions,
        queries["search_acts"],
        queries["search_acts_stop"],
        _row,
        lambda row: row.id,
        limit=page.limit,
        after=page.after,
        since=page.from_,
        to=page.to,
        is_filtered=conditions.has_filters,
    )


def _conditions(page: AuditPage) -> Conditions:
    """One index walks: the actor's, else the act's; what no index has is checked on the way."""
    conditions = Conditions()
    by_actor = page.actor is not None and ids.is_ulid(page.actor)
    if page.actor is not None and by_actor:
        conditions.walk("actor_id = ", page.actor.upper())
    else:
        conditions.filter("actor_name = ", page.actor)
    if page.act is not None and page.act.endswith("*"):
        conditions.filter("act ^@ ", page.act.removesuffix("*"))
    elif by_actor:
        conditions.filter("act = ", page.act)
    else:
        conditions.walk("act = ", page.act)
    conditions.filter("outcome = ", page.outcome)
    return conditions


def _row(row: asyncpg.Record) -> AuditRow:
    return AuditRow(
        id=AuditId(row["id"]),
        at=rfc3339(row["at"]),
        actor=Actor(id=row["actor_id"], name=row["actor_name"], how=row["actor_kind"]),
        act=row["act"],
        object_id=row["object_id"],
        outcome=row["outcome"],
        address=row["address"],
        request_id=row["request_id"],
        details=msgspec.Raw(row["details"].encode()),
    )
