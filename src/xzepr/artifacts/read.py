"""What artifacts there are, and what happened to one."""

from typing import Any, Final

import asyncpg
import msgspec

from xzepr import ids
from xzepr.artifacts.model import ArtifactPage, Timeline, TimelineEvent, TimelinePage, TouchedArtifact
from xzepr.clock import rfc3339
from xzepr.db.conditions import Conditions
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import InvalidInput
from xzepr.events.walk import newest_first
from xzepr.groups.status import queries as group_queries
from xzepr.groups.status import statuses_of
from xzepr.page import PAGE_BYTES_MAX, Page, was_cut

queries = Queries("xzepr.artifacts")

# An artifact with events for more groups than this shows the newest of them.
GROUPS_MAX: Final = 100


async def search_artifacts(database: Database, page: ArtifactPage) -> Page[TouchedArtifact]:
    """The most recently touched first."""
    # Of an artifact only its newest event is shown: any row may be passed over.
    return await newest_first(
        database,
        _conditions(page),
        queries["search_artifacts"],
        queries["search_artifacts_stop"],
        _touched,
        lambda artifact: artifact.last_event_id,
        limit=page.limit,
        after=page.after,
        is_filtered=True,
    )


async def get_timeline(database: Database, page: TimelinePage, *, with_groups: bool) -> Timeline:
    """Events and groups in one snapshot. An artifact that nobody posted about has an empty timeline. Raises InvalidInput for a wrong cursor."""
    artifact = page.artifact.nvrpp
    after = _seq(page.after)
    async with database.transaction(snapshot=True) as connection:
        rows = await connection.fetch(queries["timeline"], artifact.artifact_id, *artifact, after, page.limit + 1, PAGE_BYTES_MAX)
        groups = None
        if with_groups:
            group_ids = await connection.fetch(group_queries["groups_of_artifact"], artifact.artifact_id, GROUPS_MAX)
            groups = await statuses_of(connection, [row["id"] for row in group_ids], artifact)
    found = Page.of([_event(row) for row in rows], page.limit, lambda event: str(event.seq), cut=was_cut(rows))
    return Timeline(artifact=page.artifact, events=found.data, groups=groups, pagination=found.pagination)


def _conditions(page: ArtifactPage) -> Conditions:
    conditions = Conditions()
    if page.name is not None:
        conditions.walk("name = ", page.name)
    if page.name_prefix is not None:
        # The index on names is of text patterns, which these two operators use.
        conditions.walk("name ~>=~ ", page.name_prefix)
        if (end := _behind(page.name_prefix)) is not None:
            conditions.walk("name ~<~ ", end)
        conditions.sort()
    for field in ("version", "release", "platform_id", "package"):
        conditions.filter(f"{field} = ", getattr(page, field))
    return conditions


def _behind(prefix: str) -> str | None:
    """The least text behind all that begin with the prefix, in the order of code points; None: there is none."""
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    # Surrogates are no characters of a text.
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)


def _seq(after: str | None) -> int | None:
    if after is None:
        return None
    if not (after.isascii() and after.isdigit() and len(after) <= 18):
        raise InvalidInput.at("?after", "is not a cursor of this list")
    return int(after)


def _touched(row: Any) -> TouchedArtifact:
    fields = {field: row[field] for field in ("name", "version", "release", "platform_id", "package")}
    return TouchedArtifact(**fields, last_event_id=row["id"], last_event_at=rfc3339(ids.time_of(row["id"])))


def _event(row: asyncpg.Record) -> TimelineEvent:
    fields: dict[str, Any] = dict(row)
    fields.pop("followed")
    fields["payload"] = msgspec.Raw(fields["payload"].encode())
    fields["created_at"] = rfc3339(fields["created_at"])
    return TimelineEvent(**fields)
