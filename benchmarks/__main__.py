"""`python -m benchmarks`: measure, compare with a saved run, and two longer trials. What each figure means: docs/reference/benchmarks.md."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec
from rich.console import Console

from benchmarks import compare as comparison
from benchmarks import report as reporting
from benchmarks import rows, trials
from benchmarks.fill import event_count
from benchmarks.postgres import NotDurable
from benchmarks.report import Bar, Guide, Report, Row
from benchmarks.server import PortInUse, busy_share, require_free
from benchmarks.stage import Options, Stage, settings_told, stage
from xzepr.embedded.account import EmbeddedError
from xzepr.telemetry import configure_logging

RESULTS: Final = Path(__file__).parent / "results"
LATEST: Final = RESULTS / "latest.json"
SAVED: Final = RESULTS / "saved.json"
BUSY_MAX: Final = 0.10

Result = TypeVar("Result")

# A table is for reading: as wide as it must be also where there is no terminal.
console = Console(width=None if sys.stdout.isatty() else 190)


def _size(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        event_count(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


_port = click.option("--port", envvar="PORT", default=18042, show_default=True, help="XZepr's; the bare server takes the next one.")
_warmup = click.option("--warmup", "warmup_s", envvar="WARMUP", default=2.0, show_default=True, help="Seconds before each round that do not count.")
_directory = click.option(
    "--directory", envvar="BENCH_DIR", type=click.Path(path_type=Path), help="On the disk to measure; default: the temporary one."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure XZepr beside what the machine could do at best."""
    configure_logging("warning", json_logs=False)


@main.command()
@click.option("--size", envvar="SIZE", default="1m", show_default=True, callback=_size, help="Stored events of the second part, such as 10m.")
@click.option("--base", envvar="BASE", default="10k", show_default=True, callback=_size, help="Stored events of the first part.")
@click.option("--duration", "duration_s", envvar="DURATION", default=8.0, show_default=True, help="Seconds of each round of each side.")
@_warmup
@click.option("--rounds", envvar="ROUNDS", default=2, show_default=True, help="Rounds of each side, in turn.")
@click.option("--only", envvar="ONLY", default="", help="A pattern: rows whose name it finds, without the guide's table.")
@click.option("--facts", envvar="FACTS", default=50_000, show_default=True, help="Waiting facts of the sequencer's row.")
@click.option("--guide", "guide_s", envvar="GUIDE", default=60.0, show_default=True, help="Seconds of the guide's table.")
@_port
@_directory
@click.option("--output", type=click.Path(path_type=Path), default=LATEST, help="Where the figures go; default: benchmarks/results/latest.json.")
def run(size: str, base: str, output: Path, **given: Any) -> None:
    """All rows at both sizes, then the guide's table. Exit code 1: an answer was wrong, or it could not run."""
    options = Options(**given)
    report = _run(lambda: _measure(options, [base] if base == size else [base, size]))
    reporting.tell(report, console)
    reporting.save(report, output)
    console.print(f"\nwritten to {output}; save it as {SAVED.name} beside it to compare later runs", soft_wrap=True)
    if wrong := report.wrong():
        raise click.ClickException(f"answers or stored rows were wrong, so these figures mean nothing: {', '.join(wrong)}")


@main.command()
@click.argument("saved", type=click.Path(path_type=Path, exists=True), default=SAVED)
@click.argument("latest", type=click.Path(path_type=Path, exists=True), default=LATEST)
def compare(saved: Path, latest: Path) -> None:
    """Two runs. Exit code 1: a ratio fell by more than 15 %."""
    try:
        changes = comparison.compare(reporting.read(saved), reporting.read(latest))
    except msgspec.MsgspecError as error:
        raise click.ClickException(f"not a file of this benchmark: {error}") from None
    comparison.tell(changes, console)
    if any(change.fell for change in changes):
        sys.exit(1)


@main.command()
@click.option("--minutes", default=10.0, show_default=True, help="How long the snapshot is held.")
@_warmup
@_port
@_directory
def snapshot(minutes: float, **given: Any) -> None:
    """1,000 events a second while a session holds an old snapshot. Exit code 1: a bar was missed."""
    _trial(Options(**given), lambda built: trials.snapshot(built, minutes * 60))


@main.command()
@click.option("--events", default=1_000_000, show_default=True, help="How many, in batches of 1,000.")
@_port
@_directory
def memory(events: int, **given: Any) -> None:
    """Memory of the server's processes during many batches. Exit code 1: a bar was missed."""
    _trial(Options(**given), lambda built: trials.memory(built, events))


def _trial(options: Options, work: Callable[[Stage], Coroutine[Any, Any, list[Bar]]]) -> None:
    async def on_stage() -> list[Bar]:
        async with stage(options, "10k") as built:
            return await work(built)

    _busy()
    bars = _run(on_stage)
    reporting.tell_bars(bars, console)
    if not all(bar.held for bar in bars):
        sys.exit(1)


def _busy() -> str:
    """Looked at before anything of ours runs; a warning when others would be measured, too."""
    busy = busy_share()
    if busy > BUSY_MAX:
        console.print(f"[yellow]other programs take {busy:.0%} of the processors: the figures will be unsteady[/]", soft_wrap=True)
    return f"{busy:.0%}"


async def _measure(options: Options, sizes: list[str]) -> Report:
    require_free(options.ports)
    busy = _busy()
    console.print(f"default configuration except rate limits ({settings_told()}); sizes {', '.join(sizes)}", soft_wrap=True)
    measured: list[Row] = []
    guide: Guide | None = None
    machine: dict[str, str] = {}
    for size in sizes:
        begun = time.monotonic()
        async with stage(options, size, is_first=size == sizes[0]) as built:
            machine = reporting.machine(built.postgres.version, built.postgres.settings) | {"busy before": busy}
            told = ", ".join(f"{name} {value}" for name, value in machine.items())
            console.print(f"{size} events stored within {time.monotonic() - begun:.0f} s; {told}", soft_wrap=True)
            measured += await rows.all_rows(built, _tell)
            if size == sizes[-1] and not options.only:
                guide = await trials.guide(built)
            if rows.wants_sequencer(built):
                assert built.server is not None
                await built.server.stop()
                measured.append(await rows.sequencer_row(built))
                _tell(measured[-1])
    return Report(rows=measured, guide=guide, bars=reporting.bars_of(measured, sizes, guide), machine=machine)


def _tell(row: Row) -> None:
    """A line as soon as it is known."""
    ratio = "    -" if row.ratio is None else f"{row.ratio:5.2f}"
    p50, p99 = ("-" if value is None else f"{value:.2f}" for value in (row.p50_ms, row.p99_ms))
    throughput = "-" if row.throughput is None else f"{row.throughput:,.0f}"
    console.print(
        f"{row.name:<32} {ratio}  {throughput:>9}/s  p50 {p50} ms  p99 {p99} ms  errors {row.errors} {row.note}", soft_wrap=True, highlight=False
    )


def _run(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """What a person can mend is one line. SIGTERM ends it as Ctrl-C does: what was started is stopped."""

    async def stoppable() -> Result:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work()

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError:
        raise click.Abort from None
    except (EmbeddedError, NotDurable, PortInUse, RuntimeError) as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
