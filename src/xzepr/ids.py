"""ULIDs: minted and parsed here and nowhere else.

An id is 26 characters of Crockford's base 32: 48 bits of milliseconds, 80 bits of chance. Within a process ids rise strictly,
also when the clock stands still or steps back, so the order of ids is the order of minting there. It is never the order of commits.
"""

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import NewType, TypeVar

from xzepr.clock import unix_ms
from xzepr.errors import InvalidId

EventId = NewType("EventId", str)
EventReceiverId = NewType("EventReceiverId", str)
EventReceiverGroupId = NewType("EventReceiverGroupId", str)
MessageId = NewType("MessageId", str)
UserId = NewType("UserId", str)
HoldId = NewType("HoldId", str)
DispositionId = NewType("DispositionId", str)
FamilyId = NewType("FamilyId", str)
ApiKeyId = NewType("ApiKeyId", str)
RedactionId = NewType("RedactionId", str)
AuditId = NewType("AuditId", str)

Id = TypeVar("Id", bound=str)

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
# The first character carries three bits only: 26 characters hold 130 bits, a ULID has 128.
_SHAPE = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.IGNORECASE | re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MS = (1 << 48) - 1
_LOW = (1 << 60) - 1

_last = 0
_last_ms = 0
# All but the last two characters of the id that was minted last.
_head = ""


def mint(kind: Callable[[str], Id]) -> Id:
    """A new id of this kind, higher than every id that this process minted before."""
    global _last, _last_ms, _head
    now_ms = unix_ms()
    if now_ms > _last_ms:
        _last_ms = now_ms
        _last = now_ms << 80 | int.from_bytes(os.urandom(10), "big")
    else:
        # In the same millisecond, or after a step back of the clock, count on from the last one.
        _last += 1
        if _last & 1023:
            # Most ids of a batch differ in the last two characters alone.
            return kind(_head + _PAIRS[_last & 1023])
        _last_ms = _last >> 80
    text = _text(_last)
    _head = text[:24]
    return kind(text)


def derived(kind: Callable[[str], Id], *names: str) -> Id:
    """The id of what has its names from elsewhere: the same names, the same id, everywhere and always. Its clock reading means nothing."""
    # Each name with its length in front, so that ("ab", "c") and ("a", "bc") differ.
    told = b"".join(len(encoded).to_bytes(8, "big") + encoded for encoded in (name.encode("utf-8", "surrogatepass") for name in names))
    return kind(_text(int.from_bytes(sha256(told).digest()[:16], "big")))


def parse(kind: Callable[[str], Id], text: str, pointer: str | None = None) -> Id:
    """Upper-case id from text in either case. Raises InvalidId, with the JSON pointer of the field when one is given."""
    if _SHAPE.fullmatch(text) is None:
        raise InvalidId.of(text, pointer)
    return kind(text.upper())


def is_ulid(text: str) -> bool:
    """Whether parse() would take it."""
    return _SHAPE.fullmatch(text) is not None


def time_of(ulid: str) -> datetime:
    """The clock reading in an id: aware UTC, whole milliseconds."""
    return _moment(ulid[:10])


# Many events share their millisecond.
@lru_cache(maxsize=1024)
def _moment(clock_reading: str) -> datetime:
    ms = 0
    for character in clock_reading:
        ms = ms << 5 | _VALUES[character]
    return _EPOCH + timedelta(milliseconds=ms)


def lowest_at(moment: datetime) -> str:
    """The lowest id that an act at this moment or later can have: turns a time range into an id range."""
    ms = -(-(moment - _EPOCH) // timedelta(milliseconds=1))
    return _text(min(max(ms, 0), _MAX_MS) << 80)


def _text(number: int) -> str:
    """26 characters for 128 bits, two characters a step."""
    pairs = _PAIRS
    high, low = number >> 60, number & _LOW
    return (
        pairs[high >> 60]
        + pairs[high >> 50 & 1023]
        + pairs[high >> 40 & 1023]
        + pairs[high >> 30 & 1023]
        + pairs[high >> 20 & 1023]
        + pairs[high >> 10 & 1023]
        + pairs[high & 1023]
        + pairs[low >> 50]
        + pairs[low >> 40 & 1023]
        + pairs[low >> 30 & 1023]
        + pairs[low >> 20 & 1023]
        + pairs[low >> 10 & 1023]
        + pairs[low & 1023]
    )
