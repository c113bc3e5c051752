"""The write path, from top to bottom.

record_event() checks, appends, and answers after the commit. One statement appends the event and its outbox row, and
compares the receiver's version with the one in force: an event checked against an older one is checked again, so what is posted
after a change of the receiver was acknowledged meets the new definition, in every process.

A lost connection leaves a commit unknown. The id is made before the first attempt and kept, so the writer looks it up: there means
committed, not there means try again; a unique violation on the own id means that the first try was still committing: look again. Tried for
RETRY_FOR_S, which outlasts a restart of the embedded database; then Unavailable, and only the caller's retry can tell.
"""

import asyncio
import time
from typing import Any, Final

import asyncpg
import structlog

from xzepr import ids
from xzepr.auth.principal import Principal
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import InvalidInput, PayloadMismatch, PermissionDenied, Unavailable
from xzepr.events.model import CheckedEvent, NewEvent
from xzepr.idempotency import Claim, take
from xzepr.ids import EventId, EventReceiverId
from xzepr.json_text import compact
from xzepr.receivers.manage import Receivers
from xzepr.receivers.model import ReceiverInForce
from xzepr.receivers.payload import PayloadChecker
from xzepr.stream.outbox import Bell

log = structlog.get_logger(__name__)
queries = Queries("xzepr.events")

RETRY_FOR_S: Final = 8.0
RETRY_INTERVAL_S: Final = 0.1
# A receiver that is changed again and again while one event waits: more than this is not bad luck.
RECHECKS_MAX: Final = 20


class Recorder:
    """What one process needs to record events."""

    def __init__(self, database: Database, receivers: Receivers, checker: PayloadChecker, bell: Bell) -> None:
        self.database = database
        self.receivers = receivers
        self.checker = checker
        self.bell = bell


async def record_event(
    recorder: Recorder,
    principal: Principal,
    event: NewEvent,
    payload: object,
    traceparent: str | None = None,
    claim: Claim | None = None,
) -> EventId:
    """Store one event durably and queue what follows from it; returns its id after the commit.

    claim: of an Idempotency-Key, taken in the same transaction. payload: the decoded tree of event.payload. Reads no other event, decides no
    gate, locks nothing beyond its own rows. Raises InvalidInput (unknown receiver), PermissionDenied (restricted receiver), PayloadMismatch (one
    JSON pointer per fault), ValidationTooCostly, Replayed (an earlier request did it), Unavailable. Source: docs/decisions/0002.
    """
    receiver_id = ids.parse(EventReceiverId, event.event_receiver_id, "/event_receiver_id")
    payload_text = compact(bytes(event.payload))
    event_id = ids.mint(EventId)
    receiver = await recorder.receivers.get(receiver_id)
    for _ in range(RECHECKS_MAX):
        if receiver is None:
            raise InvalidInput.at("/event_receiver_id", f"there is no event receiver {receiver_id}")
        try:
            require_may_post(principal, receiver)
            await recorder.checker.check(receiver.id, receiver.resource_version, receiver.schema_text, receiver.default_draft, payload, payload_text)
        except (PayloadMismatch, PermissionDenied):
            # Refused by what is kept in memory, which may be old: only the version in force refuses.
            in_force = await recorder.receivers.reload(receiver_id)
            if in_force is not None and in_force.resource_version == receiver.resource_version:
                raise
            receiver = in_force
            continue
        checked = CheckedEvent(
            event_id, event, payload_text, receiver.id, receiver.resource_version, principal.id, ids.time_of(event_id), traceparent
        )
        if await _append(recorder.database, checked, claim):
            recorder.bell.ring()
            return event_id
        receiver = await recorder.receivers.reload(receiver_id)
    raise Unavailable(f"the event receiver {receiver_id} changes faster than the event can be checked; try again")


def require_may_post(principal: Principal, receiver: ReceiverInForce) -> None:
    """What a forged event opens is a release gate: to a restricted receiver only its owner and administrators post."""
    if receiver.restricted and not principal.owns(receiver.owner_id):
        raise PermissionDenied(f"the event receiver {receiver.id} is restricted: only its owner or an administrator may post to it")


async def _append(database: Database, checked: CheckedEvent, claim: Claim | None) -> bool:
    """Store it with its outbox row. False: the receiver is gone or has another version now, and nothing was stored."""
    give_up_at_s = time.monotonic() + RETRY_FOR_S
    row = checked.row()
    while True:
        try:
            if claim is None:
                async with database.connection() as connection:
                    return await connection.fetchval(queries["record_event"], *row) is not None
            return await _append_once(database, checked.id, row, claim)
        except asyncpg.UniqueViolationError:
            # Nobody else mints this id: the try before this one was still committing when it was looked up.
            log.info("event.commit_was_late", event_id=checked.id)
            return True
        except asyncpg.CheckViolationError as error:
            # A partition was made while this row was on its way to the default one: nothing is stored, and now there is a place for it. That
            # violation names no constraint; ours do.
            if error.constraint_name is not None:
                raise
        except Unavailable as error:
            log.warning("event.commit_unknown", event_id=checked.id, reason=error.message)
            if await _is_recorded(database, checked.id, give_up_at_s):
                return True
            if time.monotonic() >= give_up_at_s:
                raise


async def _append_once(database: Database, event_id: EventId, row: tuple[Any, ...], claim: Claim) -> bool:
    """With the claim of its key, in one transaction. Raises Replayed when an earlier request did it."""
    async with database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await take(connection, claim, event_id)
            stored = await connection.fetchval(queries["record_event"], *row) is not None
        except BaseException:
            await transaction.rollback()
            raise
        # A claim without its event must not stay: the event is checked again, and claims anew.
        await (transaction.commit() if stored else transaction.rollback())
        return stored


async def _is_recorded(database: Database, event_id: EventId, give_up_at_s: float) -> bool:
    """Whether a commit whose answer was lost went through. Raises Unavailable when the database stays away."""
    while True:
        await asyncio.sleep(RETRY_INTERVAL_S)
        try:
            async with database.connection() as connection:
                return bool(await connection.fetchval(queries["is_recorded"], event_id))
        except Unavailable:
            if time.monotonic() >= give_up_at_s:
                raise
