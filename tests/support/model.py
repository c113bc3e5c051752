"""A plain sequential model of the gates. Imports nothing of xzepr; sees nothing but the public stream, from position 1."""

import json
from collections.abc import Iterable
from typing import Any

COMPLETE, BROKEN = "complete", "broken"


def replay(bodies: Iterable[bytes]) -> dict[str, Any]:
    """Check every decision in a stream of envelopes, read from position 1. Raises AssertionError at the first that differs.

    Returns what the stream held: counts, the newest event by (artifact, receiver), the groups.
    """
    groups: dict[str, dict[str, Any]] = {}
    newest: dict[tuple[str, str], tuple[int, bool, str]] = {}
    told: set[tuple[str, str]] = set()
    owed: list[tuple[str, str, Any, str]] = []
    seen_events: set[str] = set()
    seen_messages: set[str] = set()
    counts = {"events": 0, COMPLETE: 0, BROKEN: 0, "first": 0, "late": 0}
    for position, body in enumerate(bodies, start=1):
        message = json.loads(body)
        assert message["position"] == position, f"position {message['position']} stands where {position} should"
        assert message["message_id"] not in seen_messages, f"message {message['message_id']} twice"
        seen_messages.add(message["message_id"])
        decided = _decision(message)
        if decided is not None:
            expected = owed.pop(0) if owed else _evaluated(message, groups, newest, told)
            assert decided == expected, f"{position}: {decided}, but {expected} was owed"
            counts[decided[0]] += 1
            counts["first"] += decided[2] is True
            continue
        assert not owed, f"{position}: {owed} was owed before this"
        group = _definition(message)
        if group is not None:
            groups[group["id"]] = group
        elif message["type"] == "xzepr.event.receiver.group.deleted":
            groups.pop(message["id"], None)
        elif message["data"]["events"]:
            event = message["data"]["events"][0]
            assert event["id"] not in seen_events, f"event {event['id']} twice"
            seen_events.add(event["id"])
            counts["events"] += 1
            owed, late = _fold(message, event, groups, newest, told)
            counts["late"] += late
    assert not owed, f"at the end: {owed} was owed"
    return {**counts, "newest": newest, "groups": groups, "event_ids": seen_events}


def _artifact(message: dict[str, Any]) -> str:
    return json.dumps([message[field] for field in ("name", "version", "release", "platform_id", "package")])


def _decision(message: dict[str, Any]) -> tuple[str, str, Any, str] | None:
    """(kind, group, first, trigger) when the message is one."""
    data = message["data"]
    if not (data["events"] and data["event_receiver_groups"]):
        return None
    kind = COMPLETE if message["success"] else BROKEN
    group = data["event_receiver_groups"][0]
    assert message["id"] == group["id"]
    assert message["type"] == (group["type"] if kind == COMPLETE else "xzepr.event.receiver.group.broken")
    return kind, group["id"], message.get("first"), data["events"][0]["id"]


def _definition(message: dict[str, Any]) -> dict[str, Any] | None:
    data = message["data"]
    if data["events"] or not data["event_receiver_groups"] or message["type"].endswith(".deleted"):
        return None
    group: dict[str, Any] = data["event_receiver_groups"][0]
    return group


def _evaluated(
    message: dict[str, Any],
    groups: dict[str, dict[str, Any]],
    newest: dict[tuple[str, str], tuple[int, bool, str]],
    told: set[tuple[str, str]],
) -> tuple[str, str, Any, str] | None:
    """A decision that no event owed was asked for: it must hold at this place, and tell of the newest event among the gates."""
    artifact, group = _artifact(message), groups.get(message["id"])
    gates = [newest.get((artifact, member), (0, False, "")) for member in group["event_receiver_ids"]] if group else []
    if group is None or not group["enabled"] or not all(success for _, success, _ in gates):
        return None
    first = (group["id"], artifact) not in told
    told.add((group["id"], artifact))
    return COMPLETE, group["id"], first, max(gates)[2]


def _fold(
    message: dict[str, Any],
    event: dict[str, Any],
    groups: dict[str, dict[str, Any]],
    newest: dict[tuple[str, str], tuple[int, bool, str]],
    told: set[tuple[str, str]],
) -> tuple[list[tuple[str, str, Any, str]], bool]:
    """What this event owes, by brute force over all groups; and whether it came late."""
    artifact, receiver, seq, success = _artifact(message), event["event_receiver_id"], message["seq"], event["success"]
    assert message["success"] == success
    if (artifact, receiver) in newest and seq < newest[artifact, receiver][0]:
        return [], True

    def holds(group: dict[str, Any]) -> bool:
        return group["enabled"] and all(newest.get((artifact, member), (0, False, ""))[1] for member in group["event_receiver_ids"])

    members = [groups[group_id] for group_id in sorted(groups) if receiver in groups[group_id]["event_receiver_ids"]]
    held_before = {group["id"] for group in members if holds(group)}
    newest[artifact, receiver] = (seq, success, event["id"])
    owed: list[tuple[str, str, Any, str]] = []
    for group in members:
        if success and holds(group):
            first = (group["id"], artifact) not in told
            told.add((group["id"], artifact))
            owed.append((COMPLETE, group["id"], first, event["id"]))
        elif not success and group["id"] in held_before:
            owed.append((BROKEN, group["id"], None, event["id"]))
    return owed, False
