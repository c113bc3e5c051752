"""The fault drill's audit finds what is wrong: a true history passes, and each way of spoiling it is told."""

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support import audit, ledger, model
from support.audit import Row, StreamAudit, audit_rows, audit_watched
from support.ledger import Ledger

RECEIVER, GROUP = "receiver", "group"


@dataclass
class History:
    """A ledger with what the database and the stream hold of it."""

    ledger: Ledger = field(default_factory=Ledger)
    rows: list[Row] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    watched: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        stream = StreamAudit()
        found = [*audit_rows(self.ledger, self.rows), *stream.read(json.dumps(message).encode() for message in self.messages)]
        return [*found, *stream.audit(self.ledger, self.rows, self.versions), *audit_watched(self.watched, stream.message_ids)]

    def put(self, event: dict[str, Any] | None, group: dict[str, Any] | None, **fields: Any) -> None:
        position = len(self.messages) + 1
        artifact = dict.fromkeys(("name", "version", "release", "platform_id", "package"), "x")
        data = {"events": [event] if event else None, "event_receivers": None, "event_receiver_groups": [group] if group else None}
        self.messages.append({"position": position, "message_id": f"message {position}", "data": data, "seq": position, **artifact, **fields})
        self.watched.append(f"message {position}")


def true_history() -> History:
    """Three acknowledged events (success, failure, success), each deciding something; one refused, one unknown, one batch that failed."""
    made = History()
    group = {"id": GROUP, "type": "released", "enabled": True, "event_receiver_ids": [RECEIVER]}
    made.put(None, group, type="epr.event.receiver.group.created", id=GROUP, success=True)
    made.versions[GROUP] = 1
    for number, success in enumerate((True, False, True)):
        marker, event_id = made.ledger.new("single"), f"event {number}"
        made.ledger.note(marker, f"201 {event_id}")
        made.ledger.acknowledge(marker, event_id)
        made.ledger.orders.setdefault(0, []).append(event_id)
        made.rows.append(Row(event_id, number, marker))
        event = {"id": event_id, "event_receiver_id": RECEIVER, "success": success}
        made.put(event, None, type="done", id=event_id, success=success, seq=number)
        decided = {"type": "released", "first": number == 0} if success else {"type": "xzepr.event.receiver.group.broken"}
        made.put(event, group, id=GROUP, success=success, seq=number, **decided)
    made.ledger.refuse(made.ledger.new("refused"))
    made.ledger.new("unknown")
    made.ledger.batches.append([made.ledger.new("batch"), made.ledger.new("batch")])
    return made


def test_a_true_history_passes() -> None:
    assert true_history().faults() == []


def lost_row(history: History) -> None:
    del history.rows[1]


def double_row(history: History) -> None:
    history.rows.append(history.rows[0]._replace(event_id="event 9", seq=9))


def other_id(history: History) -> None:
    history.rows[0] = history.rows[0]._replace(event_id="event 9")


def refused_and_stored(history: History) -> None:
    history.rows.append(Row("event 9", 9, "m4"))


def never_sent(history: History) -> None:
    history.rows.append(Row("event 9", 9, "m99"))


def half_a_batch(history: History) -> None:
    history.rows.append(Row("event 9", 9, "m6"))


def wrong_order(history: History) -> None:
    history.rows[0] = history.rows[0]._replace(seq=9)


def hole_in_positions(history: History) -> None:
    for message in history.messages[3:]:
        message["position"] += 1


def lost_fact(history: History) -> None:
    del history.messages[-2:]


def doubled_fact(history: History) -> None:
    history.messages.append({**history.messages[-2], "position": 8, "message_id": "message 8"})


def doubled_message(history: History) -> None:
    history.messages.append({**history.messages[-1], "position": 8})


def lost_decision(history: History) -> None:
    history.messages.pop()


def wrong_decision(history: History) -> None:
    history.messages[2]["first"] = False


def lost_version(history: History) -> None:
    history.versions[GROUP] = 2


def lost_change(history: History) -> None:
    history.ledger.changes[GROUP] = 1


def other_evaluation(history: History) -> None:
    history.ledger.evaluations.append((3, "message 5"))


def other_watch(history: History) -> None:
    history.watched[2] = "message 9"


def short_watch(history: History) -> None:
    history.watched.pop()


SPOILT: dict[Callable[[History], None], str] = {
    lost_row: "stored 0 times [], expected [1]: m2 (single): ",
    double_row: "stored 2 times ['event 0', 'event 9'], expected [1]: m1",
    other_id: "stored as event 9, answered with event 0: m1",
    refused_and_stored: "stored 1 times ['event 9'], expected [0]: m4 (refused)",
    never_sent: "stored and never sent: m99",
    half_a_batch: "1 events of a batch of 2 are stored: m6",
    wrong_order: "writer 0: event 0 was answered before event 1 was sent",
    hole_in_positions: "position 5 stands where 4 should",
    lost_fact: "the event event 2 is 0 times in the stream: m3",
    doubled_fact: "event event 2 twice",
    doubled_message: "message message 7 twice",
    lost_decision: "was owed",
    wrong_decision: "('complete', 'group', True, 'event 0') was owed",
    lost_version: "the group group has 2 versions, 1 in the stream",
    lost_change: "but 1 changes of it were acknowledged",
    other_evaluation: "an evaluation was answered with message message 5 at position 3",
    other_watch: "a watcher was given message 9 at position 3, where message 3 stands",
    short_watch: "a watcher saw 6 of 7 messages",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_what_is_spoilt_is_told(spoil: Callable[[History], None]) -> None:
    history = true_history()
    spoil(history)
    assert any(SPOILT[spoil] in fault for fault in history.faults()), history.faults()


def test_a_second_id_for_one_event_is_told() -> None:
    history = true_history()
    history.ledger.acknowledge("m1", "event 9")
    assert any("answered with event 0 and then with event 9" in fault for fault in history.ledger.faults)


def test_a_201_for_what_must_not_be_stored_is_told() -> None:
    history = true_history()
    history.ledger.acknowledge("m4", "event 9")
    assert any("answered with 201 what must not be stored" in fault for fault in history.ledger.faults)


@pytest.mark.parametrize("module", [audit, ledger, model], ids=lambda module: module.__name__)
def test_what_judges_imports_nothing_of_xzepr(module: Any) -> None:
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if name.split(".")[0] == "xzepr"]
