"""An evaluation on request: for a group that was made or enabled after its events.

It is a fact like any other: numbered, queued, decided by the sequencer in its turn. The caller waits for the row that the sequencer leaves in
`evaluations`. When the sequencer does not come to it in time the request answers Unavailable; it is decided all the same once it does.
"""

import asyncio
import time
from typing import Final

from xzepr.audit.acts import Act
from xzepr.audit.record import record
from xzepr.auth.principal import Principal
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import NotFound, Unavailable
from xzepr.groups.model import Evaluation
from xzepr.ids import EventReceiverGroupId
from xzepr.nvrpp import Nvrpp
from xzepr.stream.outbox import Bell

queries = Queries("xzepr.groups")

POLL_INTERVAL_S: Final = 0.02


async def evaluate(
    database: Database, principal: Principal, group_id: EventReceiverGroupId, artifact: Nvrpp, bell: Bell, timeout_s: float
) -> Evaluation:
    """Whether the group is complete for the artifact, decided by the sequencer, which tells *group complete* if it is.

    Raises NotFound, PermissionDenied unless the owner or an administrator asks, Unavailable when it is not sequenced within timeout_s.
    """
    async with database.transaction() as connection:
        group = await connection.fetchrow(queries["find_group"], group_id)
        if group is None:
            raise NotFound(f"there is no group {group_id}")
        principal.require_owner(group["owner_id"], "group")
        seq: int = await connection.fetchval(queries["request_evaluation"], artifact.artifact_id, group_id, group["resource_version"])
        await record(connection, principal, Act.GROUP_EVALUATE, group_id, details={"artifact": artifact._asdict(), "seq": seq})
    bell.ring()
    give_up_at_s = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at_s:
        async with database.connection() as connection:
            row = await connection.fetchrow(queries["find_evaluation"], seq)
        if row is not None:
            return Evaluation(complete=row["complete"], message_id=row["message_id"], position=row["position"])
        await asyncio.sleep(POLL_INTERVAL_S)
    raise Unavailable(f"the evaluation was not sequenced within {timeout_s:g} s; it will be decided once the relay works again")
