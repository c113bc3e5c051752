"""The only place that reads the wall clock.

Functions whose result depends on the time take `now` as an argument; they get it from here at the edge.
"""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.fromtimestamp(time.time(), UTC)


def unix_ms() -> int:
    """Milliseconds since 1970-01-01 UTC, as a ULID carries them."""
    return time.time_ns() // 1_000_000


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with six digits of a second and `Z`, the only form in which a time leaves the house."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
