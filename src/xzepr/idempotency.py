"""A request that is sent again does its work once.

The key belongs to the principal and the route. It is claimed in the transaction of the act, together with the id that the act answers, so a crash
leaves both or neither. A second request with the key waits for the first one's commit, because its claim meets the first one's row; if the first is
rolled back the second goes on. A key older than 24 hours counts as new. Source: contract `rest.md`, "Rules for every route".
"""

from datetime import datetime, timedelta
from typing import Final

import msgspec
from asyncpg.exceptions import LockNotAvailableError

from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import Conflict, InFlight

queries = Queries("xzepr.db")

KEY_MAX_CHARS: Final = 255
KEPT_FOR: Final = timedelta(hours=24)
SWEEP_ROWS_MAX: Final = 10_000


class Claim(msgspec.Struct, frozen=True):
    """One key of one request. body_sha256: of the bytes as sent; wait_s: for a request that holds the key."""

    principal_id: str
    route: str
    key: str
    body_sha256: bytes
    now: datetime
    wait_s: float


class Replayed(Exception):
    """The act was done by an earlier request; nothing was done now. answer_id: what it answered."""

    def __init__(self, answer_id: str) -> None:
        self.answer_id = answer_id
        super().__init__(answer_id)


async def find_answer(database: Database, claim: Claim) -> str | None:
    """What an earlier, finished request with this key answered; None: there is none. Raises Conflict when its body was another.

    Asked before the input is judged: the first answer stands even when the same input would be refused by now.
    """
    async with database.connection() as connection:
        row = await connection.fetchrow(queries["find_key"], claim.principal_id, claim.route, claim.key, claim.now - KEPT_FOR)
    if row is None:
        return None
    _require_same_body(claim, row["body_sha256"])
    answer_id: str = row["answer_id"]
    return answer_id


async def take(connection: Connection, claim: Claim, answer_id: str) -> None:
    """Claim the key in the caller's transaction, before anything else in it. Raises Replayed, Conflict, InFlight."""
    await connection.execute(queries["wait_for_locks"], str(int(claim.wait_s * 1000)))
    fields = (claim.principal_id, claim.route, claim.key, claim.body_sha256, answer_id, claim.now, claim.now - KEPT_FOR)
    try:
        row = await connection.fetchrow(queries["claim_key"], *fields)
    except LockNotAvailableError:
        raise InFlight(f"the first request with this Idempotency-Key is still at work after {claim.wait_s:g} s") from None
    assert row is not None
    if row["answer_id"] != answer_id:
        _require_same_body(claim, row["body_sha256"])
        raise Replayed(row["answer_id"])


async def sweep(database: Database, now: datetime) -> int:
    """Remove keys that count as new anyway; how many."""
    removed = 0
    while True:
        async with database.connection() as connection:
            done = int((await connection.execute(queries["sweep_keys"], now - KEPT_FOR, SWEEP_ROWS_MAX)).split()[-1])
        removed += done
        if done < SWEEP_ROWS_MAX:
            return removed


def _require_same_body(claim: Claim, body_sha256: bytes) -> None:
    if body_sha256 != claim.body_sha256:
        raise Conflict("this Idempotency-Key was used for another body")
