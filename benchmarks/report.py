"""What is told of a run: rows, bars, a table, and the file that a later run is compared with."""

import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

SINGLE_POSTS: Final = tuple(f"post c={connections} no group" for connections in (1, 16, 64, 256))
GROUPED_POST: Final = "post c=64 group of three"
CREDENTIALS: Final = ("post c=64 with a token", "post c=64 with a key")
CREDENTIAL_RATIO_MIN: Final = 0.90
READS: Final = ("get by id", "list 50", "timeline", "status")


class Row(msgspec.Struct, kw_only=True):
    """One line. throughput: requests, events (batch) or facts (sequencer) a second. ratio: throughput by bare_throughput; null: no counterpart.

    pending: facts not yet sequenced when its load ended, the worst round's. caught_up_s: until none was.
    """

    name: str
    ratio: float | None = None
    throughput: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    errors: int = 0
    bare_throughput: float | None = None
    bare_p50_ms: float | None = None
    bare_p99_ms: float | None = None
    pending: int | None = None
    caught_up_s: float | None = None
    note: str = ""


class Guide(msgspec.Struct, kw_only=True):
    """The production guide's table. cpu, memory: of server and database together, as shares of the machine."""

    offered: float
    throughput: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    answers: int
    errors: int
    cpu: float
    memory: float
    note: str = ""


class Bar(msgspec.Struct, kw_only=True):
    """A promise, and whether this run held it. held: None when the row was not measured."""

    name: str
    limit: str
    seen: str
    held: bool | None


class Report(msgspec.Struct, kw_only=True):
    """One run, as it is saved."""

    rows: list[Row]
    guide: Guide | None = None
    bars: list[Bar] = []
    machine: dict[str, str] = {}

    def wrong(self) -> list[str]:
        """Names of what had errors."""
        return [row.name for row in self.rows if row.errors] + (["guide"] if self.guide and self.guide.errors else [])


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that at least this share of all does not exceed. Raises ValueError when there is none."""
    if not ordered:
        raise ValueError("no values")
    return ordered[min(max(-int(-share * len(ordered) // 1) - 1, 0), len(ordered) - 1)]


def machine(postgres: str, settings: dict[str, str]) -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "cores": str(os.cpu_count()),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgresql": postgres,
        **settings,
    }


def bars_of(rows: list[Row], sizes: list[str], guide: Guide | None) -> list[Bar]:
    """Every promise, in the order of the table."""
    by_name = {row.name: row for row in rows}
    bars = [bar for size in sizes for bar in _bars_of_size(by_name, size)]
    with_credentials = [by_name.get(f"{name} {sizes[0]}", Row(name=f"{name} {sizes[0]}")) for name in CREDENTIALS]
    bars += [_at_least(f"{row.name}: by that without", row.ratio, CREDENTIAL_RATIO_MIN) for row in with_credentials]
    if len(sizes) > 1:
        bars += [_growth(by_name, name, sizes[0], sizes[-1]) for name in READS]
    return bars + (list(_bars_of_guide(guide)) if guide else [])


def _bars_of_size(rows: dict[str, Row], size: str) -> Iterator[Bar]:
    def row(name: str) -> Row:
        return rows.get(f"{name} {size}", Row(name=f"{name} {size}"))

    single, grouped, lone, batch = (row(name) for name in ("post c=64 no group", GROUPED_POST, "post c=1 no group", "batch 1000"))
    yield _at_least(f"{single.name}: ratio", single.ratio, 0.40)
    yield _at_most(f"{single.name}: p99", single.p99_ms, 25, "ms", strict=True)
    yield _at_least(f"{grouped.name}: ratio", grouped.ratio, 0.35)
    yield _at_most(f"{lone.name}: p50 by bare p50", _ratio(lone.p50_ms, lone.bare_p50_ms), 1.8)
    yield _at_least(f"{batch.name}: ratio", batch.ratio, 0.35)
    for name in (*SINGLE_POSTS, GROUPED_POST):
        post = row(name)
        yield _at_most(f"{post.name}: seconds of pending facts", _ratio(post.pending, post.throughput), 1)
    yield _at_most(f"{batch.name}: sequencer caught up", batch.caught_up_s, 10, "s")
    sse = row("post to sse")
    yield _at_most(f"{sse.name}: p99", sse.p99_ms, 250, "ms", strict=True)


def _growth(rows: dict[str, Row], name: str, small: str, large: str) -> Bar:
    few, many = (rows.get(f"{name} {size}", Row(name="")) for size in (small, large))
    return _at_most(f"{name}: p50 at {large} by that at {small}", _ratio(many.p50_ms, few.p50_ms), 1.3)


def _bars_of_guide(guide: Guide) -> Iterator[Bar]:
    yield _at_most("guide: p50", guide.p50_ms, 100, "ms", strict=True)
    yield _at_most("guide: p95", guide.p95_ms, 500, "ms", strict=True)
    yield _at_most("guide: p99", guide.p99_ms, 1000, "ms", strict=True)
    yield _at_most("guide: errors", 100 * guide.errors / max(guide.errors + guide.answers, 1), 0.1, "%", strict=True)
    yield Bar(name="guide: requests/s", limit="> 1000", seen=f"{guide.throughput:.1f}", held=guide.throughput > 1000)
    yield _at_most("guide: CPU", 100 * guide.cpu, 70, "%", strict=True)
    yield _at_most("guide: memory", 100 * guide.memory, 80, "%", strict=True)


def _ratio(value: float | None, by: float | None) -> float | None:
    return value / by if value is not None and by else None


def _at_least(name: str, value: float | None, limit: float) -> Bar:
    return Bar(name=name, limit=f"≥ {limit:.2f}", seen=_number(value), held=None if value is None else value >= limit)


def _at_most(name: str, value: float | None, limit: float, unit: str = "", *, strict: bool = False) -> Bar:
    held = None if value is None else value < limit if strict else value <= limit
    return Bar(name=name, limit=f"{'<' if strict else '≤'} {limit:g} {unit}".rstrip(), seen=f"{_number(value)} {unit}".rstrip(), held=held)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def table_of(rows: list[Row]) -> Table:
    """For a person."""
    table = Table(title="Each row beside its bare counterpart in the same run")
    for column in ("row", "ratio", "per s", "p50 ms", "p95 ms", "p99 ms", "errors", "bare per s", "bare p50 ms", "pending", "note"):
        table.add_column(column, justify="left" if column in ("row", "note") else "right", no_wrap=column == "row")
    for row in rows:
        figures = (row.ratio, row.throughput, row.p50_ms, row.p95_ms, row.p99_ms)
        pending = "-" if row.pending is None else f"{row.pending:,}"
        errors = f"[red]{row.errors}[/]" if row.errors else "0"
        bare = (_number(row.bare_throughput), _number(row.bare_p50_ms))
        table.add_row(row.name, *map(_number, figures), errors, *bare, pending, row.note)
    return table


def tell(report: Report, console: Console) -> None:
    """Guide's table and bars; the rows were told as they came."""
    console.print(table_of(report.rows))
    if report.guide:
        console.print(f"\n{_told(report.guide)}\n", soft_wrap=True)
    tell_bars(report.bars, console)


def tell_bars(bars: list[Bar], console: Console) -> None:
    """Each with held or missed."""
    table = Table(title="Bars")
    for column in ("bar", "limit", "seen", ""):
        table.add_column(column, no_wrap=True)
    for bar in bars:
        table.add_row(bar.name, bar.limit, bar.seen, "not measured" if bar.held is None else "[green]held[/]" if bar.held else "[red]missed[/]")
    console.print(table)


def save(report: Report, path: Path) -> None:
    """As JSON, for compare."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def read(path: Path) -> Report:
    """Raises OSError, msgspec.ValidationError."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def _told(guide: Guide) -> str:
    figures = f"p50 {guide.p50_ms:.2f} ms, p95 {guide.p95_ms:.2f} ms, p99 {guide.p99_ms:.2f} ms"
    errors = f"{guide.errors} errors among {guide.errors + guide.answers} requests"
    machine = f"server and database took {guide.cpu:.0%} of the machine's processors and {guide.memory:.0%} of its memory"
    rate = f"{guide.offered:.0f} requests/s offered, open loop, {guide.throughput:.1f} answered"
    return f"The production guide's table: {rate}; {figures}; {errors}; {machine}. {guide.note}".rstrip()
