"""What commands print: tables and fields for people, JSON for programs.

JSON goes to standard output alone, numbers and key order as the server sent them. Tables are as wide as their content when standard output is no
terminal, so nothing is cut in a log. Nothing that is printed can steer a terminal (text.shown).
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from xzepr.cli.text import shown, when

if TYPE_CHECKING:
    from rich.console import Console
    from xzepr_client import Gate, GroupStatus

# A cell is a text, or a text and its style.
Cell = str | tuple[str, str]

PIPE_COLUMNS: Final = 100_000
_BEYOND_ASCII: Final = re.compile(r"[^\n -~]")
json_option = click.option("--json", "as_json", is_flag=True, help="For programs: JSON on standard output.")

_STATES: Final = {"open": "green", "closed": "red", "missing": "yellow"}


def print_json(value: Any) -> None:
    """value: anything that msgspec encodes."""
    import msgspec

    click.echo(shown_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()))


def print_id(made: str, as_json: bool) -> None:
    """What was made: its id on a line, or `{"id": …}`."""
    if as_json:
        print_json({"id": made})
    else:
        click.echo(made)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, empty: str = "none") -> None:
    """empty: said on standard error when there are no rows, so that a pipe gets nothing."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    if table.row_count:
        _console().print(table)
    else:
        click.echo(empty, err=True)


def print_fields(fields: Iterable[tuple[str, Cell]]) -> None:
    """A line each."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in fields:
        grid.add_row(name, _text(value))
    _console().print(grid)


def print_sentence(text: str, style: str = "") -> None:
    """A line of its own."""
    _console().print(_text((text, style)), soft_wrap=True)


def print_raw_json(title: str, raw: Any) -> None:
    """A JSON text below its title, indented, every number as it was sent."""
    import msgspec

    click.echo(title)
    click.echo(shown_json(msgspec.json.format(bytes(raw), indent=2).decode()))


def shown_json(text: str) -> str:
    """The same JSON, as a terminal may have it: what JSON leaves unescaped and is not printable (0x7f to 0x9f, marks of direction) is escaped."""
    return _BEYOND_ASCII.sub(lambda match: match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1], text)


def print_status(status: "GroupStatus") -> None:
    """The sentence, then every gate."""
    print_sentence(status.summary, "bold green" if status.complete else "bold red")
    print_gates(status.gates)


def print_gates(gates: Iterable["Gate"]) -> None:
    """A row each."""
    columns = ("gate", "receiver", "type", "decided", "event", "by")
    print_table(columns, [_gate(gate) for gate in gates])


def _gate(gate: "Gate") -> list[Cell]:
    receiver = gate.event_receiver
    cells: list[Cell] = [(gate.state, _STATES[gate.state]), receiver.name, receiver.type]
    return [*cells, when(gate.decided_at), gate.event_id or "", gate.decided_by or ""]


def outcome(success: bool) -> Cell:
    """As a cell."""
    return ("success", "green") if success else ("failure", "red")


def yes_no(value: bool) -> Cell:
    """As a cell."""
    return ("yes", "green") if value else ("no", "yellow")


def artifact_cells(artifact: Any) -> list[Cell]:
    """The five fields of anything that has them."""
    return [artifact.name, artifact.version, artifact.release, artifact.platform_id, artifact.package]


def artifact_text(artifact: Any) -> str:
    """The five fields of anything that has them, in a sentence."""
    return f"{artifact.name} {artifact.version} ({artifact.release}, {artifact.platform_id}, {artifact.package})"


def _text(cell: Cell) -> Any:
    """Never a str: rich would read `[red]` in a name as a style."""
    from rich.text import Text

    text, style = (cell, "") if isinstance(cell, str) else cell
    return Text(shown(text), style=style)


def _console() -> "Console":
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=PIPE_COLUMNS)
