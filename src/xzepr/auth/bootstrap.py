"""The first administrator: made once, on a database without users, so that a new installation has somebody who can log in.

The password is the configured one, or made up. A made-up one is shown once at a terminal; without one it goes into `first-login.json` in the state
directory, readable by its owner alone. Source: contract `config.md`, `auth.bootstrap_admin`.
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from xzepr import clock, ids
from xzepr.auth.model import NewUser
from xzepr.auth.passwords import hash_now, matches_now
from xzepr.auth.permissions import Role
from xzepr.auth.principal import SYSTEM
from xzepr.auth.users import add_user, queries
from xzepr.db.pool import Connection, Database
from xzepr.ids import UserId
from xzepr.settings import Settings

log = structlog.get_logger(__name__)

FILE_NAME: Final = "first-login.json"
# 125 bits, in groups that can be read out.
_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
_GROUPS, _GROUP_CHARS = 5, 5


async def ensure_administrator(database: Database, settings: Settings, state_dir: Path, announce: Callable[[str], None] | None) -> None:
    """Nothing when there ever was a user, or nobody can log in by a password here. announce: shows a line to the person at the terminal; None: nobody
    is there. Raises OSError when the file cannot be written; then no user was made."""
    if not settings.auth.enable_local_auth:
        return
    async with database.transaction() as connection:
        # Two servers that start at once make one.
        await connection.execute(queries["serialize_administrators"])
        if not await connection.fetchval(queries["has_users"]):
            await _make(connection, settings, state_dir, announce)


class FirstLogin(msgspec.Struct, frozen=True):
    """What the file holds."""

    username: str
    password: str


async def find_first_login(database: Database, state_dir: Path) -> Path | None:
    """The file with the first login, as long as it opens the door: None when there is none, or the password was changed since."""
    path = state_dir / FILE_NAME
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=FirstLogin)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        # A note for people is no reason not to start.
        log.warning("bootstrap.first_login_unreadable", password_file=str(path), reason=str(error))
        return None
    async with database.connection() as connection:
        row = await connection.fetchrow(queries["find_user_by_name"], kept.username)
    is_right = row is not None and row["enabled"] and row["password_hash"] is not None and matches_now(row["password_hash"], kept.password)
    return path if is_right else None


async def _make(connection: Connection, settings: Settings, state_dir: Path, announce: Callable[[str], None] | None) -> None:
    wanted = settings.auth.bootstrap_admin
    password = wanted.password or _made_up()
    user = NewUser(username=wanted.username, password=password, roles=[Role.ADMIN])
    await add_user(connection, SYSTEM, user, hash_now(password), clock.now(), ids.mint(UserId))
    if wanted.password is not None:
        log.info("bootstrap.administrator_made", username=wanted.username, password="as configured (auth.bootstrap_admin.password)")  # noqa: S106
    elif announce is not None:
        announce(f"First login (shown once): {wanted.username} / {password}")
    else:
        path = _write(state_dir, wanted.username, password)
        log.warning("bootstrap.administrator_made", username=wanted.username, password_file=str(path))


def _made_up() -> str:
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(_GROUP_CHARS)) for _ in range(_GROUPS))


def _write(state_dir: Path, username: str, password: str) -> Path:
    """On the disk before the user is committed: a password that nobody knows would lock everybody out."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path, unfinished = state_dir / FILE_NAME, state_dir / f"{FILE_NAME}.unfinished"
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(FirstLogin(username, password)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    return path
