"""A request that is sent again does its work once.

The key belongs to the principal and the route. It is claimed in the transaction of the act, together with the id that the act answers, so a crash
leaves both or neither. A second request with the key waits for the first one's commit, because its claim meets the first one's row; if the first is
rolled back the second goes on. A key older than 24 hours counts as new, unless it is lasting. Source: contract `rest.md`, "Rules for every route".
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from asyncpg.exceptions import LockNotAvailableError

from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import Conflict, InFlight

queries = Queries("xzepr.db")

KEY_MAX_CHARS: Final = 255
KEPT_FOR: Final = timedelta(hours=24)
SWEEP_ROWS_MAX: Final = 10_000
OTHER_BODY: Final = "this Idempotency-Key was used for another body"

# Principal, route, key.
KeyName = tuple[str, str, str]


class Claim(msgspec.Struct, frozen=True):
    """One key of one request. body_sha256: of the bytes as sent, or what stands for it where they hold a secret; wait_s: for a request that holds
    the key.

    lasting: kept as long as the event that it answers, and never too old.
    """

    principal_id: str
    route: str
    key: str
    body_sha256: bytes
    now: datetime
    wait_s: float
    lasting: bool = False

    @property
    def name(self) -> KeyName:
        """What no two acts may share."""
        return (self.principal_id, self.route, self.key)


class Answered(msgspec.Struct, frozen=True):
    """What the first request with a key answered. status, body: where the id alone does not say it."""

    id: str
    status: int | None = None
    body: str | None = None


class Replayed(Exception):
    """The act was done by an earlier request; nothing was done now."""

    def __init__(self, answer: Answered) -> None:
        self.answer = answer
        super().__init__(answer.id)


async def find_answer(database: Database, claim: Claim) -> Answered | None:
    """What an earlier, finished request with this key answered; None: there is none. Raises Conflict when its body was another.

    Asked before the input is judged: the first answer stands even when the same input would be refused by now.
    """
    async with database.connection() as connection:
        row = await connection.fetchrow(queries["find_key"], *claim.name, claim.now - KEPT_FOR)
    if row is None:
        return None
    if row["body_sha256"] != claim.body_sha256:
        raise Conflict(OTHER_BODY)
    return _answered(row)


async def take(connection: Connection, claim: Claim, answer_id: str) -> None:
    """Claim the key in the caller's transaction, before anything else in it. Raises Replayed, Conflict, InFlight."""
    await connection.execute(queries["wait_for_locks"], str(int(claim.wait_s * 1000)))
    try:
        earlier = await claim_all(connection, [(claim, Answered(answer_id))])
    except LockNotAvailableError:
        raise in_flight(claim) from None
    for answer in earlier.values():
        raise Replayed(answer) if answer is not None else Conflict(OTHER_BODY)


async def claim_all(connection: Connection, claims: Sequence[tuple[Claim, Answered]]) -> dict[KeyName, Answered | None]:
    """Claim keys in the caller's transaction, each with what will be answered; no two of them equal.

    Returns those that an earlier request had claimed: to what it answered, None when its body was another. In sorted order, or two transactions
    deadlock. Raises what the database says when another transaction holds a key for too long.
    """
    in_order = sorted(claims, key=lambda pair: pair[0].name)
    columns = zip(*(_row(claim, answer) for claim, answer in in_order), strict=True)
    oldest = min(claim.now for claim, _ in in_order) - KEPT_FOR
    rows = await connection.fetch(queries["claim_keys"], *map(list, columns), oldest)
    stored = {(row["principal_id"], row["route"], row["key"]): row for row in rows}
    earlier: dict[KeyName, Answered | None] = {}
    for claim, answer in in_order:
        row = stored[claim.name]
        if row["answer_id"] != answer.id:
            earlier[claim.name] = _answered(row) if row["body_sha256"] == claim.body_sha256 else None
    return earlier


def in_flight(claim: Claim) -> InFlight:
    """The refusal of a request that has waited long enough."""
    return InFlight(f"the first request with this Idempotency-Key is still at work after {claim.wait_s:g} s")


async def sweep(database: Database, now: datetime) -> int:
    """Remove keys that count as new anyway; how many."""
    removed = 0
    while True:
        async with database.connection() as connection:
            done = int((await connection.execute(queries["sweep_keys"], now - KEPT_FOR, SWEEP_ROWS_MAX)).split()[-1])
        removed += done
        if done < SWEEP_ROWS_MAX:
            return removed


def _row(claim: Claim, answer: Answered) -> tuple[Any, ...]:
    return (*claim.name, claim.body_sha256, answer.id, answer.status, answer.body, claim.lasting, claim.now)


def _answered(row: Any) -> Answered:
    return Answered(row["answer_id"], row["answer_status"], row["answer"])
