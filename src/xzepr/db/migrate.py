"""Bring a database to the schema of this code: plain SQL files, forward only, in order of their number.

Each file runs in one transaction together with its row in `schema_migrations`; a file that begins with `-- no-transaction` (for
`create index concurrently`) runs statement by statement, so each of its statements must bear being run again. Any number of migrators may
start at once: one works, the others wait and then find everything done. Refused, with nothing changed: a file whose text is no
longer what was applied, and a database that knows a migration that this code does not (it was made by a newer XZepr).
"""

import asyncio
import re
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Final

import asyncpg
import structlog

from xzepr.db.pool import Connection
from xzepr.db.queries import Queries

log = structlog.get_logger(__name__)
queries = Queries("xzepr.db")

POSTGRES_MIN: Final = 150_000
LOCK_POLL_S: Final = 0.1
LOCK_WAIT_S: Final = 600.0
_FILE: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_NO_TRANSACTION: Final = "-- no-transaction"


class MigrationError(Exception):
    """The database cannot be brought to this schema; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. number: its place in the order; sha256: hex, of the text."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Hex, of the text."""
        return sha256(self.sql.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        """Whether it runs in one transaction, as all do that do not say otherwise in their first line."""
        return not self.sql.startswith(_NO_TRANSACTION)

    @property
    def statements(self) -> list[str]:
        """For a file without a transaction: one statement ends with each `;` at the end of a line."""
        return [piece.strip() for piece in re.split(r";[ \t]*$", self.sql, flags=re.MULTILINE) if _has_sql(piece)]


def known_migrations() -> list[Migration]:
    """The files that this code ships, in order."""
    found = ((entry, _FILE.fullmatch(entry.name)) for entry in files("xzepr.db.migrations").iterdir())
    known = [Migration(int(match[1]), match[2], entry.read_text("utf-8")) for entry, match in found if match]
    return sorted(known, key=lambda migration: migration.number)


async def migrate(url: str, *, migrations: list[Migration] | None = None, lock_wait_s: float = LOCK_WAIT_S) -> list[Migration]:
    """Apply what is missing; returns what this call applied. url: a direct connection, no transaction pooler (the lock is the session's).

    Raises MigrationError; OSError or asyncpg errors when the database does not answer.
    """
    wanted = known_migrations() if migrations is None else migrations
    connection = await asyncpg.connect(url, timeout=30, server_settings={"application_name": "xzepr-migrate", "timezone": "UTC"})
    try:
        await _check_server(connection)
        await _lock(connection, lock_wait_s)
        try:
            await connection.execute(queries["make_migrations_table"])
            missing = pending(wanted, await connection.fetch(queries["applied_migrations"]))
            for migration in missing:
                await _apply(connection, migration)
            return missing
        finally:
            await connection.execute(queries["free_migration_lock"])
    finally:
        await connection.close(timeout=10)


async def check_schema(connection: Connection) -> None:
    """Raises MigrationError unless the database has exactly the schema that this code needs, or one it may run on."""
    if not await connection.fetchval(queries["migrations_table_exists"]):
        raise MigrationError("the database is empty: run `xzepr migrate`")
    missing = pending(known_migrations(), await connection.fetch(queries["applied_migrations"]))
    if missing:
        raise MigrationError(f"{len(missing)} migration(s) are missing, from {missing[0].number:04}_{missing[0].name} on: run `xzepr migrate`")


def pending(wanted: list[Migration], applied: list[asyncpg.Record]) -> list[Migration]:
    """What of `wanted` is not in `applied`. Raises MigrationError when what was applied is not what is wanted."""
    by_number = {migration.number: migration for migration in wanted}
    for row in applied:
        ours = by_number.pop(row["number"], None)
        if ours is None:
            raise MigrationError(
                f"the database has migration {row['number']:04}_{row['name']}, which this XZepr does not know: "
                "it was made by a newer version; install that version or restore an older backup"
            )
        if ours.sha256 != row["sha256"]:
            raise MigrationError(f"migration {ours.number:04}_{ours.name} was changed after it was applied here; put the file back and add a new one")
    return list(by_number.values())


async def _check_server(connection: Connection) -> None:
    facts = await connection.fetchrow(queries["server_facts"])
    assert facts is not None
    if facts["version_num"] < POSTGRES_MIN:
        raise MigrationError(f"PostgreSQL {facts['version']} is too old: XZepr needs 15 or newer")
    if facts["encoding"] != "UTF8":
        raise MigrationError(f"the database has the encoding {facts['encoding']}: XZepr needs UTF8 (create database … encoding 'UTF8')")


async def _lock(connection: Connection, wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            while not await connection.fetchval(queries["try_migration_lock"]):  # noqa: ASYNC110  another process holds it
                await asyncio.sleep(LOCK_POLL_S)
    except TimeoutError:
        raise MigrationError(
            f"another migrator has held the lock for {wait_s:.0f} s; see pg_stat_activity for application_name xzepr-migrate"
        ) from None


async def _apply(connection: Connection, migration: Migration) -> None:
    log.info("migration.apply", number=migration.number, name=migration.name)
    row = (migration.number, migration.name, migration.sha256)
    if migration.in_transaction:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(queries["add_migration"], *row)
        return
    for statement in migration.statements:
        await connection.execute(statement)
    await connection.execute(queries["add_migration"], *row)


def _has_sql(piece: str) -> bool:
    return any(line.strip() and not line.strip().startswith("--") for line in piece.splitlines())
