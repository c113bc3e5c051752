"""What the relay does about retention, for as long as it leads: trim the stream every ten minutes, apply the rules every hour.

No error ends it: it is logged, and the next round tries again. A leader that loses the lease stops behind the transaction under way; that one harms
nothing, because every removal checks for itself what it may remove.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import asyncpg
import structlog

from xzepr import clock
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import Unavailable
from xzepr.retention.apply import apply_rules
from xzepr.retention.trim import trim_stream
from xzepr.settings import Settings
from xzepr.stream.lead import Lead
from xzepr.wildcard import matches

log = structlog.get_logger(__name__)
queries = Queries("xzepr.retention")

TRIM_FIRST_S: Final = 120.0
TRIM_INTERVAL_S: Final = 600.0
# Whoever starts a server with a rule that they regret has some minutes.
APPLY_FIRST_S: Final = 300.0
APPLY_INTERVAL_S: Final = 3600.0


async def keep_trimming(
    database: Database, lead: Lead, settings: Settings, *, first_s: float = TRIM_FIRST_S, interval_s: float = TRIM_INTERVAL_S
) -> None:
    """The stream, whether or not anything is posted. Until cancelled."""

    async def round_() -> None:
        before = clock.now() - timedelta(days=settings.stream.retention_days)
        async for _ in trim_stream(database, before, actor=_actor(lead)):
            if lead.epoch is None:
                return

    await _every(lead, "trim", round_, first_s, interval_s)


async def keep_applying(
    database: Database, lead: Lead, settings: Settings, *, first_s: float = APPLY_FIRST_S, interval_s: float = APPLY_INTERVAL_S
) -> None:
    """The rules. Until cancelled."""

    async def round_() -> None:
        await _tell_idle_rules(database, settings)
        rules, days = settings.retention.rules, settings.stream.retention_days
        removed = 0
        applied = apply_rules(database, rules, stream_days=days, now=clock.now(), actor=_actor(lead), go_on=lambda: lead.epoch is not None)
        async for made in applied:
            removed += made.removed
        log.info("retention.applied", rules=len(rules), removed=removed)

    await _every(lead, "apply", round_, first_s, interval_s)


async def _every(lead: Lead, what: str, round_: Callable[[], Awaitable[None]], first_s: float, interval_s: float) -> None:
    await asyncio.sleep(first_s)
    while True:
        if lead.epoch is not None:
            try:
                await round_()
            except (Unavailable, asyncpg.PostgresError) as error:
                log.warning("retention.round_failed", what=what, reason=str(error))
            except Exception:
                log.exception("retention.round_failed", what=what)
        await asyncio.sleep(interval_s)


async def _tell_idle_rules(database: Database, settings: Settings) -> None:
    """A rule that no receiver is of is likely misspelt."""
    async with database.connection() as connection:
        kinds = {row["type"] for row in await connection.fetch(queries["receiver_types"])}
    for rule in settings.retention.rules:
        if not any(matches(rule.event_receiver_type, kind) for kind in kinds):
            log.warning("retention.rule_matches_no_receiver", event_receiver_type=rule.event_receiver_type)


def _actor(lead: Lead) -> str:
    return f"relay {lead.holder}"
