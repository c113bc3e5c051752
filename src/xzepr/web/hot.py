"""One route without ceremony: uvicorn's protocol, with a short way for the request that comes ten thousand times a second.

An ordinary request costs a task, a scope, a dozen small objects and several wake-ups before a handler sees it; that is four fifths of the time of a
POST that stores one event. Here a request that is plain in every respect goes from the parser to the hot route as bytes, and its answer from there
to the socket. *Plain* is a list of what is known to be harmless, never a list of what is not: a header that is not named in _PLAIN_HEADERS, a
body that did not arrive in one piece, a pipelined request, a host not seen before, and the ordinary way is taken, as if this file were not
there. So every rule lives in the ordinary door, and this one keeps those that even a plain request needs: host, principal, permission, request
id, the headers of an answer. tests/integration/test_hot.py compares the two.

States of a connection: at rest; held (headers seen, body not whole yet, this lasts no longer than one data_received); taken (the hot route will
answer); ordinary (uvicorn's). A connection that is lost while it is taken loses its answer, not its event.

What no door sees is bounded here, for the ordinary way as well: the bytes and the lines of a head (431), whatever else moves no request on (chunk
extensions, trailers, empty lines), and the time until a head is whole, which a new connection does not have for ever either (408 where something
came). Headers behind a body are none: a proxy that lets them through vouches only for those in front of it.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog
from starlette.datastructures import Headers
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from xzepr import ids
from xzepr.auth.authenticate import Authenticator, Known
from xzepr.auth.credentials import API_KEY, Credential, of_authorization
from xzepr.auth.principal import Principal
from xzepr.errors import HeadersTooLarge, RequestTimeout, UnknownHost, XzeprError
from xzepr.ids import MessageId
from xzepr.web.call import traceparent_of
from xzepr.web.middleware import Doorway, is_request_id
from xzepr.web.problems import problem_answer, unknown_error_answer
from xzepr.web.routes import Route

log = structlog.get_logger(__name__)

_PLAIN_HEADERS: Final = frozenset(
    {b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"connection", b"content-type", b"content-length", b"x-request-id"}
    | {b"traceparent", b"tracestate", b"date", b"authorization", b"x-api-key"}
)
HOSTS_KEPT_MAX: Final = 1_000
# A request line and its headers.
HEAD_MAX_BYTES: Final = 64 * 1024
HEADERS_MAX: Final = 100
# From the beginning of a connection, later from the first piece of a head.
HEAD_S: Final = 15.0
INSTANCE_MAX_CHARS: Final = 2_000

RawHeaders = list[tuple[bytes, bytes]]
# What a hot route gives back: the id of what was made; an error; None: the ordinary way must look at it, nothing was done.
HotAnswer = str | Exception | None
Done = Callable[[HotAnswer], None]


class Take(Protocol):
    """A hot route's work. True: taken, and `done` will be called once; False: nothing happened."""

    def __call__(self, principal: Principal, body: bytes, traceparent: str | None, done: Done, /) -> bool:
        """See above."""
        ...


class HotRoute:
    """What all connections of a process share. route: of the routing table, with an id as its answer; body_max_bytes: as the ordinary door has it."""

    def __init__(self, route: Route, doorway: Doorway, authenticator: Authenticator, *, body_max_bytes: int, take: Take) -> None:
        self.path = route.path.encode()
        self.instance = route.path
        self.take = take
        # Bound once: a logger that is looked up each time costs more than what it says when nobody listens.
        self.log = log.bind()
        self.body_max_bytes = body_max_bytes
        self._doorway = doorway
        self._authenticator = authenticator
        self._permissions = frozenset(route.permissions)
        self._known_hosts: set[tuple[bytes, Any]] = set()
        self._head = b""
        self._head_made_of: Any = None

    def anonymous(self, client: tuple[str, int] | None) -> Principal | None:
        """Who a plain request without a credential from this address is; None when that is nobody who may."""
        principal = self._authenticator.anonymous(client[0] if client else None, Headers(), None)
        return principal if self._permissions <= principal.permissions else None

    def known(self, name: bytes, value: bytes) -> Known | None:
        """What is in memory of the credential in this header, if it may post. None: the ordinary way must look at it."""
        try:
            text = value.decode("ascii")
            credential = of_authorization(text) if name == b"authorization" else Credential(API_KEY, text.strip())
        except (XzeprError, UnicodeDecodeError):
            return None
        known = self._authenticator.known(credential)
        return known if known is not None and self._permissions <= known.principal.permissions else None

    def use(self, known: Known) -> Principal | None:
        """Of one that known() gave, maybe long ago; None when it may not be accepted any more without asking."""
        return self._authenticator.used(known) if self._authenticator.counts(known) else None

    def knows_host(self, host: bytes, server: tuple[str, int | None] | None) -> bool:
        """Whether the ordinary rule takes it."""
        key = (host, server)
        if key in self._known_hosts:
            return True
        try:
            self._doorway.host_rule.require(Headers(raw=[(b"host", host)]), server)
        except UnknownHost:
            return False
        if len(self._known_hosts) < HOSTS_KEPT_MAX:
            self._known_hosts.add(key)
        return True

    def created(self, made_id: str, request_id: bytes, scheme: str, default_headers: list[tuple[bytes, bytes]]) -> bytes:
        """201 with the id, to the byte what the ordinary door answers."""
        if self._head_made_of is not default_headers:
            # uvicorn makes a new list each second, with a new date.
            dressed = self._doorway.plain_headers(scheme)
            self._head = STATUS_LINE[201] + _lines(default_headers) + _lines(dressed) + b"content-type: application/json\r\n"
            self._head_made_of = default_headers
        made = made_id.encode()
        return b'%blocation: %b/%b\r\ncontent-length: 37\r\nx-request-id: %b\r\n\r\n{"data":"%b"}' % (
            self._head,
            self.path,
            made,
            request_id,
            made,
        )

    def refused(
        self, error: Exception, request_id: str, scheme: str, default_headers: list[tuple[bytes, bytes]], instance: str | None = None
    ) -> bytes:
        """The problem answer of the ordinary door. instance: None for this route."""
        make = problem_answer if isinstance(error, XzeprError) else unknown_error_answer
        response = make(error, instance=instance or self.instance, request_id=request_id)  # type: ignore[arg-type]
        headers = [*default_headers, *self._doorway.plain_headers(scheme), *response.raw_headers, (b"x-request-id", request_id.encode())]
        return STATUS_LINE[response.status_code] + _lines(headers) + b"\r\n" + bytes(response.body)


class _Taken:
    """Stands where uvicorn keeps the request that is being answered, so that its rules for pipelining, draining and lost connections hold."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self) -> None:
        self.response_complete = False
        self.keep_alive = True
        self.disconnected = False
        self.message_event = _NOBODY_WAITS


class _NobodyWaits:
    def set(self) -> None:
        """Of an event that nobody waits for."""


_NOBODY_WAITS: Final = _NobodyWaits()


class HotProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None, *, hot: HotRoute) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._hot = hot
        self._held: list[bytes] | None = None
        self._request_id = b""
        self._traceparent: str | None = None
        self._anonymous: Principal | None = None
        self._principal: Principal | None = None
        # A caller sends the same credential with each request: looked up once a connection, and held against what ended since at each use.
        self._credential = b""
        self._known: Known | None = None
        self._at_rest_since_s = 0.0
        self._rest_timer: asyncio.TimerHandle | None = None
        self.url = b""
        self._is_head = False
        self._heads = 0
        # Whether the last bytes finished anything: a head, a piece of a body, a request. How many did not since then, and how many more, at most, the
        # head that is not whole yet may have.
        self._has_moved = False
        self._idle_bytes = 0
        self._tail_bytes = 0
        self._fed_bytes = 0
        self._refusal: HeadersTooLarge | None = None
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """From asyncio, once."""
        super().connection_made(transport)
        self._anonymous = self._hot.anonymous(self.client)
        self._head_timer = self.loop.call_later(HEAD_S, self._end_without_head, 0)

    def on_message_begin(self) -> None:
        """From the parser: without what only the ordinary way needs."""
        self._is_head = True
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self.scope = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """From asyncio: maybe a part of a request, maybe several."""
        self._has_moved = False
        self._fed_bytes = self._idle_bytes + len(data)
        super().data_received(data)
        if self._held is not None:
            # The rest may take its time: the ordinary door has the patience, and the limit of it.
            held, self._held = self._held, None
            if not self.transport.is_closing():
                self._make_scope()
                super().on_headers_complete()
                for piece in held:
                    super().on_body(piece)
        if self._has_moved:
            self._idle_bytes, self._tail_bytes = 0, len(data) if self._is_head else 0
        else:
            self._idle_bytes = self._fed_bytes
        if self._idle_bytes > HEAD_MAX_BYTES:
            self._refuse(HeadersTooLarge())
        elif self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            # What is left of a body that was answered before its end has the time that nothing at all would have.
            seconds = self.timeout_keep_alive if self._has_moved else HEAD_S
            self._head_timer = self.loop.call_later(seconds, self._end_without_head, self._heads)

    def on_header(self, name: bytes, value: bytes) -> None:
        """From the parser: also for what follows behind a body in chunks."""
        if self._is_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """From the parser: here the two ways part. Raises HeadersTooLarge, by which the parser stops."""
        self._is_head = False
        self._has_moved = True
        self._heads += 1
        # What came in few bytes is short.
        may_be_large = self._fed_bytes + self._tail_bytes > HEAD_MAX_BYTES
        if len(self.headers) > HEADERS_MAX or (may_be_large and self._head_bytes() > HEAD_MAX_BYTES):
            self._refusal = HeadersTooLarge()
            raise self._refusal
        if self._is_plain():
            self._held = []
        else:
            self._make_scope()
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """From the parser."""
        self._has_moved = True
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        """From the parser: the request is whole."""
        self._has_moved = True
        held, self._held = self._held, None
        if held is None:
            super().on_message_complete()
            return
        body = held[0] if len(held) == 1 else b"".join(held)
        taken, request_id, headers = _Taken(), self._request_id, self.headers

        def done(answer: HotAnswer) -> None:
            self._answer(taken, answer, request_id, body, headers)

        self.cycle, before = taken, self.cycle  # type: ignore[assignment]
        assert self._principal is not None
        if not self._hot.take(self._principal, body, self._traceparent, done):
            self.cycle = before
            self._start_ordinary(headers, body)

    def _make_scope(self) -> None:
        """What uvicorn makes when a request begins, with what was seen of it since."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)

    def _is_plain(self) -> bool:
        """Whether a short way may be taken, as far as method, address, headers and the state of the connection tell."""
        parser = self.parser
        if self.url != self._hot.path or parser.get_method() != b"POST":
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        if parser.get_http_version() != "1.1" or not parser.should_keep_alive() or parser.should_upgrade():
            return False
        return self._has_plain_headers()

    def _has_plain_headers(self) -> bool:
        seen = dict(self.headers)
        if len(seen) != len(self.headers) or not seen.keys() <= _PLAIN_HEADERS:
            return False
        length = seen.get(b"content-length", b"")
        # A length of five digits at most: what is larger takes the ordinary way, whatever the limit is.
        if not (length.isdigit() and len(length) <= 5 and int(length) <= self._hot.body_max_bytes):
            return False
        if seen.get(b"content-type") != b"application/json" or not self._hot.knows_host(seen.get(b"host", b""), self.server):
            return False
        self._principal = self._principal_of(seen)
        if self._principal is None:
            return False
        given = seen.get(b"x-request-id", b"")
        self._request_id = given if given and is_request_id(given.decode("latin-1")) else b""
        self._traceparent = traceparent_of(Headers(raw=self.headers)) if b"traceparent" in seen else None
        return True

    def _principal_of(self, seen: dict[bytes, bytes]) -> Principal | None:
        """None: nobody who may, or somebody whom only the ordinary way can tell."""
        name = b"authorization" if b"authorization" in seen else b"x-api-key"
        credential = seen.get(name)
        if credential is None:
            return self._anonymous
        if name == b"authorization" and b"x-api-key" in seen:
            return None
        if credential != self._credential or self._known is None:
            self._credential, self._known = credential, self._hot.known(name, credential)
        if self._known is None:
            return None
        principal = self._hot.use(self._known)
        if principal is None:
            # The ordinary way looks at it anew; the next request finds what it found.
            self._known = None
        return principal

    def _answer(self, taken: _Taken, answer: HotAnswer, request_id: bytes, body: bytes, headers: RawHeaders) -> None:
        transport = self.transport
        if taken.disconnected or transport.is_closing():
            return
        if answer is None:
            self._start_ordinary(headers, body, taken)
            return
        default_headers, scheme = self.server_state.default_headers, self.scheme or "http"
        if isinstance(answer, Exception):
            request_id = request_id or ids.mint(MessageId).encode()
            response = self._hot.refused(answer, request_id.decode(), scheme, default_headers)
        else:
            # Unique, and found in the log by whoever has the event.
            request_id = request_id or answer.encode()
            response = self._hot.created(answer, request_id, scheme, default_headers)
        if not taken.keep_alive:
            # The server drains.
            response = response.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
        transport.write(response)
        taken.response_complete = True
        self._hot.log.debug("request.answered", method="POST", path=self._hot.instance, hot=True, request_id=request_id)
        if not taken.keep_alive:
            transport.close()
        if self.pipeline or not taken.keep_alive:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self._at_rest_since_s = self.loop.time()
            if self._rest_timer is None:
                self._rest_timer = self.loop.call_later(self.timeout_keep_alive, self._end_if_idle)

    def _end_if_idle(self) -> None:
        """uvicorn's keep-alive limit with one timer a connection: theirs makes and cancels one a request."""
        self._rest_timer = None
        if self.transport.is_closing() or self.timeout_keep_alive_task is not None:
            return
        left_s = self._at_rest_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0 or not (self.cycle is None or self.cycle.response_complete):
            self._rest_timer = self.loop.call_later(max(left_s, 1.0), self._end_if_idle)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """From asyncio, once."""
        super().connection_lost(exc)
        for timer in (self._rest_timer, self._head_timer):
            if timer is not None:
                timer.cancel()
        self._rest_timer = self._head_timer = None

    def send_400_response(self, msg: str) -> None:
        """From uvicorn, when the parser has stopped."""
        if self._refusal is not None:
            self._refuse(self._refusal)
        else:
            super().send_400_response(msg)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _end_without_head(self, heads: int) -> None:
        """Unless there was a request since there were so many."""
        self._head_timer = None
        if self._heads == heads:
            self._refuse(RequestTimeout(f"the head of the request did not arrive within {HEAD_S:g} s") if self._idle_bytes else None)
        elif self._idle_bytes:
            self._head_timer = self.loop.call_later(HEAD_S, self._end_without_head, self._heads)

    def _refuse(self, error: XzeprError | None) -> None:
        """The end of the connection, with a word where it cannot be taken for an answer to an earlier request."""
        if self.transport.is_closing():
            return
        if error is not None and (self.cycle is None or self.cycle.response_complete):
            path = self.url.partition(b"?")[0]
            instance = path.decode() if path.isascii() and 0 < len(path) <= INSTANCE_MAX_CHARS else "/"
            scheme, default_headers = self.scheme or "http", self.server_state.default_headers
            self.transport.write(self._hot.refused(error, ids.mint(MessageId), scheme, default_headers, instance))
        self.transport.close()

    def _start_ordinary(self, headers: RawHeaders, body: bytes, taken: _Taken | None = None) -> None:
        """The request, whole, as uvicorn would have begun it. taken: in whose place; requests behind it go on waiting for it."""
        scope: Any = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "headers": headers,
            "state": self.app_state.copy(),
            "method": "POST",
            "path": self._hot.instance,
            "raw_path": self._hot.path,
            "query_string": b"",
        }
        cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=taken is None or taken.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body += body
        cycle.more_body = False
        cycle.message_event.set()
        if taken is None or self.cycle is taken:  # type: ignore[comparison-overlap]
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)


def _lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
