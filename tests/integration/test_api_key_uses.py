"""When a key was last used: noted in memory, written now and then, and lost by no error of the database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from support.audit_log import run
from xzepr import clock, ids
from xzepr.auth import api_keys
from xzepr.auth.api_keys import Uses
from xzepr.db.pool import Connection, Database
from xzepr.ids import ApiKeyId, UserId


class Counted(Database):
    """In place of a database: counts how often a connection is asked for."""

    def __init__(self, database: Database) -> None:
        self._counted, self.count = database, 0

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        self.count += 1
        return self._counted.connection()


@pytest.fixture
async def key_id(database: Database) -> str:
    user_id, key_id = ids.mint(UserId), ids.mint(ApiKeyId)
    async with database.connection() as connection:
        await connection.execute(
            "insert into users (id, username, roles, enabled, created_at, updated_at) values ($1, 'alice', '{}', true, now(), now())", user_id
        )
        await connection.execute(
            "insert into api_keys (id, key_sha256, user_id, name, scopes, created_at) values ($1, sha256('x'), $2, 'ci', '{event:read}', now())",
            key_id,
            user_id,
        )
    return key_id


@pytest.fixture
async def uses(database: Database) -> AsyncIterator[Uses]:
    made = Uses(Counted(database))
    yield made
    await made.close()


def counted(uses: Uses) -> int:
    return uses._database.count  # type: ignore[attr-defined,no-any-return]


async def last_used_at(database: Database, key_id: str) -> Any:
    async with database.connection() as connection:
        return await connection.fetchval("select last_used_at from api_keys where id = $1", key_id)


async def test_a_key_that_is_used_all_the_time_is_written_once_a_minute(
    database: Database, uses: Uses, key_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert api_keys.USES_WRITTEN_EVERY_S == 60
    monkeypatch.setattr(api_keys, "USES_WRITTEN_EVERY_S", 0.5)
    uses.open()
    begun_s, now_s = asyncio.get_running_loop().time(), 0.0
    while counted(uses) < 2:
        now_s = clock.now().timestamp()
        for _ in range(100):
            uses.note(key_id, now_s)
        await asyncio.sleep(0.01)
    assert asyncio.get_running_loop().time() - begun_s >= 1.0
    await uses.close()
    assert await last_used_at(database, key_id) == datetime.fromtimestamp(now_s, UTC)
    # Nothing new: nothing is written.
    before = counted(uses)
    await uses.close()
    assert counted(uses) == before


async def test_an_error_of_the_database_loses_no_use_and_ends_no_writing(
    database: Database, uses: Uses, key_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "USES_WRITTEN_EVERY_S", 0.05)
    await run(
        database,
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not today'; end $$",
        "create trigger refuse before update on api_keys for each row execute function refuse()",
    )
    with structlog.testing.capture_logs() as lines:
        uses.open()
        uses.note(key_id, 1_795_618_776.0)
        while not lines:
            assert uses._task is not None
            assert not uses._task.done()
            await asyncio.sleep(0.01)
    assert (lines[0]["event"], lines[0]["reason"]) == ("api_keys.uses_unwritten", "not today")
    await run(database, "drop trigger refuse on api_keys")
    while await last_used_at(database, key_id) is None:
        assert not uses._task.done()
        await asyncio.sleep(0.01)
    assert await last_used_at(database, key_id) == datetime.fromtimestamp(1_795_618_776, UTC)
