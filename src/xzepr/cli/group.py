"""`xzepr group create|list|show|edit|delete|enable|disable|status|artifacts|evaluate|member`.

`status` is what a CI job asks. Its exit codes: 0; with --assert 3 when the artifact may not move on, 4 when --wait ended before it might; 1 for
every other failure, 2 for wrong usage. While it waits, a server that does not answer is asked again until the time is over.
"""

import time
from typing import TYPE_CHECKING, Any, Final

import click

from xzepr.cli.connection import connected
from xzepr.cli.lookup import collect, find_group, group_id_of, receiver_id_of
from xzepr.cli.member import member
from xzepr.cli.options import Duration, artifact_options, confirm, key_option, limit_option, yes_option
from xzepr.cli.output import artifact_cells, json_option, print_fields, print_id, print_json, print_status, print_table, yes_no
from xzepr.cli.text import shown, when

if TYPE_CHECKING:
    from xzepr_client import Artifact, Client, EventReceiverGroup, GroupArtifact, GroupStatus

EXIT_NOT_COMPLETE: Final = 3
EXIT_WAITED_IN_VAIN: Final = 4
# Between two questions while waiting: from the first to the last, half again as long each time.
PAUSE_MIN_S: Final = 0.25
PAUSE_MAX_S: Final = 3.0

_GROUP = click.argument("group", metavar="ID|NAME")
_receivers_option = click.option("--receiver", "receivers", metavar="ID|NAME", multiple=True, help="A receiver it needs; once for each, in order.")


@click.group()
def group() -> None:
    """Manage groups of receivers: what must be true before an artifact may move on."""


group.add_command(member)


@group.command()
@click.option("--name", required=True, help="Its name.")
@click.option("--type", "kind", required=True, help="Type of the message that is sent when an artifact is complete.")
@click.option("--version", required=True, help="Its version.")
@click.option("--description", default="", help="A sentence for people.")
@_receivers_option
@click.option("--disabled", is_flag=True, help="It decides nothing until it is enabled.")
@key_option
@json_option
@connected
def create(
    client: "Client",
    name: str,
    kind: str,
    version: str,
    description: str,
    receivers: tuple[str, ...],
    disabled: bool,
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Create a group; prints its id."""
    from xzepr_client import NewEventReceiverGroup

    if not receivers:
        raise click.UsageError("a group needs at least one --receiver")
    receiver_ids = [receiver_id_of(client, receiver) for receiver in receivers]
    new = NewEventReceiverGroup(name=name, type=kind, version=version, description=description, enabled=not disabled, event_receiver_ids=receiver_ids)
    print_id(client.create_group(new, idempotency_key=idempotency_key), as_json)


@group.command("list")
@click.option("--name", help="Only those of this name.")
@click.option("--type", help="Only those of this type.")
@click.option("--version", help="Only those of this version.")
@click.option("--enabled/--disabled", default=None, help="Only these.")
@click.option("--receiver", metavar="ID|NAME", help="Only those that need this receiver.")
@limit_option
@json_option
@connected
def list_groups(client: "Client", receiver: str | None, limit: int, as_json: bool, **filters: Any) -> None:
    """List groups, newest first."""
    if receiver is not None:
        filters["event_receiver_id"] = receiver_id_of(client, receiver)
    found: list[EventReceiverGroup] = collect(client.search_groups, limit, **filters)
    if as_json:
        print_json(found)
        return
    columns = ("name", "type", "version", "enabled", "receivers", "changed", "group")
    rows = [
        [each.name, each.type, each.version, yes_no(each.enabled), str(len(each.event_receiver_ids)), when(each.updated_at), each.id]
        for each in found
    ]
    print_table(columns, rows, empty="no such groups")


@group.command()
@_GROUP
@json_option
@connected
def show(client: "Client", group: str, as_json: bool) -> None:
    """Show one group with its receivers."""
    found = find_group(client, group)
    if as_json:
        print_json(found)
        return
    print_fields(
        [
            ("group", found.id),
            ("name", found.name),
            ("type", found.type),
            ("version", found.version),
            ("description", found.description),
            ("enabled", yes_no(found.enabled)),
            ("owner", found.owner_id or ""),
            ("created", f"{when(found.created_at)} UTC"),
            ("changed", f"{when(found.updated_at)} UTC, resource version {found.resource_version}"),
        ]
    )
    receivers = [client.get_receiver(receiver_id) for receiver_id in found.event_receiver_ids]
    print_table(("receiver", "type", "version", "id"), [[each.name, each.type, each.version, each.id] for each in receivers])


@group.command()
@_GROUP
@click.option("--name", help="A new name.")
@click.option("--type", help="A new type.")
@click.option("--version", help="A new version.")
@click.option("--description", help="A new description.")
@click.option("--receiver", "receivers", metavar="ID|NAME", multiple=True, help="All receivers it needs from now on; once for each, in order.")
@click.option("--if-version", type=click.IntRange(1), metavar="N", help="Only if this is still its resource version.")
@connected
def edit(client: "Client", group: str, receivers: tuple[str, ...], if_version: int | None, **fields: Any) -> None:
    """Change what is given; the rest stays."""
    from xzepr_client import EventReceiverGroupChanges

    changes = {name: value for name, value in fields.items() if value is not None}
    if receivers:
        changes["event_receiver_ids"] = [receiver_id_of(client, receiver) for receiver in receivers]
    if not changes:
        raise click.UsageError("nothing to change was given")
    client.change_group(group_id_of(client, group), EventReceiverGroupChanges(**changes), if_version=if_version)


@group.command()
@_GROUP
@yes_option
@connected
def delete(client: "Client", group: str, yes: bool) -> None:
    """Delete a group; it decides nothing any more."""
    group_id = group_id_of(client, group)
    confirm(f"Delete the group {group}?", yes)
    client.delete_group(group_id)


@group.command()
@_GROUP
@connected
def enable(client: "Client", group: str) -> None:
    """Let a group decide from the next event on; `evaluate` has it decide at once."""
    client.set_group_enabled(group_id_of(client, group), True)


@group.command()
@_GROUP
@connected
def disable(client: "Client", group: str) -> None:
    """Have a group decide nothing."""
    client.set_group_enabled(group_id_of(client, group), False)


@group.command(
    epilog="Exit codes: 0; with --assert 3 when the artifact is not complete; 4 when --wait ended in vain; 1 any other failure, 2 wrong usage."
)
@_GROUP
@artifact_options
@click.option("--wait", type=Duration(), metavar="TIME", help="Wait up to this long, such as 10m, until the artifact is complete.")
@click.option("--assert", "must_hold", is_flag=True, help="Exit with 3 when the artifact is not complete.")
@json_option
@connected
@click.pass_context
def status(ctx: click.Context, client: "Client", group: str, artifact: "Artifact", wait: float | None, must_hold: bool, as_json: bool) -> None:
    """May this artifact move on by this group, and if not, why not?"""
    found = await_status(client, group_id_of(client, group), artifact, wait or 0.0)
    if as_json:
        print_json(found)
    else:
        print_status(found)
    if found.complete or (wait is None and not must_hold):
        return
    waited = "" if wait is None else f"after waiting {wait:g} s: "
    click.echo(f"not complete: {waited}{shown(found.summary)}", err=True)
    ctx.exit(EXIT_NOT_COMPLETE if wait is None else EXIT_WAITED_IN_VAIN)


@group.command()
@_GROUP
@click.option("--complete/--incomplete", default=None, help="Only those that the group, as it now stands, holds complete; or only the others.")
@limit_option
@json_option
@connected
def artifacts(client: "Client", group: str, complete: bool | None, limit: int, as_json: bool) -> None:
    """List the artifacts that a group has decided on, by decision, newest first."""
    found: list[GroupArtifact] = collect(client.group_artifacts, limit, group_id_of(client, group), complete=complete)
    if as_json:
        print_json(found)
        return
    columns = ("decided", "complete", "name", "version", "release", "platform", "package", "position", "event")
    rows = [[when(each.decided_at), yes_no(each.complete), *artifact_cells(each), str(each.position), each.event_id] for each in found]
    print_table(columns, rows, empty="the group has decided on no such artifact")


@group.command()
@_GROUP
@artifact_options
@json_option
@connected
def evaluate(client: "Client", group: str, artifact: "Artifact", as_json: bool) -> None:
    """Have a group decide on an artifact now; for a group made or enabled late."""
    made = client.evaluate_group(group_id_of(client, group), artifact)
    if as_json:
        print_json(made)
    elif made.complete:
        click.echo(f"complete: told as message {made.message_id} at position {made.position}")
    else:
        click.echo("not complete; nothing was told")


def await_status(client: "Client", group_id: str, artifact: "Artifact", wait_s: float) -> "GroupStatus":
    """The status when it is complete, or at the end of the time. What changes meanwhile is told on standard error.

    Raises NoAnswer (or ProblemError for a server that is down) when the server does not answer at the end of the time, ProblemError at once for what
    waiting does not mend.
    """
    from xzepr_client import ClientError
    from xzepr_client.transport import may_recover

    deadline_s, pause_s, told = time.monotonic() + wait_s, PAUSE_MIN_S, ""
    while True:
        over = time.monotonic() >= deadline_s
        try:
            found = client.group_status(group_id, artifact)
        except ClientError as error:
            if over or not may_recover(error):
                raise
            said = str(error)
        else:
            if found.complete or over:
                return found
            said = found.summary
        if said != told:
            click.echo(f"waiting: {shown(said)}", err=True)
            told = said
        time.sleep(max(min(pause_s, deadline_s - time.monotonic()), 0.0))
        pause_s = min(pause_s * 1.5, PAUSE_MAX_S)
