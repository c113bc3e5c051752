"""The routing table: what each address takes and gives, and which permission it needs.

Enforcement, 404 and 405, and the OpenAPI document all come from here. A route that names neither a permission nor PUBLIC, or leaves out a type
that its method needs, is refused when the application is built, so it cannot be served by accident.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response

from xzepr.auth.permissions import Authenticated, Permission, Public
from xzepr.auth.principal import Principal
from xzepr.errors import XzeprError
from xzepr.web.call import Answer

Handler = Callable[[Any], Awaitable[Answer | Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way in which a body may be written. media_type: by which it is chosen, unless `chosen_by` says otherwise.

    read: from the bytes and the request's headers to what the handler gets as body; raises what is wrong with it. kind: for the document, what
    msgspec describes, or a JSON Schema. large: it may be as large as a batch.
    """

    media_type: str
    read: Callable[[bytes, Headers], Awaitable[Any]]
    kind: Any
    example: Any = None
    large: bool = False
    chosen_by: Callable[[Headers], bool] | None = None

    def takes(self, media_type: str, headers: Headers) -> bool:
        """Whether a request with these headers is written so."""
        return self.chosen_by(headers) if self.chosen_by is not None else media_type == self.media_type


class Whose(Enum):
    """Whose the object of a route must be, besides the permission; administrators are never bound by it. Enforced where the object is read."""

    ANYBODY = "anybody's"
    OWNER = "its owner"
    MEMBER = "its owner or a member"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one address.

    permission: one, several (all needed), AUTHENTICATED, or PUBLIC. whose: told in the documents, and compared with what happens by a test.
    path_params: name to the id type that it is parsed as. query, body, answer: types for msgspec; answer None: no body. problems: what may be
    answered besides the problems that follow from the rest.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    handler: Handler
    permission: Permission | tuple[Permission, ...] | Authenticated | Public | None = None
    whose: Whose = Whose.ANYBODY
    path_params: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    # Other ways of writing the body than `body` as one JSON object, tried first. A route may have these alone.
    forms: tuple[Form, ...] = ()
    answer: Any = None
    status: int = 200
    media_type: str = "application/json"
    summary: str
    description: str = ""
    tag: str
    problems: tuple[type[XzeprError], ...] = ()
    example_body: Any = None
    example_answer: Any = None
    in_document: bool = True
    # A browser gets a page from the same address.
    has_page: bool = False
    # Statuses by which a browser is sent on, without a body. One that cannot be sent on is shown a page that says why.
    redirects: tuple[int, ...] = ()
    # Parameters that `query` does not name are ignored: the query is written by somebody else.
    other_parameters: bool = False
    # Answered with the same body, for callers who look at the status alone.
    other_statuses: tuple[int, ...] = ()
    # Takes an Idempotency-Key; its answer is the id of what was made.
    idempotent: bool = False
    # The body holds a secret: what is kept to know it again must be as costly to guess by as the hash of a password.
    secret_body: bool = False
    # A 201 says where the new object is; a batch has no place of its own.
    has_location: bool = True
    # Takes If-Match, and answers with an ETag where it has a body.
    conditional: bool = False

    @property
    def takes_body(self) -> bool:
        """Whether a request has one."""
        return self.body is not None or bool(self.forms)

    @property
    def is_public(self) -> bool:
        """Whether nobody is asked who they are."""
        return isinstance(self.permission, Public)

    @property
    def permissions(self) -> tuple[Permission, ...]:
        """Needed, all of them; none for a route that is public, or for everybody who is known."""
        if self.permission is None or isinstance(self.permission, (Public, Authenticated)):
            return ()
        return self.permission if isinstance(self.permission, tuple) else (self.permission,)

    def require(self, principal: Principal) -> None:
        """Raises Unauthenticated, PermissionDenied."""
        if self.permissions:
            principal.require(self.permissions)
        elif not self.is_public:
            principal.require_known()


class IncompleteRoute(Exception):
    """A route that must not be served."""


def require_complete(routes: Iterable[Route]) -> None:
    """Raises IncompleteRoute naming the first route that says too little, or that stands there twice."""
    seen: set[tuple[str, str]] = set()
    for route in routes:
        where = f"{route.method} {route.path}"
        if route.permission is None or route.permission == ():
            raise IncompleteRoute(f"{where} names neither a permission nor PUBLIC")
        if route.answer is None and route.status not in (204, 205, 304, *route.redirects):
            raise IncompleteRoute(f"{where} names no type for its answer")
        if route.body is None and route.method in ("PUT", "PATCH"):
            raise IncompleteRoute(f"{where} names no type for its body")
        if route.takes_body and route.method in ("GET", "DELETE"):
            raise IncompleteRoute(f"{where} takes a body, which a {route.method} has not")
        named = {part[1:-1] for part in route.path.split("/") if part.startswith("{")}
        if named != set(route.path_params):
            raise IncompleteRoute(f"{where}: the path's parameters and path_params differ")
        if (route.method, route.path) in seen:
            raise IncompleteRoute(f"{where} stands in the table twice")
        seen.add((route.method, route.path))
