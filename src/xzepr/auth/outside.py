"""Questions to a server of somebody else: a login provider, an issuer of tokens. Bounded in time and size, and led nowhere.

What comes back is unverified. NoAnswer says in a predicate what went wrong ("answered 404"): the one who asked knows whom it names before it.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final, TypeVar

import httpx2
import msgspec

from xzepr.urls import is_https_or_loopback

# From the first byte sent to the last received.
ANSWER_S: Final = 5.0
ANSWER_MAX_BYTES: Final = 256 * 1024

T = TypeVar("T")


class NoAnswer(Exception):
    """There is no usable answer; the message is a predicate."""


class Outside:
    """The client for such questions, made with the first of them."""

    def __init__(self) -> None:
        self._http: httpx2.AsyncClient | None = None
        self._making = asyncio.Lock()

    async def close(self) -> None:
        """Let go of the connections."""
        if self._http is not None:
            await self._http.aclose()

    async def ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body, a redirect as it stands. Raises NoAnswer."""
        if not is_https_or_loopback(url):
            raise NoAnswer(f"has an address that is neither https nor on this machine: {in_words(url)}")
        http = await self._client()
        # identity: a packed body could be a thousand times what was counted.
        own = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        received = bytearray()
        try:
            async with asyncio.timeout(ANSWER_S), http.stream(method, url, headers=own, data=form) as response:
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise NoAnswer("answered packed, which nobody asked for")
                async for piece in response.aiter_raw():
                    received += piece
                    if len(received) > ANSWER_MAX_BYTES:
                        raise NoAnswer(f"answered with more than {ANSWER_MAX_BYTES} bytes")
                return response.status_code, bytes(received)
        except TimeoutError:
            raise NoAnswer(f"did not answer within {ANSWER_S:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            # ValueError: a host name that cannot be one. The timeouts of the client itself have no words of their own.
            raise NoAnswer(f"does not answer: {in_words(str(error)) or type(error).__name__}") from error

    async def _client(self) -> httpx2.AsyncClient:
        async with self._making:
            if self._http is None:
                # Reading the system's authorities takes some 30 ms.
                tls: ssl.SSLContext = await asyncio.to_thread(httpx2.create_ssl_context)
                self._http = httpx2.AsyncClient(verify=tls, follow_redirects=False, timeout=ANSWER_S)
            return self._http


def read(body: bytes, wanted: type[T], what: str) -> T:
    """The body as this shape. Raises NoAnswer. what: as in "a list of keys"."""
    try:
        return msgspec.json.decode(body, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The last is for what is nested without end.
        raise NoAnswer(f"gave {what} that cannot be read: {in_words(str(error))}") from None


def in_words(text: str) -> str:
    """Somebody else's text as it may be shown and logged: one line, cut."""
    plain = "".join(character if character.isprintable() else " " for character in text[:400])
    return plain[:200].strip()


def discovery_url(issuer: str) -> str:
    """Source: OpenID Connect Discovery 1.0, 4."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"
