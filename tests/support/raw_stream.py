"""The stream as bytes: for tests that compare what was sent byte for byte. A text reader would take U+2028 for a line's end."""

import time
from collections.abc import Iterator

import httpx2


def envelopes(http: httpx2.Client, after: int = 0, *, seconds: float = float("inf"), **filters: str) -> Iterator[bytes]:
    """Every envelope behind a position, as sent. Goes on for ever: whoever reads knows when to stop. Raises AssertionError after so many seconds."""
    unread, deadline = b"", time.monotonic() + seconds
    with http.stream("GET", "/api/v1/stream", params={"after": str(after), **filters}) as answer:
        assert answer.status_code == 200, answer.read()
        for piece in answer.iter_raw():
            assert time.monotonic() < deadline, f"the stream is not read to its end within {seconds} s"
            *frames, unread = (unread + piece).split(b"\n\n")
            for frame in frames:
                yield from (line.removeprefix(b"data: ") for line in frame.split(b"\n") if line.startswith(b"data: "))
