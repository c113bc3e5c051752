"""Every `sh` block of the docs runs as it stands against a real server, and every link between pages leads somewhere.

The tutorial has a test of its own, which looks at what it prints. A block that is not for running is marked `text`.
"""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIALS = DOCS / "tutorials"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
# What a block may be called. A fence without a name, or with a misspelt one, would never be looked at.
LANGUAGES = {"sh", "text", "json", "http", "yaml", "groovy", "sql", "python"}
_PARSER = MarkdownIt("commonmark").enable("table")


@cache
def tokens(page: Path) -> list[Token]:
    return _PARSER.parse(page.read_text("utf-8"))


def blocks(page: Path, language: str) -> list[str]:
    return [token.content for token in tokens(page) if token.type == "fence" and token.info == language]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


WITH_SHELL = [page for page in PAGES if page.is_relative_to(DOCS) and not page.is_relative_to(TUTORIALS) and blocks(page, "sh")]


def test_there_is_something_to_run() -> None:
    assert {"docs/reference/api.md", "docs/reference/cli.md", "docs/how_to/gate_a_release_in_ci.md", "docs/how_to/api_keys_for_ci.md"} <= {
        named(page) for page in WITH_SHELL
    }


@pytest.mark.parametrize("page", WITH_SHELL, ids=named)
def test_the_shell_blocks_of_a_page_run_in_their_order(page: Path, reader: dict[str, str], tmp_path: Path) -> None:
    # One shell, so that a later block may use what an earlier one set; -e, so that a command that fails ends it.
    script = "".join(f"\necho '@@@ block {number}' >&2\n{block}" for number, block in enumerate(blocks(page, "sh"), start=1))
    command = ["bash", "-eu", "-o", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=reader, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{named(page)} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_says_what_it_is(page: Path) -> None:
    fences = [token for token in tokens(page) if token.type == "fence"]
    assert [token.info for token in fences if token.info not in LANGUAGES] == []
    assert [token.content for token in tokens(page) if token.type == "code_block"] == [], "an indented block is never run"


def targets(page: Path) -> Iterator[str]:
    for token in tokens(page):
        for child in token.children or ():
            for name in ("href", "src"):
                if (target := child.attrGet(name)) is not None:
                    yield str(target)


@cache
def anchors(page: Path) -> set[str]:
    """As the usual hosts of repositories make them: lower case, blanks to hyphens, a number behind one that is there already."""
    found: set[str] = set()
    parsed = tokens(page)
    for opening, inline in pairwise(parsed):
        if opening.type == "heading_open":
            text = "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(next(name for number in count() if (name := f"{slug}-{number}" if number else slug) not in found))
    return found


def faults_of(page: Path, target: str) -> str | None:
    path, _, anchor = unquote(target).partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
        return f"{target}: there is no {path}"
    if not file.is_relative_to(ROOT):
        return f"{target}: leads out of the project"
    if anchor and (file.suffix != ".md" or anchor not in anchors(file)):
        return f"{target}: {named(file)} has no heading #{anchor}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    inside = [target for target in targets(page) if not re.match(r"[a-z][a-z0-9+.-]*:", target)]
    assert [fault for target in inside if (fault := faults_of(page, target))] == []


def test_a_link_that_leads_nowhere_is_noticed() -> None:
    page = DOCS / "README.md"
    assert faults_of(page, "glossary.md#gate") is None
    assert faults_of(page, "glossary.md#gates") is not None
    assert faults_of(page, "glosary.md") is not None
    assert faults_of(page, "../../elsewhere.md") is not None


def test_every_page_is_in_the_index() -> None:
    reached = {(DOCS / target.partition("#")[0]).resolve() for target in targets(DOCS / "README.md")}
    through_decisions = {(DOCS / "decisions" / target).resolve() for target in targets(DOCS / "decisions" / "README.md")}
    missing = [named(page) for page in PAGES if page.is_relative_to(DOCS) and page not in reached | through_decisions | {DOCS / "README.md"}]
    assert missing == []
