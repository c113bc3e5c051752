"""`xzepr apply -f DIR`: receivers and groups as a repository has them.

First everything is read and compared, then changed: receivers, then groups. A thing is found again by its `id`, else by kind, name and type; where
several answer to that, or a group names a receiver that several answer to, nothing at all is done. A second run changes nothing. Each change is
made only if the thing is still what was read; so two runs at once do not undo each other. What a document does not name stays as it is, and what no
document describes is not touched. When the server refuses something in the middle, what was done before stays done, and the next run goes on
from there.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from xzepr.cli.connection import Failure, connected, failure_of
from xzepr.cli.output import json_option, print_json
from xzepr.cli.text import shown

if TYPE_CHECKING:
    from xzepr_client import Client, EventReceiver, EventReceiverGroup

    from xzepr.cli.documents import GroupDocument, Placed, ReceiverDocument, ReceiverName

Action = Literal["created", "changed", "unchanged"]

_STYLES: Final = {"created": "green", "changed": "yellow", "unchanged": None}
_WOULD: Final = {"created": "would create", "changed": "would change", "unchanged": "unchanged"}


@click.command()
@click.option("-f", "--file", "path", type=click.Path(exists=True, path_type=Path), required=True, help="A directory with *.yaml, or one file.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@json_option
@connected
def apply(client: "Client", path: Path, dry_run: bool, as_json: bool) -> None:
    """Create and change receivers and groups as YAML files describe them."""
    from xzepr.cli.documents import DocumentFaults, read_documents

    try:
        documents = read_documents(path)
    except DocumentFaults as error:
        raise Failure("the files cannot be applied; nothing was changed", *error.faults) from None
    steps = Plan(client, documents).steps
    done: list[dict[str, Any]] = []
    try:
        for step in steps:
            if not dry_run:
                _carry_out(client, step)
            done.append(step.told())
            if not as_json:
                _print(step, dry_run)
    finally:
        if as_json:
            print_json(done)


class Step:
    """What is to be done for one document. id: None until it is made; version: as it was read; changes: as they are sent."""

    def __init__(self, placed: "Placed", found: Any, changes: dict[str, Any]) -> None:
        self.placed = placed
        self.document: Any = placed.document
        self.kind = "EventReceiverGroup" if placed.schema is None and hasattr(placed.document, "event_receivers") else "EventReceiver"
        self.id: str | None = found.id if found is not None else None
        self.version: int | None = found.resource_version if found is not None else None
        self.changes = changes
        # Of a group: the steps and ids of its receivers, in order.
        self.receivers: list[Step | str] = []
        self.action: Action = "created" if found is None else "changed" if changes else "unchanged"

    def told(self) -> dict[str, Any]:
        """For programs."""
        named = {"kind": self.kind, "name": self.document.name, "type": self.document.type, "id": self.id}
        return {"action": self.action, **named, "fields": list(self.changes) if self.action == "changed" else []}

    def receiver_ids(self) -> list[str | None]:
        """None for each that is yet to be made."""
        return [each if isinstance(each, str) else each.id for each in self.receivers]


class Plan:
    """steps: receivers first, in the order of the files. Reads from the server, changes nothing. Raises Failure with everything that is doubtful."""

    def __init__(self, client: "Client", documents: list["Placed"]) -> None:
        from xzepr.cli.documents import ReceiverDocument

        self._client = client
        self._faults: list[str] = []
        self._by_name: dict[str, list[EventReceiver]] = {}
        receivers = [placed for placed in documents if isinstance(placed.document, ReceiverDocument)]
        groups = [placed for placed in documents if not isinstance(placed.document, ReceiverDocument)]
        self._receiver_steps = list(self._plan_receivers(receivers))
        self.steps = self._receiver_steps + list(self._plan_groups(groups))
        self._require_distinct()
        if self._faults:
            raise Failure("the files cannot be applied; nothing was changed", *self._faults)

    def _plan_receivers(self, documents: list["Placed"]) -> Iterator[Step]:
        for placed in documents:
            document: Any = placed.document
            found = self._find(placed, self._client.get_receiver, self._receivers_named(document.name) if document.id is None else [])
            yield Step(placed, found, _receiver_fields(document, placed.schema, found))

    def _plan_groups(self, documents: list["Placed"]) -> Iterator[Step]:
        from xzepr_client import each

        for placed in documents:
            document: Any = placed.document
            candidates = list(each(self._client.search_groups, name=document.name)) if document.id is None else []
            found = self._find(placed, self._client.get_group, candidates)
            step = Step(placed, found, _group_fields(document, found))
            step.receivers = [target for name in document.receivers if (target := self._target(placed, name)) is not None]
            if found is not None and step.receiver_ids() != found.event_receiver_ids:
                step.changes["event_receiver_ids"] = step.receiver_ids()
                step.action = "changed"
            yield step

    def _receivers_named(self, name: str) -> list["EventReceiver"]:
        from xzepr_client import each

        if name not in self._by_name:
            self._by_name[name] = list(each(self._client.search_receivers, name=name))
        return self._by_name[name]

    def _find(self, placed: "Placed", get: Any, candidates: list[Any]) -> Any:
        """What the document describes; None when it is yet to be made."""
        from xzepr_client import ProblemError

        document = placed.document
        if document.id is not None:
            try:
                return get(document.id)
            except ProblemError as error:
                if error.status not in (400, 404):
                    raise
                self._faults.append(f"{placed.place}: {error.message}; without id it would be created, and the server chooses its id")
                return None
        alike = [each for each in candidates if each.type == document.type]
        if len(alike) > 1:
            listed = ", ".join(each.id for each in alike)
            self._faults.append(f"{placed.place}: {len(alike)} bear this name and type; say by id which is meant: {listed}")
        return alike[0] if alike else None

    def _target(self, placed: "Placed", name: "ReceiverName") -> Step | str | None:
        """What a group's receiver will be once the receivers are done."""
        if name.id is not None:
            return name.id.upper()
        described = [step for step in self._receiver_steps if _answers_to(step.document, name)]
        ours = {step.id for step in self._receiver_steps}
        others = [each for each in self._receivers_named(name.name or "") if each.id not in ours and _answers_to(each, name)]
        if len(described) + len(others) == 1:
            return described[0] if described else others[0].id
        if not described and not others:
            self._faults.append(f"{placed.place}: there is no receiver {name}, neither in the files nor on the server")
        else:
            listed = [f"{step.id or 'one yet to be made'} (type {step.document.type})" for step in described]
            listed += [f"{each.id} (type {each.type})" for each in others]
            self._faults.append(f"{placed.place}: several receivers are {name}; name the type too, or the id: {', '.join(listed)}")
        return None

    def _require_distinct(self) -> None:
        """One document by id and another by name may mean the same thing."""
        first: dict[str, str] = {}
        for step in self.steps:
            if step.id in first:
                self._faults.append(f"{step.placed.place}: describes the same as {first[step.id]}")
            elif step.id is not None:
                first[step.id] = step.placed.place


def _answers_to(receiver: Any, name: "ReceiverName") -> bool:
    return receiver.name == name.name and name.type in (None, receiver.type)


def _receiver_fields(document: "ReceiverDocument", schema: bytes | None, found: "EventReceiver | None") -> dict[str, Any]:
    """All fields that the document names, or only those that differ from what is there."""
    from msgspec import Raw

    wanted = _named(document, ("name", "type", "version", "description", "restricted"))
    if found is None:
        return {**wanted, "schema": Raw(schema if schema is not None else b"{}")}
    changes = _differing(wanted, found)
    if schema is not None and _canonical(schema) != _canonical(bytes(found.schema)):
        changes["schema"] = Raw(schema)
    return changes


def _group_fields(document: "GroupDocument", found: "EventReceiverGroup | None") -> dict[str, Any]:
    wanted = _named(document, ("name", "type", "version", "description", "enabled"))
    return wanted if found is None else _differing(wanted, found)


def _named(document: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    from msgspec import UNSET

    return {field: value for field in fields if (value := getattr(document, field)) is not UNSET}


def _differing(wanted: dict[str, Any], found: Any) -> dict[str, Any]:
    return {field: value for field, value in wanted.items() if value != getattr(found, field)}


def _canonical(schema: bytes) -> str:
    """Equal for equal schemas: the order of keys means nothing, while true and 1 differ."""
    return json.dumps(json.loads(schema), sort_keys=True)


def _carry_out(client: "Client", step: Step) -> None:
    from xzepr_client import ClientError

    try:
        if step.kind == "EventReceiver":
            _carry_out_receiver(client, step)
        else:
            _carry_out_group(client, step)
    except ClientError as error:
        raise failure_of(error, f"{step.placed.place}: ") from error


def _carry_out_receiver(client: "Client", step: Step) -> None:
    from xzepr_client import EventReceiverChanges, NewEventReceiver

    if step.id is None:
        step.id = client.create_receiver(NewEventReceiver(**step.changes))
    elif step.changes:
        client.change_receiver(step.id, EventReceiverChanges(**step.changes), if_version=step.version)


def _carry_out_group(client: "Client", step: Step) -> None:
    from xzepr_client import EventReceiverGroupChanges, NewEventReceiverGroup

    receiver_ids = [receiver_id for receiver_id in step.receiver_ids() if receiver_id is not None]
    if step.id is None:
        step.id = client.create_group(NewEventReceiverGroup(**step.changes, event_receiver_ids=receiver_ids))
    elif step.changes:
        changes = {**step.changes, **({"event_receiver_ids": receiver_ids} if "event_receiver_ids" in step.changes else {})}
        client.change_group(step.id, EventReceiverGroupChanges(**changes), if_version=step.version)


def _print(step: Step, dry_run: bool) -> None:
    word = _WOULD[step.action] if dry_run else step.action
    what = "receiver" if step.kind == "EventReceiver" else "group"
    fields = f": {', '.join(step.changes)}" if step.action == "changed" else ""
    named = shown(f"{what} {step.document.name} ({step.document.type})")
    click.echo(f"{click.style(word, fg=_STYLES[step.action])} {named}{' ' + step.id if step.id else ''}{fields}")
