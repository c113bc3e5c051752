"""Events of long ago, as years of use would have left them: rows with old ids, queued for the sequencer or not, in the months that they belong to."""

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta

from xzepr import clock, ids
from xzepr.db.pool import Database
from xzepr.events.partitions import ensure_partitions
from xzepr.ids import EventReceiverId
from xzepr.nvrpp import Nvrpp
from xzepr.stream.lead import Lead
from xzepr.stream.sequencer import Sequencer

NOW = clock.now()
_numbers = itertools.count(1)


def artifact(name: str) -> Nvrpp:
    return Nvrpp(name, "1.4.2", "2026.11", "x86-64-oci-linux", "oci")


async def make_receiver(database: Database, kind: str) -> str:
    made = ids.mint(EventReceiverId)
    async with database.transaction() as connection:
        await connection.execute(
            """insert into event_receivers (id, name, type, version, description, schema, default_draft, fingerprint, restricted,
                resource_version, created_at, updated_at)
            values ($1, $2, $2, '1', '', '{}', '2020-12', 'f', false, 1, $3, $3)""",
            made,
            kind,
            NOW,
        )
        await connection.execute(
            """insert into event_receiver_versions (event_receiver_id, resource_version, seq, name, type, version, description, schema,
                default_draft, fingerprint, restricted, deleted, created_at, updated_at)
            values ($1, 1, nextval('fact_seq'), $2, $2, '1', '', '{}', '2020-12', 'f', false, false, $3, $3)""",
            made,
            kind,
            NOW,
        )
    return made


async def make_group(database: Database, receiver_ids: Sequence[str], name: str = "release") -> str:
    made = ids.mint(ids.EventReceiverGroupId)
    async with database.transaction() as connection:
        await connection.execute(
            """insert into event_receiver_groups (id, name, type, version, description, enabled, event_receiver_ids, resource_version,
                created_at, updated_at) values ($1, $2, 'released', '1', '', true, $3, 1, $4, $4)""",
            made,
            name,
            list(receiver_ids),
            NOW,
        )
        seq = await connection.fetchval(
            """insert into event_receiver_group_versions (event_receiver_group_id, resource_version, seq, name, type, version, description,
                enabled, event_receiver_ids, deleted, created_at, updated_at)
            values ($1, 1, nextval('fact_seq'), $2, 'released', '1', '', true, $3, false, $4, $4) returning seq""",
            made,
            name,
            list(receiver_ids),
            NOW,
        )
        await connection.execute(
            "insert into outbox (seq, kind, event_receiver_group_id, event_receiver_group_version) values ($1, 'group.created', $2, 1)", seq, made
        )
    return made


def old_id(moment: datetime) -> str:
    """Every call another."""
    return ids.lowest_at(moment)[:10] + f"{next(_numbers):016}"


async def store(
    database: Database,
    receiver_id: str,
    days: float,
    *,
    count: int = 1,
    name: str = "api",
    success: bool = True,
    queued: bool = False,
    owner: str | None = None,
) -> list[str]:
    """Events of so many days ago, in order; in their months."""
    moment = NOW - timedelta(days=days)
    made = [old_id(moment) for _ in range(count)]
    of = artifact(name)
    async with database.transaction() as connection:
        for each in made:
            seq = await connection.fetchval(
                """insert into events (id, seq, artifact_id, name, version, release, platform_id, package, description, payload, success,
                    event_receiver_id, event_receiver_version, owner_id, created_at)
                values ($1, nextval('fact_seq'), $2, $3, $4, $5, $6, $7, 'long ago', '{"n": 1}', $8, $9, 1, $10, $11) returning seq""",
                each,
                of.artifact_id,
                *of,
                success,
                receiver_id,
                owner,
                moment,
            )
            if queued:
                await connection.execute(
                    """insert into outbox (seq, kind, artifact_id, event_id, event_receiver_id, event_receiver_version, success)
                    values ($1, 'event.recorded', $2, $3, $4, 1, $5)""",
                    seq,
                    of.artifact_id,
                    each,
                    receiver_id,
                    success,
                )
    await ensure_partitions(database, NOW)
    return made


async def sequence(database: Database) -> None:
    """All that is queued, as the relay would."""
    lead = Lead(database, ids.mint(EventReceiverId))
    async with database.connection() as connection:
        await connection.execute("update sequencer set expires_at = '-infinity'")
    await lead._acquire()
    assert lead.epoch is not None
    while await Sequencer(database, lead).step(lead.epoch):
        pass


async def age_stream(database: Database, days: float) -> None:
    """As if everything in it had been sequenced so many days ago."""
    async with database.connection() as connection:
        await connection.execute("update stream set sequenced_at = $1", NOW - timedelta(days=days))


async def events_left(database: Database) -> set[str]:
    async with database.connection() as connection:
        return {row["id"] for row in await connection.fetch("select e.id from events e")}


async def value(database: Database, sql: str, *values: object) -> object:
    async with database.connection() as connection:
        return await connection.fetchval(sql, *values)
