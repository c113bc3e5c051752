"""`xzepr`: thin, one screen per command. What a command needs is loaded when it runs, so that help comes at once."""

import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import click

from xzepr import __version__
from xzepr.cli.lazy import LazyGroup

_COMMANDS: Final = {name: f"xzepr.cli.{name}:{name}" for name in ("apply", "artifact", "completion", "config", "event", "group", "receiver", "watch")}

_config_option = click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file instead of config/<XZEPR_ENV>.yaml.")
_embedded_option = click.option("--allow-embedded", is_flag=True, help="In production, allow the embedded PostgreSQL.")


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xzepr")
def main() -> None:
    """XZepr records what happened to each artifact, decides whether it may move on, and says why not."""


@main.command()
@_config_option
@_embedded_option
@click.option("--no-relay", is_flag=True, help="Web workers only: relays run elsewhere (xzepr relay).")
@click.option("--no-migrate", is_flag=True, help="Do not migrate; refuse to start on an older schema.")
def serve(config_file: Path | None, allow_embedded: bool, no_relay: bool, no_migrate: bool) -> None:
    """Start the server: database (when none is configured), web workers, relay."""
    from xzepr.processes.serve import serve as run

    settings = _load(config_file, allow_embedded)
    _run(lambda: run(settings, with_relay=not no_relay, with_migrations=not no_migrate, announce=click.echo))


@main.command()
@_config_option
@_embedded_option
def relay(config_file: Path | None, allow_embedded: bool) -> None:
    """Run a relay alone: one leads, any others stand by."""
    from xzepr.processes.serve import run_relay_alone

    settings = _load(config_file, allow_embedded)
    _run(lambda: run_relay_alone(settings))


@main.command()
@_config_option
@_embedded_option
def migrate(config_file: Path | None, allow_embedded: bool) -> None:
    """Bring the database to this version's schema, and make partitions ahead."""
    from xzepr.db.migrate import known_migrations
    from xzepr.processes.serve import database_of, prepare_database

    settings = _load(config_file, allow_embedded)

    async def run() -> None:
        async with database_of(settings) as ready:
            await prepare_database(ready, with_migrations=True)

    _run(run)
    newest = known_migrations()[-1]
    click.echo(f"the database has the schema of {newest.number:04}_{newest.name}")


@main.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 document."""
    import msgspec

    from xzepr.app import ROUTES
    from xzepr.web.openapi import build_document

    click.echo(msgspec.json.format(msgspec.json.encode(build_document(ROUTES)), indent=2))


def _load(config_file: Path | None, allow_embedded: bool) -> Any:
    """Settings, with their warnings logged; every problem on a line of its own and exit 1 otherwise."""
    import structlog

    from xzepr.settings import SettingsError, load_settings
    from xzepr.telemetry import configure_logging

    try:
        loaded = load_settings(config_file, environ=os.environ, cwd=Path.cwd(), allow_embedded=allow_embedded)
    except SettingsError as error:
        for warning in error.warnings:
            click.echo(f"warning: {warning}", err=True)
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        sys.exit(1)
    configure_logging(loaded.settings.telemetry.log_level, json_logs=loaded.settings.telemetry.json_logs)
    log = structlog.get_logger("xzepr.settings")
    for warning in loaded.warnings:
        log.warning("settings.warning", reason=warning)
    return loaded.settings


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """What a person can mend is one line on standard error and exit 1; everything else keeps its trace."""
    import asyncio

    from xzepr.db.migrate import MigrationError
    from xzepr.embedded import EmbeddedError
    from xzepr.processes.serve import ServeError
    from xzepr.processes.supervisor import StartFailed

    try:
        asyncio.run(work())
    except (EmbeddedError, MigrationError, ServeError, StartFailed) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
