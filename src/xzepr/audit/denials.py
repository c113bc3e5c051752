"""Refusals, counted: what was not allowed leaves a row, and nobody can fill the log with it, or hide in it what others tried.

Counted by principal (one without credentials by address), act, object and minute, in the memory of each process. Every five seconds what is new is
written: of a minute one row soon after the first refusal, and one at its end with those that followed. Objects are the callers' to choose, so only so
many different ones a minute are told apart for each caller, and so many for callers without credentials and for all others apart. What is beyond is
counted together: in a row of that principal, and only when there are too many of these in one of nobody.

Failures: when the database is away the counts stay and are written later; a process that is killed loses those of the last seconds.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg
import structlog

from xzepr import clock
from xzepr.audit.acts import Act
from xzepr.audit.record import Outcome, record
from xzepr.auth.principal import How, Principal
from xzepr.clock import rfc3339
from xzepr.db.pool import Database
from xzepr.errors import Unavailable

log = structlog.get_logger(__name__)

FLUSH_INTERVAL_S: Final = 5.0
# Different ones a minute and process: of one caller; of all with credentials, and of how many of these the rest is counted apart; of all strangers.
EACH_MAX: Final = 20
KNOWN_MAX: Final = 500
KNOWN_CALLERS_MAX: Final = 1_000
STRANGERS_MAX: Final = 100
CLOSE_S: Final = 5.0


class _Kind(NamedTuple):
    """What is counted together. address: of a caller without credentials, else None; said: what else the row has, such as route and method."""

    act: Act
    outcome: Outcome
    actor: tuple[str | None, str, How]
    address: str | None
    object_id: str | None
    said: tuple[tuple[str, Any], ...]
    minute: datetime

    @property
    def caller(self) -> tuple[Any, ...]:
        """For whom it is counted."""
        return (self.actor, self.address)


@dataclass(slots=True)
class _Count:
    """count: all so far; written: as many of them have a row; since: the first that has none. principal: of the first, as it made that request."""

    principal: Principal
    count: int
    since: datetime
    last_at: datetime
    written: int = 0


# What is beyond the bounds: of one caller; whoever it was, strangers and others apart.
_OF_CALLER: Final = (("others", True),)
_OTHERS: Final = {True: Principal(name="others without credentials"), False: Principal(name="others")}


class Denials:
    """Of one process. start() when there is a loop and a database, close() before the database is closed."""

    def __init__(
        self,
        database: Database,
        *,
        each_max: int = EACH_MAX,
        known_max: int = KNOWN_MAX,
        known_callers_max: int = KNOWN_CALLERS_MAX,
        strangers_max: int = STRANGERS_MAX,
    ) -> None:
        self._database = database
        self._each_max = each_max
        # By whether they are strangers': how many are told apart, and how many more rows there are for what is beyond that.
        self._most = {False: known_max, True: strangers_max}
        self._more = {False: known_callers_max, True: 0}
        self._counts: dict[_Kind, _Count] = {}
        # How many of them, by the same; those of nobody do not count. And how many of each caller.
        self._sizes = {False: 0, True: 0}
        self._callers: Counter[tuple[Any, ...]] = Counter()
        self._task: asyncio.Task[None] | None = None

    def note(
        self,
        principal: Principal,
        act: Act,
        object_id: str | None = None,
        said: Mapping[str, str] | None = None,
        *,
        outcome: Outcome = Outcome.DENIED,
        now: datetime | None = None,
    ) -> None:
        """One refusal. said: what else its row says; nothing that a caller may choose freely. Never waits, never fails."""
        now = now or clock.now()
        is_stranger = principal.id is None
        address = (principal.nearest or principal.address) if is_stranger else None
        kind = _Kind(act, outcome, _actor(principal), address, object_id, tuple((said or {}).items()), _minute(now))
        if kind not in self._counts and not self._has_room(kind, is_stranger):
            kind = kind._replace(act=Act.ACCESS_DENIED, outcome=Outcome.DENIED, object_id=None, said=_OF_CALLER)
            if kind not in self._counts and not self._has_room(kind, is_stranger):
                principal = _OTHERS[is_stranger]
                kind = kind._replace(actor=_actor(principal), address=None, said=())
        found = self._counts.setdefault(kind, _Count(principal, 0, now, now))
        if found.count == found.written:
            found.since = now
        found.count += 1
        found.last_at = now

    def _has_room(self, kind: _Kind, is_stranger: bool) -> bool:
        """Whether one more is told apart; then it is counted."""
        of_caller = kind.said == _OF_CALLER
        most = self._most[is_stranger] + (self._more[is_stranger] if of_caller else 0)
        if self._sizes[is_stranger] >= most or (not of_caller and self._callers[kind.caller] >= self._each_max):
            return False
        self._sizes[is_stranger] += 1
        self._callers[kind.caller] += 1
        return True

    def start(self) -> None:
        """Write every five seconds from now on."""
        self._task = asyncio.create_task(self._run(), name="denials")

    async def close(self) -> None:
        """Write what is left. A database that does not answer loses it, with a line in the log."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.flush(is_last=True)
        except (Unavailable, asyncpg.PostgresError, TimeoutError) as error:
            lost = sum(each.count - each.written for each in self._counts.values())
            log.warning("audit.denials_lost", count=lost, reason=str(error))

    async def flush(self, *, now: datetime | None = None, is_last: bool = False) -> None:
        """Write what is due, in one transaction; what cannot be written stays counted. Raises Unavailable."""
        minute = _minute(now or clock.now())
        # Any other minute is over, also one ahead: then the clock was set back.
        over = {kind for kind in self._counts if is_last or kind.minute != minute}
        due = [
            (kind, each, each.count, _details(kind, each))
            for kind, each in self._counts.items()
            if each.count > each.written and (kind in over or not each.written)
        ]
        if due:
            async with self._database.transaction() as connection:
                for kind, each, _, details in due:
                    await record(connection, each.principal, kind.act, kind.object_id, outcome=kind.outcome, details=details)
        for _, each, count, _ in due:
            each.written = count
            # What came while the database worked.
            each.since = each.last_at
        for kind in over:
            if self._counts[kind].count == self._counts[kind].written:
                del self._counts[kind]
                if kind.actor not in _BEYOND:
                    self._sizes[kind.actor[0] is None] -= 1
                    self._callers[kind.caller] -= 1
        self._callers = +self._callers

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            try:
                await self.flush()
            except (Unavailable, asyncpg.PostgresError) as error:
                log.warning("audit.denials_not_written", reason=str(error))
            except Exception:
                log.exception("audit.denials_not_written")


def _actor(principal: Principal) -> tuple[str | None, str, How]:
    return principal.id, principal.name, principal.how


_BEYOND: Final = frozenset(_actor(principal) for principal in _OTHERS.values())


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _details(kind: _Kind, each: _Count) -> dict[str, Any]:
    return {**dict(kind.said), "count": each.count - each.written, "first_at": rfc3339(each.since), "last_at": rfc3339(each.last_at)}
