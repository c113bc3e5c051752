"""docs/how_to/implement_postgres_repositories.md: its tables are those that there are, its statements run, and its example works on a copy."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import asyncpg

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how_to" / "implement_postgres_repositories.md").read_text("utf-8")
_FILE = re.compile(r"^\*\*`([^`]+)`\*\* \((a new file|at the end)\)\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PARTITION = re.compile(r"_(default|\d{4}_\d{2}|\d{6})$")


async def test_every_table_has_its_line_and_every_line_its_table(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    names = await connection.fetch(
        "select c.relname::text as name from pg_class c where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace"
    )
    await connection.close()
    there = {row["name"] for row in names if not _PARTITION.search(row["name"])}
    tables = PAGE.partition("## The tables")[2].partition("###")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", tables, re.MULTILINE)) == there


async def test_the_statements_for_looking_run(database_url: str) -> None:
    blocks = re.findall(r"^```sql\n(.*?)^```$", PAGE.partition("### Looking at it")[2].partition("## ")[0], re.DOTALL | re.MULTILINE)
    statements = [statement for block in blocks for statement in block.split(";\n") if statement.strip()]
    assert len(statements) >= 4
    connection = await asyncpg.connect(database_url)
    for statement in statements:
        assert await connection.fetch(statement), f"no row: {statement}"
    await connection.close()


def carry_out(copy: Path) -> list[str]:
    """Every file of the page, made or continued in the copy; the paths. New migrations get the next numbers."""
    done = []
    for pattern, how, text in _FILE.findall(PAGE):
        numbers = [int(file.name[:4]) for file in (copy / pattern).parent.glob("[0-9]*.sql")]
        path = pattern.replace("NNNN", f"{max(numbers, default=0) + 1:04}")
        file = copy / path
        if how == "a new file":
            assert not file.exists(), f"{path} is there already"
            file.write_text(text, "utf-8")
        else:
            with file.open("a", encoding="utf-8") as opened:
                opened.write(text)
        done.append(path)
    return done


def test_the_example_works_word_for_word(tmp_path: Path) -> None:
    unneeded = shutil.ignore_patterns("__pycache__", "vendor")
    for part in ("src", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=unneeded)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert len(carry_out(tmp_path)) == 5
    # A run of its own, with servers of its own, on the copy's code.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("XZEPR", "TEST_POSTGRES", "PYTEST"))}
    environ = {**inherited, "PYTHONPATH": str(tmp_path / "src")}
    tests = ["tests/integration/test_failing.py", "tests/integration/test_migrations.py"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"\b\d{2,} passed", done.stdout), done.stdout[-2000:]
    where = subprocess.run([sys.executable, "-c", "import xzepr; print(xzepr.__file__)"], env=environ, capture_output=True, text=True, check=True)
    assert where.stdout.startswith(str(tmp_path)), "the run would have tested the checkout, not the copy"
    checks = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "src/xzepr/events/search.py", "tests/integration/test_failing.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checks.returncode == 0, checks.stdout
