"""Two runs: which ratios fell. Ratios alone are judged: they hold the machine constant, throughputs do not."""

from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.report import Report, Row

FALL_MAX: Final = 0.15


class Change(msgspec.Struct, frozen=True):
    """One row in both runs. fell: its ratio is lower by more than FALL_MAX of what it was, or is no longer there."""

    name: str
    before: float | None
    after: float | None
    fell: bool

    @property
    def by(self) -> float | None:
        """Change as a share of what it was; negative when lower."""
        return None if self.before is None or self.after is None or self.before == 0 else self.after / self.before - 1


def compare(saved: Report, latest: Report) -> list[Change]:
    """Every row of the saved run, then rows that are new."""
    now = {row.name: row for row in latest.rows}
    known = {row.name for row in saved.rows}
    return [_change(row, now.get(row.name)) for row in saved.rows] + [
        Change(row.name, None, row.ratio, fell=False) for row in latest.rows if row.name not in known
    ]


def _change(before: Row, after: Row | None) -> Change:
    ratio = after.ratio if after else None
    # A row without a counterpart (null) has nothing to fall; one that had a ratio and has none any more was not measured.
    fell = before.ratio is not None and (ratio is None or ratio < before.ratio * (1 - FALL_MAX))
    return Change(before.name, before.ratio, ratio, fell)


def tell(changes: list[Change], console: Console) -> None:
    """As a table; what fell is marked."""
    table = Table(title=f"Ratios, and those that fell by more than {FALL_MAX:.0%}")
    for column in ("row", "saved", "latest", "change", ""):
        table.add_column(column, no_wrap=True)
    for change in changes:
        by = "-" if change.by is None else f"{change.by:+.0%}"
        table.add_row(change.name, _text(change.before), _text(change.after), by, "[red]fell[/]" if change.fell else "")
    console.print(table)


def _text(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"
