"""Is everything there that was acknowledged, once, in its place, and nothing else? Each function gives one line per fault; none: all is well.

Pure: what the database and the stream hold is read elsewhere, so that tests can show that a fault would be found. Imports nothing of xzepr.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from support.ledger import Ledger
from support.model import replay


class Row(NamedTuple):
    """One stored event. marker: of its payload."""

    event_id: str
    seq: int
    marker: str | None


def audit_rows(ledger: Ledger, rows: list[Row]) -> Iterator[str]:
    """Each event as often as its answers promise, under the id that was answered, batches whole, in the order in which a client saw them stored."""
    stored: dict[str | None, list[str]] = {}
    for row in rows:
        stored.setdefault(row.marker, []).append(row.event_id)
    for marker, entry in ledger.entries.items():
        ids = stored.pop(marker, [])
        if len(ids) not in entry.expects:
            yield f"stored {len(ids)} times {ids}, expected {sorted(entry.expects)}: {entry.told()}"
        elif ids and entry.event_id not in (None, ids[0]):
            yield f"stored as {ids[0]}, answered with {entry.event_id}: {entry.told()}"
    for marker, ids in stored.items():
        yield f"stored and never sent: {marker} {ids}"
    yield from _audit_batches(ledger, rows)
    yield from _audit_order(ledger, rows)


def _audit_batches(ledger: Ledger, rows: list[Row]) -> Iterator[str]:
    there = {row.marker for row in rows}
    for batch in ledger.batches:
        count = sum(marker in there for marker in batch)
        if count not in (0, len(batch)):
            yield f"{count} events of a batch of {len(batch)} are stored: {ledger.entries[batch[0]].told()}"


def _audit_order(ledger: Ledger, rows: list[Row]) -> Iterator[str]:
    seqs = {row.event_id: row.seq for row in rows}
    for writer, ids in ledger.orders.items():
        known = [event_id for event_id in ids if event_id in seqs]
        for earlier, later in itertools.pairwise(known):
            if seqs[earlier] >= seqs[later]:
                yield f"writer {writer}: {earlier} was answered before {later} was sent, but has seq {seqs[earlier]} and that one {seqs[later]}"


class StreamAudit:
    """Reads the stream along with the model. events: ids in order; definitions: messages by group; message_ids: by position, from 1."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.definitions: Counter[str] = Counter()
        self.message_ids: list[str] = []
        self.counts: dict[str, Any] = {}

    def read(self, bodies: Iterable[bytes]) -> Iterator[str]:
        """Positions without holes, every message once, every decision as the model decides."""
        try:
            self.counts = replay(self._noting(bodies))
        except AssertionError as error:
            yield f"the stream is not what the model makes of it: {error}"

    def _noting(self, bodies: Iterable[bytes]) -> Iterator[bytes]:
        for body in bodies:
            message = json.loads(body)
            data = message["data"]
            self.message_ids.append(message["message_id"])
            if data["events"] and not data["event_receiver_groups"]:
                self.events.append(data["events"][0]["id"])
            elif data["event_receiver_groups"] and not data["events"]:
                self.definitions[message["id"]] += 1
            yield body

    def audit(self, ledger: Ledger, rows: list[Row], versions: dict[str, int]) -> Iterator[str]:
        """Every fact in the stream once. versions: how many each group has, in the database."""
        told = Counter(self.events)
        stored = {row.event_id: row.marker for row in rows}
        for event_id, marker in stored.items():
            if told[event_id] != 1:
                history = ledger.entries[marker].told() if marker in ledger.entries else marker
                yield f"the event {event_id} is {told[event_id]} times in the stream: {history}"
        for event_id in told.keys() - stored.keys():
            yield f"the event {event_id} is in the stream and not stored"
        for group_id, count in versions.items():
            if self.definitions[group_id] != count:
                yield f"the group {group_id} has {count} versions, {self.definitions[group_id]} in the stream"
            if count < 1 + ledger.changes[group_id]:
                yield f"the group {group_id} has {count} versions, but {ledger.changes[group_id]} changes of it were acknowledged"
        for position, message_id in ledger.evaluations:
            if self.message_ids[position - 1 : position] != [message_id]:
                yield f"an evaluation was answered with message {message_id} at position {position}; another stands there"


def audit_watched(watched: list[str], message_ids: list[str]) -> Iterator[str]:
    """A watcher that followed through all faults saw the same messages in the same order. Both by position, from 1."""
    for position, (seen, stands) in enumerate(zip(watched, message_ids, strict=False), start=1):
        if seen != stands:
            yield f"a watcher was given {seen} at position {position}, where {stands} stands"
            return
    if len(watched) != len(message_ids):
        yield f"a watcher saw {len(watched)} of {len(message_ids)} messages"
