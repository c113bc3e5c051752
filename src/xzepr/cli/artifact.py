"""`xzepr artifact list|show`."""

from typing import TYPE_CHECKING, Any

import click

from xzepr.cli.connection import connected
from xzepr.cli.event import whole_timeline
from xzepr.cli.lookup import collect
from xzepr.cli.options import artifact_filters, artifact_options, limit_option
from xzepr.cli.output import artifact_cells, artifact_text, json_option, outcome, print_json, print_sentence, print_status, print_table
from xzepr.cli.text import when

if TYPE_CHECKING:
    from xzepr_client import Artifact, ArtifactSeen, Client, TimelineEvent

_EVENTS_MAX = 10_000


@click.group()
def artifact() -> None:
    """See which artifacts are known, and how one stands."""


@artifact.command("list")
@artifact_filters
@click.option("--name-prefix", metavar="TEXT", help="Only those whose name begins so.")
@limit_option
@json_option
@connected
def list_artifacts(client: "Client", filters: dict[str, Any], name_prefix: str | None, limit: int, as_json: bool) -> None:
    """List artifacts, the most recently touched first."""
    found: list[ArtifactSeen] = collect(client.search_artifacts, limit, **filters, name_prefix=name_prefix)
    if as_json:
        print_json(found)
        return
    columns = ("name", "version", "release", "platform", "package", "last event", "event")
    rows = [[*artifact_cells(each), when(each.last_event_at), each.last_event_id] for each in found]
    print_table(columns, rows, empty="no such artifacts")


@artifact.command()
@artifact_options
@json_option
@connected
def show(client: "Client", artifact: "Artifact", as_json: bool) -> None:
    """Tell how an artifact stands: its newest event by each receiver, and every group with its gates."""
    story = whole_timeline(client, artifact, _EVENTS_MAX)
    newest: dict[str, TimelineEvent] = {each.event_receiver_id: each for each in story.events}
    if as_json:
        print_json({"artifact": artifact, "events": len(story.events), "newest_events": list(newest.values()), "groups": story.groups})
        return
    print_sentence(artifact_text(artifact), "bold")
    columns = ("receiver", "type", "outcome", "when", "event")
    rows = [[each.event_receiver_name, each.event_receiver_type, outcome(each.success), when(each.created_at), each.id] for each in newest.values()]
    print_table(columns, rows, empty="nothing happened to this artifact")
    for group in story.groups or []:
        print_status(group)
