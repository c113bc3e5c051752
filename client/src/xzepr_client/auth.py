"""What a request shows to say who it comes from: an API key, a token, or a login whose token is renewed by itself.

A `TokenSource` is asked before each request and after a 401 `invalid_token`, once; what it raises, the request raises. `Login` is the one that lives
in memory; the command line has another, which keeps its login in a file.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

from xzepr_client.models import TokenPair

# A token is renewed when it has no longer than this, or than a quarter of its life, so that it does not expire on the way.
RENEW_BEFORE_S: Final = 60.0


class TokenSource(Protocol):
    """Where access tokens come from."""

    def token(self) -> str | None:
        """The one to be sent now; None: the request goes without. May ask the server for a new one, and raise what that raises."""
        ...

    def renewed(self, refused: str) -> str | None:
        """Another one, after the server refused this one; None: there is none, and the refusal stands."""
        ...


class Login:
    """A token pair in memory. refresh: turns a refresh token in for the next pair."""

    def __init__(self, pair: TokenPair, refresh: Callable[[str], TokenPair]) -> None:
        self._refresh = refresh
        self._take(pair)

    def _take(self, pair: TokenPair) -> None:
        self._pair = pair
        # By our own clock, whatever the server's says.
        self._renew_at_s = time.monotonic() + pair.expires_in - renew_before_s(pair.expires_in)

    def token(self) -> str:
        """See TokenSource."""
        if time.monotonic() >= self._renew_at_s:
            self._take(self._refresh(self._pair.refresh_token))
        return self._pair.access_token

    def renewed(self, refused: str) -> str:
        """See TokenSource."""
        if self._pair.access_token == refused:
            self._take(self._refresh(self._pair.refresh_token))
        return self._pair.access_token


def renew_before_s(lifetime_s: float) -> float:
    """How long before its end a token that lives so long is renewed."""
    return min(RENEW_BEFORE_S, lifetime_s / 4)


def header_of_key(key: str) -> dict[str, str]:
    """Raises ValueError for what cannot be one."""
    return {"X-API-Key": _plain(key, "the API key")}


def header_of_token(token: str) -> dict[str, str]:
    """Raises ValueError for what cannot be one."""
    return {"Authorization": f"Bearer {_plain(token, 'the token')}"}


def _plain(secret: str, what: str) -> str:
    stripped = secret.strip()
    if not stripped or not stripped.isascii() or not stripped.isprintable() or " " in stripped:
        # The text itself is not shown: it is a secret.
        raise ValueError(f"{what} must be printable ASCII without blanks")
    return stripped
