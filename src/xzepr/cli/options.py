"""Options that several commands share, and the types of their values."""

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import click

Command = Callable[..., None]

LIMIT_DEFAULT: Final = 50
KEY_MAX_CHARS: Final = 255
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_FIELDS: Final = {
    "name": "Name of the artifact.",
    "version": "Version of the artifact.",
    "release": "Release of the artifact.",
    "platform_id": "Platform of the artifact, such as x86-64-oci-linux.",
    "package": "Package type of the artifact, such as oci.",
}


def _plain_key(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not (0 < len(value) <= KEY_MAX_CHARS and value.isascii() and value.isprintable()):
        raise click.BadParameter(f"must be 1 to {KEY_MAX_CHARS} printable ASCII characters")
    return value


key_option = click.option(
    "--idempotency-key",
    metavar="KEY",
    callback=_plain_key,
    help="Repeated with the same key and the same values within 24 h, nothing is made twice. Default: a new key.",
)
limit_option = click.option("--limit", type=click.IntRange(1), default=LIMIT_DEFAULT, show_default=True, help="At most so many.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
success_filter = click.option("--success/--failure", default=None, help="Only these.")


class Duration(click.ParamType[float]):
    """`90`, `90s`, `10m`, `1h`, `30d`; in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """From the command line."""
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is no duration; write 90s, 10m, 1h or 30d", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


class JsonText(click.ParamType[bytes]):
    """JSON written out, from a file (`FILE` or `@FILE`) or from standard input (`-`); its bytes as they are."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """From the command line. What is no JSON is wrong usage."""
        import msgspec

        def refuse(why: str) -> NoReturn:
            self.fail(why, param, ctx)

        text = _bytes_of(str(value), refuse)
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            self.fail(f"{_named(str(value))} is not JSON: {error}", param, ctx)
        return text.strip()

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        """In the help."""
        return "JSON|FILE|-"


def artifact_options(command: Command) -> Command:
    """All five fields, each needed; the command gets `artifact`."""

    @functools.wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> None:
        from xzepr_client import Artifact

        fields = {field: options.pop(field) for field in _FIELDS}
        command(*arguments, artifact=Artifact(**fields), **options)

    return _with_fields(wrapper, required=True)


def artifact_filters(command: Command) -> Command:
    """All five fields, each compared exactly when given; the command gets `filters`, a dict of those that were."""

    @functools.wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> None:
        fields = {field: options.pop(field) for field in _FIELDS}
        command(*arguments, filters={field: value for field, value in fields.items() if value is not None}, **options)

    return _with_fields(wrapper, required=False)


def _with_fields(wrapper: Command, *, required: bool) -> Command:
    for field, about in reversed(_FIELDS.items()):
        wrapper = click.option(f"--{field.replace('_', '-')}", required=required, help=about if required else f"Only this: {about.lower()}")(wrapper)
    return wrapper


def confirm(question: str, yes: bool) -> None:
    """Asks on a terminal; a program is taken at its word."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True)


def _bytes_of(value: str, fail: Callable[[str], NoReturn]) -> bytes:
    if value == "-":
        return sys.stdin.buffer.read()
    if value.lstrip()[:1] in ("{", "[", '"'):
        return value.encode("utf-8", "surrogateescape")
    path = Path(value.removeprefix("@"))
    try:
        return path.read_bytes()
    except FileNotFoundError:
        # `true`, `null` and numbers are JSON too, unless a file bears that name.
        if re.fullmatch(r"true|false|null|-?[\d.eE+-]+", value):
            return value.encode()
        fail(f"there is no file {str(path)!r}, and it is not JSON")
    except (OSError, ValueError) as error:
        fail(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}")


def _named(value: str) -> str:
    if value == "-":
        return "standard input"
    return "it" if value.lstrip()[:1] in ("{", "[", '"') else repr(value.removeprefix("@"))
