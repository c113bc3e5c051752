"""What a rule makes due, what is held, what a plan says, what was removed."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

import msgspec

from xzepr.ids import DispositionId, HoldId, lowest_at
from xzepr.settings.model import RetentionRule
from xzepr.wildcard import matches

REASON_MAX_CHARS: Final = 5000


class Due(NamedTuple):
    """The rule that counts for one receiver. before: events with lower ids are older than the rule allows."""

    rule: RetentionRule
    event_receiver_id: str
    event_receiver_type: str
    before: str


class RuleFields(msgspec.Struct, frozen=True):
    """A rule, as plans and dispositions show it."""

    event_receiver_type: str
    older_than_days: int

    def __str__(self) -> str:
        return f"{self.event_receiver_type} > {self.older_than_days} d"


class PlanLine(msgspec.Struct, frozen=True, kw_only=True):
    """Events of one type of receiver under one rule. event_receiver_type: null when no receiver there is falls to the rule.

    due = held + in_stream + removable; what is held and still shown is counted as held. oldest_at: of those that are due.
    """

    rule: RuleFields
    event_receiver_type: str | None
    due: int = 0
    held: int = 0
    in_stream: int = 0
    removable: int = 0
    oldest_at: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an apply at this moment would do. messages: of the stream, older than stream_days, which go first; holds: in force."""

    at: str
    lines: list[PlanLine]
    removable: int
    messages: int
    stream_days: int
    holds: int


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Either a receiver or the five fields of an artifact."""

    id: HoldId
    event_receiver_id: str | None
    name: str | None
    version: str | None
    release: str | None
    platform_id: str | None
    package: str | None
    reason: str
    created_at: str
    created_by: str


class Disposition(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction removed. first, last: event ids, or positions; partition: dropped as a whole; rule and receiver: of events only."""

    id: DispositionId
    at: datetime
    subject: Literal["events", "messages"]
    rule: RuleFields | None = None
    event_receiver_id: str | None = None
    event_receiver_type: str | None = None
    removed: int
    first: str
    last: str
    oldest_at: datetime
    newest_at: datetime
    partition: str | None = None
    actor: str


def due_by(rules: Sequence[RetentionRule], receivers: Iterable[tuple[str, str]], now: datetime) -> list[Due]:
    """For each receiver (id, type) that a rule matches: the first such rule. The others keep their events for good."""
    found = []
    for receiver_id, kind in receivers:
        rule = next((rule for rule in rules if matches(rule.event_receiver_type, kind)), None)
        if rule is not None:
            found.append(Due(rule, receiver_id, kind, lowest_at(now - timedelta(days=rule.older_than_days))))
    return found


def fields_of(rule: RetentionRule) -> RuleFields:
    """As it is shown."""
    return RuleFields(rule.event_receiver_type, rule.older_than_days)
