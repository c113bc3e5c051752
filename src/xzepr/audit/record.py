"""One row for each act, in the act's own transaction: it is there when the act is, and is gone when the act is rolled back."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from xzepr import ids
from xzepr.auth.principal import Principal
from xzepr.db.pool import Connection
from xzepr.db.queries import Queries
from xzepr.ids import AuditId

queries = Queries("xzepr.audit")

NAME_MAX_CHARS: Final = 1_000


class Outcome(StrEnum):
    """How an act ended."""

    SUCCESS = "success"
    # Tried and not done: a wrong password, a token used again.
    FAILURE = "failure"
    # Not allowed.
    DENIED = "denied"


async def record(
    connection: Connection,
    principal: Principal,
    act: str,
    object_id: str | None = None,
    *,
    outcome: Outcome = Outcome.SUCCESS,
    details: Mapping[str, Any] | None = None,
) -> None:
    """act: one of acts.Act. details: what else a reader needs; never a secret, never a payload."""
    row_id = ids.mint(AuditId)
    encoded = msgspec.json.encode(details or {}).decode()
    actor = (principal.id, _storable(principal.name), principal.how)
    origin = (principal.address, principal.request_id)
    # The time is that of the id: a range of times is a range of ids, and lists need one order only.
    await connection.execute(queries["record_act"], row_id, ids.time_of(row_id), *actor, act, object_id, outcome, *origin, encoded)


def _storable(name: str) -> str:
    """A name that another issuer gave may hold what PostgreSQL does not take. The row must not fail because of it."""
    return name[:NAME_MAX_CHARS].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
