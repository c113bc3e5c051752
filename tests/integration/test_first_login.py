"""The first administrator: made once, and its password shown to one person or to the owner of one file, and to nobody else."""

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import structlog

from support.installation import Installation
from xzepr.auth.bootstrap import FILE_NAME, ensure_administrator, find_first_login
from xzepr.auth.passwords import matches_now
from xzepr.db.pool import Database
from xzepr.settings import Settings


async def administrators(url: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch("select username, password_hash, roles from users"))
    finally:
        await connection.close()


def everything_in(directory: Path) -> str:
    return "\n".join(file.read_text("utf-8") for file in directory.rglob("*") if file.is_file())


async def test_a_file_is_its_owners_alone(database: Database, database_url: str, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    with structlog.testing.capture_logs() as lines:
        await ensure_administrator(database, Settings(), state_dir, None)
    file = state_dir / FILE_NAME
    assert (file.stat().st_mode & 0o777, state_dir.stat().st_mode & 0o777) == (0o600, 0o700)
    first = json.loads(file.read_text())
    [user] = await administrators(database_url)
    assert (user["username"], user["roles"], matches_now(user["password_hash"], first["password"])) == ("admin", ["admin"], True)
    assert [line["password_file"] for line in lines] == [str(file)]
    assert first["password"] not in str(lines)
    assert await find_first_login(database, state_dir) == file
    assert [each.name for each in state_dir.iterdir()] == [FILE_NAME]


async def test_at_a_terminal_it_is_shown_once_and_is_in_no_file_and_no_log(database: Database, database_url: str, tmp_path: Path) -> None:
    said: list[str] = []
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            await ensure_administrator(database, Settings(), tmp_path, said.append)
    [line] = said
    assert line.startswith("First login (shown once): admin / ")
    password = line.rpartition(" / ")[2]
    [user] = await administrators(database_url)
    assert matches_now(user["password_hash"], password)
    assert password not in str(lines) + everything_in(tmp_path)
    assert await find_first_login(database, tmp_path) is None


async def test_two_servers_that_start_at_once_on_an_empty_database_make_one_administrator(empty_url: str, tmp_path: Path) -> None:
    homes = [tmp_path / name for name in ("one", "other")]
    settings = {"XZEPR__DATABASE__URL": empty_url, "XZEPR__SERVER__WORKERS": "1", "XZEPR__AUTH__ANONYMOUS_ROLES": ""}
    servers = [Installation({**settings, "XZEPR__SERVER__STATE_DIR": str(home)}) for home in homes]
    try:
        for server in servers:
            await asyncio.to_thread(server.ready)
        [user] = await administrators(empty_url)
        [file] = [home / FILE_NAME for home in homes if (home / FILE_NAME).exists()]
        password = json.loads(file.read_text())["password"]
        assert matches_now(user["password_hash"], password)
    finally:
        codes = [await asyncio.to_thread(server.stop) for server in servers]
    assert codes == [0, 0]
    assert not any(password in line for server in servers for line in server.lines)
