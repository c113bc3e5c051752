"""`xzepr event post|list|show|timeline|import|redact`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xzepr.cli.connection import connected
from xzepr.cli.lookup import collect, receiver_id_of
from xzepr.cli.options import JsonText, artifact_filters, artifact_options, confirm, key_option, limit_option, success_filter, yes_option
from xzepr.cli.output import (
    artifact_cells,
    artifact_text,
    json_option,
    outcome,
    print_fields,
    print_id,
    print_json,
    print_raw_json,
    print_sentence,
    print_table,
)
from xzepr.cli.text import when

if TYPE_CHECKING:
    from xzepr_client import Artifact, Client, Event, Timeline, TimelineEvent


@click.group()
def event() -> None:
    """Record what happened to an artifact, and look at it."""


@event.command()
@click.option("--receiver", required=True, metavar="ID|NAME", help="The event receiver that it is posted to.")
@artifact_options
@click.option("--success/--failure", default=None, help="How the act ended: one of them is required.")
@click.option("--payload", type=JsonText(), default="{}", show_default=True, help="Must satisfy the receiver's schema.")
@click.option("--description", default="", help="A sentence for people.")
@key_option
@json_option
@connected
def post(
    client: "Client",
    receiver: str,
    artifact: "Artifact",
    success: bool | None,
    payload: bytes,
    description: str,
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Record an event; prints its id once it is stored."""
    from msgspec import Raw
    from xzepr_client import NewEvent

    if success is None:
        # Never a default: a gate that opens by omission is none.
        raise click.UsageError("Missing option '--success' or '--failure'.")
    receiver_id = receiver_id_of(client, receiver)
    new = NewEvent.about(artifact, receiver_id, success=success, payload=Raw(payload), description=description)
    print_id(client.post_event(new, idempotency_key=idempotency_key), as_json)


@event.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--batch", "batch_events", type=click.IntRange(1, 10_000), default=1_000, show_default=True, help="Events sent at once.")
@click.option(
    "--rejected",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Go on past events that are refused, and write them there, each with its problem. Default: stop at the first batch with one.",
)
@connected
def import_events(client: "Client", file: Path, batch_events: int, rejected: Path | None) -> None:
    """Record the events of a file, one JSON object a line. Cut off, the same command goes on where it was; nothing is recorded twice."""
    from xzepr.cli.importing import import_file

    import_file(client, file, batch_events=batch_events, rejected=rejected)


@event.command("list")
@artifact_filters
@click.option("--receiver", metavar="ID|NAME", help="Only those posted to this receiver.")
@success_filter
@click.option("--owner", "owner_id", metavar="ID", help="Only those that this user posted.")
@click.option("--from", "created_from", metavar="TIME", help="Only from this time on, such as 2026-11-25T00:00:00Z.")
@click.option("--to", "created_to", metavar="TIME", help="Only before this time.")
@limit_option
@json_option
@connected
def list_events(client: "Client", filters: dict[str, Any], receiver: str | None, limit: int, as_json: bool, **others: Any) -> None:
    """List events, newest first."""
    if receiver is not None:
        filters["event_receiver_id"] = receiver_id_of(client, receiver)
    events: list[Event] = collect(client.search_events, limit, **filters, **others)
    if as_json:
        print_json(events)
        return
    columns = ("when", "outcome", "name", "version", "release", "platform", "package", "event", "receiver")
    rows = [[when(each.created_at), outcome(each.success), *artifact_cells(each), each.id, each.event_receiver_id] for each in events]
    print_table(columns, rows, empty="no such events")


@event.command()
@click.argument("event_id", metavar="ID")
@json_option
@connected
def show(client: "Client", event_id: str, as_json: bool) -> None:
    """Show one event with its payload."""
    found = client.get_event(event_id)
    if as_json:
        print_json(found)
        return
    print_fields(
        [
            ("event", found.id),
            ("artifact", artifact_text(found)),
            ("outcome", outcome(found.success)),
            ("receiver", f"{found.event_receiver_id} (its version {found.event_receiver_version})"),
            ("description", found.description),
            ("posted", f"{when(found.created_at)} UTC" + (f" by {found.owner_id}" if found.owner_id else "")),
        ]
    )
    print_raw_json("payload", found.payload)


@event.command()
@click.argument("event_id", metavar="ID")
@click.option("--reason", required=True, help="Why, in a sentence that everybody who reads the event will read.")
@yes_option
@key_option
@json_option
@connected
def redact(client: "Client", event_id: str, reason: str, yes: bool, idempotency_key: str | None, as_json: bool) -> None:
    """Take the payload and the description of an event away, for good; prints the redaction's id. The event stays."""
    confirm(f"Take the payload of the event {event_id} away, for good?", yes)
    print_id(client.redact_event(event_id, reason, idempotency_key=idempotency_key), as_json)


@event.command()
@artifact_options
@limit_option
@json_option
@connected
def timeline(client: "Client", artifact: "Artifact", limit: int, as_json: bool) -> None:
    """Tell what happened to an artifact, oldest first, and what each group says of it."""
    story = whole_timeline(client, artifact, limit)
    if as_json:
        print_json(story)
        return
    print_sentence(artifact_text(artifact), "bold")
    columns = ("when", "outcome", "receiver", "type", "event", "description")
    print_table(columns, [_row(each) for each in story.events], empty="nothing happened to this artifact")
    if story.pagination.has_more:
        print_sentence(f"there is more: --limit shows more than {limit}")
    for group in story.groups or []:
        print_sentence(group.summary, "green" if group.complete else "red")


def whole_timeline(client: "Client", artifact: "Artifact", limit: int) -> "Timeline":
    """Up to `limit` events, over as many pages as it takes; the groups are those of the first page."""
    from msgspec.structs import replace

    page = client.artifact_timeline(artifact, limit=min(limit, 1000))
    events, pagination = list(page.events), page.pagination
    while pagination.has_more and len(events) < limit:
        following = client.artifact_timeline(artifact, limit=min(limit - len(events), 1000), after=pagination.next)
        events, pagination = events + following.events, following.pagination
    return replace(page, events=events, pagination=pagination)


def _row(event: "TimelineEvent") -> list[Any]:
    return [when(event.created_at), outcome(event.success), event.event_receiver_name, event.event_receiver_type, event.id, event.description]
