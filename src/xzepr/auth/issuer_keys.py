"""The public keys of one issuer of tokens: fetched, kept, fetched again.

From the address that the settings or the issuer's discovery document name; never from anything that a token says. What was fetched counts until
something newer is there: a provider that is down, slow or out of its mind changes nothing for tokens of keys that are known. Fetched again, at most
every RETRY_S and by one request at a time: when a token names an unknown key (everybody waits for the answer), and when the keys are older than
STALE_S (nobody waits). So invented names cannot make this server hammer the issuer.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog

from xzepr.auth.jwks import PublicKey, PublishedKeys
from xzepr.auth.outside import NoAnswer, Outside, discovery_url, read
from xzepr.errors import InvalidToken, Unavailable
from xzepr.urls import is_https_or_loopback, is_loopback

log = structlog.get_logger(__name__)

RETRY_S: Final = 10.0
STALE_S: Final = 300.0
# For discovery and keys together.
FETCH_S: Final = 5.0
KEYS_MAX: Final = 200


class _Discovery(msgspec.Struct, frozen=True):
    issuer: str
    jwks_uri: str


class _Jwks(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class IssuerKeys:
    """issuer: as its tokens have it. where: the address of its keys, or NoAnswer. monotonic: seconds that only rise."""

    def __init__(
        self, issuer: str, where: Callable[[], Awaitable[str]], outside: Outside, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer = issuer
        self._where = where
        self._outside = outside
        self._monotonic = monotonic
        self._keys = PublishedKeys()
        self._tried_at_s = -RETRY_S
        self._fetched_at_s = 0.0
        self._fetching: asyncio.Task[None] | None = None
        # What the issuer did instead of giving its keys the last time, as a predicate.
        self.failure: str | None = None

    async def find(self, kid: str | None, algorithm: str) -> PublicKey:
        """The key; kid None: the only one that fits. Raises InvalidToken when the issuer publishes none, Unavailable when that cannot be told now."""
        if not self._keys.has(kid):
            await self._fetch_again()
        elif self._monotonic() - self._fetched_at_s >= STALE_S:
            self._begin()
        if (found := self._keys.find(kid, algorithm)) is not None:
            return found
        if self._keys.has(kid):
            raise InvalidToken("the token's key is not one for this algorithm, or two keys have its name")
        if self.failure:
            raise Unavailable(f"the keys of {self._issuer} cannot be fetched; try again")
        raise InvalidToken("the token is signed by a key that its issuer does not publish")

    async def close(self) -> None:
        """Ends a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._fetching

    async def _fetch_again(self) -> None:
        """Waits for the fetch that is under way, or for one that it begins; at once when the last one was a moment ago."""
        fetching = self._begin()
        if fetching is not None:
            # A caller that goes away takes nobody else's keys with it.
            await asyncio.shield(fetching)

    def _begin(self) -> asyncio.Task[None] | None:
        """The fetch that is under way now; None when it is too early for another."""
        if self._fetching is None or self._fetching.done():
            now_s = self._monotonic()
            if now_s - self._tried_at_s < RETRY_S:
                return None
            self._tried_at_s = now_s
            self._fetching = asyncio.create_task(self._fetch(), name=f"keys of {self._issuer}")
        return self._fetching

    async def _fetch(self) -> None:
        """Never raises: what went wrong is logged, and told to those who need a key that is not here."""
        try:
            async with asyncio.timeout(FETCH_S):
                keys = await self._read()
        except TimeoutError:
            self._failed(f"did not answer within {FETCH_S:g} s")
        except NoAnswer as error:
            self._failed(str(error))
        else:
            self._keys = keys
            self._fetched_at_s = self._monotonic()
            self.failure = None
            log.info("issuer.keys_fetched", issuer=self._issuer, keys=len(keys))

    def _failed(self, predicate: str) -> None:
        self.failure = predicate
        log.warning("issuer.keys_not_fetched", issuer=self._issuer, reason=predicate, kept=len(self._keys))

    async def _read(self) -> PublishedKeys:
        status, body = await self._outside.ask("GET", await self._where())
        if status != 200:
            # Also a redirect: where it leads to nobody has configured.
            raise NoAnswer(f"answered {status} to the question for its keys")
        found = read(body, _Jwks, "a list of keys").keys
        if len(found) > KEYS_MAX:
            raise NoAnswer(f"publishes more than {KEYS_MAX} keys")
        keys = PublishedKeys(found)
        if not keys:
            raise NoAnswer("publishes no key that can be used")
        return keys


async def discovered_keys_url(issuer: str, outside: Outside) -> str:
    """The address of its keys by its discovery document. Raises NoAnswer."""
    status, body = await outside.ask("GET", discovery_url(issuer))
    if status != 200:
        raise NoAnswer(f"answered {status} to discovery")
    told = read(body, _Discovery, "a discovery document")
    if told.issuer != issuer:
        raise NoAnswer("gave the discovery document of another issuer")
    # An issuer elsewhere must not have us ask around on this machine.
    host = urlsplit(issuer).hostname or ""
    if not is_https_or_loopback(told.jwks_uri) or (is_loopback(urlsplit(told.jwks_uri).hostname or "") and not is_loopback(host)):
        raise NoAnswer("names an address for its keys that is not https")
    return told.jwks_uri
