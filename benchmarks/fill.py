"""What is stored before anything is measured: definitions through the API, events by set-based SQL.

Five events an artifact, one of each receiver; the first three receivers make the group. A hundred events a name until there are 1,000 names. The
events lie evenly over 36 monthly partitions, the last of which is this month, with their heads; nothing is left in the outbox. Their numbers are
those of imports.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import httpx2
import msgspec

from xzepr.db.pool import Database
from xzepr.events.partitions import ensure_partitions
from xzepr.nvrpp import Nvrpp

MONTHS: Final = 36
EVENTS_PER_ARTIFACT: Final = 5
RECEIVERS: Final = ("build", "scan", "test", "sign", "stage")
GROUP: Final = RECEIVERS[:3]
RELEASE, PLATFORM_ID, PACKAGE = "2026.11", "x86-64-oci-linux", "oci"
_ROWS_PER_STATEMENT: Final = 250_000
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Twelve constraints and more; every payload of the benchmark meets them.
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["build", "url", "digest", "started_at", "result", "passed", "failed", "labels"],
    "additionalProperties": False,
    "properties": {
        "build": {"type": "integer", "minimum": 0},
        "url": {"type": "string", "minLength": 8, "maxLength": 200, "pattern": "^https://"},
        "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
        "started_at": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$"},
        "result": {"enum": ["passed", "failed", "skipped"]},
        "passed": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
        "failed": {"type": "integer", "minimum": 0},
        "labels": {"type": "array", "minItems": 1, "maxItems": 8, "uniqueItems": True, "items": {"type": "string", "minLength": 1}},
    },
}
PAYLOAD: Final[dict[str, Any]] = {
    "build": 812,
    "url": "https://ci.example.com/job/812",
    "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "started_at": "2026-11-02T08:15:30Z",
    "result": "passed",
    "passed": 812,
    "failed": 0,
    "labels": ["unit", "linux"],
}
PAYLOAD_TEXT: Final = msgspec.json.encode(PAYLOAD).decode()


@dataclass(frozen=True)
class Definitions:
    """receiver_ids: in the order of RECEIVERS."""

    receiver_ids: list[str]
    group_id: str

    @property
    def grouped(self) -> list[str]:
        """Receivers of the group of three."""
        return self.receiver_ids[: len(GROUP)]

    @property
    def lone(self) -> str:
        """A receiver in no group."""
        return self.receiver_ids[-1]


@dataclass(frozen=True)
class Stored:
    """One event that was filled in."""

    id: str
    nvrpp: Nvrpp


def event_count(size: str) -> int:
    """Of "10k", "1m". Raises ValueError for anything else."""
    unit = {"k": 1_000, "m": 1_000_000}.get(size[-1:])
    if unit is None or not size[:-1].isdigit() or int(size[:-1]) < 1:
        raise ValueError(f"{size!r} is no size; write 10k or 1m")
    return int(size[:-1]) * unit


def define(port: int) -> Definitions:
    """Five receivers with the same schema, and a group of the first three."""
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30) as http:

        def created(what: str, body: dict[str, Any]) -> str:
            answer = http.post(f"/{what}", json=body)
            if answer.status_code != 201:
                raise RuntimeError(f"POST /{what}: {answer.status_code} {answer.text}")
            return str(answer.json()["data"])

        ids = [
            created("receivers", {"name": name, "type": f"com.example.{name}.finished", "version": "1.0.0", "schema": SCHEMA}) for name in RECEIVERS
        ]
        group = {"name": "release", "type": "com.example.release.approved", "version": "1.0.0", "event_receiver_ids": ids[: len(GROUP)]}
        return Definitions(ids, created("groups", group))


async def fill(url: str, definitions: Definitions, count: int, now: datetime) -> None:
    """Store `count` events, a multiple of EVENTS_PER_ARTIFACT, in the months that end with this one."""
    first = _month(now, MONTHS - 1)
    await _make_partitions(url, now)
    connection = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
    try:
        first_ms = int(first.timestamp() * 1000)
        span_ms = int(now.timestamp() * 1000) - 1000 - first_ms
        for low in range(0, count, _ROWS_PER_STATEMENT):
            high = min(low + _ROWS_PER_STATEMENT, count) - 1
            await connection.execute(
                _INSERT_EVENTS, low, high, first_ms, span_ms, count, names_of(count), PAYLOAD_TEXT, definitions.receiver_ids, timeout=600
            )
        await connection.execute(_INSERT_HEADS, timeout=1200)
        await connection.execute("vacuum analyze", timeout=1200)
    finally:
        await connection.close()


def names_of(count: int) -> int:
    """How many names the artifacts of `count` events have: a page of 50 with a filter by name is full at every size."""
    return max(1, min(1_000, count // 100))


def stored_nvrpp(number: int, count: int) -> Nvrpp:
    """The artifact of event `number` among `count`; the same as the SQL makes."""
    artifact, names = number // EVENTS_PER_ARTIFACT, names_of(count)
    return Nvrpp(f"service-{artifact % names:04}", f"1.{artifact // names}.0", RELEASE, PLATFORM_ID, PACKAGE)


async def sample(url: str, count: int, wanted: int = 1_000) -> list[Stored]:
    """Events from all months, in no order."""
    numbers = random.Random(count).sample(range(count), min(wanted, count))  # noqa: S311  the same ones each time
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("select e.seq, e.id from events e where e.seq = any($1)", [number + 1 for number in numbers], timeout=600)
    finally:
        await connection.close()
    ids = {row["seq"] - 1: row["id"] for row in rows}
    return [Stored(ids[number], stored_nvrpp(number, count)) for number in numbers]


async def fill_outbox(url: str, definitions: Definitions, count: int) -> None:
    """`count` new events that wait for the sequencer; a third of them in the group of three. None may be running."""
    connection = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
    try:
        await connection.execute(_INSERT_FACTS, count, PAYLOAD_TEXT, definitions.grouped, definitions.lone, timeout=600)
        await connection.execute("vacuum analyze outbox")
    finally:
        await connection.close()


async def _make_partitions(url: str, now: datetime) -> None:
    database = await Database(url, connections_min=1, connections_max=2, connect_timeout_s=30).open()
    try:
        for back in range(MONTHS):
            await ensure_partitions(database, _month(now, back))
    finally:
        await database.close()


def _month(now: datetime, back: int) -> datetime:
    months = now.year * 12 + now.month - 1 - back
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def _ulid(ms: str, number: str) -> str:
    """SQL for a ULID of that millisecond. Hexadecimal digits are digits of base 32, too."""
    digits = " || ".join(f"substr('{_ALPHABET}', ({ms} >> {shift} & 31)::int + 1, 1)" for shift in range(45, -1, -5))
    return f"{digits} || upper(substr(md5({number}::text), 1, 16))"


def _artifact_id(source: str) -> str:
    """SQL for the first half of SHA-256 over the five fields, each behind its length in four bytes. All of them are ASCII here."""
    parts = " || ".join(f"int4send(length({field})) || convert_to({field}, 'UTF8')" for field in (f"{source}.name", f"{source}.version", *_FIXED))
    return f"substr(sha256({parts}), 1, 16)"


_FIXED: Final = tuple(f"'{text}'::text" for text in (RELEASE, PLATFORM_ID, PACKAGE))
_COLUMNS: Final = (
    "id, seq, artifact_id, name, version, release, platform_id, package, description, payload, success, "
    "event_receiver_id, event_receiver_version, created_at"
)
# $1, $2 numbers; $3, $4 first millisecond and span; $5 count; $6 names; $7 payload; $8 receivers.
_INSERT_EVENTS: Final = f"""
insert into events ({_COLUMNS})
select {_ulid("f.ms", "f.n")}, f.n + 1, {_artifact_id("f")}, f.name, f.version, {", ".join(_FIXED)}, 'build ' || f.n, $7::text::json, true,
    ($8::text[])[f.n % {EVENTS_PER_ARTIFACT} + 1], 1, to_timestamp(f.ms / 1000.0)
from (
    select g.n, $3::bigint + g.n * $4::bigint / $5::bigint as ms,
        'service-' || lpad((g.n / {EVENTS_PER_ARTIFACT} % $6::int)::text, 4, '0') as name,
        '1.' || (g.n / {EVENTS_PER_ARTIFACT} / $6::int) || '.0' as version
    from generate_series($1::bigint, $2::bigint) as g (n)
) f
"""  # noqa: S608  all of it is our own
# Each artifact has one event of each receiver, so every event is a head.
_INSERT_HEADS: Final = """
insert into gate_heads (artifact_id, event_receiver_id, event_id, seq, success)
select e.artifact_id, e.event_receiver_id, e.id, e.seq, e.success from events e
"""
# $1 count; $2 payload; $3 receivers of the group; $4 another receiver. Of nine events in a row the first three complete a group.
_INSERT_FACTS: Final = f"""
with facts as (
    select f.*, nextval('fact_seq') as seq, (extract(epoch from clock_timestamp()) * 1000)::bigint as ms
    from (
        select g.n, 'queued-' || lpad((g.n / 9 % 1000)::text, 4, '0') as name,
            '1.' || (g.n / 9000) || case when g.n % 9 < 3 then '.0' else '.1' end as version,
            case when g.n % 9 < 3 then ($3::text[])[g.n % 9 + 1] else $4 end as event_receiver_id
        from generate_series(0, $1::bigint - 1) as g (n)
        order by g.n
    ) f
), stored as (
    insert into events ({_COLUMNS})
    select {_ulid("f.ms", "f.seq")}, f.seq, {_artifact_id("f")}, f.name, f.version, {", ".join(_FIXED)}, '', $2::text::json, true,
        f.event_receiver_id, 1, to_timestamp(f.ms / 1000.0)
    from facts f
    returning seq, artifact_id, id, event_receiver_id
)
insert into outbox (seq, kind, artifact_id, event_id, event_receiver_id, event_receiver_version, success)
select s.seq, 'event.recorded', s.artifact_id, s.id, s.event_receiver_id, 1, true from stored s
"""  # noqa: S608  all of it is our own
