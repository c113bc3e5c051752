"""`xzepr admin …`: users, on the database directly, by the settings of this machine.

Whoever may run it can read the database, so it asks for no login: it is the way in when nobody has one. What it does stands in the audit log as done
by `system`; other processes learn of it within a second, as of everything else.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from xzepr.auth.permissions import Role
from xzepr.cli.local import Work, on_the_database
from xzepr.cli.options import limit_option
from xzepr.cli.output import json_option, print_id, print_json, print_table, yes_no
from xzepr.cli.secret import password_of, password_stdin_option
from xzepr.cli.text import shown, when

if TYPE_CHECKING:
    from xzepr.auth.model import User, UserChange
    from xzepr.db.pool import Database
    from xzepr.settings import Settings

_on_the_database: Final = on_the_database("xzepr-admin")
_ROLE: Final = click.Choice([role.value for role in Role])
_PAGE: Final = 1000
_USER = click.argument("named", metavar="ID|NAME", callback=lambda _ctx, _param, value: _text(value))
_ROLES = click.argument("roles", metavar="ROLE", type=_ROLE, nargs=-1, required=True)


@click.group()
def admin() -> None:
    """Manage users on the server's own machine; needs no login."""


@admin.command("create-user")
@click.argument("username")
@_on_the_database
@click.option("--email", help="Its address.")
@click.option("--role", "roles", type=_ROLE, multiple=True, help="What it may do; once for each role.")
@password_stdin_option
@json_option
def create_user(
    on_database: Callable[[Work], None], username: str, email: str | None, roles: tuple[str, ...], from_stdin: bool, as_json: bool
) -> None:
    """Create a local user; prints its id."""
    password = password_of(from_stdin=from_stdin, new=True)

    async def work(settings: "Settings", database: "Database") -> None:
        from xzepr import clock
        from xzepr.auth.model import NewUser
        from xzepr.auth.passwords import hash_now, require_good
        from xzepr.auth.principal import SYSTEM
        from xzepr.auth.users import create_user as create

        user: NewUser = _checked(NewUser, {"username": username, "email": email, "password": password, "roles": roles})
        require_good(user.password, "password", min_chars=settings.auth.password_min_chars, username=user.username, email=user.email)
        print_id(await create(database, SYSTEM, user, hash_now(user.password), clock.now()), as_json)

    on_database(work)


@admin.command("list-users")
@_on_the_database
@click.option("--enabled/--disabled", default=None, help="Only these.")
@limit_option
@json_option
def list_users(on_database: Callable[[Work], None], enabled: bool | None, limit: int, as_json: bool) -> None:
    """List users, newest first."""

    async def work(_: "Settings", database: "Database") -> None:
        found = await _users(database, enabled, limit)
        if as_json:
            print_json(found)
            return
        columns = ("user", "roles", "enabled", "email", "provider", "last login", "id")
        rows = [
            [user.username, ", ".join(user.roles), yes_no(user.enabled), user.email or "", user.issuer or "", when(user.last_login_at), user.id]
            for user in found
        ]
        print_table(columns, rows, empty="no such users")

    on_database(work)


@admin.command("add-role")
@_USER
@_ROLES
@_on_the_database
def add_role(on_database: Callable[[Work], None], named: str, roles: tuple[str, ...]) -> None:
    """Give a user roles besides those that it has."""
    _change_roles(on_database, named, roles, adds=True)


@admin.command("remove-role")
@_USER
@_ROLES
@_on_the_database
def remove_role(on_database: Callable[[Work], None], named: str, roles: tuple[str, ...]) -> None:
    """Take roles away from a user; refused for the last administrator."""
    _change_roles(on_database, named, roles, adds=False)


@admin.command("disable-user")
@_USER
@_on_the_database
def disable_user(on_database: Callable[[Work], None], named: str) -> None:
    """Let a user in no more; ends its logins and its API keys. Refused for the last administrator."""
    _enable(on_database, named, enabled=False)


@admin.command("enable-user")
@_USER
@_on_the_database
def enable_user(on_database: Callable[[Work], None], named: str) -> None:
    """Let a disabled user in again."""
    _enable(on_database, named, enabled=True)


@admin.command("reset-password")
@_USER
@_on_the_database
@password_stdin_option
def reset_password(on_database: Callable[[Work], None], named: str, from_stdin: bool) -> None:
    """Give a local user a new password; ends its logins, not its API keys."""
    password = password_of(from_stdin=from_stdin, new=True)

    async def work(settings: "Settings", database: "Database") -> None:
        from xzepr.auth.model import UserChange

        change: UserChange = _checked(UserChange, {"password": password})
        user = await _change(settings, database, named, change)
        click.echo(f"{shown(user.username)} has a new password; its logins are ended")

    on_database(work)


def _change_roles(on_database: Callable[[Work], None], named: str, roles: tuple[str, ...], *, adds: bool) -> None:
    async def work(_: "Settings", database: "Database") -> None:
        from xzepr import clock
        from xzepr.auth.principal import SYSTEM
        from xzepr.auth.users import add_roles, find_named, remove_roles

        user = await find_named(database, named)
        change = add_roles if adds else remove_roles
        changed = await change(database, SYSTEM, user.id, [Role(role) for role in roles], clock.now())
        click.echo(f"{shown(changed.username)} has the roles: {', '.join(changed.roles) or 'none'}")

    on_database(work)


def _enable(on_database: Callable[[Work], None], named: str, *, enabled: bool) -> None:
    async def work(settings: "Settings", database: "Database") -> None:
        from xzepr.auth.model import UserChange

        user = await _change(settings, database, named, UserChange(enabled=enabled))
        click.echo(f"{shown(user.username)} is enabled" if enabled else f"{shown(user.username)} is disabled; its logins and API keys are ended")

    on_database(work)


async def _change(settings: "Settings", database: "Database", named: str, change: "UserChange") -> "User":
    from contextlib import closing

    from xzepr import clock
    from xzepr.auth.passwords import Passwords
    from xzepr.auth.principal import SYSTEM
    from xzepr.auth.users import change_user, find_named

    user = await find_named(database, named)
    with closing(Passwords()) as passwords:
        return await change_user(database, passwords, SYSTEM, user.id, change, settings.auth.password_min_chars, clock.now())


async def _users(database: "Database", enabled: bool | None, limit: int) -> "list[User]":
    """Over as many pages as it takes."""
    from xzepr.auth.model import UserPage
    from xzepr.auth.users import search_users

    found: list[User] = []
    after: Any = None
    while len(found) < limit:
        page = await search_users(database, UserPage(enabled=enabled, limit=min(limit - len(found), _PAGE), after=after))
        found += page.data
        after = page.pagination.next
        if after is None:
            break
    return found


def _text(argument: str) -> str:
    """Wrong usage for one that is no text."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("is not UTF-8 text") from None
    return argument


def _checked(kind: Any, fields: dict[str, Any]) -> Any:
    """By the same rules as over HTTP. Raises InvalidInput; wrong usage for an argument that is no text."""
    import msgspec

    from xzepr.inputs import decode_body

    try:
        body = msgspec.json.encode(fields)
    except UnicodeEncodeError:
        raise click.UsageError("an argument is not UTF-8 text") from None
    return decode_body(body, kind)[0]
