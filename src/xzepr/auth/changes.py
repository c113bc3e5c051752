"""What ends credentials, as every process hears of it within a second.

Whoever disables a user, changes a password or a role, ends a login or revokes a key writes a row of `auth_changes` in the same transaction. Each
process reads the rows of the last thirty seconds four times a second, by the database's clock: a transaction that commits late is still seen. A
process that has not been able to read for FRESH_S knows nothing for certain: it asks the database about each credential, and refuses when it gets
no answer. What ended is forgotten when no access token lives that it could end; what was found out about a credential before that is worth nothing
any more (remembers()). Source: DESIGN §9.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import asyncpg
import structlog

from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import Unavailable

log = structlog.get_logger(__name__)
queries = Queries("xzepr.auth")

USER: Final = "user"
FAMILY: Final = "family"
API_KEY: Final = "api_key"
# Who may post to it.
RECEIVER: Final = "receiver"
# That it was redacted.
EVENT: Final = "event"

POLL_INTERVAL_S: Final = 0.25
# A transaction that tells of a change commits within this.
SLOW_COMMIT_S: Final = 30.0
# What was read is good for so long, counted from the moment when it was asked for: it leaves room below the second that is promised.
FRESH_S: Final = 0.8
# An answer that takes longer is as good as none.
POLL_TIMEOUT_S: Final = 0.5
# A row that everybody has read long since: a process that starts reads what ended tokens that may still live, a day at most.
KEPT_S: Final = 2 * 86_400.0


async def tell(connection: Connection, kind: str, subject: str, epoch: int | None = None) -> None:
    """In the transaction of the act. epoch: of a user, from which on tokens count."""
    await connection.execute(queries["tell_change"], kind, subject, epoch)


class Changes:
    """What one process has heard. database: for this alone; longest_token_s: of an access token, leeway included: what ended before ends none that
    still lives. monotonic: seconds that only rise."""

    def __init__(self, database: Database, longest_token_s: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._longest_token_s = longest_token_s
        self.monotonic = monotonic
        self._epochs: dict[str, int] = {}
        # When this process heard of it.
        self._ended: dict[str, float] = {}
        # By the last look; the next one finds most of them again.
        self._heard: set[int] = set()
        self._listeners: dict[str, list[Callable[[str], None]]] = {}
        self._asked_at_s: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_away = False

    def subscribe(self, kind: str, listener: Callable[[str], None]) -> None:
        """It is told the subject of each change of this kind, hardly ever twice."""
        self._listeners.setdefault(kind, []).append(listener)

    def is_fresh(self) -> bool:
        """Whether what this process knows is good enough to accept by."""
        return self._asked_at_s is not None and self.monotonic() - self._asked_at_s < FRESH_S

    def remembers(self, since_s: float) -> bool:
        """Whether all that ended after this moment, by `monotonic`, is still known here: ends() tells nothing of a credential looked at earlier."""
        return self.monotonic() - since_s < self._longest_token_s

    def ends(self, user_id: str | None, epoch: int, family_id: str | None, key_id: str | None = None) -> bool:
        """Whether a credential of this user, made in this epoch, by this login or as this key, is over."""
        return self._epochs.get(user_id or "", 0) > epoch or family_id in self._ended or key_id in self._ended

    async def open(self) -> None:
        """Read once, then go on reading. Raises Unavailable."""
        await self._database.open()
        await self._read()
        self._task = asyncio.create_task(self._keep_reading(), name="auth-changes")

    async def close(self) -> None:
        """Nothing is heard any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._database.close()

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                await self._read()
            except (Unavailable, TimeoutError, asyncpg.PostgresError) as error:
                if not self._is_away:
                    log.warning("auth.changes_unread", reason=str(error) or type(error).__name__)
                self._is_away = True
            else:
                self._is_away = False

    async def _read(self) -> None:
        asked_at_s = self.monotonic()
        # After a pause everything since the last answer, and always as far back as a slow commit.
        back_s = self._longest_token_s + SLOW_COMMIT_S if self._asked_at_s is None else asked_at_s - self._asked_at_s + SLOW_COMMIT_S
        async with asyncio.timeout(POLL_TIMEOUT_S if self._asked_at_s is not None else None), self._database.connection() as connection:
            rows = await connection.fetch(queries["read_changes"], back_s)
        for row in rows:
            if row["id"] not in self._heard:
                self._hear(row["kind"], row["subject"], row["epoch"])
        self._heard = {row["id"] for row in rows}
        self._asked_at_s = asked_at_s
        self._forget_old(asked_at_s)

    def _forget_old(self, now_s: float) -> None:
        """Logins and keys that ended so long ago that no token of theirs lives, and nobody believes what was found out about them before."""
        oldest_s = now_s - self._longest_token_s - 2 * SLOW_COMMIT_S
        while self._ended and next(iter(self._ended.values())) < oldest_s:
            del self._ended[next(iter(self._ended))]

    def _hear(self, kind: str, subject: str, epoch: int | None) -> None:
        if kind == USER:
            assert epoch is not None
            self._epochs[subject] = max(self._epochs.get(subject, 0), epoch)
        elif kind in (FAMILY, API_KEY):
            self._ended.setdefault(subject, self.monotonic())
        for listener in self._listeners.get(kind, ()):
            listener(subject)


async def sweep(database: Database) -> None:
    """Rows that no process needs any more."""
    async with database.connection() as connection:
        await connection.execute(queries["sweep_changes"], KEPT_S)
