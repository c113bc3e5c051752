"""The public keys of one trusted issuer: fetched, kept, fetched again.

From the configured address alone, or from the one that the issuer's discovery document names; never from anything that a token says. What was fetched
counts until something newer is there: a provider that is down, slow or out of its mind changes nothing for tokens of keys that are known. Fetched
again, at most every RETRY_S and by one request at a time: when a token names an unknown key (everybody waits for the answer), and when the keys
are older than STALE_S (nobody waits).
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx2
import jwt
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from xzepr.auth.key_files import BITS_MAX, BITS_MIN
from xzepr.errors import InvalidToken, Unavailable
from xzepr.urls import is_https_or_loopback, is_loopback

log = structlog.get_logger(__name__)

RETRY_S: Final = 10.0
STALE_S: Final = 300.0
# For discovery and keys together, from the first byte sent to the last received.
FETCH_S: Final = 5.0
ANSWER_MAX_BYTES: Final = 512 * 1024
KEYS_MAX: Final = 200
_DISCOVERY: Final = "/.well-known/openid-configuration"
_NUMBER_MAX_CHARS: Final = 2048

# Which algorithms a key may be used with, by its type and curve. None of them takes a secret for a key.
ALGORITHMS: Final[dict[str, tuple[str, ...]]] = {"RSA": ("RS256", "RS384", "RS512", "PS256"), "P-256": ("ES256",), "P-384": ("ES384",)}
ALL_ALGORITHMS: Final = frozenset(name for names in ALGORITHMS.values() for name in names)

PublicKey = RSAPublicKey | EllipticCurvePublicKey
Kind = TypeVar("Kind")


class FetchFailed(Exception):
    """No keys came; the message is for the log."""


class _Discovery(msgspec.Struct, frozen=True):
    issuer: str
    jwks_uri: str


class _Jwks(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class IssuerKeys:
    """issuer: as its tokens and its discovery document have it; jwks_url: None, by discovery. monotonic: seconds that only rise."""

    def __init__(self, issuer: str, jwks_url: str | None, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._monotonic = monotonic
        # By kid and algorithm.
        self._keys: dict[tuple[str, str], PublicKey] = {}
        self._kids: frozenset[str] = frozenset()
        self._tried_at_s = -RETRY_S
        self._fetched_at_s = 0.0
        self._last_failed = False
        self._fetching: asyncio.Task[None] | None = None
        self._tls: ssl.SSLContext | None = None

    async def find(self, kid: str, algorithm: str) -> PublicKey:
        """The key. Raises InvalidToken when the issuer publishes none of this name for this algorithm, Unavailable when that cannot be told now."""
        if kid not in self._kids:
            await self._fetch_again()
        elif self._monotonic() - self._fetched_at_s >= STALE_S:
            self._begin()
        if (found := self._keys.get((kid, algorithm))) is not None:
            return found
        if kid in self._kids:
            raise InvalidToken("the token is signed by another algorithm than its key is for")
        if self._last_failed:
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
            self._failed(f"no whole answer within {FETCH_S:g} s")
        except (FetchFailed, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            # ValueError: a host name that cannot be one.
            self._failed(str(error) or type(error).__name__)
        else:
            self._keys, self._kids = keys, frozenset(kid for kid, _ in keys)
            self._fetched_at_s = self._monotonic()
            self._last_failed = False
            log.info("issuer.keys_fetched", issuer=self._issuer, keys=len(self._kids))

    def _failed(self, reason: str) -> None:
        self._last_failed = True
        log.warning("issuer.keys_not_fetched", issuer=self._issuer, reason=reason[:300], kept=len(self._kids))

    async def _read(self) -> dict[tuple[str, str], PublicKey]:
        if self._tls is None:
            # Reading the system's authorities takes some 30 ms.
            self._tls = await asyncio.to_thread(httpx2.create_ssl_context)
        async with httpx2.AsyncClient(verify=self._tls, timeout=FETCH_S, follow_redirects=False) as http:
            url = self._jwks_url
            if url is None:
                url = await self._discover(http)
            found = _decoded(await _get(http, url), _Jwks, url)
        keys = _usable(found.keys[:KEYS_MAX])
        if not keys:
            raise FetchFailed(f"{url} has no key that can be used")
        return keys

    async def _discover(self, http: httpx2.AsyncClient) -> str:
        url = self._issuer.rstrip("/") + _DISCOVERY
        told = _decoded(await _get(http, url), _Discovery, url)
        if told.issuer != self._issuer:
            raise FetchFailed(f"{url} is the document of another issuer")
        # An issuer elsewhere must not have us ask around on this machine.
        host = urlsplit(self._issuer).hostname or ""
        if not is_https_or_loopback(told.jwks_uri) or (is_loopback(urlsplit(told.jwks_uri).hostname or "") and not is_loopback(host)):
            raise FetchFailed(f"{url} names an address for its keys that is not https")
        return told.jwks_uri


async def _get(http: httpx2.AsyncClient, url: str) -> bytes:
    if not is_https_or_loopback(url):
        raise FetchFailed(f"{url} is neither https nor on this machine")
    async with http.stream("GET", url, headers={"Accept": "application/json"}) as answer:
        if answer.status_code != 200:
            # Also a redirect: where it leads to nobody has configured.
            raise FetchFailed(f"{url} answers {answer.status_code}")
        received = bytearray()
        async for piece in answer.aiter_bytes():
            received += piece
            if len(received) > ANSWER_MAX_BYTES:
                raise FetchFailed(f"{url} sends more than {ANSWER_MAX_BYTES} bytes")
    return bytes(received)


def _decoded(body: bytes, kind: type[Kind], url: str) -> Kind:
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, msgspec.DecodeError, RecursionError):
        raise FetchFailed(f"{url} answers with something else") from None


def _usable(found: list[dict[str, Any]]) -> dict[tuple[str, str], PublicKey]:
    """Those that sign, have a name and are of a kind that we take; the others are for somebody else. Of one name and algorithm the first counts."""
    keys: dict[tuple[str, str], PublicKey] = {}
    for each in found:
        kid = each.get("kid")
        if not isinstance(kid, str) or each.get("use", "sig") != "sig" or "verify" not in _operations(each):
            continue
        kind = each.get("crv") if each.get("kty") == "EC" else each.get("kty")
        algorithms = ALGORITHMS.get(kind, ()) if isinstance(kind, str) else ()
        if "alg" in each:
            algorithms = tuple(name for name in algorithms if name == each["alg"])
        key = _public_key(each) if algorithms else None
        if key is not None:
            for algorithm in algorithms:
                keys.setdefault((kid, algorithm), key)
    return keys


def _operations(each: dict[str, Any]) -> list[Any]:
    told = each.get("key_ops", ["verify"])
    return told if isinstance(told, list) else []


def _public_key(each: dict[str, Any]) -> PublicKey | None:
    """Of the public members alone, whatever else stands there; None when they are no key, or a weak one, or one so long that checking takes long."""
    names = ("n", "e") if each["kty"] == "RSA" else ("x", "y")
    members = {name: each.get(name) for name in names}
    if not all(isinstance(number, str) and len(number) <= _NUMBER_MAX_CHARS for number in members.values()):
        return None
    try:
        if each["kty"] == "RSA":
            rsa = RSAAlgorithm.from_jwk({"kty": "RSA", **members})
            return rsa if isinstance(rsa, RSAPublicKey) and BITS_MIN <= rsa.key_size <= BITS_MAX else None
        curve = ECAlgorithm.from_jwk({"kty": "EC", "crv": each["crv"], **members})
        return curve if isinstance(curve, EllipticCurvePublicKey) else None
    except (jwt.InvalidKeyError, ValueError, TypeError):
        return None
