"""`xzepr retention plan|apply` and `xzepr retention hold add|list|remove`: on the database directly, by the settings of this machine."""

import getpass
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from xzepr.cli.local import Work, on_the_database
from xzepr.cli.options import yes_option
from xzepr.cli.output import artifact_text, json_option, print_id, print_json, print_table
from xzepr.cli.text import shown, when

if TYPE_CHECKING:
    from xzepr.db.pool import Database
    from xzepr.nvrpp import Nvrpp
    from xzepr.retention.model import Disposition, Hold, Plan
    from xzepr.settings import Settings

_on_the_database: Final = on_the_database("xzepr-retention")
_FIELDS: Final = ("name", "version", "release", "platform_id", "package")


@click.group()
def retention() -> None:
    """Remove old events by the rules in the settings; hold some back."""


@retention.group()
def hold() -> None:
    """Keep the events of an artifact or a receiver, however old they are."""


@retention.command()
@_on_the_database
@json_option
def plan(on_database: Callable[[Work], None], as_json: bool) -> None:
    """Show what `apply` would remove at this moment, and what it would not and why. Changes nothing."""

    async def work(settings: "Settings", database: "Database") -> None:
        made = await _plan(settings, database)
        if as_json:
            print_json(made)
        else:
            _print_plan(made)

    on_database(work)


@retention.command()
@_on_the_database
@yes_option
def apply(on_database: Callable[[Work], None], yes: bool) -> None:
    """Show the plan, ask, and remove. Without a terminal to ask on it needs --yes. May be cut off and run again at any moment."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: look at `xzepr retention plan`, then give --yes")

    async def work(settings: "Settings", database: "Database") -> None:
        made = await _plan(settings, database)
        _print_plan(made)
        if not yes and (made.removable or made.messages):
            click.confirm(f"Remove {made.removable} events and {made.messages} messages for good?", abort=True)
        await _apply(settings, database)

    on_database(work)


@hold.command("add")
@_on_the_database
@click.option("--receiver", metavar="ID", help="Hold all events of this receiver.")
@click.option("--name", help="Hold all events of this artifact; all five fields are needed.")
@click.option("--version", help="Version of the artifact.")
@click.option("--release", help="Release of the artifact.")
@click.option("--platform-id", help="Platform of the artifact, such as x86-64-oci-linux.")
@click.option("--package", help="Package type of the artifact, such as oci.")
@click.option("--reason", required=True, help="Why, for those who ask in years.")
@json_option
def add_hold(on_database: Callable[[Work], None], receiver: str | None, reason: str, as_json: bool, **fields: str | None) -> None:
    """Hold events back from removal; prints the hold's id. Once it is printed, no rule removes them."""
    subject = _subject(receiver, fields)

    async def work(_: "Settings", database: "Database") -> None:
        from xzepr.retention import holds

        print_id(await holds.add_hold(database, subject, reason=reason, actor=_actor()), as_json)

    on_database(work)


@hold.command("list")
@_on_the_database
@json_option
def list_holds(on_database: Callable[[Work], None], as_json: bool) -> None:
    """List the holds in force, oldest first."""

    async def work(_: "Settings", database: "Database") -> None:
        from xzepr.retention import holds

        found = await holds.list_holds(database)
        if as_json:
            print_json(found)
            return
        columns = ("hold", "added", "by", "holds", "reason")
        print_table(columns, [[each.id, when(each.created_at), each.created_by, _held(each), each.reason] for each in found], empty="no holds")

    on_database(work)


@hold.command("remove")
@click.argument("hold_id", metavar="ID")
@_on_the_database
@yes_option
def remove_hold(on_database: Callable[[Work], None], hold_id: str, yes: bool) -> None:
    """Take a hold off; the rules count again for what it held. Who took it off, and when, stays on record."""
    from xzepr.cli.options import confirm

    confirm(f"Take off the hold {hold_id}?", yes)

    async def work(_: "Settings", database: "Database") -> None:
        from xzepr import ids
        from xzepr.retention import holds

        await holds.remove_hold(database, ids.parse(ids.HoldId, hold_id), actor=_actor())

    on_database(work)


async def _plan(settings: "Settings", database: "Database") -> "Plan":
    from xzepr import clock
    from xzepr.retention.plan import make_plan

    return await make_plan(database, settings.retention.rules, stream_days=settings.stream.retention_days, now=clock.now())


async def _apply(settings: "Settings", database: "Database") -> None:
    from xzepr import clock
    from xzepr.retention.apply import apply_rules

    rules, days = settings.retention.rules, settings.stream.retention_days
    removed = [made async for made in apply_rules(database, rules, stream_days=days, now=clock.now(), actor=_actor())]
    _print_removed(removed)


def _print_plan(made: "Plan") -> None:
    columns = ("rule", "receiver type", "due", "held", "in the stream", "removable", "oldest")
    rows = [
        [
            str(line.rule),
            line.event_receiver_type if line.event_receiver_type is not None else ("(no receiver)", "yellow"),
            *(str(count) for count in (line.due, line.held, line.in_stream, line.removable)),
            when(line.oldest_at),
        ]
        for line in made.lines
    ]
    print_table(columns, rows, empty="there are no rules (retention.rules): all events are kept")
    click.echo(f"events removable: {made.removable}; messages older than {made.stream_days} days: {made.messages}; holds in force: {made.holds}")


def _print_removed(removed: "list[Disposition]") -> None:
    """By rule and type."""
    sums: dict[tuple[str, str], int] = {}
    for made in removed:
        if made.subject == "events":
            key = (str(made.rule), made.event_receiver_type or "")
            sums[key] = sums.get(key, 0) + made.removed
    print_table(("rule", "receiver type", "removed"), [[*key, str(count)] for key, count in sums.items()], empty="no event was removed")
    messages = sum(made.removed for made in removed if made.subject == "messages")
    partitions = sorted({made.partition for made in removed if made.partition is not None})
    dropped = f"; dropped as a whole: {', '.join(partitions)}" if partitions else ""
    click.echo(f"events removed: {sum(sums.values())}; messages removed: {messages}; dispositions written: {len(removed)}{dropped}")


def _subject(receiver: str | None, fields: dict[str, str | None]) -> "str | Nvrpp":
    """A receiver's id or an artifact. Wrong usage when it is neither or both."""
    from xzepr import ids
    from xzepr.errors import InvalidId
    from xzepr.nvrpp import Nvrpp

    given = {field: text for field in _FIELDS if (text := fields[field]) is not None}
    if (receiver is None) == (not given) or (given and len(given) < len(_FIELDS)):
        raise click.UsageError("give either --receiver, or all of --name, --version, --release, --platform-id and --package")
    if receiver is None:
        return Nvrpp(**given)
    try:
        return ids.parse(ids.EventReceiverId, receiver)
    except InvalidId as error:
        raise click.BadParameter(error.message, param_hint="--receiver") from None


def _held(found: "Hold") -> str:
    if found.event_receiver_id is not None:
        return f"receiver {found.event_receiver_id}"
    return artifact_text(found)


def _actor() -> str:
    """Who acts, for the record: there are no accounts on this way."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return shown(f"{user}@{socket.gethostname()}")
