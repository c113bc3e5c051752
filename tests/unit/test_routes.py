"""A route that says too little is not served; what it says is what is enforced."""

from typing import Any

import msgspec
import pytest
from starlette.datastructures import Headers

from xzepr.app import ROUTES
from xzepr.auth.permissions import PUBLIC, Permission
from xzepr.ids import EventId
from xzepr.web.call import Answer, Call, traceparent_of
from xzepr.web.middleware import allowed_methods
from xzepr.web.routes import IncompleteRoute, Route, require_complete

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


class Body(msgspec.Struct):
    name: str


async def handler(_call: Call[Any]) -> Answer:
    return Answer()


def route(**changes: Any) -> Route:
    base: dict[str, Any] = {
        "method": "GET",
        "path": "/things",
        "handler": handler,
        "permission": Permission.EVENT_READ,
        "answer": Body,
        "tag": "things",
        "summary": "Things",
    }
    return Route(**{**base, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"permission": None}, "GET /things names neither a permission nor PUBLIC"),
        ({"permission": ()}, "GET /things names neither a permission nor PUBLIC"),
        ({"answer": None}, "GET /things names no type for its answer"),
        ({"answer": None, "redirects": (302,)}, "GET /things names no type for its answer"),
        ({"method": "PUT"}, "PUT /things names no type for its body"),
        ({"method": "PATCH"}, "PATCH /things names no type for its body"),
        ({"body": Body}, "GET /things takes a body"),
        ({"method": "DELETE", "body": Body}, "DELETE /things takes a body"),
        ({"path": "/things/{id}"}, "GET /things/{id}: the path's parameters"),
        ({"path_params": {"id": EventId}}, "GET /things: the path's parameters"),
    ],
)
def test_route_that_says_too_little_is_refused_and_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(IncompleteRoute) as raised:
        require_complete([route(path="/fine"), route(**changes)])
    assert str(raised.value).startswith(reason)


def test_route_that_stands_there_twice_is_refused() -> None:
    with pytest.raises(IncompleteRoute, match="GET /things stands in the table twice"):
        require_complete([route(), route()])


def test_route_that_says_all_is_taken() -> None:
    require_complete(
        [
            route(),
            route(method="POST", body=Body, status=201),
            route(method="DELETE", path="/things/{id}", path_params={"id": EventId}, answer=None, status=204),
            route(path="/open", permission=PUBLIC),
            route(path="/on", answer=None, status=302, redirects=(302,)),
        ]
    )


def test_permissions_are_all_that_are_needed() -> None:
    both = (Permission.GROUP_READ, Permission.EVENT_READ)
    assert route().permissions == (Permission.EVENT_READ,)
    assert route(permission=both).permissions == both
    assert route(permission=PUBLIC).permissions == ()


def test_what_is_kept_of_a_body_with_a_secret_cannot_be_guessed_fast() -> None:
    kept = [route for route in ROUTES if route.idempotent and route.body is not None]
    secret = [route.path for route in kept if {"password", "secret", "token", "key"} & {field.name for field in msgspec.structs.fields(route.body)}]
    assert secret == [route.path for route in kept if route.secret_body] == ["/api/v1/admin/users"]


def test_allow_names_head_with_get_and_options_always() -> None:
    assert allowed_methods(["POST", "GET"]) == "GET, HEAD, OPTIONS, POST"
    assert allowed_methods(["DELETE"]) == "DELETE, OPTIONS"


@pytest.mark.parametrize("given", [f"00-{TRACE}-{SPAN}-01", f"01-{TRACE}-{SPAN}-01-later", f"cc-{TRACE}-{SPAN}-00"])
def test_well_formed_traceparent_is_honoured(given: str) -> None:
    assert traceparent_of(Headers({"traceparent": given})) == given


@pytest.mark.parametrize(
    "given",
    [
        "",
        "nonsense",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_malformed_traceparent_is_as_good_as_none(given: str) -> None:
    assert traceparent_of(Headers({"traceparent": given})) is None


def test_repeated_traceparent_is_as_good_as_none() -> None:
    value = f"00-{TRACE}-{SPAN}-01".encode()
    assert traceparent_of(Headers(raw=[(b"traceparent", value), (b"traceparent", value)])) is None
