"""Guesses of passwords are slowed down, for everybody who guesses and for nobody else.

Failures are counted by account and address together and by address alone, in PostgreSQL, so that all processes count together. After a few free
ones each costs a longer wait: answered at once with 429 and Retry-After, before the password is looked at. There is no count by account alone: with
one, anybody could lock anybody out. Whether the account exists makes no difference. Source: NIST SP 800-63B, 3.2.2.
"""

import math
from datetime import datetime, timedelta
from hashlib import sha256
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import TooManyAttempts

queries = Queries("xzepr.auth")

# From one address to one account; from one address, behind which many people may sit, to all of them.
FREE_BY_ACCOUNT: Final = 5
FREE_BY_ADDRESS: Final = 50
FIRST_DELAY_S: Final = 1.0
LONGEST_DELAY_S: Final = 900.0
# Who has not guessed wrong for so long begins anew.
FORGOTTEN_AFTER_S: Final = 3_600.0


class Guesses:
    """One login from one address. address None: it cannot be told; all such share one count."""

    def __init__(self, username: str, address: str | None) -> None:
        whence = _network(address)
        self._by_account = _bucket("account", username.casefold(), whence)
        self._by_address = _bucket("address", whence)

    async def require_patience(self, connection: Connection, now: datetime) -> None:
        """Raises TooManyAttempts when it comes too soon after the last wrong one."""
        wait_s = 0.0
        for row in await connection.fetch(queries["find_guesses"], [self._by_account, self._by_address]):
            free = FREE_BY_ACCOUNT if row["bucket"] == self._by_account else FREE_BY_ADDRESS
            passed_s = (now - row["last_at"]).total_seconds()
            if passed_s < FORGOTTEN_AFTER_S:
                wait_s = max(wait_s, delay_s(row["failures"] - free) - passed_s)
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            raise TooManyAttempts(f"too many wrong logins from here; try again in {seconds} s", extra={"retry_after": seconds})

    async def note_failure(self, connection: Connection, now: datetime) -> None:
        """One more, in both counts."""
        await connection.execute(queries["note_guess"], [self._by_account, self._by_address], now, FORGOTTEN_AFTER_S)

    async def forget(self, connection: Connection) -> None:
        """After the right password: the person knows it. The count of the address stays, or a guesser with an account of his own would clear it."""
        await connection.execute(queries["forget_guesses"], self._by_account)


def delay_s(failures: int) -> float:
    """Behind so many wrong ones that were not free. Doubles each time."""
    return 0.0 if failures < 0 else min(FIRST_DELAY_S * 2.0 ** min(failures, 30), LONGEST_DELAY_S)


async def sweep(database: Database, now: datetime) -> None:
    """Counts that count no more."""
    async with database.connection() as connection:
        await connection.execute(queries["sweep_guesses"], now - timedelta(seconds=FORGOTTEN_AFTER_S))


def _network(address: str | None) -> str:
    """Who has one IPv6 address has 2^64 of them."""
    if address is None:
        return ""
    parsed = ip_address(address)
    return str(ip_network(f"{parsed}/64", strict=False)) if isinstance(parsed, IPv6Address) else address


def _bucket(*parts: str) -> bytes:
    return sha256("\0".join(parts).encode()).digest()
