"""`xzepr config show|check`: what the settings are and whether a server would start with them."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from xzepr.settings import Loaded

_file_option = click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file instead of config/<XZEPR_ENV>.yaml.")
_embedded_option = click.option("--allow-embedded", is_flag=True, help="In production, allow the embedded PostgreSQL.")


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@_file_option
@_embedded_option
@click.option("--json", "as_json", is_flag=True, help="For programs: an object of {value, source} by key.")
def show(config_file: Path | None, allow_embedded: bool, as_json: bool) -> None:
    """Print every effective value with its source; secrets are masked."""
    from xzepr.settings.masking import masked
    from xzepr.settings.model import knobs, value_of

    loaded = _load(config_file, allow_embedded)
    rows = [(knob.path, masked(knob.path, value_of(loaded.settings, knob.path)), loaded.sources[knob.path]) for knob in knobs()]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({path: {"value": value, "source": source} for path, value, source in rows})))
        return
    width = max(len(path) for path, _, _ in rows)
    for path, value, source in rows:
        click.echo(f"{path:<{width}}  {msgspec.json.encode(value).decode()}  ({source})")


@config.command()
@_file_option
@_embedded_option
def check(config_file: Path | None, allow_embedded: bool) -> None:
    """Exit with 1, and every reason on a line, when the server would not start with these settings."""
    from xzepr.auth.key_files import KeyFiles, KeysError, read_keys

    settings = _load(config_file, allow_embedded).settings
    try:
        files = KeyFiles.of(settings)
        if not files.ours:
            read_keys(files)
    except KeysError as error:
        _tell("error", [str(error)])
        sys.exit(1)
    click.echo("the settings are in order")


def _load(config_file: Path | None, allow_embedded: bool) -> "Loaded":
    """Warnings and faults go to standard error, one a line; a fault ends the command with 1."""
    from xzepr.settings import SettingsError, load_settings

    try:
        loaded = load_settings(config_file, environ=os.environ, cwd=Path.cwd(), allow_embedded=allow_embedded)
    except SettingsError as error:
        _tell("warning", error.warnings)
        _tell("error", error.problems)
        sys.exit(1)
    _tell("warning", loaded.warnings)
    return loaded


def _tell(kind: str, lines: list[str]) -> None:
    for line in lines:
        click.echo(f"{kind}: {line}", err=True)
