"""`xzepr config show|check`."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

_file_option = click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file instead of config/<XZEPR_ENV>.yaml.")
_embedded_option = click.option("--allow-embedded", is_flag=True, help="In production, allow the embedded PostgreSQL.")


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@_file_option
@_embedded_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(config_file: Path | None, allow_embedded: bool, as_json: bool) -> None:
    """Print every effective value with its source; secrets are masked."""
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
    _load(config_file, allow_embedded)
    click.echo("the settings are in order")


def masked(path: str, value: Any) -> Any:
    """A secret is not shown; of a URL only its password is hidden."""
    from xzepr.settings.model import SECRETS

    if path not in SECRETS or value is None:
        return value
    if isinstance(value, str) and "://" in value:
        shown = re.sub(r"(://[^:/@]*:)[^@]*@", r"\1********@", value)
        return re.sub(r"([?&]password=)[^&]*", r"\1********", shown)
    return "********"


def _load(config_file: Path | None, allow_embedded: bool) -> Any:
    from xzepr.settings import SettingsError, load_settings

    try:
        loaded = load_settings(config_file, environ=os.environ, cwd=Path.cwd(), allow_embedded=allow_embedded)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        sys.exit(1)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    return loaded
