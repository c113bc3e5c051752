"""From the routing table to an ASGI application: the way of a request through a door.

Method, principal, permission, path, query, body, handler, answer: in this order, so that nobody learns by a body's faults what they may not
do. When a body was long on its way principal and permission are found out once more: the credential may have ended meanwhile. Whatever is raised on
the way becomes a problem answer in middleware.Doorway. Rate limits belong between principal and permission (a caller that is refused counts too): the
place is marked in _Door.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from hashlib import sha256
from typing import Any, Final, NoReturn, Protocol

import msgspec
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Router
from starlette.routing import Route as StarletteRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from xzepr import clock, ids
from xzepr.audit.acts import Act
from xzepr.auth.browser import CsrfRefused
from xzepr.auth.permissions import Permission
from xzepr.auth.principal import Principal
from xzepr.errors import (
    BodyTooLarge,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    PermissionDenied,
    RequestTimeout,
    Unauthenticated,
    UnsupportedMediaType,
    XzeprError,
)
from xzepr.idempotency import KEY_MAX_CHARS, Claim, Replayed, find_answer
from xzepr.inputs import decode_body, decode_query
from xzepr.page import Created
from xzepr.settings import Settings
from xzepr.web.call import Answer, Call, traceparent_of
from xzepr.web.middleware import Doorway, allowed_methods
from xzepr.web.routes import Form, Route, require_complete

BASE: Final = "/api/v1"
# The same contract under a name that stays when the EPR dialect takes the root.
ALIAS: Final = "/xzepr/api/v1"

# A body that is there by then leaves no time to hear of anything.
PROMPT_S: Final = 0.1

_encode = msgspec.json.Encoder().encode


class Authenticates(Protocol):
    """auth/authenticate.py, or what stands for it."""

    def anonymous(self, peer: str | None, headers: Headers, request_id: str | None, /) -> Principal:
        """The caller of a public route: where it comes from, and nothing that it brings is looked at."""
        ...

    async def authenticate(self, peer: str | None, headers: Headers, request_id: str | None, method: str, /) -> Principal:
        """Raises InvalidToken, InvalidInput, PermissionDenied, Unavailable."""
        ...


def build_asgi(
    table: Sequence[Route],
    *,
    house: Any,
    settings: Settings,
    authenticator: Authenticates,
    lifespan: Callable[[Any], AbstractAsyncContextManager[None]],
    static_directory: str,
) -> Doorway:
    """The application. Raises IncompleteRoute for a route that must not be served."""
    require_complete(table)
    by_path: dict[str, dict[str, Route]] = {}
    # `/events/stream` must not be taken for an id, wherever it stands in the table.
    for route in sorted(table, key=lambda route: route.path.count("{")):
        by_path.setdefault(route.path, {})[route.method] = route
    routes: list[Any] = []
    for path, methods in by_path.items():
        door = _Door(methods, house, settings, authenticator)
        routes.append(StarletteRoute(path, door))
        if path.startswith(BASE + "/"):
            routes.append(StarletteRoute(ALIAS + path.removeprefix(BASE), door))
    routes.append(Mount("/static", _Static(directory=static_directory)))
    return Doorway(Router(routes, redirect_slashes=False, default=_not_found, lifespan=lifespan), settings)


async def _not_found(_scope: Scope, _receive: Receive, _send: Send) -> NoReturn:
    raise NotFound("there is nothing at this address")


class _Door:
    """One address with its methods."""

    def __init__(self, methods: dict[str, Route], house: Any, settings: Settings, authenticator: Authenticates) -> None:
        self._methods = methods
        self._allow = allowed_methods(methods)
        self._house = house
        self._authenticator = authenticator
        self._body_max_bytes = settings.security.validation.max_body_size
        self._batch_max_bytes = settings.security.validation.max_batch_body_size
        self._body_timeout_s = settings.server.request_timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        if request.method == "HEAD" and isinstance(response, StreamingResponse):
            response = _not_begun(response)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": self._allow})
        route = self._methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            raise MethodNotAllowed(f"this address takes {self._allow}", extra={"allow": self._allow})
        principal: Principal | None = None
        try:
            principal = await self._find_out(request, route)
            # Rate limits: here.
            route.require(principal)
            return await self._allowed(request, route, principal)
        except (PermissionDenied, Unauthenticated) as error:
            # Logins and posts to a receiver that the caller may not post to have rows of their own.
            if not route.is_public and not _is_refused_post(route, principal, error):
                if principal is None:
                    # The credential does not count: what somebody without one may do is no matter.
                    principal = error.principal if isinstance(error, CsrfRefused) else self._authenticator.anonymous(*_origin(request))
                self._house.denials.note(principal, Act.ACCESS_DENIED, None, {"route": route.path, "method": route.method})
            raise

    async def _find_out(self, request: Request, route: Route) -> Principal:
        # Of a public route nobody is asked: what does not count any more must not stand in the way of a new login.
        if route.is_public:
            return self._authenticator.anonymous(*_origin(request))
        return await self._authenticator.authenticate(*_origin(request), request.method)

    async def _ask_again(self, request: Request, route: Route) -> Principal:
        principal = await self._find_out(request, route)
        route.require(principal)
        return principal

    async def _allowed(self, request: Request, route: Route, principal: Principal) -> Response:
        """What the route answers to a principal that has its permissions; it may still not be the owner."""
        path = {name: ids.parse(kind, request.path_params[name], name) for name, kind in route.path_params.items()}
        query = decode_query(request.scope["query_string"], route.query or _NoQuery, others=route.other_parameters)
        raw_body, body, tree = b"", None, None
        if route.takes_body:
            form = _form_of(route, request)
            began_s = time.monotonic()
            raw_body = await self._read_body(request, self._batch_max_bytes if form is not None and form.large else self._body_max_bytes)
            if time.monotonic() - began_s >= PROMPT_S:
                principal = await self._ask_again(request, route)
            if form is not None:
                body = await form.read(raw_body, request.headers)
            else:
                assert route.body is not None
                body, tree = decode_body(raw_body, route.body)
        call = Call(
            house=self._house,
            principal=principal,
            path=path,
            query=query if route.query is not None else None,
            body=body,
            raw_body=raw_body,
            tree=tree,
            headers=request.headers,
            request_id=request.state.request_id,
            traceparent=traceparent_of(request.headers),
            request=request,
            ask_again=partial(self._ask_again, request, route),
            claim=await self._claim(route, path, principal, request, raw_body),
        )
        answer = await (_once(route, call, call.claim) if call.claim is not None else route.handler(call))
        return answer if isinstance(answer, Response) else _response(route, answer)

    async def _claim(self, route: Route, path: Mapping[str, str], principal: Principal, request: Request, raw_body: bytes) -> Claim | None:
        """Of an Idempotency-Key on a route that makes something. Raises InvalidInput for one that is too long or not plain text.

        The key belongs to the address with its ids in it: the same reason for the redaction of another event is another act.
        """
        key = request.headers.get("idempotency-key")
        if key is None or not route.idempotent:
            return None
        if not (0 < len(key) <= KEY_MAX_CHARS and key.isascii() and key.isprintable()):
            raise InvalidInput.at("Idempotency-Key", f"must be 1 to {KEY_MAX_CHARS} printable ASCII characters")
        address = f"{route.method} {route.path.format_map(path)}"
        if route.secret_body:
            digest = await self._house.passwords.digest(raw_body, f"{principal.claims_as} {address} {key}")
        else:
            digest = sha256(raw_body).digest()
        return Claim(principal.claims_as, address, key, digest, clock.now(), self._body_timeout_s)

    async def _read_body(self, request: Request, max_bytes: int) -> bytes:
        """Raises BodyTooLarge before more than the limit is held, RequestTimeout when it does not arrive in time."""
        declared = request.headers.get("content-length", "0")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > max_bytes:
            raise _too_large(max_bytes)
        received = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                async for piece in request.stream():
                    if len(received) + len(piece) > max_bytes:
                        raise _too_large(max_bytes)
                    received += piece
        except TimeoutError:
            raise RequestTimeout(f"the body did not arrive within {self._body_timeout_s:g} s (server.request_timeout_seconds)") from None
        return bytes(received)


def _is_refused_post(route: Route, principal: Principal | None, error: XzeprError) -> bool:
    """Whether somebody who may post events was refused by the receiver. principal: None when nobody was found out."""
    of_receiver = isinstance(error, PermissionDenied) and Permission.EVENT_CREATE in route.permissions
    return of_receiver and principal is not None and Permission.EVENT_CREATE in principal.permissions


async def _once(route: Route, call: Call[Any], claim: Claim) -> Answer | Response:
    """The first answer again when the key was used; else the act, unless another request with the key is faster."""
    earlier = await find_answer(call.house.database, claim)
    if earlier is None:
        try:
            return await route.handler(call)
        except Replayed as replayed:
            earlier = replayed.answer
    if earlier.body is not None:
        return Answer(msgspec.Raw(earlier.body.encode()), earlier.status, headers={"Idempotency-Replayed": "true"})
    location = {"Location": f"{route.path}/{earlier.id}"} if route.has_location else {}
    return Answer(Created(earlier.id), headers={**location, "Idempotency-Replayed": "true"})


class _NoQuery(msgspec.Struct, frozen=True):
    """For routes that take no parameters: each one given is a fault."""


class _Static(StaticFiles):
    """Files of the wheel. Browsers keep them and ask each time whether they changed: after an upgrade nobody sees old pages."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        allow = allowed_methods(["GET"])
        if scope["method"] == "OPTIONS":
            return Response(status_code=204, headers={"Allow": allow})
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code == 405:
                raise MethodNotAllowed(f"this address takes {allow}", extra={"allow": allow}) from None
            raise NotFound("there is no such file") from None
        response.headers["Cache-Control"] = "no-cache"
        return response


def _origin(request: Request) -> tuple[str | None, Headers, str]:
    """The peer's address, None for a Unix socket; what it sent; and the id of the request."""
    return request.client.host if request.client else None, request.headers, request.state.request_id


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"a body has at most {max_bytes} bytes here (security.validation.max_body_size, max_batch_body_size)")


def _form_of(route: Route, request: Request) -> Form | None:
    """How the body is written; None: as one JSON object. Raises UnsupportedMediaType."""
    headers = request.headers
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("this address takes no Content-Encoding")
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    form = next((form for form in route.forms if form.takes(media_type, headers)), None)
    if form is None and (route.body is None or media_type != "application/json"):
        known = (["application/json"] if route.body is not None else []) + [form.media_type for form in route.forms if form.chosen_by is None]
        raise UnsupportedMediaType(f"this address takes {', '.join(known)}, not {media_type[:100] or 'a body without Content-Type'}")
    return form


def _response(route: Route, answer: Answer) -> Response:
    body = _encode(answer.body) if answer.body is not None else b""
    return Response(body, answer.status or route.status, dict(answer.headers), route.media_type if body else None)


def _not_begun(stream: StreamingResponse) -> Response:
    """What HEAD gets of a stream: its headers. The stream itself never begins."""
    bare = Response(status_code=stream.status_code)
    bare.raw_headers = stream.raw_headers
    return bare
