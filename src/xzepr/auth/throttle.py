"""Guesses of passwords are slowed down, for everybody who guesses and for nobody else.

Failures are counted by account and address together and by address alone, in PostgreSQL, so that all processes count together. After a few free
ones each costs a longer wait: answered at once with 429 and Retry-After, before the password is looked at. Each attempt counts as a failure from its
begin on, and is taken back when it was none: of many at once, in however many processes, no more are looked at than of as many one after the other.
There is no count by account alone: with one, anybody could lock anybody out. Whether the account exists makes no difference. Source: NIST SP
800-63B, 3.2.2.
"""

import math
from collections import Counter
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
# Of which a process keeps how many logins were begun from them.
ADDRESSES_MAX: Final = 10_000


class Guesses:
    """One login from one address. address None: there is none, as with a Unix socket; all such share one count."""

    def __init__(self, username: str, address: str | None) -> None:
        whence = network_of(address)
        self._by_account = _bucket("account", username.casefold(), whence)
        self._by_address = _bucket("address", whence)
        # In one order, so that no two wait for each other.
        self._buckets = sorted((self._by_account, self._by_address))
        # Of the address, this attempt and the last one before it.
        self._counted_at: datetime | None = None
        self._before_at: datetime | None = None

    async def begin(self, connection: Connection, now: datetime) -> None:
        """Count it in the caller's transaction, which holds both counts until it ends: nothing slow may be done in it.

        Raises TooManyAttempts when it comes too soon after the last wrong one; then it does not count.
        """
        wait_s = 0.0
        for row in await connection.fetch(queries["lock_guesses"], self._buckets, now):
            if row["bucket"] == self._by_address:
                self._counted_at, self._before_at = max(now, row["last_at"]), row["last_at"]
            free = FREE_BY_ACCOUNT if row["bucket"] == self._by_account else FREE_BY_ADDRESS
            # Another one may have been counted since this one came.
            passed_s = max((now - row["last_at"]).total_seconds(), 0.0)
            if passed_s < FORGOTTEN_AFTER_S:
                wait_s = max(wait_s, delay_s(row["failures"] - free) - passed_s)
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            raise TooManyAttempts(f"too many wrong logins from here; try again in {seconds} s", extra={"retry_after": seconds})

        await connection.execute(queries["count_guess"], self._buckets, now, FORGOTTEN_AFTER_S)

    async def take_back(self, connection: Connection, *, is_right: bool) -> None:
        """It was no failure. is_right: the person knows the password, so what was wrong before counts no more for this account; the count of the
        address stays as it was, or a guesser with an account of his own would clear it."""
        await connection.execute(queries["take_guess_back"], self._buckets, self._by_account if is_right else None, self._counted_at, self._before_at)


class Pace:
    """So many a minute from one address, in the memory of one process; what is more must wait for the next minute."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._minute: datetime | None = None
        self._taken: Counter[str] = Counter()

    def take(self, address: str | None, now: datetime) -> None:
        """One more. Raises TooManyAttempts."""
        minute = now.replace(second=0, microsecond=0)
        whence = network_of(address)
        if minute != self._minute or (len(self._taken) >= ADDRESSES_MAX and whence not in self._taken):
            # A flood from so many addresses is not slowed down by this, and fills no memory.
            self._minute, self._taken = minute, Counter()
        if self._taken[whence] >= self._most:
            seconds = 60 - now.second
            raise TooManyAttempts(f"too many logins are begun from here; try again in {seconds} s", extra={"retry_after": seconds})
        self._taken[whence] += 1


def delay_s(failures: int) -> float:
    """Behind so many wrong ones that were not free. Doubles each time."""
    return 0.0 if failures < 0 else min(FIRST_DELAY_S * 2.0 ** min(failures, 30), LONGEST_DELAY_S)


async def sweep(database: Database, now: datetime) -> None:
    """Counts that count no more."""
    async with database.connection() as connection:
        await connection.execute(queries["sweep_guesses"], now - timedelta(seconds=FORGOTTEN_AFTER_S))


def network_of(address: str | None) -> str:
    """By what an address is counted: who has one IPv6 address has 2^64 of them."""
    if address is None:
        return ""
    parsed = ip_address(address)
    return str(ip_network(f"{parsed}/64", strict=False)) if isinstance(parsed, IPv6Address) else address


def _bucket(*parts: str) -> bytes:
    return sha256("\0".join(parts).encode()).digest()
