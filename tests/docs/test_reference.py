"""The reference pages say what the code does, and no route, setting, table of commands or flag is left out of the docs."""

import re
from pathlib import Path

import click
import pytest

from xzepr.app import ROUTES
from xzepr.cli import reference as cli_reference
from xzepr.cli.main import main
from xzepr.settings import sample
from xzepr.settings.names import KNOBS, variable
from xzepr.web import pages
from xzepr.web import reference as api_reference
from xzepr.web.openapi import problems_of
from xzepr.web.reference_head import ADVICE

DOCS = Path(__file__).parents[2] / "docs"
API, CLI = DOCS / "reference" / "api.md", DOCS / "reference" / "cli.md"
TABLE = [*ROUTES, *pages.routes(ROUTES)]
COMMANDS = list(cli_reference.walk(main, "xzepr"))


def all_pages() -> str:
    return "\n".join(page.read_text("utf-8") for page in sorted(DOCS.rglob("*.md")))


@pytest.mark.parametrize(
    ("page", "writer"),
    [(API, api_reference.reference_page), (CLI, cli_reference.reference_page), (DOCS / "reference" / "configuration.md", sample.reference_page)],
    ids=["api", "cli", "configuration"],
)
def test_a_reference_page_is_the_one_that_the_code_writes(page: Path, writer: object) -> None:
    assert callable(writer)
    assert page.read_text("utf-8") == writer(), "write it again: make reference"


def section(page: Path, heading: str) -> str:
    """From a heading to the next of the same level or above."""
    level = heading.partition(" ")[0]
    _, found, after = page.read_text("utf-8").partition(f"\n{heading}\n")
    assert found, f"{page.name} has no heading {heading!r}"
    return re.split(rf"^#{{1,{len(level)}}} ", after, maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("route", [route for route in TABLE if route.in_document], ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_described_with_what_it_needs(route: api_reference.Route) -> None:
    text = section(API, f"### `{route.method} {route.path}`")
    assert all(f"`{permission}`" in text for permission in route.permissions)
    assert route.permissions or "**Permission:** public" in text
    assert all(f"| `{name}` | path |" in text for name in route.path_params)
    for field in route.query.__struct_encode_fields__ if route.query else ():
        assert f"| `{field}` | query |" in text
    assert re.search(rf"\*\*Answer:\*\* {route.status}\b", text)
    told_everywhere = {"internal_error", "unavailable", "unknown_host"}
    assert {kind.code for kind in problems_of(route)} - told_everywhere <= set(re.findall(r"`(\w+)`", text))


def test_every_route_stands_somewhere() -> None:
    text = all_pages()
    assert [route.path for route in TABLE if f"{route.path}`" not in text] == []


def test_every_problem_code_has_its_line_and_advice() -> None:
    table = section(API, "## Problem codes")
    codes = [kind.code for kind in api_reference.problem_kinds()]
    assert re.findall(r"^\| \d{3} \| `(\w+)` \|", table, re.MULTILINE) == codes
    assert [code for code in codes if code not in ADVICE] == [], "write a line of advice in src/xzepr/web/reference_head.py"
    assert [code for code in ADVICE if code not in codes] == [], "nobody answers with these codes any more"


def test_every_setting_stands_somewhere() -> None:
    text = all_pages()
    assert [path for path in KNOBS if f"`{path}`" not in text or f"`{variable(path)}`" not in text] == []


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_every_command_is_described_with_its_arguments_and_flags(path: str, command: click.Command) -> None:
    text = section(CLI, f"## {path}")
    arguments, options = cli_reference.parameters_of(command)
    for option in options:
        assert all(f"`{name}`" in text for name in [*option.opts, *option.secondary_opts])
    with click.Context(command, info_name=path) as context:
        assert all(f"| `{cli_reference.cell(argument.make_metavar(context))}` |" in text for argument in arguments)
    assert command.help, f"{path} has no help"
    assert all(option.help for option in options), f"{path}: an option without help"


def test_the_anchors_of_a_reference_page_are_unique() -> None:
    for page in (API, CLI):
        headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
        anchors = [api_reference.slug(heading) for heading in headings]
        assert sorted(anchors) == sorted(set(anchors))
