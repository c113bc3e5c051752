"""A login meets whatever changes beside it: another password, other parameters, a user who is disabled; and what its tokens leave behind."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from support.audit_log import rows_of, run
from support.signing import key_pair, settings_with
from xzepr import clock, ids
from xzepr.audit.denials import Denials
from xzepr.auth import throttle
from xzepr.auth.keys import SigningKeys
from xzepr.auth.logins import FAMILIES_KEPT_FOR, Logins
from xzepr.auth.model import Credentials, NewUser, TokenPair, UserChange
from xzepr.auth.passwords import Passwords
from xzepr.auth.principal import SYSTEM, Principal
from xzepr.auth.tokens import AccessTokens
from xzepr.auth.users import add_user, change_user
from xzepr.db.pool import Database
from xzepr.errors import InvalidCredentials, InvalidToken, TooManyAttempts
from xzepr.ids import UserId

CALLER = Principal(address="192.0.2.1", request_id="r-1")
FIRST, SECOND = "the rain in november", "the snow in december"


class Desk:
    """Where people log in. passwords: its threads alone."""

    def __init__(self, database: Database, directory: Path) -> None:
        files = key_pair(directory)
        settings = settings_with(files)
        self.database, self.passwords, self.denials = database, Passwords(), Denials(database)
        self.logins = Logins(settings, database, AccessTokens(settings, SigningKeys(files)), self.passwords, self.denials)

    async def add(self, username: str, password_hash: str | None = None) -> UserId:
        hashed = password_hash or await self.passwords.hash(FIRST)
        async with self.database.transaction() as connection:
            return await add_user(connection, SYSTEM, NewUser(username=username, password=FIRST), hashed, clock.now(), ids.mint(UserId))

    async def change(self, user_id: UserId, **change: Any) -> None:
        elsewhere = Passwords()
        await change_user(self.database, elsewhere, SYSTEM, user_id, UserChange(**change), 8, clock.now())
        elsewhere.close()

    async def log_in(self, username: str, password: str = FIRST, now: datetime | None = None) -> TokenPair:
        return await self.logins.log_in(CALLER, Credentials(username=username, password=password), now or clock.now())

    @asynccontextmanager
    async def held(self, username: str, password: str = FIRST, count: int = 1) -> AsyncIterator[list[asyncio.Task[TokenPair]]]:
        """Logins that have read what is stored, and whose password is looked at when the block ends."""
        free = threading.Event()
        for _ in range(2):
            self.passwords._threads.submit(free.wait)
        tasks = [asyncio.create_task(self.log_in(username, password)) for _ in range(count)]
        try:
            while self.passwords._waiting < count:
                assert not any(task.done() for task in tasks)
                await asyncio.sleep(0.01)
            yield tasks
        finally:
            free.set()
            await asyncio.wait(tasks)

    async def failures(self, user_id: UserId | None) -> list[dict[str, Any]]:
        rows = [row for row in await rows_of(self.database) if (row["act"], row["outcome"], row["object_id"]) == ("auth.login", "failure", user_id)]
        return [json.loads(row["details"]) for row in rows]


@pytest.fixture
async def desk(database: Database, tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(database, tmp_path)
    yield made
    made.passwords.close()


async def test_a_password_that_is_changed_while_it_is_checked_lets_nobody_in(desk: Desk) -> None:
    alice = await desk.add("alice")
    async with desk.held("alice") as [old]:
        await desk.change(alice, password=SECOND)
    with pytest.raises(InvalidCredentials):
        await old
    assert await desk.failures(alice) == [{"how": "password", "username": "alice"}]
    # The new one counts, also when it was typed a moment before.
    assert (await desk.log_in("alice", SECOND)).user.id == alice
    async with desk.held("alice", SECOND) as [new]:
        await desk.change(alice, password=SECOND)
    assert (await new).user.id == alice


async def test_one_who_is_disabled_while_the_password_is_checked_is_refused_and_recorded(desk: Desk) -> None:
    alice = await desk.add("alice")
    async with desk.held("alice") as [login]:
        await desk.change(alice, enabled=False)
    with pytest.raises(InvalidCredentials):
        await login
    assert await desk.failures(alice) == [{"how": "password", "username": "alice"}]
    async with desk.database.connection() as connection:
        assert await connection.fetchval("select count(*) from login_families") == 0


async def test_a_hash_with_other_parameters_is_made_anew_at_the_login(desk: Desk) -> None:
    older = PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1)
    alice = await desk.add("alice", older.hash(FIRST))

    async def stored() -> str:
        async with desk.database.connection() as connection:
            return str(await connection.fetchval("select password_hash from users where id = $1", alice))

    before = await stored()
    with pytest.raises(InvalidCredentials):
        await desk.log_in("alice", SECOND)
    assert await stored() == before
    # Two at the same time: one of them finds the hash that the other made, and is let in all the same.
    async with desk.held("alice", count=2) as logins:
        pass
    assert [(await login).user.id for login in logins] == [alice, alice]
    after = await stored()
    assert (before.startswith("$argon2id$v=19$m=8192,t=1,p=1$"), after.startswith("$argon2id$v=19$m=19456,t=2,p=1$")) == (True, True)
    await desk.log_in("alice")
    assert await stored() == after


async def test_what_was_typed_for_a_name_is_kept_of_known_users_only(desk: Desk) -> None:
    alice = await desk.add("alice")
    for typed in ("ALICE", "hunter2-typed-in-the-wrong-field"):
        with pytest.raises(InvalidCredentials):
            await desk.log_in(typed, "wrong")
    assert await desk.failures(alice) == [{"how": "password", "username": "alice"}]
    assert await desk.failures(None) == [{"how": "password"}]
    assert "hunter2" not in str([dict(row) for row in await rows_of(desk.database)])


async def test_attempts_that_come_too_soon_are_counted_in_the_log(desk: Desk) -> None:
    alice, now = await desk.add("alice"), clock.now().replace(second=0)
    for _ in range(throttle.FREE_BY_ACCOUNT):
        with pytest.raises(InvalidCredentials):
            await desk.log_in("alice", "wrong", now)
    for _ in range(30):
        with pytest.raises(TooManyAttempts):
            await desk.log_in("alice", "wrong", now)
    await desk.denials.flush(now=now + timedelta(minutes=1))
    assert len(await desk.failures(alice)) == throttle.FREE_BY_ACCOUNT
    told = {"how": "password", "error": "too_many_attempts", "count": 30, "first_at": clock.rfc3339(now), "last_at": clock.rfc3339(now)}
    assert await desk.failures(None) == [told]
    assert (await rows_of(desk.database))[-1]["address"] == CALLER.address


async def test_a_used_token_ends_its_login_also_when_it_has_expired(desk: Desk) -> None:
    alice, now = await desk.add("alice"), clock.now()
    stolen = (await desk.log_in("alice")).refresh_token
    lived = timedelta(seconds=desk.logins._settings.jwt.refresh_token_expiration)
    second = (await desk.logins.refresh(CALLER, stolen, now + lived / 2)).refresh_token
    third = (await desk.logins.refresh(CALLER, second, now + lived)).refresh_token
    later = now + lived + timedelta(minutes=1)
    with pytest.raises(InvalidToken, match="was used before"):
        await desk.logins.refresh(CALLER, stolen, later)
    with pytest.raises(InvalidToken):
        await desk.logins.refresh(CALLER, third, later)
    [row] = [row for row in await rows_of(desk.database) if row["act"] == "auth.refresh_reuse"]
    assert (row["actor_id"], row["outcome"]) == (alice, "failure")
    # Once it has ended there is nothing more to end, or to tell.
    with pytest.raises(InvalidToken):
        await desk.logins.refresh(CALLER, stolen, later)
    assert [row["act"] for row in await rows_of(desk.database)].count("auth.refresh_reuse") == 1


async def test_an_unused_token_that_has_expired_ends_nothing(desk: Desk) -> None:
    await desk.add("alice")
    token = (await desk.log_in("alice")).refresh_token
    await run(desk.database, "update refresh_tokens set expires_at = now()")
    with pytest.raises(InvalidToken):
        await desk.logins.refresh(CALLER, token, clock.now())
    async with desk.database.connection() as connection:
        assert await connection.fetchval("select count(*) from login_families where ended_at is not null") == 0


async def test_a_login_that_goes_on_for_years_keeps_the_tokens_of_two_weeks(desk: Desk) -> None:
    await desk.add("alice")
    now, token = clock.now(), (await desk.log_in("alice")).refresh_token
    first, kept = token, 0
    for day in range(1, 60):
        token = (await desk.logins.refresh(CALLER, token, now + timedelta(days=day))).refresh_token
        async with desk.database.connection() as connection:
            kept = await connection.fetchval("select count(*) from refresh_tokens")
    life = timedelta(seconds=desk.logins._settings.jwt.refresh_token_expiration)
    assert kept == (life + FAMILIES_KEPT_FOR).days + 1
    # What is not known any more is refused, and the login goes on.
    with pytest.raises(InvalidToken):
        await desk.logins.refresh(CALLER, first, now + timedelta(days=60))
    await desk.logins.refresh(CALLER, token, now + timedelta(days=60))
