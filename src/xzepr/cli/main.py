"""`xzepr`: thin, one screen per command. What a command needs is loaded when it runs, so that help comes at once."""

from pathlib import Path
from typing import Final

import click

from xzepr import __version__
from xzepr.cli.lazy import LazyGroup
from xzepr.cli.local import config_option, embedded_option, load_or_exit, run_or_exit

_COMMANDS: Final = {
    **{
        name: f"xzepr.cli.{name}:{name}"
        for name in (
            "admin",
            "apply",
            "artifact",
            "audit",
            "completion",
            "config",
            "event",
            "group",
            "keys",
            "login",
            "receiver",
            "retention",
            "watch",
        )
    },
    "api-key": "xzepr.cli.api_key:api_key",
    "logout": "xzepr.cli.login:logout",
    "whoami": "xzepr.cli.login:whoami",
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xzepr")
def main() -> None:
    """XZepr records what happened to each artifact, decides whether it may move on, and says why not."""


@main.command()
@config_option
@embedded_option
@click.option("--no-relay", is_flag=True, help="Web workers only: relays run elsewhere (xzepr relay).")
@click.option("--no-migrate", is_flag=True, help="Do not migrate; refuse to start on an older schema.")
def serve(config_file: Path | None, allow_embedded: bool, no_relay: bool, no_migrate: bool) -> None:
    """Start the server: database (when none is configured), web workers, relay."""
    from xzepr.processes.serve import serve as run

    settings = load_or_exit(config_file, allow_embedded)
    run_or_exit(lambda: run(settings, with_relay=not no_relay, with_migrations=not no_migrate, announce=click.echo))


@main.command()
@config_option
@embedded_option
def relay(config_file: Path | None, allow_embedded: bool) -> None:
    """Run a relay alone: one leads, any others stand by."""
    from xzepr.processes.serve import run_relay_alone

    settings = load_or_exit(config_file, allow_embedded)
    run_or_exit(lambda: run_relay_alone(settings))


@main.command()
@config_option
@embedded_option
def migrate(config_file: Path | None, allow_embedded: bool) -> None:
    """Bring the database to this version's schema, and make partitions ahead."""
    from xzepr.db.migrate import known_migrations
    from xzepr.processes.serve import database_of, prepare_database

    settings = load_or_exit(config_file, allow_embedded)

    async def run() -> None:
        async with database_of(settings) as ready:
            await prepare_database(ready, with_migrations=True)

    run_or_exit(run)
    newest = known_migrations()[-1]
    click.echo(f"the database has the schema of {newest.number:04}_{newest.name}")


@main.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 document."""
    import msgspec

    from xzepr.app import ROUTES
    from xzepr.web.openapi import build_document

    click.echo(msgspec.json.format(msgspec.json.encode(build_document(ROUTES)), indent=2))
