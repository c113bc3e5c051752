"""`xzepr receiver create|list|show|edit|delete`."""

from typing import TYPE_CHECKING, Any

import click

from xzepr.cli.connection import connected
from xzepr.cli.lookup import collect, find_receiver, receiver_id_of
from xzepr.cli.options import JsonText, confirm, key_option, limit_option, yes_option
from xzepr.cli.output import json_option, print_fields, print_id, print_json, print_raw_json, print_table, yes_no
from xzepr.cli.text import when

if TYPE_CHECKING:
    from xzepr_client import Client, EventReceiver

_ref_option = click.option(
    "--ref",
    "refs",
    metavar="URI=FILE",
    multiple=True,
    help="Put FILE into the schema as what it refers to by URI, because the server fetches nothing. May be given several times.",
)


@click.group()
def receiver() -> None:
    """Manage event receivers: kinds of acts, each with the schema of its payloads."""


@receiver.command()
@click.option("--name", required=True, help="Its name.")
@click.option("--type", "kind", required=True, help="Its type, such as dev.cdevents.testsuiterun.finished.")
@click.option("--version", required=True, help="Its version.")
@click.option("--description", default="", help="A sentence for people.")
@click.option("--schema", type=JsonText(), default="{}", show_default=True, help="JSON Schema that every payload must satisfy.")
@_ref_option
@click.option("--restricted", is_flag=True, help="Only its owner, members of its groups and administrators may post to it.")
@key_option
@json_option
@connected
def create(
    client: "Client",
    name: str,
    kind: str,
    version: str,
    description: str,
    schema: bytes,
    refs: tuple[str, ...],
    restricted: bool,
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Create a receiver; prints its id."""
    from msgspec import Raw
    from xzepr_client import NewEventReceiver

    bundled = Raw(_bundled(schema, refs))
    new = NewEventReceiver(name=name, type=kind, version=version, description=description, schema=bundled, restricted=restricted)
    print_id(client.create_receiver(new, idempotency_key=idempotency_key), as_json)


@receiver.command("list")
@click.option("--name", help="Only those of this name.")
@click.option("--type", help="Only those of this type.")
@click.option("--version", help="Only those of this version.")
@click.option("--fingerprint", help="Only those of this fingerprint.")
@limit_option
@json_option
@connected
def list_receivers(client: "Client", limit: int, as_json: bool, **filters: Any) -> None:
    """List receivers, newest first."""
    found: list[EventReceiver] = collect(client.search_receivers, limit, **filters)
    if as_json:
        print_json(found)
        return
    columns = ("name", "type", "version", "restricted", "changed", "receiver")
    rows = [[each.name, each.type, each.version, yes_no(each.restricted), when(each.updated_at), each.id] for each in found]
    print_table(columns, rows, empty="no such receivers")


@receiver.command()
@click.argument("receiver", metavar="ID|NAME")
@json_option
@connected
def show(client: "Client", receiver: str, as_json: bool) -> None:
    """Show one receiver with its schema."""
    found = find_receiver(client, receiver)
    if as_json:
        print_json(found)
        return
    print_fields(
        [
            ("receiver", found.id),
            ("name", found.name),
            ("type", found.type),
            ("version", found.version),
            ("description", found.description),
            ("restricted", yes_no(found.restricted)),
            ("owner", found.owner_id or ""),
            ("created", f"{when(found.created_at)} UTC"),
            ("changed", f"{when(found.updated_at)} UTC, resource version {found.resource_version}"),
            ("fingerprint", found.fingerprint),
        ]
    )
    print_raw_json("schema", found.schema)


@receiver.command()
@click.argument("receiver", metavar="ID|NAME")
@click.option("--name", help="A new name.")
@click.option("--type", help="A new type.")
@click.option("--version", help="A new version.")
@click.option("--description", help="A new description.")
@click.option("--schema", type=JsonText(), help="A new schema; events keep the version that their payloads passed.")
@_ref_option
@click.option("--restricted/--unrestricted", default=None, help="Whether only its owner, members of its groups and administrators may post to it.")
@click.option("--if-version", type=click.IntRange(1), metavar="N", help="Only if this is still its resource version.")
@connected
def edit(client: "Client", receiver: str, schema: bytes | None, refs: tuple[str, ...], if_version: int | None, **fields: Any) -> None:
    """Change what is given; the rest stays."""
    from msgspec import Raw
    from xzepr_client import EventReceiverChanges

    changes = {name: value for name, value in fields.items() if value is not None}
    if schema is not None:
        changes["schema"] = Raw(_bundled(schema, refs))
    elif refs:
        raise click.UsageError("--ref goes with --schema")
    if not changes:
        raise click.UsageError("nothing to change was given")
    client.change_receiver(receiver_id_of(client, receiver), EventReceiverChanges(**changes), if_version=if_version)


@receiver.command()
@click.argument("receiver", metavar="ID|NAME")
@yes_option
@connected
def delete(client: "Client", receiver: str, yes: bool) -> None:
    """Delete a receiver that no event and no group refers to."""
    receiver_id = receiver_id_of(client, receiver)
    confirm(f"Delete the receiver {receiver}?", yes)
    client.delete_receiver(receiver_id)


def _bundled(schema: bytes, refs: tuple[str, ...]) -> bytes:
    """A fault of --ref is wrong usage."""
    if not refs:
        return schema
    from xzepr.cli.refs import RefError, bundle, read_refs

    try:
        return bundle(schema, read_refs(refs))
    except RefError as error:
        raise click.BadParameter(str(error), param_hint="--ref") from None
