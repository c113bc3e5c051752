"""What the commands share that work on this machine's settings and database, and ask no server."""

import functools
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from xzepr.db.pool import Database
    from xzepr.settings import Settings

# What a command does on the database; the settings name its URL.
Work = Callable[["Settings", "Database"], Awaitable[None]]

config_option = click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file instead of config/<XZEPR_ENV>.yaml.")
embedded_option = click.option("--allow-embedded", is_flag=True, help="In production, allow the embedded PostgreSQL.")


def load_or_exit(config_file: Path | None, allow_embedded: bool) -> Any:
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


def run_or_exit(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """What a person can mend is one line on standard error and exit 1; everything else keeps its trace."""
    import asyncio

    from xzepr.db.migrate import MigrationError
    from xzepr.embedded import EmbeddedError
    from xzepr.errors import XzeprError
    from xzepr.processes.serve import ServeError
    from xzepr.processes.supervisor import StartFailed

    try:
        asyncio.run(work())
    except (EmbeddedError, MigrationError, ServeError, StartFailed, XzeprError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


def on_the_database(application_name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the options of a command that reads the settings; the command gets `on_database`, which runs its work.

    application_name: as PostgreSQL shows it.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @config_option
        @embedded_option
        @functools.wraps(command)
        def wrapper(*arguments: Any, config_file: Path | None, allow_embedded: bool, **options: Any) -> None:
            def on_database(work: Work) -> None:
                settings = load_or_exit(config_file, allow_embedded)
                run_or_exit(lambda: _run(settings, work, application_name))

            command(*arguments, on_database=on_database, **options)

        return wrapper

    return decorate


async def _run(settings: "Settings", work: Work, application_name: str) -> None:
    from xzepr.processes.serve import checked_database, database_of

    async with database_of(settings) as ready, checked_database(ready, application_name=application_name) as database:
        await work(ready, database)
