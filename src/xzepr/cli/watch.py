"""`xzepr watch`: the live stream on the terminal, or as one JSON line for each message.

It goes on over restarts of the server, behind the last position that was heard of. Ctrl-C ends it with 130 and tells from where to go on.
"""

from typing import TYPE_CHECKING, Any

import click

from xzepr.cli.connection import connected
from xzepr.cli.lookup import receiver_id_of
from xzepr.cli.options import artifact_filters, success_filter
from xzepr.cli.output import artifact_text, shown_json
from xzepr.cli.text import shown, when

if TYPE_CHECKING:
    from xzepr_client import Client, ClientError, Message

EXIT_INTERRUPTED = 130


@click.command()
@artifact_filters
@click.option("--type", "kind", help="Only messages of this type.")
@click.option("--receiver", metavar="ID|NAME", help="Only events posted to this receiver.")
@success_filter
@click.option("--after", type=click.IntRange(0), metavar="POSITION", help="Begin behind this position; 0: with the oldest. Default: from now on.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many messages.")
@click.option("--json", "as_json", is_flag=True, help="For programs: the message as one line of JSON.")
@connected
@click.pass_context
def watch(
    ctx: click.Context,
    client: "Client",
    filters: dict[str, Any],
    kind: str | None,
    receiver: str | None,
    success: bool | None,
    after: int | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Show what happens while it happens; resumes by itself when the connection is lost."""
    if receiver is not None:
        filters["event_receiver_id"] = receiver_id_of(client, receiver)
    position = after
    try:
        messages = client.follow(after=after, on_interruption=_tell, type=kind, success=success, **filters)
        for number, message in enumerate(messages, 1):
            click.echo(shown_json(message.text) if as_json else _line(message))
            position = message.position
            if number == count:
                return
    except KeyboardInterrupt:
        if position is not None:
            click.echo(f"to go on from here: --after {position}", err=True)
        ctx.exit(EXIT_INTERRUPTED)


def _line(message: "Message") -> str:
    told = message.envelope
    mark = click.style("✓", fg="green") if told.success else click.style("✗", fg="red")
    return f"{when(told.time)}  {message.position:>8}  {mark} {click.style(shown(told.type), bold=True)}  {shown(artifact_text(told))}"


def _tell(error: "ClientError", pause_s: float) -> None:
    click.echo(f"{shown(str(error))}; trying again in {pause_s:g} s", err=True)
