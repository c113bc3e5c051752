"""Requests and their answers: what is repeated, and what an answer that is no success becomes.

A request is repeated, at most three times and within its timeout, when that cannot do anything twice: it never got through; it only reads; or it
carries an idempotency key. Then also after 502, 503 and 504, ours or a proxy's, and after 409 `in_flight` (the first attempt is still being worked
on). After 429 everything is repeated: nothing was done. When the server names a time to wait, it counts, if it is within the timeout. After 401
`invalid_token` it is repeated once with another token, where there is one: nothing was done either.
Failures: ProblemError (the server refused), NoAnswer (nobody answered), UnexpectedAnswer (something else did).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec

from xzepr_client.auth import TokenSource, header_of_token
from xzepr_client.errors import ClientError, Fault, NoAnswer, ProblemError, UnexpectedAnswer
from xzepr_client.version import __version__

DEFAULT_URL: Final = "http://127.0.0.1:8042"
# The contract under the name that it keeps when the EPR dialect takes the root.
BASE_PATH: Final = "/xzepr/api/v1"
CONNECT_TIMEOUT_S: Final = 5.0
# Before each attempt but the first.
PAUSES_S: Final = (0.1, 0.3, 0.9)
EXCERPT_CHARS: Final = 200
# The server is down or restarts; a proxy in front of it says so in words of its own.
_AWAY: Final = (502, 503, 504)

Wanted = TypeVar("Wanted")
Answer = TypeVar("Answer")


class _ProblemBody(msgspec.Struct, frozen=True):
    """What we read of problem+json; `error` is what makes it one of ours."""

    error: str
    detail: str = ""
    request_id: str | None = None
    errors: list[Fault] = []


class Transport:
    """Sends, repeats, decodes. Not for several threads at once without a lock around what must stay in order; httpx2's own rules hold."""

    def __init__(self, url: str, *, timeout_s: float, headers: Mapping[str, str] | None = None, credential: Mapping[str, str] | None = None) -> None:
        """url: of the server, with the path it is mounted under, if any. headers: with each request; credential: a header with each that is not sent
        anonymously. Raises ValueError for a url that is none.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{url!r} is no address of a server; it reads like {DEFAULT_URL}")
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._credential = credential or {}
        # In place of the credential.
        self.tokens: TokenSource | None = None
        try:
            self._http = httpx2.Client(
                base_url=self.url + BASE_PATH,
                timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
                headers={"User-Agent": f"xzepr-client/{__version__}", "Accept": "application/json", **(headers or {})},
            )
        except httpx2.InvalidURL as error:
            raise ValueError(f"{url!r} is no address of a server: {error}") from None

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def get(self, path: str, wanted: type[Wanted], params: Mapping[str, Any] | None = None) -> Wanted:
        """A read."""
        return self.decode(self.send("GET", path, params=params, repeatable=True), wanted)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
        anonymous: bool = False,
    ) -> httpx2.Response:
        """A success, its body read. body: anything that msgspec encodes, bytes as they are; None: no body. params: those that are None are left
        out. headers: a Content-Type of yours counts before application/json. anonymous: without the credential."""

        def attempt(credential: Mapping[str, str]) -> httpx2.Response:
            return self._attempt(method, path, params, body, {**(headers or {}), **credential})

        began_s = time.monotonic()
        pauses = iter(PAUSES_S)
        while True:
            try:
                return attempt({}) if anonymous else self._with_credential(attempt)
            except ClientError as error:
                pause_s = _pause_before_repeating(error, next(pauses, None), repeatable=repeatable)
                if pause_s is None or time.monotonic() - began_s + pause_s >= self._timeout_s:
                    raise
                time.sleep(pause_s)

    def _with_credential(self, attempt: Callable[[Mapping[str, str]], Answer]) -> Answer:
        """attempt: gets the header to send."""
        token = self.tokens.token() if self.tokens is not None else None
        if self.tokens is None or token is None:
            return attempt(self._credential)
        try:
            return attempt(header_of_token(token))
        except ProblemError as error:
            if error.code != "invalid_token":
                raise
            another = self.tokens.renewed(token)
            if another is None:
                raise
        return attempt(header_of_token(another))

    def _attempt(self, method: str, path: str, params: Mapping[str, Any] | None, body: Any, headers: Mapping[str, str]) -> httpx2.Response:
        content = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {**({"Content-Type": "application/json"} if content is not None else {}), **headers}
        with self._answers(sent.get("Idempotency-Key")):
            answer = self._http.request(method, path, params=_present(params), content=content, headers=sent)
        self._require_success(answer)
        return answer

    @contextmanager
    def stream(self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str], silence_max_s: float) -> Iterator[httpx2.Response]:
        """A success whose body comes while it is read. silence_max_s: after so long without a byte the connection counts as dead."""
        with ExitStack() as stack:

            def attempt(credential: Mapping[str, str]) -> httpx2.Response:
                return stack.enter_context(self._stream(path, params, {**headers, **credential}, silence_max_s))

            yield self._with_credential(attempt)

    @contextmanager
    def _stream(self, path: str, params: Mapping[str, Any], headers: Mapping[str, str], silence_max_s: float) -> Iterator[httpx2.Response]:
        timeout = httpx2.Timeout(self._timeout_s, connect=min(self._timeout_s, CONNECT_TIMEOUT_S), read=silence_max_s)
        with (
            self._answers(None),
            self._http.stream("GET", path, params=_present(params), headers={"Accept": "text/event-stream", **headers}, timeout=timeout) as answer,
        ):
            if not answer.is_success:
                answer.read()
            self._require_success(answer)
            yield answer

    @contextmanager
    def _answers(self, idempotency_key: str | None) -> Iterator[None]:
        """What httpx2 raises becomes NoAnswer."""
        try:
            yield
        except httpx2.SSEError as error:
            raise UnexpectedAnswer(self.url, 200, str(error)) from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise NoAnswer(self.url, _reason(error), connected=False, idempotency_key=idempotency_key) from error
        except httpx2.TransportError as error:
            raise NoAnswer(self.url, _reason(error), connected=True, idempotency_key=idempotency_key) from error
        except httpx2.DecodingError as error:
            raise UnexpectedAnswer(self.url, 200, _reason(error)) from error

    def _require_success(self, answer: httpx2.Response) -> None:
        if answer.is_success:
            return
        try:
            problem = msgspec.json.decode(answer.content, type=_ProblemBody)
            body = msgspec.json.decode(answer.content)
        except msgspec.MsgspecError:
            raise UnexpectedAnswer(self.url, answer.status_code, _excerpt(answer)) from None
        raise ProblemError(
            answer.status_code,
            problem.error,
            problem.detail,
            faults=tuple(problem.errors),
            request_id=problem.request_id,
            retry_after_s=_retry_after_s(answer),
            body=body,
        )

    def decode(self, answer: httpx2.Response, wanted: type[Wanted]) -> Wanted:
        """Raises UnexpectedAnswer for a success that is not of that type."""
        try:
            return msgspec.json.decode(answer.content, type=wanted)
        except msgspec.MsgspecError as error:
            raise UnexpectedAnswer(self.url, answer.status_code, str(error)) from None


def may_recover(error: ClientError) -> bool:
    """Whether the same may succeed a while later without anybody changing it."""
    if isinstance(error, ProblemError):
        return error.status in (408, 429, 500) or error.status in _AWAY
    return isinstance(error, NoAnswer) or (isinstance(error, UnexpectedAnswer) and error.status in _AWAY)


def _pause_before_repeating(error: ClientError, pause_s: float | None, *, repeatable: bool) -> float | None:
    """None: not to be repeated. pause_s: our own; None: enough attempts were made."""
    if pause_s is None:
        return None
    if isinstance(error, NoAnswer):
        return pause_s if repeatable or not error.connected else None
    if isinstance(error, UnexpectedAnswer):
        return pause_s if repeatable and error.status in _AWAY else None
    if isinstance(error, ProblemError) and (error.status == 429 or (repeatable and (error.status in _AWAY or error.code == "in_flight"))):
        return max(pause_s, error.retry_after_s or 0.0)
    return None


def _present(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {name: value for name, value in params.items() if value is not None} if params else None


def _reason(error: Exception) -> str:
    """httpx2 leaves some of its errors without a text."""
    return str(error) or {"ReadTimeout": "it took too long", "ConnectTimeout": "it took too long to connect"}.get(
        type(error).__name__, type(error).__name__
    )


def _retry_after_s(answer: httpx2.Response) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _excerpt(answer: httpx2.Response) -> str:
    text = " ".join(answer.text.split())
    return text[:EXCERPT_CHARS] or "an empty body"
