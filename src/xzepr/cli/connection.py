"""From a command to the server: where it is, who is calling, and what a person reads when something goes wrong.

`@connected` gives a command `--url` (XZEPR_URL) and `--timeout` and passes it a client. The client shows the first of these that there is:
XZEPR_API_KEY, XZEPR_TOKEN, the login of `xzepr login` at that server; never something from an argument, which others on the machine can see. Whatever
the client raises becomes one line on standard error, the faults of the input a line each, a line of advice where we have any, and exit 1. Wrong usage
is exit 2, by click.
"""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, TYPE_CHECKING, Any, Final

import click

from xzepr.cli.text import shown

if TYPE_CHECKING:
    from xzepr_client import Client, ClientError, NoAnswer, ProblemError

# Written out here, and not taken from the client, so that help is printed without loading it; a test compares them.
DEFAULT_URL: Final = "http://127.0.0.1:8042"
API_KEY_VARIABLE: Final = "XZEPR_API_KEY"
TOKEN_VARIABLE: Final = "XZEPR_TOKEN"

_ADVICE: Final = {
    "unauthenticated": "`xzepr login` asks for your name and password; a program sets XZEPR_API_KEY",
    "invalid_token": "`xzepr login` again; XZEPR_API_KEY and XZEPR_TOKEN, if they are set, go before a login",
    "refresh_superseded": "`xzepr login` again",
    "permission_denied": "`xzepr whoami` tells what you may do; `xzepr login` as somebody who may, or ask an administrator of the server",
    "foreign_origin": "a proxy adds an Origin header that this server does not know",
    "unknown_host": "the server answers for other host names; its administrator adds them in server.allowed_hosts",
    "precondition_failed": "look at it again, and repeat what is still right",
    "position_expired": "begin with --after at the oldest position that is kept, or without it from now on",
    "in_flight": "repeat with the same --idempotency-key in a moment",
    "body_too_large": "the server's administrator can raise security.validation.max_body_size",
    "unavailable": "a part of the server is down: its /health tells which; try again",
}


class Failure(click.ClickException):
    """What went wrong, as it is shown; exit 1. details: lines under the message."""

    exit_code = 1

    def __init__(self, message: str, *details: str, advice: str | None = None) -> None:
        super().__init__(message)
        self.details = details
        self.advice = advice

    def show(self, file: IO[Any] | None = None) -> None:
        """On standard error; what came from elsewhere cannot steer the terminal."""
        click.secho("error: ", fg="red", nl=False, err=True, file=file)
        click.echo(shown(self.message), err=True, file=file)
        for line in self.details:
            click.echo(f"  {shown(line)}", err=True, file=file)
        if self.advice:
            click.echo(f"advice: {shown(self.advice)}", err=True, file=file)


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """The command's first parameter is a client for the server that --url names, with the credential that there is."""

    @server_options
    @functools.wraps(command)
    def wrapper(*arguments: Any, url: str, timeout: float, **options: Any) -> None:
        with session(url, timeout) as client:
            command(client, *arguments, **options)

    return wrapper


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """`--url` and `--timeout`."""
    add_timeout = click.option(
        "--timeout", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True, help="Seconds to wait for an answer."
    )
    add_url = click.option("--url", envvar="XZEPR_URL", default=DEFAULT_URL, show_default=True, show_envvar=True, help="The server.")
    return add_url(add_timeout(command))


def variable_in_use() -> str | None:
    """The variable that the credential comes from, if from one; it goes before a login."""
    return next((name for name in (API_KEY_VARIABLE, TOKEN_VARIABLE) if os.environ.get(name)), None)


def session(url: str, timeout_s: float) -> AbstractContextManager["Client"]:
    """A client with the credential that there is, whose errors become Failure."""
    from xzepr_client import Client

    variable = variable_in_use()
    if variable is not None:
        return translated(lambda: _with_variable(url, timeout_s, variable))
    from xzepr.cli.logins import Logins, client_of

    logins = Logins()
    entry = logins.find(url)
    if entry is None:
        return translated(lambda: Client(url, timeout_s=timeout_s))
    return translated(lambda: client_of(logins, url, entry, timeout_s))


def _with_variable(url: str, timeout_s: float, variable: str) -> "Client":
    from xzepr_client import Client
    from xzepr_client.auth import header_of_token

    secret = os.environ[variable]
    try:
        header_of_token(secret)
    except ValueError:
        raise click.UsageError(f"{variable} holds no credential: it must be printable ASCII without blanks") from None
    return Client(url, api_key=secret, timeout_s=timeout_s) if variable == API_KEY_VARIABLE else Client(url, token=secret, timeout_s=timeout_s)


@contextmanager
def translated(make: Callable[[], "Client"]) -> Iterator["Client"]:
    """The client that make() makes, its errors become Failure."""
    from xzepr_client import ClientError

    try:
        client = make()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url / XZEPR_URL") from None
    with client:
        try:
            yield client
        except ClientError as error:
            raise failure_of(error) from error
        except UnicodeEncodeError:
            raise click.UsageError("an argument is not UTF-8 text") from None


def failure_of(error: "ClientError", where: str = "") -> Failure:
    """where: put before the message, such as the file it is about."""
    from xzepr_client import NoAnswer, ProblemError

    if isinstance(error, ProblemError):
        return _refused(error, where)
    if isinstance(error, NoAnswer):
        return _unanswered(error, where)
    return Failure(f"{where}{error}", advice="is this the address of an XZepr server? --url or XZEPR_URL names it, without /api/v1")


def _refused(error: "ProblemError", where: str) -> Failure:
    # With one fault the server's message is that fault again.
    faults = [f"{fault.pointer or 'the body'}: {fault.message}" for fault in error.faults]
    details = [line for line in faults if line != error.message]
    advice = _ADVICE.get(error.code)
    if error.code == "position_expired" and "oldest" in error.body:
        details.append(f"the oldest that is kept: {error.body['oldest']}")
    if any(fault.pointer.startswith("/schema/") and fault.pointer.endswith("/$ref") for fault in error.faults):
        advice = "nothing is fetched: put what the schema refers to into it with --ref URI=FILE"
    if error.retry_after_s is not None and error.status == 429:
        details.append(f"try again in {error.retry_after_s:g} s")
    if error.status >= 500 and error.request_id:
        details.append(f"request id: {error.request_id}")
    return Failure(f"{where}{error.message} ({error.status} {error.code})", *details, advice=advice)


def _unanswered(error: "NoAnswer", where: str) -> Failure:
    if not error.connected:
        return Failure(f"{where}{error}", advice="is the server running? `make run` or `xzepr serve` starts one; XZEPR_URL or --url says where it is")
    if error.idempotency_key is not None:
        again = f"whether it was stored is not known; repeat the same with --idempotency-key {error.idempotency_key}, and it is not done twice"
        return Failure(f"{where}{error}", advice=again)
    return Failure(
        f"{where}{error}", advice="the connection was lost; look whether it was done before you repeat it, or allow more time with --timeout"
    )
