"""What the commands share that work on this machine's settings and database, and ask no server."""

import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

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
