"""`xzepr audit list` asks a server; `xzepr audit verify` works on the database directly, by the settings of this machine."""

import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from xzepr.cli.connection import connected
from xzepr.cli.local import config_option, embedded_option, load_or_exit, run_or_exit
from xzepr.cli.lookup import collect
from xzepr.cli.options import limit_option
from xzepr.cli.output import Cell, json_option, print_json, print_table
from xzepr.cli.text import shown, when

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from xzepr_client import AuditRow, Client

    from xzepr.audit.verify import Report
    from xzepr.settings import Settings

_OUTCOMES: Final = {"success": "green", "failure": "yellow", "denied": "red"}


@click.group()
def audit() -> None:
    """Look at the log of acts, and check that nobody changed it."""


@audit.command("list")
@click.option("--actor", metavar="ID|NAME", help="Only what this one did.")
@click.option("--act", metavar="ACT", help="Only this act, such as group.update; with * at its end all that begin so.")
@click.option("--outcome", type=click.Choice(list(_OUTCOMES)), help="Only what ended so.")
@click.option("--from", "at_from", metavar="TIME", help="Only from this time on, such as 2026-11-25T00:00:00Z.")
@click.option("--to", "at_to", metavar="TIME", help="Only before this time.")
@limit_option
@json_option
@connected
def list_acts(client: "Client", limit: int, as_json: bool, **filters: Any) -> None:
    """List who did what, newest first."""
    rows: list[AuditRow] = collect(client.search_audit, limit, **filters)
    if as_json:
        print_json(rows)
        return
    columns = ("when", "outcome", "act", "actor", "how", "from", "object", "details")
    print_table(columns, [_cells(row) for row in rows], empty="no such acts")


@audit.command()
@config_option
@embedded_option
@click.option(
    "--checkpoint",
    "log_files",
    type=click.File("r", encoding="utf-8", errors="replace"),
    multiple=True,
    help="Compare with the checkpoints in this copy of the server's log; - is standard input. May be given several times.",
)
@click.option(
    "--public-key",
    "key_files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Public keys in PEM that signed once and are no longer in the settings. May be given several times.",
)
@json_option
def verify(config_file: Path | None, allow_embedded: bool, log_files: tuple[IO[str], ...], key_files: tuple[Path, ...], as_json: bool) -> None:
    """Recompute every hash and signature of the audit log; exit 1 and say what is wrong when a row was removed, altered or put in.

    May be run at any time, also beside a running server.
    """
    from xzepr.audit.signing import KeyUnusable
    from xzepr.audit.verify import checkpoints_in
    from xzepr.audit.verify import verify as run

    logged = []
    for file in log_files:
        try:
            found = list(checkpoints_in(file))
        except ValueError as error:
            raise click.ClickException(f"{file.name}: {shown(str(error))}") from None
        if not found:
            raise click.ClickException(f"{file.name}: there is no audit.checkpoint in it")
        logged += found
    settings = load_or_exit(config_file, allow_embedded)
    try:
        keys = _keys(settings, key_files)
    except KeyUnusable as error:
        raise click.ClickException(str(error)) from None
    reports: list[Report] = []

    async def work() -> None:
        from xzepr.processes.serve import checked_database, database_of

        async with database_of(settings) as ready, checked_database(ready, application_name="xzepr-audit") as database:
            reports.append(await run(database, keys, logged))

    run_or_exit(work)
    _print_report(reports[0], as_json)
    if reports[0].fault_count:
        sys.exit(1)


def _keys(settings: "Settings", key_files: tuple[Path, ...]) -> "dict[str, RSAPublicKey]":
    """Those of the settings, of the state directory where none are set, and of the command line. Raises KeyUnusable."""
    from xzepr.audit.signing import public_keys
    from xzepr.embedded import default_state_dir

    private, public = settings.jwt.private_key_path, settings.jwt.public_key_path
    if private is None and public is None:
        # Where a server without configured keys keeps those that it made.
        made = (Path(settings.server.state_dir) if settings.server.state_dir else default_state_dir()) / "keys" / "public.pem"
        public = str(made) if made.exists() else None
    files: list[str | Path] = [*key_files] if public is None else [public, *key_files]
    # Whoever verifies need not be allowed to sign.
    return public_keys(private=private if private is not None and os.access(private, os.R_OK) else None, public=files)


def _print_report(report: "Report", as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    for note in report.notes:
        click.echo(f"note: {shown(note)}", err=True)
    for fault in report.faults:
        click.echo(f"fault: {shown(fault)}", err=True)
    if more := report.fault_count - len(report.faults):
        click.echo(f"and {more} faults more", err=True)
    counts = f"{report.rows} rows in {report.seals} seals, {report.checkpoints} checkpoints ({report.signed} signed), {report.waiting} rows waiting"
    compared = f", {report.compared} checkpoints of the log compared" if report.compared else ""
    verdict = f"the audit log is NOT whole, {report.fault_count} faults" if report.fault_count else "the audit log is whole"
    click.echo(f"{verdict}: {counts}{compared}")


def _cells(row: "AuditRow") -> list[Cell]:
    import msgspec

    details = msgspec.json.encode(row.details).decode() if row.details else ""
    outcome: Cell = (row.outcome, _OUTCOMES.get(row.outcome, ""))
    return [when(row.at), outcome, row.act, row.actor.name, row.actor.how, row.address or "", row.object_id or "", details]
