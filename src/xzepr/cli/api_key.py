"""`xzepr api-key create|list|revoke`."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from xzepr.cli.connection import connected
from xzepr.cli.lookup import collect, receiver_id_of
from xzepr.cli.options import Duration, confirm, limit_option, yes_option
from xzepr.cli.output import json_option, print_json, print_table
from xzepr.cli.text import shown, when

if TYPE_CHECKING:
    from xzepr_client import ApiKey, Client


@click.group("api-key")
def api_key() -> None:
    """Make and revoke API keys: for programs, in XZEPR_API_KEY."""


@api_key.command()
@click.option("--name", required=True, help="What it is for.")
@click.option("--scope", "scopes", metavar="PERMISSION", multiple=True, required=True, help="What it may do, such as event:create; once for each.")
@click.option("--receiver", "receivers", metavar="ID|NAME", multiple=True, help="A receiver that it may post to, and to no other; once for each.")
@click.option("--expires-in", type=Duration(), metavar="TIME", help="It ends after this long, such as 90d. Default: never.")
@json_option
@connected
def create(client: "Client", name: str, scopes: tuple[str, ...], receivers: tuple[str, ...], expires_in: float | None, as_json: bool) -> None:
    """Make an API key; prints it, this once. Needs a login (`xzepr login`).

    It may do what its scopes say, and no more than you may do at that moment.
    """
    from xzepr_client import NewApiKey

    receiver_ids = [receiver_id_of(client, receiver) for receiver in receivers] or None
    expires_at = _in(expires_in) if expires_in is not None else None
    made = client.create_api_key(NewApiKey(name=name, scopes=list(scopes), event_receiver_ids=receiver_ids, expires_at=expires_at))
    if as_json:
        print_json(made)
        return
    click.echo(made.key)
    ends = f"ends {when(made.expires_at)}" if made.expires_at else "never ends"
    click.echo(f"id {made.id}, {ends}; the key is not shown again. `xzepr api-key revoke {made.id}` revokes it", err=True)


@api_key.command("list")
@click.option("--user", "user_id", metavar="USER-ID", help="Only those of this user; of others only as an administrator.")
@limit_option
@json_option
@connected
def list_keys(client: "Client", user_id: str | None, limit: int, as_json: bool) -> None:
    """List your API keys, newest first; as an administrator those of everybody."""
    filters: dict[str, Any] = {"user_id": user_id} if user_id is not None else {}
    found: list[ApiKey] = collect(client.list_api_keys, limit, **filters)
    if as_json:
        print_json(found)
        return
    columns = ("name", "scopes", "receivers", "created", "ends", "last used", "revoked", "owner", "id")
    rows = [
        [
            each.name,
            ", ".join(each.scopes),
            ", ".join(each.event_receiver_ids) if each.event_receiver_ids is not None else "all",
            *(when(moment) for moment in (each.created_at, each.expires_at, each.last_used_at, each.revoked_at)),
            each.user_id,
            each.id,
        ]
        for each in found
    ]
    print_table(columns, rows, empty="no API keys")


@api_key.command()
@click.argument("key_id", metavar="ID")
@yes_option
@connected
def revoke(client: "Client", key_id: str, yes: bool) -> None:
    """Revoke an API key, by its id; nobody can use it within a second."""
    confirm(f"Revoke the API key {shown(key_id)}?", yes)
    client.revoke_api_key(key_id)


def _in(seconds: float) -> datetime:
    """From now on. Wrong usage for a time that no calendar has."""
    try:
        return datetime.now(UTC) + timedelta(seconds=seconds)
    except OverflowError:
        raise click.UsageError("--expires-in: leave it out for a key that never ends") from None
