"""The rows: each measures XZepr and its bare counterpart in turn, several rounds of each, so that what disturbs the machine meets both.

Reads come before writes, since writes change how much is stored. Every answer is checked by the load; after each round of posts the rows in the
database are counted: one too many or too few is an error.
"""

import asyncio
import re
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import asyncpg
import msgspec

from benchmarks import bare, requests
from benchmarks.credentials import key_line, token_line
from benchmarks.fill import EVENTS_PER_ARTIFACT, PACKAGE, PAYLOAD_TEXT, PLATFORM_ID, RELEASE, fill_outbox
from benchmarks.load import Outcome, Plan, run_load
from benchmarks.plain import PlainPlan, run_plain
from benchmarks.report import CREDENTIALS, Row, percentile
from benchmarks.server import running
from benchmarks.stage import Stage, workers

READ_CONNECTIONS: Final = 16
BATCH_CONNECTIONS: Final = 2
SSE_CONNECTIONS: Final = 32
SSE_RATE: Final = 500.0
SEQUENCER_S: Final = 300.0
CREDENTIAL_PAIRS: Final = 5
_EVENT: Final = (
    "e.id, e.seq, e.name, e.version, e.release, e.platform_id, e.package, e.description, e.payload, e.success, "
    "e.event_receiver_id, e.event_receiver_version, e.owner_id, e.created_at"
)
# The plain counterparts of the reads.
_GET: Final = f"select {_EVENT} from events e where e.id = $1"  # noqa: S608
_LIST: Final = f"select {_EVENT} from events e order by e.id desc limit 50"  # noqa: S608
_LIST_BY_NAME: Final = f"select {_EVENT} from events e where e.name = $1 order by e.id desc limit 50"  # noqa: S608
_TIMELINE: Final = f"select {_EVENT} from events e where e.artifact_id = $1 order by e.seq"  # noqa: S608
_STATUS: Final = (
    "select h.event_receiver_id, h.event_id, h.seq, h.success from gate_heads h where h.artifact_id = $1 and h.event_receiver_id = any($2::text[])"
)


class Side:
    """All rounds of one side. each: operations in one answer."""

    def __init__(self, each: int = 1) -> None:
        self._each = each
        self._in_window = 0
        self._seconds = 0.0
        self._latencies: list[float] = []
        self.errors = 0
        self.problem = ""

    def add(self, outcome: Outcome, stored: int | None = None) -> None:
        """One round. stored: rows that it added, where it stores something."""
        self._in_window += outcome.in_window
        self._seconds += outcome.seconds
        self._latencies += outcome.sorted_latencies()
        self.errors += errors_of(outcome, stored, self._each)
        self.problem = self.problem or outcome.problem

    @property
    def throughput(self) -> float:
        """A second."""
        return self._in_window * self._each / self._seconds

    def percentile_ms(self, share: float) -> float | None:
        """None when nothing was answered."""
        return 1000 * percentile(sorted(self._latencies), share) if self._latencies else None


def errors_of(outcome: Outcome, stored: int | None, each: int = 1) -> int:
    """Bad and missing answers, ids given twice, and rows that do not fit the answers: none acknowledged may be missing, none may be there
    that nobody asked for. A request without an answer may be stored or not."""
    errors = outcome.bad + outcome.unanswered + outcome.repeated_ids
    if stored is not None:
        missing = outcome.answered * each - stored
        surplus = stored - (outcome.answered + outcome.unanswered) * each
        errors += max(missing, surplus, 0)
    return errors


def row_of(name: str, ours: Side, counterpart: Side | None) -> Row:
    """One line of the table."""
    row = Row(
        name=name,
        throughput=ours.throughput,
        p50_ms=ours.percentile_ms(0.50),
        p95_ms=ours.percentile_ms(0.95),
        p99_ms=ours.percentile_ms(0.99),
        errors=ours.errors,
        note=" ".join(ours.problem.split())[:80],
    )
    if counterpart is not None:
        row.bare_throughput = counterpart.throughput
        row.bare_p50_ms, row.bare_p99_ms = counterpart.percentile_ms(0.50), counterpart.percentile_ms(0.99)
        row.ratio = row.throughput / counterpart.throughput if row.throughput is not None and counterpart.throughput else None
        row.errors += counterpart.errors
        if counterpart.errors:
            row.note = f"{row.note} bare: {' '.join(counterpart.problem.split())[:80]}".strip()
    return row


async def all_rows(stage: Stage, told: Callable[[Row], None]) -> list[Row]:
    """Those that were asked for, in order; `told` gets each when it is there. The server is stopped for the last one."""
    rows: list[Row] = []
    for name, measure in _rows(stage):
        if re.search(stage.options.only, name):
            try:
                row = await measure()
            except (RuntimeError, OSError, asyncpg.PostgresError) as error:
                # The other rows are worth having.
                row = Row(name=name, errors=1, note=" ".join(str(error).split())[-200:])
            rows.append(row)
            told(row)
    return rows


def wants_sequencer(stage: Stage) -> bool:
    """Whether that row was asked for; it needs the server to be stopped."""
    return re.search(stage.options.only, f"sequencer {stage.size}") is not None


def _rows(stage: Stage) -> list[tuple[str, Callable[[], Awaitable[Row]]]]:
    definitions, stored, port, size = stage.definitions, stage.stored, stage.options.port, stage.size
    ids, id_tokens = requests.gets(port, stored)
    artifacts = [event.nvrpp.artifact_id for event in stored]
    event_token, gate_token = [requests.EVENT_TOKEN], [requests.GATE_TOKEN]
    rows: list[tuple[str, Callable[[], Awaitable[Row]]]] = []

    def reads(name: str, templates: list[bytes], tokens: list[bytes], occurrences: int, queries: list[tuple[str, list[Any], int]]) -> None:
        rows.append((f"{name} {size}", lambda: _read(stage, f"{name} {size}", templates, tokens, occurrences, queries)))

    def posts(name: str, connections: int, receiver_ids: list[str]) -> None:
        rows.append((f"{name} {size}", lambda: _post(stage, f"{name} {size}", connections, receiver_ids)))

    lists: list[tuple[str, list[Any], int]] = [
        query for event in stored for query in ((_LIST, [], requests.LIST_EVENTS), (_LIST_BY_NAME, [event.nvrpp.name], requests.LIST_EVENTS))
    ]
    gates, five = len(definitions.grouped), EVENTS_PER_ARTIFACT
    reads("get by id", ids, id_tokens, 1, [(_GET, [event.id], 1) for event in stored])
    reads("list 50", requests.lists(port, stored), event_token, requests.LIST_EVENTS, lists)
    reads("timeline", requests.timelines(port, stored), event_token, five, [(_TIMELINE, [artifact], five) for artifact in artifacts])
    statuses = requests.statuses(port, stored, definitions)
    reads("status", statuses, gate_token, gates, [(_STATUS, [artifact, definitions.grouped], gates) for artifact in artifacts])
    for connections in (1, 16, 64, 256):
        posts(f"post c={connections} no group", connections, [definitions.lone])
    posts("post c=64 group of three", 64, definitions.grouped)
    rows.append((f"batch 1000 {size}", lambda: _batch(stage, f"batch 1000 {size}")))
    if stage.is_first:
        for name, credential_of in zip(CREDENTIALS, (token_line, key_line), strict=True):
            rows.append((f"{name} {size}", partial(_with_credential, stage, f"{name} {size}", credential_of)))
    rows.append((f"post to sse {size}", lambda: _post_to_sse(stage, f"post to sse {size}")))
    return rows


async def _read(
    stage: Stage, name: str, templates: list[bytes], tokens: list[bytes], occurrences: int, queries: list[tuple[str, list[Any], int]]
) -> Row:
    """A read beside the plain SELECT of the same rows."""
    options, ours, counterpart = stage.options, Side(), Side()
    select = PlainPlan(
        url=stage.postgres.url, connections=READ_CONNECTIONS, warmup_s=options.warmup_s, duration_s=options.duration_s, queries=queries
    )
    plan = Plan(
        port=options.port,
        connections=READ_CONNECTIONS,
        warmup_s=options.warmup_s,
        duration_s=options.duration_s,
        templates=templates,
        tokens=tokens,
        occurrences=occurrences,
        status=200,
    )
    for _ in range(options.rounds):
        counterpart.add(await run_plain(select))
        ours.add(await run_load(plan))
    return row_of(name, ours, counterpart)


def post_plan(stage: Stage, port: int, connections: int, receiver_ids: list[str], credential: str = "") -> Plan:
    """Single events in a closed loop. credential: a header line."""
    return Plan(
        port=port,
        connections=connections,
        warmup_s=stage.options.warmup_s,
        duration_s=stage.options.duration_s,
        templates=requests.posts(port, receiver_ids, credential),
        tokens=[requests.CREATED],
        first=stage.first_number(),
        ids=True,
    )


async def _post(stage: Stage, name: str, connections: int, receiver_ids: list[str]) -> Row:
    """Single posts beside the bare server; the sequencer has caught up before each round, so that it works for this one alone."""
    port, bare_port = stage.options.ports
    ours, counterpart, pending = Side(), Side(), 0
    for _ in range(stage.options.rounds):
        await stage.drained()
        async with bare.bare_server(bare_port, stage.postgres.url, workers()):
            before = await stage.bare_events()
            outcome = await run_load(post_plan(stage, bare_port, connections, receiver_ids))
            counterpart.add(outcome, await stage.bare_events() - before)
        before = await stage.events()
        outcome = await run_load(post_plan(stage, port, connections, receiver_ids))
        pending = max(pending, await stage.pending())
        ours.add(outcome, await stage.events() - before)
    row = row_of(name, ours, counterpart)
    row.pending = pending
    return row


async def _with_credential(stage: Stage, name: str, credential_of: Callable[[int], str]) -> Row:
    """Single posts with a credential beside those without: the median of alternating pairs, so that the machine's moods fall on both."""
    port, receiver_ids = stage.options.port, [stage.definitions.lone]
    credential = await asyncio.to_thread(credential_of, port)
    sides, ratios = {"": Side(), credential: Side()}, []
    for pair in range(CREDENTIAL_PAIRS):
        seen: dict[str, float] = {}
        for each in ("", credential) if pair % 2 == 0 else (credential, ""):
            await stage.drained()
            before = await stage.events()
            plan = post_plan(stage, port, 64, receiver_ids, each)
            outcome = await run_load(msgspec.structs.replace(plan, duration_s=1.25 * stage.options.duration_s))
            sides[each].add(outcome, await stage.events() - before)
            seen[each] = outcome.in_window / outcome.seconds
        ratios.append(seen[credential] / seen[""])
    row = row_of(name, sides[credential], sides[""])
    row.ratio = statistics.median(ratios)
    row.note = f"pairs {', '.join(f'{ratio:.2f}' for ratio in ratios)} {row.note}".strip()
    return row


async def _batch(stage: Stage, name: str) -> Row:
    """Batches beside COPY of the same rows into `events` and a copy of `outbox`."""
    options, events = stage.options, requests.BATCH_EVENTS
    ours, counterpart, pending = Side(events), Side(events), 0
    caught_up_s: float | None = 0.0
    for _ in range(options.rounds):
        await stage.drained()
        counterpart.add(await run_plain(_copy_plan(stage)))
        before = await stage.events()
        outcome = await run_load(batch_plan(stage))
        pending = max(pending, await stage.pending())
        waited_s = await stage.drained()
        caught_up_s = None if waited_s is None or caught_up_s is None else max(caught_up_s, waited_s)
        ours.add(outcome, await stage.events() - before)
    row = row_of(name, ours, counterpart)
    row.pending, row.caught_up_s = pending, caught_up_s
    if " 404 " in ours.problem[:20] or " 405 " in ours.problem[:20]:
        row.note = "absent: there is no POST /api/v1/events/batch"
        row.ratio = row.throughput = row.p50_ms = row.p95_ms = row.p99_ms = row.pending = row.caught_up_s = None
    elif caught_up_s is None:
        row.note = f"{row.note} the sequencer did not catch up".strip()
    return row


def batch_plan(stage: Stage, requests_max: int | None = None) -> Plan:
    """Batches in a closed loop."""
    return Plan(
        port=stage.options.port,
        connections=BATCH_CONNECTIONS,
        warmup_s=0.0 if requests_max else stage.options.warmup_s,
        duration_s=3600.0 if requests_max else stage.options.duration_s,
        templates=requests.batch(stage.options.port, stage.definitions.lone),
        tokens=[b'","'],
        occurrences=requests.BATCH_EVENTS - 1,
        first=stage.first_number(),
        requests_max=requests_max,
    )


def _copy_plan(stage: Stage) -> PlainPlan:
    now, receiver_id = datetime.now(UTC), stage.definitions.lone
    events: list[list[Any]] = []
    for event in range(requests.BATCH_EVENTS):
        fields = (f"batch-{event // requests.EVENTS_PER_ARTIFACT:04}", "", RELEASE, PLATFORM_ID, PACKAGE)
        events.append(["", 0, b"", *fields, "unit tests of build 812", PAYLOAD_TEXT, True, receiver_id, 1, None, now, None])
    return PlainPlan(
        url=stage.postgres.url,
        connections=BATCH_CONNECTIONS,
        warmup_s=stage.options.warmup_s,
        duration_s=stage.options.duration_s,
        events=events,
        first=stage.first_number() * requests.BATCH_EVENTS,
    )


async def _post_to_sse(stage: Stage, name: str) -> Row:
    """From the moment when a post is due to its message at a follower of the stream; 500 a second, open loop."""
    options, side = stage.options, Side()
    await stage.drained()
    before = await stage.events()
    plan = Plan(
        port=options.port,
        connections=SSE_CONNECTIONS,
        warmup_s=options.warmup_s,
        duration_s=options.duration_s,
        templates=requests.post_numbered(options.port, stage.definitions.lone),
        tokens=[requests.CREATED],
        first=stage.first_number(),
        rate=SSE_RATE,
        ids=True,
        follow=True,
    )
    outcome = await run_load(plan)
    side.add(outcome, await stage.events() - before)
    row = row_of(name, side, None)
    missing = outcome.answered - outcome.messages
    row.errors += abs(missing)
    if missing:
        row.note = f"{row.note} {outcome.messages} messages for {outcome.answered} events".strip()
    return row


async def sequencer_row(stage: Stage) -> Row:
    """Facts that were waiting while no relay ran, a third of them of a group: how fast one drains them. Nothing else runs meanwhile.

    From the first look that sees it at work to the one that finds nothing left. Call with the server stopped.
    """
    facts, name = stage.options.facts, f"sequencer {stage.size}"
    await fill_outbox(stage.postgres.url, stage.definitions, facts)
    first_position = await stage.value("select s.last_position from sequencer s")
    async with running(stage.postgres.url, stage.options.port, "relay") as relay:
        await relay.wait_for(r"process\.ready")
        drained = await _watch_draining(stage.postgres.url, first_position, facts)
    sequenced = await stage.value("select count(*) from stream t where t.kind = 'event.recorded'")
    events = await stage.events()
    row = Row(name=name, throughput=drained, errors=abs(events - sequenced))
    if drained is None:
        row.note, row.errors = f"not drained within {SEQUENCER_S:.0f} s", row.errors + await stage.pending()
    return row


async def _watch_draining(url: str, first_position: int, facts: int) -> float | None:
    """Facts a second."""
    connection = await asyncpg.connect(url)
    try:
        begun = time.monotonic()
        idle_at = begun
        while time.monotonic() - begun < SEQUENCER_S:
            now = time.monotonic()
            if await connection.fetchval("select s.last_position from sequencer s") == first_position:
                idle_at = now
            elif not await connection.fetchval("select exists (select from outbox)"):
                return facts / (time.monotonic() - idle_at)
            await asyncio.sleep(0.01)
        return None
    finally:
        await connection.close()
