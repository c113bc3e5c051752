"""What one web process holds, joined in app.py and handed to every door."""

from dataclasses import dataclass

from xzepr.db.pool import Database
from xzepr.events.record import Recorder
from xzepr.events.search import EventReads
from xzepr.receivers.payload import PayloadChecker
from xzepr.settings import Settings
from xzepr.stream.follow import Tail


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """settings: frozen; database: this process's share of the connections; tail: the end of the stream, shared by all followers."""

    settings: Settings
    database: Database
    checker: PayloadChecker
    recorder: Recorder
    reads: EventReads
    tail: Tail
