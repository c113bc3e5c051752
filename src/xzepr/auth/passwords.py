"""Passwords: what may be one, and how it is kept.

Rules after NIST SP 800-63B: long enough, not among those that are guessed first, no rules of composition. Kept as argon2id with the parameters
that OWASP recommends (19 MiB, two passes, one lane); a hash with other parameters is made anew at the next login. Hashing takes tens of
milliseconds: it runs in a pool of threads of its own, and when too many wait the caller is told to come back.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from itertools import pairwise
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import hash_secret_raw

from xzepr.errors import InvalidInput, Unavailable

MAX_CHARS: Final = 1_024
THREADS: Final = 2
WAITING_MAX: Final = 64
# argon2id is the library's default type.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, hash_len=32, salt_len=16)
_SERVICE: Final = "xzepr"

Result = TypeVar("Result")


def require_good(password: str, pointer: str, *, min_chars: int, username: str, email: str | None = None) -> None:
    """Raises InvalidInput at the pointer, saying which rule it breaks."""
    fault = fault_of(password, min_chars, username, email)
    if fault is not None:
        raise InvalidInput.at(pointer, fault)


def fault_of(password: str, min_chars: int, username: str, email: str | None = None) -> str | None:
    """Which rule it breaks; nothing of the password itself. None: it is good."""
    if len(password) < min_chars:
        return f"must have at least {min_chars} characters (auth.password_min_chars)"
    if len(password) > MAX_CHARS:
        return f"must have at most {MAX_CHARS} characters"
    if "\0" in password:
        return "must not hold NUL"
    plain = password.casefold()
    if plain in _common() or _is_run(plain):
        return "is among those that are guessed first"
    own = [word.casefold() for word in (username, _SERVICE, *([email.partition("@")[0]] if email else [])) if len(word) >= 3]
    # What is left without the names that stand in it must still be a password.
    for word in own:
        if word in plain and len(plain.replace(word, "")) < min_chars // 2:
            return "must be more than a name and a few characters"
    return None


@cache
def _common() -> frozenset[str]:
    """Thirty thousand passwords from leaks. Loaded at the first use: the list takes a moment."""
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    return frozenset(FREQUENCY_LISTS["passwords"])


def _is_run(plain: str) -> bool:
    """One character or a short piece again and again, or a walk up or down the alphabet or the digits."""
    for size in range(1, min(4, len(plain) // 2) + 1):
        if plain == (plain[:size] * (len(plain) // size + 1))[: len(plain)]:
            return True
    steps = {ord(after) - ord(before) for before, after in pairwise(plain)}
    return steps in ({1}, {-1})


class Passwords:
    """The pool. close() waits for what is being hashed."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._waiting = 0
        # For a user that is not there: the same work.
        self._nobodys = _HASHER.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """With its salt and parameters. Raises Unavailable when too many wait."""
        return await self._run(lambda: _HASHER.hash(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Takes as long when there is no hash. Raises Unavailable when too many wait."""
        # A password longer than any that was ever taken is wrong; it must not buy time.
        given = password[:MAX_CHARS]
        matches = await self._run(lambda: _matches(password_hash or self._nobodys, given))
        return matches and password_hash is not None and len(password) <= MAX_CHARS

    async def digest(self, text: bytes, salt: str) -> bytes:
        """32 bytes, the same for the same text and salt, by which a password that stands in the text is guessed no faster than by hash().

        Raises Unavailable when too many wait.
        """
        cost = {"time_cost": _HASHER.time_cost, "memory_cost": _HASHER.memory_cost, "parallelism": _HASHER.parallelism}
        salted = sha256(salt.encode()).digest()
        return await self._run(lambda: hash_secret_raw(text, salted, hash_len=32, type=_HASHER.type, **cost))

    @staticmethod
    def is_outdated(password_hash: str) -> bool:
        """Whether it was made with other parameters than today's."""
        return _HASHER.check_needs_rehash(password_hash)

    def close(self) -> None:
        """Nothing may be asked afterwards."""
        self._threads.shutdown()

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._waiting >= WAITING_MAX:
            raise Unavailable("too many passwords are being checked; try again")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def _matches(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def hash_now(password: str) -> str:
    """For a command, which has nothing else to do meanwhile."""
    return _HASHER.hash(password)


def matches_now(password_hash: str, password: str) -> bool:
    """For the start of a server, likewise."""
    return _matches(password_hash, password)
