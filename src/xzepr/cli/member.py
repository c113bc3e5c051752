"""`xzepr group member add|remove|list`."""

from typing import TYPE_CHECKING

import click

from xzepr.cli.connection import connected
from xzepr.cli.lookup import collect, group_id_of
from xzepr.cli.options import limit_option
from xzepr.cli.output import json_option, print_json, print_table
from xzepr.cli.text import when

if TYPE_CHECKING:
    from xzepr_client import Client, GroupMember

_GROUP = click.argument("group", metavar="ID|NAME")
_USER = click.argument("user_id", metavar="USER-ID")


@click.group()
def member() -> None:
    """Say who may post to the restricted receivers of a group."""


@member.command()
@_GROUP
@_USER
@connected
def add(client: "Client", group: str, user_id: str) -> None:
    """Make a user a member."""
    client.add_group_member(group_id_of(client, group), user_id)


@member.command()
@_GROUP
@_USER
@connected
def remove(client: "Client", group: str, user_id: str) -> None:
    """End a membership; within a second the user can no longer post by it."""
    client.remove_group_member(group_id_of(client, group), user_id)


@member.command("list")
@_GROUP
@limit_option
@json_option
@connected
def list_members(client: "Client", group: str, limit: int, as_json: bool) -> None:
    """List the members, the newest account first."""
    found: list[GroupMember] = collect(client.group_members, limit, group_id_of(client, group))
    if as_json:
        print_json(found)
        return
    rows = [[each.username, when(each.added_at), each.added_by or "", each.user_id] for each in found]
    print_table(("member", "added", "by", "user"), rows, empty="the group has no members")
