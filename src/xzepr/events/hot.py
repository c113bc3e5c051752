"""The short way of an event that nothing is wrong with: from the bytes of a body to the group commit, without a task and without a wait.

It only ever says yes. Whatever it cannot take at once (a fault, a receiver that is not in memory, a restricted one, a payload that may be costly to
check) it leaves untouched, and the ordinary door (events/http.py, events/record.py) does everything from the start, with all its answers. So each
rule of the contract stands in one place; what is taken here is what the ordinary door would have answered with 201.
"""

from collections.abc import Callable

import msgspec

from xzepr import ids
from xzepr.auth.principal import Principal
from xzepr.errors import Unavailable, XzeprError
from xzepr.events.group_commit import Entry, Outcome, Stored
from xzepr.events.posted import read_plainly
from xzepr.events.record import Recorder, plainly_checked, row_for
from xzepr.ids import EventId

# Its id when it is stored; None: it must be looked at again, nothing was stored; else what went wrong.
HotOutcome = EventId | Exception | None


def take_event(recorder: Recorder, principal: Principal, body: bytes, traceparent: str | None, done: Callable[[HotOutcome], None]) -> bool:
    """Whether it was taken; then `done` is called once, later, on the event loop. False: nothing happened."""
    try:
        posted = read_plainly(body)
    except (XzeprError, msgspec.DecodeError):
        return False
    receiver = plainly_checked(recorder, principal, posted)
    if receiver is None:
        return False
    event_id = ids.mint(EventId)
    row = row_for(event_id, posted, receiver, principal, traceparent)

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
