"""Connections to PostgreSQL, and the one place where a lost connection becomes an answer.

A statement that fails because the database is away, or busy for too long, raises Unavailable (503); every other error of the database passes
through to the code that knows what it means. After a restart of the database the pool opens new connections by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, Self

import asyncpg

from xzepr.errors import Unavailable

if TYPE_CHECKING:
    # Generic in the stubs, not at run time.
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool

# What the driver raises when the server is away, restarting, full, or has just ended this session.
CONNECTION_LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # A server that shuts down between two requests: "cannot switch to state …".
    asyncpg.InternalClientError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
)
# What the database ends although nothing is wrong with it or with us: somebody else held a lock, or two transactions met. Nothing was stored.
TRY_AGAIN = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
# A paused process must hold nobody up for more than 5 s: the database ends its statement, its wait for a lock, or its open transaction.
SERVER_SETTINGS = {
    "application_name": "xzepr",
    "timezone": "UTC",
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "4s",
    # Compiling pays for reports that run for seconds; here there are none.
    "jit": "off",
}
# For sessions whose every statement finds its rows by an index. The planner knows tables by what they held when they were last looked at: of a queue
# that is mostly empty, or of an installation's first hour, it believes that reading the whole table is cheapest, and stays with that while it grows.
# Nor does it know how long an array will be: two of them are joined by a hash, never each with each. A lateral subquery is a loop all the same.
BY_INDEX_ONLY = {"enable_seqscan": "off", "enable_nestloop": "off"}


class Database:
    """A pool of connections. connections_max: of this process alone; connect_timeout_s: also for the wait for a free one.

    session_settings: of PostgreSQL, besides ours.
    """

    def __init__(
        self,
        url: str,
        *,
        connections_min: int,
        connections_max: int,
        connect_timeout_s: float,
        application_name: str = "xzepr",
        session_settings: Mapping[str, str] | None = None,
    ) -> None:
        self._url = url
        self._min = min(connections_min, connections_max)
        self._max = connections_max
        self._connect_timeout_s = connect_timeout_s
        self._session_settings = {**SERVER_SETTINGS, "application_name": application_name, **(session_settings or {})}
        self._pool: Pool | None = None

    async def open(self) -> Self:
        """Connect. Raises Unavailable when the server does not answer."""
        with translated():
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=self._min,
                max_size=self._max,
                timeout=self._connect_timeout_s,
                server_settings=self._session_settings,
                # The default reset query costs a quarter of a small insert, and nothing here changes a session's settings.
                reset=_no_reset,
            )
        return self

    async def close(self, timeout_s: float = 5.0) -> None:
        """Give connections back, then end what is still in use after timeout_s."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One connection, each statement its own transaction. Raises Unavailable when the database is away."""
        if self._pool is None:
            raise Unavailable("the database is not connected")
        with translated():
            async with self._pool.acquire(timeout=self._connect_timeout_s) as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Connection]:
        """One transaction on one connection. snapshot: all its statements read one state of the database, and write nothing."""
        isolation: Literal["repeatable_read"] | None = "repeatable_read" if snapshot else None
        async with self.connection() as connection, connection.transaction(isolation=isolation, readonly=snapshot):
            yield connection


class translated:  # noqa: N801 - read as a verb, like contextlib's
    """Turn what the driver raises when the database is away or busy into Unavailable, with the cause kept for the log."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # A value that the driver cannot encode is an InterfaceError too: that one is our own fault, and no reason to try again.
        if isinstance(error, TRY_AGAIN):
            raise Unavailable("the database is busy; try again") from error
        if isinstance(error, CONNECTION_LOST) and not isinstance(error, ValueError):
            raise Unavailable("the database does not answer; try again") from error


async def _no_reset(_: asyncpg.Connection) -> None:
    """Nothing to undo between two uses of a connection."""
