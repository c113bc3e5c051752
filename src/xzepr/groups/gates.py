"""Gates: what a fact decides, and why a gate is shut. Pure; nothing here reads a clock or a database.

`decide` is the whole rule of the house: given the fold's state and one fact it says which messages follow and how the state changes. The
sequencer runs it over the facts in the order of the stream, so a replay of the stream must give the same decisions.
Source: DESIGN §7 and contract `epr.md` §3.

- A gate is one receiver as a requirement of one group for one artifact. Its newest event (highest seq) opens or closes it.
- A success that leaves all gates of an enabled group open: *group complete*, each time; `first` is true the first time for the artifact.
- A failure that finds all gates of an enabled group open just before it: *group broken*, whether or not complete was told.
- An event with a lower seq than the newest of its receiver there is late: it is recorded and changes nothing.
- A change of a definition decides nothing by itself; earlier events count at the next member event.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from xzepr.stream.message import Kind

ArtifactId = bytes


class Head(NamedTuple):
    """The newest event of one receiver for one artifact."""

    event_id: str
    seq: int
    success: bool


class GroupDefinition(NamedTuple):
    """A group as of its last sequenced version. A deleted group is not kept."""

    id: str
    version: int
    enabled: bool
    event_receiver_ids: tuple[str, ...]


class EventFact(NamedTuple):
    """An event was recorded."""

    seq: int
    artifact_id: ArtifactId
    event_receiver_id: str
    event_id: str
    success: bool


class GroupFact(NamedTuple):
    """A group was created, modified or deleted. definition: None when it was deleted."""

    seq: int
    group_id: str
    definition: GroupDefinition | None


class EvaluationFact(NamedTuple):
    """Somebody asked for a decision now, for a group that was made or enabled late."""

    seq: int
    group_id: str
    artifact_id: ArtifactId


class Verdict(NamedTuple):
    """What was decided of one group. kind: GROUP_COMPLETE or GROUP_BROKEN; first: of a completion, else None."""

    kind: Kind
    group_id: str
    group_version: int
    first: bool | None


class Decision(NamedTuple):
    """What follows from one event. head: the new newest event, None when the event was late."""

    head: Head | None
    verdicts: tuple[Verdict, ...]


@dataclass(slots=True)
class FoldState:
    """What was sequenced so far, as far as the facts at hand need it.

    heads: newest event by artifact and receiver; groups: definitions by id; told: pairs of group and artifact for which a completion
    was ever told.
    """

    heads: dict[tuple[ArtifactId, str], Head] = field(default_factory=dict)
    groups: dict[str, GroupDefinition] = field(default_factory=dict)
    groups_of: dict[str, set[str]] = field(default_factory=dict)
    told: set[tuple[str, ArtifactId]] = field(default_factory=set)

    def define(self, fact: GroupFact) -> None:
        """Take a group's definition from now on."""
        before = self.groups.pop(fact.group_id, None)
        for receiver_id in before.event_receiver_ids if before else ():
            self.groups_of[receiver_id].discard(fact.group_id)
        if fact.definition is None:
            return
        self.groups[fact.group_id] = fact.definition
        for receiver_id in fact.definition.event_receiver_ids:
            self.groups_of.setdefault(receiver_id, set()).add(fact.group_id)

    def all_open(self, group: GroupDefinition, artifact_id: ArtifactId, but: str) -> bool:
        """Whether all gates of the group are open, the one of the receiver `but` left out."""
        heads = self.heads
        for receiver_id in group.event_receiver_ids:
            if receiver_id == but:
                continue
            head = heads.get((artifact_id, receiver_id))
            if head is None or not head.success:
                return False
        return True

    def apply(self, fact: EventFact, decision: Decision) -> None:
        """Make what was decided the state of the next fact."""
        if decision.head is not None:
            self.heads[fact.artifact_id, fact.event_receiver_id] = decision.head
        for verdict in decision.verdicts:
            if verdict.kind is Kind.GROUP_COMPLETE:
                self.told.add((verdict.group_id, fact.artifact_id))


def decide(state: FoldState, fact: EventFact) -> Decision:
    """What follows from this event on this state. Changes nothing; groups in the order of their ids."""
    before = state.heads.get((fact.artifact_id, fact.event_receiver_id))
    if before is not None and fact.seq < before.seq:
        return Decision(None, ())
    head = Head(fact.event_id, fact.seq, fact.success)
    was_open = before is not None and before.success
    if not fact.success and not was_open:
        return Decision(head, ())
    verdicts = []
    for group_id in sorted(state.groups_of.get(fact.event_receiver_id, ())):
        group = state.groups[group_id]
        if not group.enabled or not state.all_open(group, fact.artifact_id, but=fact.event_receiver_id):
            continue
        if fact.success:
            first = (group_id, fact.artifact_id) not in state.told
            verdicts.append(Verdict(Kind.GROUP_COMPLETE, group_id, group.version, first))
        else:
            verdicts.append(Verdict(Kind.GROUP_BROKEN, group_id, group.version, None))
    return Decision(head, tuple(verdicts))


def evaluate(state: FoldState, fact: EvaluationFact) -> tuple[Verdict, str, Head] | None:
    """Group complete with its trigger, the newest event among the gates, and that event's receiver; None: not complete, or no such group."""
    group = state.groups.get(fact.group_id)
    if group is None or not group.enabled or not state.all_open(group, fact.artifact_id, but=""):
        return None
    heads = {receiver_id: state.heads[fact.artifact_id, receiver_id] for receiver_id in group.event_receiver_ids}
    trigger = max(heads, key=lambda receiver_id: heads[receiver_id].seq)
    first = (group.id, fact.artifact_id) not in state.told
    return Verdict(Kind.GROUP_COMPLETE, group.id, group.version, first), trigger, heads[trigger]


class GateFacts(NamedTuple):
    """One gate as a person is told of it. success None: no event yet."""

    receiver_name: str
    receiver_type: str
    success: bool | None
    decided_at: datetime | None


def summarise(group_name: str, artifact: str, enabled: bool, gates: list[GateFacts]) -> str:
    """One sentence that a release manager understands."""
    closed = [gate for gate in gates if gate.success is False]
    missing = [gate for gate in gates if gate.success is None]
    if not closed and not missing:
        if enabled:
            return f"{artifact} may move on: all {_count(len(gates), 'gate')} of {group_name} {'is' if len(gates) == 1 else 'are'} open."
        return f"{artifact} may not move on: {group_name} is disabled, though {'its gate is' if len(gates) == 1 else 'all its gates are'} open."
    reasons = []
    if not enabled:
        reasons.append(f"{group_name} is disabled")
    if closed:
        reasons.append(" and ".join(f"{_gate(gate)} failed at {gate.decided_at:%Y-%m-%d %H:%M:%S} UTC" for gate in closed))
    if missing:
        reasons.append(f"nothing was posted yet for {' and '.join(_gate(gate) for gate in missing)}")
    return f"{artifact} may not move on to {group_name}: {'; '.join(reasons)}."


def _gate(gate: GateFacts) -> str:
    return f"{gate.receiver_name} ({gate.receiver_type})"


def _count(number: int, noun: str) -> str:
    return noun if number == 1 else f"{number} {noun}s"
