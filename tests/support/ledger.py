"""What a load sent and was answered, event by event, and what follows from it: how often each may be stored.

Every event carries a marker of its own in its payload. Answered with 201: stored once. Answered with 4xx: never. No answer, or 5xx: once or not at
all; with an Idempotency-Key it is sent again until the answer is definite.
"""

import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

EITHER, ONCE, NEVER = frozenset({0, 1}), frozenset({1}), frozenset({0})


@dataclass
class Entry:
    """One event. expects: how many rows of it may be there; event_id: as answered with 201."""

    marker: str
    what: str
    expects: frozenset[int] = EITHER
    event_id: str | None = None
    history: list[str] = field(default_factory=list)

    def told(self) -> str:
        return f"{self.marker} ({self.what}): {'; '.join(self.history) or 'never sent'}"


class Ledger:
    """One thread writes an entry; counters may be read by another meanwhile.

    batches: markers that are stored together or not at all; orders: by writer, ids in the order of their 201, each sent after the one before was
    answered; evaluations: (position, message id) as answered; changes: by group, how many were acknowledged; faults: what was wrong on the spot.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.batches: list[list[str]] = []
        self.orders: dict[int, list[str]] = {}
        self.evaluations: list[tuple[int, str]] = []
        self.changes: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.faults: list[str] = []
        self.acknowledged = 0
        self.round = 0
        self._numbers = itertools.count(1)
        self._began_s = time.monotonic()

    def new(self, what: str) -> str:
        """A marker for an event that is going to be sent."""
        marker = f"m{next(self._numbers)}"
        self.entries[marker] = Entry(marker, what)
        return marker

    def note(self, marker: str, outcome: str) -> None:
        """One attempt and how it ended."""
        self.entries[marker].history.append(f"{time.monotonic() - self._began_s:.2f} s, round {self.round}: {outcome}")

    def acknowledge(self, marker: str, event_id: str) -> None:
        """201 with this id. A repeated request must be answered with the first id again."""
        entry = self.entries[marker]
        if entry.expects == NEVER:
            self.faults.append(f"answered with 201 what must not be stored: {entry.told()}")
        if entry.event_id not in (None, event_id):
            self.faults.append(f"answered with {entry.event_id} and then with {event_id}: {entry.told()}")
        if entry.event_id is None:
            self.acknowledged += 1
        entry.event_id, entry.expects = event_id, ONCE

    def refuse(self, marker: str) -> None:
        """4xx on its only attempt, or input that no server may store."""
        self.entries[marker].expects = NEVER

    def unanswered(self) -> int:
        """Events of which nobody knows whether they are stored."""
        return sum(entry.expects == EITHER for entry in list(self.entries.values()))
