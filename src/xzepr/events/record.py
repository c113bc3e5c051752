"""The write path, from top to bottom.

record_events() checks, hands the checked events to the group commit, and answers after the commit. The statement that stores them compares the
receivers' versions with those in force: an event checked against an older one is checked again, so what is posted after a change of the receiver
was acknowledged meets the new definition, in every process.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from xzepr import ids
from xzepr.audit.acts import Act
from xzepr.audit.denials import Denials
from xzepr.auth.principal import Principal
from xzepr.db.pool import Database
from xzepr.errors import Conflict, Fault, InvalidInput, PayloadMismatch, PermissionDenied, Unavailable, XzeprError
from xzepr.events.group_commit import OTHER_EVENT, GroupCommit, Row, Stored, row_of
from xzepr.events.posted import EVENTS_AT_ONCE, Batch, Posted, refusal_of, shortened
from xzepr.idempotency import Answered, Claim
from xzepr.ids import EventId, EventReceiverId
from xzepr.json_text import FAULTS_MAX
from xzepr.receivers.manage import Receivers
from xzepr.receivers.model import ReceiverInForce
from xzepr.receivers.payload import PayloadChecker
from xzepr.stream.outbox import Bell

# A receiver that is changed again and again while one event waits: more than this is not bad luck.
RECHECKS_MAX: Final = 20
# A larger batch does not share its transaction with single events, which would wait for it.
ROWS_SHARED_MAX: Final = 100

# Of one event in a batch: its id, or why it was refused.
Result = EventId | XzeprError


class Recorder:
    """What one process needs to record events. commit: single events and small batches; bulk: large batches. denials None: nobody counts them."""

    def __init__(self, database: Database, receivers: Receivers, checker: PayloadChecker, bell: Bell, denials: Denials | None = None) -> None:
        self.database = database
        self.receivers = receivers
        self.checker = checker
        self.bell = bell
        self.denials = denials
        self.commit = GroupCommit(database, bell)
        self.bulk = GroupCommit(database, bell)

    async def close(self) -> None:
        """Until everything that was taken is stored."""
        await self.commit.close()
        await self.bulk.close()


async def record_event(
    recorder: Recorder, principal: Principal, posted: Posted, traceparent: str | None = None, claim: Claim | None = None
) -> tuple[EventId, bool]:
    """Store one event durably and queue what follows from it; returns its id after the commit, and whether it was stored now.

    claim: of an Idempotency-Key, taken in the same transaction. Reads no other event, decides no gate, locks nothing beyond its own rows. Raises
    InvalidInput (unknown receiver), PermissionDenied (restricted receiver, or beyond the credentials' reach), PayloadMismatch (one JSON pointer per
    fault), ValidationTooCostly, Replayed (an earlier request did it), Conflict, InFlight, Unavailable. Source: docs/decisions/0002.
    """
    event_id = ids.mint(EventId)
    receiver_id = ids.parse(EventReceiverId, posted.event.event_receiver_id, "/event_receiver_id")
    own = {0: (posted.own, Answered(event_id))} if posted.own is not None else None
    for _ in range(RECHECKS_MAX):
        receiver = await _checked(recorder, principal, posted, receiver_id, set())
        row = row_for(event_id, posted, receiver, principal, traceparent)
        outcome = await recorder.commit.store([row], (claim, Answered(event_id)) if claim is not None else None, own)
        if isinstance(outcome, Stored):
            return EventId(outcome.earlier.get(0, event_id)), not outcome.earlier
        await recorder.receivers.reload(receiver_id)
    raise _changes_too_fast(receiver_id)


async def record_events(
    recorder: Recorder,
    principal: Principal,
    batch: Batch,
    *,
    partial: bool = False,
    traceparent: str | None = None,
    keyed: tuple[Claim, Callable[[Sequence[Result]], str]] | None = None,
) -> list[Result]:
    """Store a batch in one transaction, in its order: all of it or nothing; with partial all that nothing is wrong with.

    keyed: the claim of an Idempotency-Key, and what makes the text that a repeated request with it will get. Raises, unless partial, the kind of
    error of record_event() that comes first, with the faults of all events; and always Replayed, Conflict, InFlight, Unavailable.
    """
    minted = [ids.mint(EventId) for _ in batch]
    for _ in range(RECHECKS_MAX):
        receivers, refused = await _check_all(recorder, principal, batch)
        if refused and not partial:
            raise refusal_of(refused)
        results: list[Result] = [refused.get(place, event_id) for place, event_id in enumerate(minted)]
        places = [place for place in range(len(batch)) if place not in refused]
        repeats = _repeats(batch, places)
        stored = [place for place in places if place not in repeats]
        rows = [row_for(minted[place], _posted(batch[place]), receivers[place], principal, traceparent) for place in stored]
        own = {row: (claimed, Answered(minted[place])) for row, place in enumerate(stored) if (claimed := _posted(batch[place]).own) is not None}
        for place, first in repeats.items():
            results[place] = results[first]
        if not rows and keyed is None:
            return results
        lane = recorder.bulk if len(rows) > ROWS_SHARED_MAX else recorder.commit
        claim = (keyed[0], Answered(minted[0], 207 if partial else 201, keyed[1](results))) if keyed is not None else None
        outcome = await lane.store(rows, claim, own)
        if isinstance(outcome, Stored):
            for row, event_id in outcome.earlier.items():
                results[stored[row]] = EventId(event_id)
            for place, first in repeats.items():
                results[place] = results[first]
            return results
        for receiver_id in outcome.receiver_ids:
            await recorder.receivers.reload(EventReceiverId(receiver_id))
    raise _changes_too_fast("of this batch")


def plainly_checked(recorder: Recorder, principal: Principal, posted: Posted) -> ReceiverInForce | None:
    """The receiver, when it is in memory and the event satisfies it by a cheap check: no wait, no task. None says nothing."""
    receiver = recorder.receivers.kept(posted.event.event_receiver_id)
    if receiver is None or not _may_post(principal, receiver):
        return None
    is_valid = recorder.checker.is_plainly_valid(receiver.id, receiver.resource_version, posted.payload, posted.payload_text)
    return receiver if is_valid else None


def row_for(event_id: EventId, posted: Posted, receiver: ReceiverInForce, principal: Principal, traceparent: str | None) -> Row:
    """For the group commit, of an event that satisfies this receiver."""
    return row_of(event_id, posted.event, posted.payload_text, receiver.resource_version, principal.id, traceparent)


def _may_post(principal: Principal, receiver: ReceiverInForce) -> bool:
    """What a forged event opens is a release gate: to a restricted receiver only its owner, members of its groups and administrators post; with a
    key or token for some receivers nobody posts to another."""
    if principal.event_receiver_ids is not None and receiver.id not in principal.event_receiver_ids:
        return False
    return not receiver.restricted or principal.owns(receiver.owner_id) or principal.id in receiver.poster_ids


def _require_may_post(principal: Principal, receiver: ReceiverInForce) -> None:
    _require_in_reach(principal, receiver.id)
    if not _may_post(principal, receiver):
        who = "only its owner, members of its groups and administrators"
        raise PermissionDenied(f"the event receiver {receiver.id} is restricted: {who} may post to it")


def _require_in_reach(principal: Principal, receiver_id: EventReceiverId) -> None:
    """Of what an API key or token is limited to. Raises PermissionDenied."""
    if principal.event_receiver_ids is not None and receiver_id not in principal.event_receiver_ids:
        raise PermissionDenied(f"these credentials are for other event receivers: they may not post to {receiver_id}")


async def _check_all(recorder: Recorder, principal: Principal, batch: Batch) -> tuple[dict[int, ReceiverInForce], dict[int, XzeprError]]:
    """By place: the receiver that each satisfies, or why it is refused, with FAULTS_MAX faults in all that are found here."""
    receivers: dict[int, ReceiverInForce] = {}
    refused: dict[int, XzeprError] = {}
    asked: set[tuple[str, int]] = set()
    told = 0
    for place, posted in enumerate(batch):
        if place % EVENTS_AT_ONCE == EVENTS_AT_ONCE - 1:
            await asyncio.sleep(0)
        if isinstance(posted, XzeprError):
            refused[place] = posted
            continue
        if (known := plainly_checked(recorder, principal, posted)) is not None:
            receivers[place] = known
            continue
        try:
            receiver_id = ids.parse(EventReceiverId, posted.event.event_receiver_id, "/event_receiver_id")
            receivers[place] = await _checked(recorder, principal, posted, receiver_id, asked)
        except Unavailable:
            raise
        except XzeprError as error:
            refused[place] = shortened(error, FAULTS_MAX - told)
            told += len(refused[place].faults)
    return receivers, refused


async def _checked(
    recorder: Recorder, principal: Principal, posted: Posted, receiver_id: EventReceiverId, asked: set[tuple[str, int]]
) -> ReceiverInForce:
    """As _check(); a refusal is counted for the audit log: what a forged event opens is a release gate."""
    try:
        return await _check(recorder, principal, posted, receiver_id, asked)
    except PermissionDenied:
        if recorder.denials is not None:
            recorder.denials.note(principal, Act.EVENT_POST_REFUSED, receiver_id)
        raise


async def _check(
    recorder: Recorder, principal: Principal, posted: Posted, receiver_id: EventReceiverId, asked: set[tuple[str, int]]
) -> ReceiverInForce:
    """The receiver in force as far as this process knows, which the event satisfies. Raises as record_event().

    asked: receivers, with their version (0: there is none), that the database was asked about a moment ago; it is asked once for a batch.
    """
    # Before anything is asked: who may not reach a receiver does not learn whether there is one.
    _require_in_reach(principal, receiver_id)
    receiver = None if (receiver_id, 0) in asked else await recorder.receivers.get(receiver_id)
    for _ in range(RECHECKS_MAX):
        if receiver is None:
            asked.add((receiver_id, 0))
            raise InvalidInput.at("/event_receiver_id", f"there is no event receiver {receiver_id}")
        try:
            _require_may_post(principal, receiver)
            await recorder.checker.check(
                receiver.id, receiver.resource_version, receiver.schema_text, receiver.default_draft, posted.payload, posted.payload_text
            )
        except (PayloadMismatch, PermissionDenied):
            # Refused by what is kept in memory, which may be old: only what is in force refuses.
            if (receiver_id, receiver.resource_version) in asked:
                raise
            in_force = await recorder.receivers.reload(receiver_id)
            if in_force is not None:
                asked.add((receiver_id, in_force.resource_version))
                if in_force == receiver:
                    raise
            receiver = in_force
            continue
        return receiver
    raise _changes_too_fast(receiver_id)


def _posted(item: Posted | XzeprError) -> Posted:
    assert isinstance(item, Posted)
    return item


def _repeats(batch: Batch, places: Sequence[int]) -> dict[int, int]:
    """Events that bring the same key as an earlier one of the batch: place to the place of the first. Raises Conflict for another event."""
    first: dict[str, int] = {}
    repeats: dict[int, int] = {}
    for place in places:
        own = _posted(batch[place]).own
        if own is None or first.setdefault(own.key, place) == place:
            continue
        repeats[place] = first[own.key]
        earlier = _posted(batch[repeats[place]]).own
        if earlier is not None and earlier.body_sha256 != own.body_sha256:
            raise Conflict(OTHER_EVENT, faults=(Fault(f"/{place}", OTHER_EVENT),))
    return repeats


def _changes_too_fast(what: str) -> Unavailable:
    return Unavailable(f"the event receiver {what} changes faster than the event can be checked; try again")
