"""The short way of an event that nothing is wrong with: from the bytes of a body to the group commit, without a task and without a wait.

It only ever says yes. Whatever it cannot take at once (a fault, a receiver that is not in memory, a restricted one, a payload that may be costly to
check) it leaves untouched, and the ordinary door (events/http.py, events/record.py) does everything from the start, with all its answers. So each
rule of the contract stands in one place; what is taken here is what the ordinary door would have answered with 201.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from xzepr import ids
from xzepr.auth.principal import Principal
from xzepr.errors import Unavailable, XzeprError
from xzepr.events.group_commit import Entry, Outcome, Stored, row_of
from xzepr.events.model import NewEvent
from xzepr.events.record import Recorder, may_post
from xzepr.ids import EventId
from xzepr.json_text import compact, parse_strict

# Its id when it is stored; None: it must be looked at again, nothing was stored; else what went wrong.
HotOutcome = EventId | Exception | None

_decode: Final = msgspec.json.Decoder(NewEvent).decode


def take_event(recorder: Recorder, principal: Principal, body: bytes, traceparent: str | None, done: Callable[[HotOutcome], None]) -> bool:
    """Whether it was taken; then `done` is called once, later, on the event loop. False: nothing happened."""
    try:
        tree = parse_strict(body)
        event = _decode(body)
    except (XzeprError, msgspec.DecodeError):
        return False
    receiver = recorder.receivers.kept(event.event_receiver_id)
    if receiver is None or not may_post(principal, receiver):
        return False
    payload_text = compact(bytes(event.payload))
    if not recorder.checker.is_plainly_valid(receiver.id, receiver.resource_version, tree["payload"], payload_text):
        return False
    event_id = ids.mint(EventId)
    row = row_of(event_id, event, payload_text, receiver.resource_version, principal.id, traceparent)

    def told(outcome: Outcome) -> None:
        if isinstance(outcome, Stored):
            done(event_id)
        else:
            done(outcome if isinstance(outcome, Exception) else None)

    try:
        recorder.commit.add(Entry((row,), told))
    except Unavailable as error:
        done(error)
    return True
