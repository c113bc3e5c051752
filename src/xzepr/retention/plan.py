"""The dry run: what an apply at this moment would remove, and what it would not, with the reason. Reads one snapshot and changes nothing."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from xzepr import ids
from xzepr.clock import rfc3339
from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.retention.model import Due, Plan, PlanLine, due_by, fields_of
from xzepr.settings.model import RetentionRule

queries = Queries("xzepr.retention")

# It counts everything that is due, which may be most of what there is.
_TIMEOUT: Final = "set local statement_timeout = '15min'"


async def make_plan(database: Database, rules: Sequence[RetentionRule], *, stream_days: int, now: datetime) -> Plan:
    """stream_days: for how long messages are kept; what only older messages show counts as removable, because those go first."""
    async with database.transaction(snapshot=True) as connection:
        await connection.execute(_TIMEOUT)
        first_kept = await _first_kept(connection, now - timedelta(days=stream_days))
        messages = await connection.fetchval(queries["count_messages_before"], first_kept)
        receivers = await connection.fetch(queries["receiver_types"])
        due = due_by(rules, [(row["id"], row["type"]) for row in receivers], now)
        counts = await _counts(connection, due, first_kept)
        holds = await connection.fetchval(queries["count_holds"])
    lines = _lines(rules, due, counts)
    removable = sum(line.removable for line in lines)
    return Plan(at=rfc3339(now), lines=lines, removable=removable, messages=messages, stream_days=stream_days, holds=holds)


async def _first_kept(connection: Connection, before: datetime) -> int:
    young: int | None = await connection.fetchval(queries["first_young_position"], before)
    if young is not None:
        return young
    last: int = await connection.fetchval(queries["last_position"])
    return last + 1


async def _counts(connection: Connection, due: Sequence[Due], first_kept: int) -> dict[str, Any]:
    if not due:
        return {}
    receiver_ids, before = [each.event_receiver_id for each in due], [each.before for each in due]
    rows = await connection.fetch(queries["plan_due"], receiver_ids, before, first_kept, max(before))
    return {row["event_receiver_id"]: row for row in rows}


def _lines(rules: Sequence[RetentionRule], due: Sequence[Due], counts: dict[str, Any]) -> list[PlanLine]:
    """In the order of the rules, then by type. A rule that no receiver falls to has a line, too: it may be misspelt."""
    lines = []
    for rule in rules:
        # Compared by identity: the same rule given twice is two rules, and the second never counts.
        mine = [each for each in due if each.rule is rule]
        kinds = sorted({each.event_receiver_type for each in mine})
        lines += [_line(rule, kind, [counts.get(each.event_receiver_id) for each in mine if each.event_receiver_type == kind]) for kind in kinds]
        if not kinds:
            lines.append(PlanLine(rule=fields_of(rule), event_receiver_type=None))
    return lines


def _line(rule: RetentionRule, kind: str, counts: list[Any]) -> PlanLine:
    there = [row for row in counts if row is not None]
    due, held, shown = (sum(row[column] for row in there) for column in ("due", "held", "shown"))
    oldest = min((row["oldest"] for row in there), default=None)
    return PlanLine(
        rule=fields_of(rule),
        event_receiver_type=kind,
        due=due,
        held=held,
        in_stream=shown,
        removable=due - held - shown,
        oldest_at=rfc3339(ids.time_of(oldest)) if oldest is not None else None,
    )
