"""Rows of the audit log as tests make, read, seal and sign them; and whose they are."""

from pathlib import Path
from typing import Any

import asyncpg
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from xzepr.audit.chain import ROW_COLUMNS
from xzepr.audit.record import record
from xzepr.audit.seal import Sealer
from xzepr.audit.signing import PemSigner, public_keys
from xzepr.audit.verify import verify
from xzepr.auth.key_files import thumbprint
from xzepr.auth.permissions import Role
from xzepr.auth.principal import How, Principal
from xzepr.db.pool import Database
from xzepr.ids import UserId

ALICE = Principal(
    id=UserId("01JDJ6M3N9T6Y1Z6M0Q4QW8G7A"),
    name="alice",
    roles=frozenset({Role.EVENT_MANAGER}),
    how=How.PASSWORD,
    address="192.0.2.1",
    request_id="r-1",
)
BOB = Principal(id=UserId("01JDJ6M3N9T6Y1Z6M0Q4QW8G7B"), name="bob", roles=frozenset({Role.EVENT_MANAGER}), how=How.API_KEY, address="192.0.2.2")


async def rows_of(database: Database) -> list[asyncpg.Record]:
    async with database.connection() as connection:
        return await connection.fetch(f"select {', '.join(ROW_COLUMNS)} from audit_log order by id")


async def acts_of(database: Database) -> list[str]:
    return [row["act"] for row in await rows_of(database)]


async def run(database: Database, *statements: str) -> None:
    async with database.transaction() as connection:
        for statement in statements:
            await connection.execute(statement)


async def act(database: Database, count: int = 1, name: str = "receiver.create") -> None:
    """Rows, each in a transaction of its own."""
    for number in range(count):
        async with database.transaction() as connection:
            await record(connection, ALICE, name, f"object-{number}", details={"n": number, "text": "grün \u2028 \\u0000"})


def unsigned(database: Database) -> Sealer:
    return Sealer(database, lambda: None)


async def faults(database: Database, keys: Any = None, logged: Any = ()) -> list[str]:
    return (await verify(database, keys or {}, logged)).faults


class Key:
    """A signing key in files, as the settings name them."""

    def __init__(self, directory: Path, name: str = "signing") -> None:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.private, self.public = directory / f"{name}.pem", directory / f"{name}-public.pem"
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.private.write_bytes(private.private_bytes(*form))
        self.public.write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
        self.kid = thumbprint(private.public_key())

    @property
    def known(self) -> Any:
        return public_keys(private=None, public=[self.public])

    def signer(self) -> PemSigner:
        return PemSigner(self.private)


async def row_ids(database: Database) -> list[str]:
    """In the order of ids."""
    return [row["id"] for row in await rows_of(database)]
