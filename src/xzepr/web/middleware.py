"""What happens to every request around its route. Pure ASGI: nothing here holds a body back, so streams flow.

On the way in, in this order, each before anything that could be learnt from it:
1. request id: the caller's when it is short and printable, else one of ours; every log line of the request carries it;
2. trailing slash: taken off, so that `/x/` is `/x`, without redirect;
3. Host: one that this server answers for, or 400 unknown_host;
4. origin: an unsafe method from a web page of another origin is 403 foreign_origin.
Then the router. On the way out, also for problems: request id, security headers, CORS headers for the origins allowed to read.

Failures: an XzeprError from anywhere below is a problem answer; any other exception is 500 and a log line. After the first byte of an answer neither
can be told any more: the exception goes on to the server, which cuts the connection, so that nobody takes half an answer for a whole one.
"""

import re
import time
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xzepr import ids
from xzepr.auth.authenticate import address_of
from xzepr.auth.browser import SAFE_METHODS
from xzepr.errors import ForeignOrigin, UnknownHost, XzeprError
from xzepr.ids import MessageId
from xzepr.settings import Settings
from xzepr.web.problems import problem_answer, unknown_error_answer

log = structlog.get_logger(__name__)

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]/@]+)(?::\d{1,5})?")
_CORS_REQUEST_HEADERS: Final = "Authorization, Content-Type, Idempotency-Key, If-Match, Last-Event-ID, X-API-Key, X-Request-ID, traceparent"
_CORS_EXPOSED_HEADERS: Final = "Allow, ETag, Location, Retry-After, X-Request-ID"


class Doorway:
    """Around the router: the rules that hold for every address."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self.host_rule = _HostRule(settings)
        self._origins = _Origins(settings)
        self._csp = CSP if settings.security.headers.csp == "default" else settings.security.headers.csp
        self._hsts = f"max-age={settings.security.headers.hsts_max_age}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Cancelled or cut: nothing is left behind."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            # No door takes one yet. The first that does needs the same rules as above: a browser sends them from any page.
            await send({"type": "websocket.close", "code": 1008, "reason": "there is nothing at this address"})
        else:
            await self._app(scope, receive, send)

    def plain_headers(self, scheme: str) -> list[tuple[bytes, bytes]]:
        """What every answer to a request without an origin carries, besides its own headers and its request id."""
        answer = MutableHeaders()
        self._dress(answer, {"scheme": scheme, "method": "POST"}, Headers(), "")
        del answer["X-Request-ID"]
        return answer.raw

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        headers = Headers(scope=scope)
        method: str = scope["method"]
        instance = _instance(scope)
        request_id = _request_id(headers)
        status: int | None = None

        async def send_dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._dress(MutableHeaders(raw=message["headers"]), scope, headers, request_id)
            elif method == "HEAD" and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._pass(scope, receive, send_dressed, headers, request_id)
            except Exception as error:
                if status is not None:
                    raise
                await _answer_for(error, instance, request_id)(scope, receive, send_dressed)
            finally:
                # status None: the caller went away before there was an answer.
                took_ms = round((time.perf_counter() - started_s) * 1000, 2)
                log.debug("request.answered", method=method, path=instance, status=status, ms=took_ms)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, headers: Headers, request_id: str) -> None:
        self.host_rule.require(headers, scope.get("server"))
        if scope["method"] not in SAFE_METHODS:
            self._origins.require_own(headers)
        state = {**scope.get("state", {}), "request_id": request_id}
        await self._app({**scope, "path": scope["path"].rstrip("/") or "/", "state": state}, receive, send)

    def _dress(self, answer: MutableHeaders, scope: Scope, request: Headers, request_id: str) -> None:
        answer["X-Request-ID"] = request_id
        answer["X-Content-Type-Options"] = "nosniff"
        answer["Referrer-Policy"] = "no-referrer"
        answer["Cross-Origin-Opener-Policy"] = "same-origin"
        answer.setdefault("Content-Security-Policy", self._csp)
        answer.setdefault("Cache-Control", "no-store")
        if scope.get("scheme") == "https":
            answer["Strict-Transport-Security"] = self._hsts
        self._origins.dress(answer, request, is_options=scope["method"] == "OPTIONS")


class _HostRule:
    """An unknown Host is a page that points its own name at this address (DNS rebinding), or a mistake.

    Known: the setting server.allowed_hosts, the configured host, localhost, and the literal address that the connection came in on: an
    address cannot be made to point elsewhere, and a probe that only knows the machine's address keeps working.
    """

    def __init__(self, settings: Settings) -> None:
        self._any = "*" in settings.server.allowed_hosts
        self._known = {"localhost", "127.0.0.1", "[::1]", _bracketed(settings.server.host.lower())}
        self._known |= {_bracketed(host.lower()) for host in settings.server.allowed_hosts}

    def require(self, headers: Headers, local: tuple[str, int | None] | None) -> None:
        """local: the address of our end of the connection. Raises UnknownHost."""
        given = headers.getlist("host")
        match = _HOST.fullmatch(given[0].lower()) if len(given) == 1 else None
        if match is not None and (self._any or match[1] in self._known or match[0] in self._known or _is_address(match[1], local)):
            return
        shown = ", ".join(given)[:255]
        raise UnknownHost(f"this server does not answer for the host {shown!r}; see the setting server.allowed_hosts")


class _Origins:
    """A web page of somebody else must not be able to post, and may read only when the settings say so."""

    def __init__(self, settings: Settings) -> None:
        cors = settings.security.cors
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in cors.allowed_origins)
        self._credentials = cors.allow_credentials
        self._max_age = str(cors.max_age_seconds)

    def require_own(self, headers: Headers) -> None:
        """For an unsafe method: browsers say where a request comes from, other programs say nothing. Raises ForeignOrigin."""
        origins = headers.getlist("origin")
        if not origins and headers.get("sec-fetch-site", "").lower() == "cross-site":
            raise ForeignOrigin
        for origin in origins:
            if not self._is_allowed(origin) and not _is_same(origin, headers.get("host", "")):
                raise ForeignOrigin

    def dress(self, answer: MutableHeaders, request: Headers, *, is_options: bool) -> None:
        """CORS: who may read the answer. A preflight's methods are those of the address, which its answer names in Allow."""
        if not self._allowed:
            return
        answer.add_vary_header("Origin")
        origin = request.get("origin")
        if origin is None or not self._is_allowed(origin):
            return
        # The origin itself and never `*`, which browsers refuse together with credentials.
        answer["Access-Control-Allow-Origin"] = origin
        answer["Access-Control-Expose-Headers"] = _CORS_EXPOSED_HEADERS
        if self._credentials:
            answer["Access-Control-Allow-Credentials"] = "true"
        if is_options and "access-control-request-method" in request:
            answer["Access-Control-Allow-Methods"] = answer.get("allow", "")
            answer["Access-Control-Allow-Headers"] = _CORS_REQUEST_HEADERS
            answer["Access-Control-Max-Age"] = self._max_age

    def _is_allowed(self, origin: str) -> bool:
        return "*" in self._allowed or origin.lower() in self._allowed


def _answer_for(error: Exception, instance: str, request_id: str) -> Response:
    if isinstance(error, XzeprError):
        return problem_answer(error, instance=instance, request_id=request_id)
    return unknown_error_answer(error, instance=instance, request_id=request_id)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if is_request_id(given) else ids.mint(MessageId)


def is_request_id(text: str) -> bool:
    """Whether a caller's id is short and printable enough to be echoed and logged."""
    return _REQUEST_ID.fullmatch(text) is not None


def _instance(scope: Scope) -> str:
    """The path as sent: percent-encoded, so that it is a URI reference, and without the query, which may hold what logs must not."""
    raw: bytes | None = scope.get("raw_path")
    return raw.decode("latin-1") if raw is not None and raw.isascii() else quote(scope["path"])


def _is_same(origin: str, host: str) -> bool:
    """Scheme aside: behind a proxy that ends TLS it cannot be known here."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower() != ""


def _is_address(host: str, local: tuple[str, int | None] | None) -> bool:
    address = address_of(host.strip("[]"))
    return local is not None and address is not None and address == address_of(local[0])


def _bracketed(host: str) -> str:
    """An IPv6 address as it stands in a Host header."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def allowed_methods(methods: Iterable[str]) -> str:
    """The value of `Allow`: HEAD goes with GET, OPTIONS with everything."""
    found = set(methods)
    if "GET" in found:
        found.add("HEAD")
    return ", ".join(sorted(found | {"OPTIONS"}))
