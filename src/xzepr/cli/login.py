"""`xzepr login|logout|whoami`: who the other commands are at a server.

What a login gives is kept by logins.py and renewed by itself. `--browser` logs in where a provider does (Keycloak): browser.py.
"""

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from xzepr.cli.connection import Failure, connected, server_options, translated, variable_in_use
from xzepr.cli.output import json_option, print_fields, print_json
from xzepr.cli.secret import password_of, password_stdin_option, require_terminal
from xzepr.cli.text import shown

if TYPE_CHECKING:
    from xzepr_client import Client, TokenPair

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@click.command()
@click.option("--username", help="Whose login it is; asked for when it is left out.")
@password_stdin_option
@click.option("--browser", "in_browser", is_flag=True, help="Log in at the server's provider, in a browser on this machine.")
@server_options
def login(username: str | None, from_stdin: bool, in_browser: bool, url: str, timeout: float) -> None:
    """Log in to a server; the commands that ask it use the login from then on. Asks for name and password.

    The login is kept in $XDG_CONFIG_HOME/xzepr/credentials.json (~/.config without it), for you alone, and renewed by itself until `xzepr logout`, or
    until it was not used for a week. XZEPR_API_KEY and XZEPR_TOKEN go before it.
    """
    from xzepr_client import Client

    from xzepr.cli.logins import Entry, Logins

    if in_browser and (username is not None or from_stdin):
        raise click.UsageError("--browser asks for name and password in the browser: it goes without --username and --password-stdin")
    logins = Logins()
    # Before anybody is asked for a password: a file that cannot be used, and one that others can read, is told first.
    logins.find(url)
    with translated(lambda: Client(url, timeout_s=timeout)) as client:
        _warn_of_plain_http(url)
        pair = _by_browser(client) if in_browser else _by_password(client, username, from_stdin=from_stdin)
        with logins.lock():
            logins.put(url, Entry.of(pair, time.time()))
    click.echo(f"logged in to {shown(client.url)} as {shown(pair.user.username)} (roles: {', '.join(pair.user.roles) or 'none'})", err=True)
    if (variable := variable_in_use()) is not None:
        click.echo(f"warning: {variable} is set and goes before this login", err=True)


@click.command()
@server_options
def logout(url: str, timeout: float) -> None:
    """End the login of `xzepr login` at a server, there and here."""
    from xzepr_client import ClientError, ProblemError

    from xzepr.cli.logins import Logins, client_of

    logins = Logins()
    entry = logins.find(url)
    if entry is None:
        click.echo(f"there is no login to {shown(url)}", err=True)
        return

    with translated(lambda: client_of(logins, url, entry, timeout)) as client:
        try:
            client.logout()
        except ClientError as error:
            # One that is over need not be ended.
            if not (isinstance(error, ProblemError) and error.code == "invalid_token"):
                with logins.lock():
                    logins.remove(url)
                raise Failure(
                    f"this machine has forgotten the login, but the server has not heard of it: {error}",
                    advice="whoever has a copy of it could still use it; a new password ends it for certain",
                ) from error
        with logins.lock():
            logins.remove(url)
    click.echo(f"logged out of {shown(client.url)}", err=True)


@click.command()
@json_option
@connected
def whoami(client: "Client", as_json: bool) -> None:
    """Show who the server takes you for, and what you may do."""
    me = client.me()
    if as_json:
        print_json(me)
        return
    print_fields(
        [
            ("server", client.url),
            ("user", me.username),
            ("id", me.id or ""),
            ("credential", variable_in_use() or f"login ({me.how})"),
            ("roles", ", ".join(me.roles)),
            ("permissions", ", ".join(me.permissions)),
            *([("receivers", ", ".join(me.event_receiver_ids))] if me.event_receiver_ids is not None else []),
        ]
    )


def _by_password(client: "Client", username: str | None, *, from_stdin: bool) -> "TokenPair":
    if username is None:
        if from_stdin:
            raise click.UsageError("--password-stdin needs --username")
        require_terminal("the username", "--username and --password-stdin")
        username = click.prompt("Username", err=True)
    return client.login(str(username), password_of(from_stdin=from_stdin, new=False))


def _by_browser(client: "Client") -> "TokenPair":
    from xzepr.cli.browser import Loopback, new_verifier, open_browser

    # A server without a provider, or whose provider is down, says so here and not in a browser while we wait.
    client.provider_login_url()
    verifier = new_verifier()
    with Loopback() as loopback:
        address = loopback.address_for(client.url, verifier)
        click.echo(f"log in at this address, in a browser on this machine:\n\n  {address}\n", err=True)
        open_browser(address)
        code = loopback.wait()
    return client.turn_in_code(code, verifier)


def _warn_of_plain_http(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme.lower() == "http" and (parts.hostname or "") not in _LOOPBACK:
        click.echo(f"warning: {shown(url)} is not encrypted: others on the way can read the password and the login", err=True)
