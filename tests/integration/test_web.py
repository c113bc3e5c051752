"""The web layer over HTTP: a small table of test routes, in process for most rules, on a real socket where the server matters."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import msgspec
import pytest
import structlog
import uvicorn
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message

from support.callers import OnlyAnonymous
from xzepr import ids
from xzepr.auth.permissions import AUTHENTICATED, PUBLIC, Permission
from xzepr.errors import Conflict, InvalidInput, PermissionDenied, PositionExpired, Unavailable
from xzepr.fields import ShortText
from xzepr.ids import EventId
from xzepr.settings import Settings
from xzepr.web import pages
from xzepr.web.asgi import build_asgi
from xzepr.web.call import Answer, Call
from xzepr.web.routes import Route

pytestmark = pytest.mark.anyio

THING_ID = "01M88Q7AG504QSGMQWKDMNZ1V5"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BODY = {"name": "api", "payload": {"b": 1.50, "a": []}}


class NewThing(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    name: ShortText
    payload: msgspec.Raw


class Thing(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    payload: Any = None


class Filter(msgspec.Struct, kw_only=True, frozen=True):
    name: str | None = None
    limit: int = 50


class Noted:
    """Refusals, in order, in place of those that are counted for the audit log."""

    def __init__(self) -> None:
        self.routes: list[Mapping[str, str]] = []

    def note(self, _principal: Any, act: str, _object_id: str | None, where: Mapping[str, str]) -> None:
        assert act == "access.denied"
        self.routes.append(where)


@dataclass
class Bench:
    """What the test routes touch."""

    calls: list[Call[Any]] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    lifespans: list[str] = field(default_factory=list)
    denials: Noted = field(default_factory=Noted)


async def post_thing(call: Call[Bench]) -> Answer:
    call.house.calls.append(call)
    return Answer(Thing(id=THING_ID, payload=call.body.payload), headers={"Location": f"/api/v1/things/{THING_ID}"})


async def list_things(call: Call[Bench]) -> Answer:
    call.house.calls.append(call)
    return Answer([Thing(id=call.query.name or THING_ID)])


async def show_thing(call: Call[Bench]) -> Answer:
    return Answer(Thing(id=call.path["id"]), headers={"ETag": '"7"'})


async def delete_thing(_call: Call[Bench]) -> Answer:
    return Answer()


async def show_newest(_call: Call[Bench]) -> Answer:
    return Answer(Thing(id="newest"))


async def fail(call: Call[Bench]) -> Answer:
    raise {
        "conflict": Conflict("it is there already"),
        "expired": PositionExpired(extra={"oldest": 12, "status": "not yours"}),
        "unavailable": Unavailable(),
        "denied": PermissionDenied(),
        "fault": InvalidInput.at("/event_receiver_id", "there is no such event receiver"),
        "unknown": RuntimeError("the password is hunter2"),
    }[call.query.name or ""]


async def stream(call: Call[Bench]) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        await call.house.go_on.wait()
        if call.query.name == "break":
            raise RuntimeError("broken in the middle")
        yield b"second\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


def route(method: Any, path: str, handler: Any, permission: Any, **more: Any) -> Route:
    return Route(method=method, path=path, handler=handler, permission=permission, tag="things", summary="A thing", **more)


TABLE = (
    route("POST", "/api/v1/things", post_thing, Permission.EVENT_CREATE, body=NewThing, answer=Thing, status=201),
    route("GET", "/api/v1/things", list_things, Permission.EVENT_READ, query=Filter, answer=list[Thing]),
    route("GET", "/api/v1/things/{id}", show_thing, Permission.EVENT_READ, path_params={"id": EventId}, answer=Thing),
    route("DELETE", "/api/v1/things/{id}", delete_thing, Permission.EVENT_DELETE, path_params={"id": EventId}, status=204),
    # Behind the one with an id, and yet found.
    route("GET", "/api/v1/things/newest", show_newest, Permission.EVENT_READ, answer=Thing),
    route("GET", "/fail", fail, AUTHENTICATED, query=Filter, answer=Thing),
    route("GET", "/stream", stream, PUBLIC, query=Filter, answer=str, media_type="text/event-stream"),
)


def make_app(bench: Bench, **changes: Any) -> ASGIApp:
    """changes: sections of the settings, over an administrator without credentials."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        bench.lifespans.append("up")
        yield
        bench.lifespans.append("down")

    settings = msgspec.convert({"auth": {"anonymous_roles": ["admin"]}, **changes}, Settings)
    table = [*TABLE, *pages.routes(TABLE)]
    return build_asgi(
        table, house=bench, settings=settings, authenticator=OnlyAnonymous(settings), lifespan=lifespan, static_directory=pages.STATIC_DIRECTORY
    )


def client_of(app: ASGIApp, peer: str = "127.0.0.1") -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, client=(peer, 1234), raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost:8042")


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
async def http(bench: Bench) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(make_app(bench)) as client:
        yield client


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The whole problem, checked for what every one must have."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    found: dict[str, Any] = answer.json()
    assert found["error"] == code
    assert found["status"] == status
    assert found["type"] == f"/docs/problems#{code}"
    assert found["title"]
    assert found["detail"] == found["message"] != ""
    assert found["request_id"] == answer.headers["x-request-id"]
    assert found["instance"].startswith("/")
    return found


# The way of a request


async def test_body_reaches_the_handler_decoded_and_as_sent(http: httpx2.AsyncClient, bench: Bench) -> None:
    sent = b'{"name":"api", "payload":{"b":1.50,"a":[]}}'
    headers = {"Content-Type": "application/json; charset=utf-8", "X-Request-ID": "mine-1", "traceparent": TRACE}
    answer = await http.post("/api/v1/things", content=sent, headers=headers)
    assert answer.status_code == 201
    assert answer.text == f'{{"id":"{THING_ID}","payload":{{"b":1.50,"a":[]}}}}'
    assert answer.headers["location"] == f"/api/v1/things/{THING_ID}"
    [call] = bench.calls
    assert (call.raw_body, call.tree, call.body.name) == (sent, json.loads(sent), "api")
    assert (call.request_id, call.traceparent, call.query) == ("mine-1", TRACE, None)


async def test_path_without_parameters_wins_over_one_with_an_id(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/api/v1/things/newest")).json()["id"] == "newest"


async def test_id_is_taken_in_lower_case_and_shown_in_upper_case(http: httpx2.AsyncClient) -> None:
    answer = await http.get(f"/api/v1/things/{THING_ID.lower()}")
    assert (answer.json()["id"], answer.headers["etag"]) == (THING_ID, '"7"')


@pytest.mark.parametrize("given", ["7", "U" * 26, THING_ID + "0", "%00", "%FF" * 26, "é"])
async def test_id_that_is_none_is_400_invalid_id(http: httpx2.AsyncClient, given: str) -> None:
    found = problem(await http.get(f"/api/v1/things/{given}"), 400, "invalid_id")
    assert [fault["pointer"] for fault in found["errors"]] == ["id"]


async def test_same_contract_is_served_under_the_alias(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/xzepr/api/v1/things")).status_code == 200
    assert (await http.post("/xzepr/api/v1/things", json=BODY)).status_code == 201


@pytest.mark.parametrize("path", ["/api/v1/things/", f"/api/v1/things/{THING_ID}/", "/docs/", "/openapi.json/"])
async def test_trailing_slash_equals_none_without_redirect(http: httpx2.AsyncClient, path: str) -> None:
    with_slash, without = await http.get(path), await http.get(path.rstrip("/"))
    assert with_slash.status_code == without.status_code == 200
    assert with_slash.content == without.content


async def test_answer_without_a_body_has_none(http: httpx2.AsyncClient) -> None:
    answer = await http.delete(f"/api/v1/things/{THING_ID}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers


async def test_lifespan_is_run_around_the_app(bench: Bench) -> None:
    incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[Message] = []

    async def receive() -> Message:
        return next(incoming)

    async def send(message: Message) -> None:
        sent.append(message)

    await make_app(bench)({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert bench.lifespans == ["up", "down"]
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# Methods


@pytest.mark.parametrize("path", ["/api/v1/things", f"/api/v1/things/{THING_ID}", "/docs", "/static/page.css"])
async def test_head_has_the_headers_of_get_and_no_body(http: httpx2.AsyncClient, path: str) -> None:
    get, head = await http.get(path), await http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers, "x-request-id": ""} == {**get.headers, "x-request-id": ""}


async def test_head_of_a_stream_does_not_begin_it(http: httpx2.AsyncClient) -> None:
    head = await http.head("/stream")
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert "content-length" not in head.headers


async def test_method_that_an_address_does_not_take_is_405_with_allow(http: httpx2.AsyncClient) -> None:
    answer = await http.put("/api/v1/things", json=BODY)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    answer = await http.request("BREW", f"/api/v1/things/{THING_ID}")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"


async def test_options_is_204_with_allow(http: httpx2.AsyncClient) -> None:
    answer = await http.options("/api/v1/things")
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (204, b"", "GET, HEAD, OPTIONS, POST")


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/v1", "/api/v2/things", "/static/nothing.js", "/static/%2e%2e/asgi.py", "/static/vendor", "/static"]
)
async def test_address_without_anything_is_404(http: httpx2.AsyncClient, path: str) -> None:
    problem(await http.get(path), 404, "not_found")


# Bodies


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", ""])
async def test_body_of_another_type_is_415(http: httpx2.AsyncClient, media_type: str) -> None:
    problem(await http.post("/api/v1/things", content=b"{}", headers={"Content-Type": media_type}), 415, "unsupported_media_type")


async def test_compressed_body_is_415(http: httpx2.AsyncClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    problem(await http.post("/api/v1/things", content=b"{}", headers=headers), 415, "unsupported_media_type")


async def test_all_faults_of_a_body_are_told_at_once(http: httpx2.AsyncClient, bench: Bench) -> None:
    found = problem(await http.post("/api/v1/things", json={"name": " ", "nmae": 1}), 400, "invalid_input")
    assert found["errors"] == [
        {"pointer": "/name", "message": "must not be blank"},
        {"pointer": "/payload", "message": "is missing"},
        {"pointer": "/nmae", "message": "is not a field here; did you mean name?"},
    ]
    assert bench.calls == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"name":"a","name":"b","payload":1}', b'{"name":"a","payload":"\\ud800"}', b"\xff"])
async def test_body_that_would_not_survive_is_400_with_its_place(http: httpx2.AsyncClient, content: bytes) -> None:
    found = problem(await http.post("/api/v1/things", content=content, headers={"Content-Type": "application/json"}), 400, "malformed_body")
    assert found["errors"]


@pytest.mark.parametrize("chunked", [True, False])
async def test_body_over_the_limit_is_413_and_one_at_the_limit_is_taken(bench: Bench, chunked: bool) -> None:
    def body_of(size: int) -> bytes:
        frame = b'{"name":"a","payload":""}'
        return frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]

    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    async with client_of(make_app(bench, security={"validation": {"max_body_size": 2048}})) as http:
        headers = {"Content-Type": "application/json"}
        for size, status in ((2048, 201), (2049, 413)):
            content: Any = pieces(body_of(size)) if chunked else body_of(size)
            answer = await http.post("/api/v1/things", content=content, headers=headers)
            assert answer.status_code == status
        problem(answer, 413, "body_too_large")
    assert len(bench.calls) == 1


async def test_body_declared_too_large_is_refused_unread(bench: Bench) -> None:
    app = make_app(bench)
    sent: list[Message] = []

    async def receive() -> Message:
        pytest.fail("the body was asked for")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"99999999999")]
    await app(scope_of("POST", "/api/v1/things", headers), receive, send)
    assert sent[0]["status"] == 413


async def test_client_that_goes_while_it_sends_gets_no_answer_and_reaches_no_handler(bench: Bench) -> None:
    messages: list[Message] = [{"type": "http.request", "body": b'{"name":', "more_body": True}, {"type": "http.disconnect"}]
    incoming = iter(messages)

    async def receive() -> Message:
        return next(incoming)

    async def send(_message: Message) -> None:
        pytest.fail("an answer was sent")

    await make_app(bench)(scope_of("POST", "/api/v1/things", [(b"host", b"localhost"), (b"content-type", b"application/json")]), receive, send)
    assert bench.calls == []


def scope_of(method: str, path: str, headers: list[tuple[bytes, bytes]], **more: Any) -> dict[str, Any]:
    base = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "", "query_string": b""}
    addresses = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8042)}
    return {**base, **addresses, "method": method, "path": path, "raw_path": path.encode(), "headers": headers, **more}


# Query


async def test_all_faults_of_a_query_are_told_at_once(http: httpx2.AsyncClient) -> None:
    found = problem(await http.get("/api/v1/things?nmae=x&limit=many"), 400, "invalid_input")
    assert [fault["pointer"] for fault in found["errors"]] == ["?nmae", "?limit"]


async def test_unknown_parameter_is_400_also_where_none_is_taken(http: httpx2.AsyncClient) -> None:
    found = problem(await http.get(f"/api/v1/things/{THING_ID}?x=1"), 400, "invalid_input")
    assert found["errors"] == [{"pointer": "?x", "message": "is not a parameter here"}]


# Problems


async def test_error_of_the_domain_is_a_problem_with_its_code(http: httpx2.AsyncClient) -> None:
    found = problem(await http.get("/fail?name=conflict"), 409, "conflict")
    assert (found["detail"], found["instance"]) == ("it is there already", "/fail")
    assert problem(await http.get("/fail?name=fault"), 400, "invalid_input")["errors"] == [
        {"pointer": "/event_receiver_id", "message": "there is no such event receiver"}
    ]


async def test_members_of_an_error_stand_in_its_problem_and_never_replace_the_standard_ones(http: httpx2.AsyncClient) -> None:
    assert problem(await http.get("/fail?name=expired"), 410, "position_expired")["oldest"] == 12


async def test_unavailable_says_when_to_try_again(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/fail?name=unavailable")
    problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_unknown_error_is_500_with_a_request_id_and_its_details_in_the_log_alone(http: httpx2.AsyncClient) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await http.get("/fail?name=unknown", headers={"X-Request-ID": "find-me"})
    found = problem(answer, 500, "internal_error")
    assert found["request_id"] == "find-me"
    assert "find-me" in found["detail"]
    assert "hunter2" not in answer.text
    [line] = [line for line in logs if line["log_level"] == "error"]
    assert (line["event"], line["request_id"], str(line["exc_info"])) == ("request.failed", "find-me", "the password is hunter2")


async def test_instance_of_a_problem_is_a_uri_reference_without_the_query(http: httpx2.AsyncClient) -> None:
    found = problem(await http.get("/no%20thing/%C3%A9?secret=1"), 404, "not_found")
    assert found["instance"] == "/no%20thing/%C3%A9"


async def test_problem_of_head_has_no_body(bench: Bench) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    await make_app(bench)(scope_of("HEAD", "/nothing", [(b"host", b"localhost")]), receive, send)
    assert [message.get("status") for message in sent] == [404, None]
    assert b"".join(message.get("body", b"") for message in sent) == b""


# Access


async def test_caller_without_roles_is_401_with_a_challenge(bench: Bench) -> None:
    async with client_of(make_app(bench), peer="203.0.113.7") as http:
        answer = await http.get("/api/v1/things")
        problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == 'Bearer realm="xzepr"'
        assert (await http.get("/openapi.json")).status_code == 200


async def test_caller_who_lacks_the_permission_is_403_that_names_it(bench: Bench) -> None:
    async with client_of(make_app(bench, auth={"anonymous_roles": ["event_viewer"]})) as http:
        assert (await http.get("/api/v1/things")).status_code == 200
        found = problem(await http.delete(f"/api/v1/things/{THING_ID}"), 403, "permission_denied")
        assert "event:delete" in found["detail"]


async def test_refusals_are_counted_by_route_and_method(bench: Bench) -> None:
    async with client_of(make_app(bench, auth={"anonymous_roles": ["event_viewer"]})) as http:
        await http.get("/api/v1/things")
        await http.delete(f"/xzepr/api/v1/things/{THING_ID}")
        await http.post("/api/v1/things", json=BODY)
        # The handler refuses: not the owner.
        problem(await http.get("/fail", params={"name": "denied"}), 403, "permission_denied")
        problem(await http.post("/api/v1/things", json=BODY, headers={"Origin": "https://evil.example"}), 403, "foreign_origin")
    async with client_of(make_app(bench), peer="192.0.2.1") as http:
        problem(await http.get("/api/v1/things"), 401, "unauthenticated")
    assert [(told["route"], told["method"]) for told in bench.denials.routes] == [
        ("/api/v1/things/{id}", "DELETE"),
        ("/api/v1/things", "POST"),
        ("/fail", "GET"),
        ("/api/v1/things", "GET"),
    ]


async def test_faults_are_not_told_to_those_who_may_not_ask(bench: Bench) -> None:
    async with client_of(make_app(bench, auth={"anonymous_roles": ["event_viewer"]})) as http:
        problem(await http.post("/api/v1/things?x=1", content=b"{"), 403, "permission_denied")


async def test_forwarded_request_of_nobody_we_trust_is_not_local(http: httpx2.AsyncClient) -> None:
    problem(await http.get("/api/v1/things", headers={"X-Forwarded-For": "127.0.0.1"}), 401, "unauthenticated")


# Request id and headers


@pytest.mark.parametrize("given", ["a", "x" * 128, "!~abc/7=="])
async def test_short_printable_request_id_is_echoed(http: httpx2.AsyncClient, given: str) -> None:
    assert (await http.get("/docs", headers={"X-Request-ID": given})).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "with space", "tab\there", "é"])
async def test_other_request_id_is_replaced_by_one_of_ours(http: httpx2.AsyncClient, given: str) -> None:
    answer = await http.get("/docs", headers=[(b"X-Request-ID", given.encode())])
    assert ids.is_ulid(answer.headers["x-request-id"])


async def test_log_lines_of_a_request_carry_its_id(http: httpx2.AsyncClient) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        await http.get("/nothing", headers={"X-Request-ID": "find-me"})
    [line] = [line for line in logs if line["event"] == "request.answered"]
    assert (line["request_id"], line["status"], line["path"], line["method"]) == ("find-me", 404, "/nothing", "GET")
    assert structlog.contextvars.get_contextvars() == {}


@pytest.mark.parametrize("path", ["/api/v1/things", "/docs", "/nothing", "/static/page.css"])
async def test_every_answer_has_the_security_headers(http: httpx2.AsyncClient, path: str) -> None:
    headers = (await http.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")
    assert "strict-transport-security" not in headers


async def test_strict_transport_security_is_sent_over_tls_alone(bench: Bench) -> None:
    transport = httpx2.ASGITransport(app=make_app(bench))
    async with httpx2.AsyncClient(transport=transport, base_url="https://localhost") as http:
        assert (await http.get("/docs")).headers["strict-transport-security"] == "max-age=63072000"


async def test_policy_of_the_settings_replaces_ours(bench: Bench) -> None:
    async with client_of(make_app(bench, security={"headers": {"csp": "default-src 'self'"}})) as http:
        assert (await http.get("/docs")).headers["content-security-policy"] == "default-src 'self'"


# Host


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8042", "127.0.0.1:1", "[::1]", "[::1]:8042", "app.example.com", "App.Example.com:443"])
async def test_known_host_is_served(bench: Bench, host: str) -> None:
    async with client_of(make_app(bench, server={"allowed_hosts": ["app.example.com"]})) as http:
        assert (await http.get("/docs", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:1", "", ":80", "user@localhost", "localhost:x", "[::1", "10.0.0.1", "localhost,x"],
)
async def test_unknown_host_is_400_for_every_method_and_page(http: httpx2.AsyncClient, host: str) -> None:
    problem(await http.get("/docs", headers={"Host": host}), 400, "unknown_host")
    problem(await http.post("/api/v1/things", json=BODY, headers={"Host": host}), 400, "unknown_host")


async def test_two_hosts_are_none(http: httpx2.AsyncClient) -> None:
    problem(await http.get("/docs", headers=[("Host", "localhost"), ("Host", "localhost")]), 400, "unknown_host")


async def test_any_host_is_served_when_the_settings_say_so(bench: Bench) -> None:
    async with client_of(make_app(bench, server={"allowed_hosts": ["*"]})) as http:
        assert (await http.get("/docs", headers={"Host": "whoever.example"})).status_code == 200


@pytest.mark.parametrize(
    ("host", "local", "status"),
    [
        ("10.1.2.3:8042", ("10.1.2.3", 8042), 200),
        ("[2001:db8::1]", ("2001:db8:0::1", 8042), 200),
        ("10.1.2.4", ("10.1.2.3", 8042), 400),
        ("10.1.2.3", ("/run/xzepr.sock", None), 400),
        ("evil.example", ("evil.example", 8042), 400),
    ],
)
async def test_literal_address_that_the_connection_came_in_on_is_a_known_host(bench: Bench, host: str, local: Any, status: int) -> None:
    statuses: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Message:
        return {"type": "http.request"}

    await make_app(bench)(scope_of("GET", "/docs", [(b"host", host.encode())], server=local), receive, send)
    assert statuses == [status]


# Origin


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Origin": "file://localhost:8042"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_unsafe_method_from_a_foreign_page_is_403(http: httpx2.AsyncClient, bench: Bench, headers: dict[str, str]) -> None:
    problem(await http.post("/api/v1/things", json=BODY, headers=headers), 403, "foreign_origin")
    problem(await http.delete(f"/api/v1/things/{THING_ID}", headers=headers), 403, "foreign_origin")
    assert bench.calls == []


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://localhost:8042"}, {"Origin": "https://LOCALHOST:8042", "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}],
)
async def test_unsafe_method_from_our_own_page_or_a_program_passes(http: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    assert (await http.post("/api/v1/things", json=BODY, headers=headers)).status_code == 201


async def test_foreign_page_may_link_here_but_not_read(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/api/v1/things", headers={"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


APP_ORIGIN = "https://app.example.com"


@pytest.fixture
async def cors(bench: Bench) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(make_app(bench, security={"cors": {"allowed_origins": [APP_ORIGIN + "/"]}})) as client:
        yield client


async def test_allowed_origin_may_post_and_read_also_problems(cors: httpx2.AsyncClient) -> None:
    headers = {"Origin": APP_ORIGIN, "Sec-Fetch-Site": "cross-site"}
    for answer in (await cors.post("/api/v1/things", json=BODY, headers=headers), await cors.post("/api/v1/things", json={}, headers=headers)):
        assert answer.headers["access-control-allow-origin"] == APP_ORIGIN
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert "Location" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"


async def test_preflight_of_an_allowed_origin_names_the_methods_of_the_address(cors: httpx2.AsyncClient) -> None:
    answer = await cors.options("/api/v1/things", headers={"Origin": APP_ORIGIN, "Access-Control-Request-Method": "POST"})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-methods"] == answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert "Content-Type" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-max-age"] == "3600"


async def test_other_origin_is_allowed_nothing(cors: httpx2.AsyncClient) -> None:
    answer = await cors.options("/api/v1/things", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"})
    assert answer.status_code == 204
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    problem(await cors.post("/api/v1/things", json=BODY, headers={"Origin": "https://evil.example"}), 403, "foreign_origin")


async def test_any_origin_is_allowed_by_its_own_name_when_the_settings_say_so(bench: Bench) -> None:
    async with client_of(make_app(bench, security={"cors": {"allowed_origins": ["*"]}})) as http:
        answer = await http.post("/api/v1/things", json=BODY, headers={"Origin": "https://whoever.example"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (201, "https://whoever.example")


async def test_websocket_is_closed_while_no_door_takes_one(bench: Bench) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    await make_app(bench)({**scope_of("GET", "/api/v1/things", []), "type": "websocket"}, receive, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


# Pages


async def test_home_is_a_page_for_a_browser_and_json_for_a_program(http: httpx2.AsyncClient) -> None:
    page = await http.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    data = await http.get("/")
    assert data.json()["service"] == "xzepr"
    assert page.headers["vary"] == data.headers["vary"] == "Accept"
    assert all(f'href="{link["href"]}"' in page.text for link in data.json()["links"])


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/problems"])
async def test_everything_that_a_page_loads_comes_from_here(http: httpx2.AsyncClient, path: str) -> None:
    page = (await http.get(path, headers={"Accept": "text/html"})).text
    for address in re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]+)"', page):
        loaded = await http.get(address)
        assert loaded.status_code == 200, address
        assert loaded.headers["content-type"].startswith(("text/css", "text/javascript", "image/svg+xml"))


async def test_styles_load_nothing_from_elsewhere(http: httpx2.AsyncClient) -> None:
    css = (await http.get("/static/vendor/swagger-ui-dist/swagger-ui.css")).text
    addresses = re.findall(r"url\(\s*[\"']?([^)\"']{0,40})", css)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert "@import" not in css


async def test_api_page_asks_nobody_about_the_document(http: httpx2.AsyncClient) -> None:
    script = (await http.get("/static/docs.js")).text
    assert "validatorUrl: null" in script
    assert re.findall(r"https?:", script) == []


async def test_document_describes_the_table(http: httpx2.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert set(document["paths"]) == {each.path for each in TABLE} | {"/", "/openapi.json", "/docs", "/docs/problems"}


async def test_static_file_is_kept_until_it_changes(http: httpx2.AsyncClient) -> None:
    first = await http.get("/static/page.css")
    again = await http.get("/static/page.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    answer = await http.post("/static/page.css")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


# On a real socket


class _Server(uvicorn.Server):
    """Says when it listens, and on which port."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listens.set()

    @property
    def port(self) -> int:
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """The port of a real server in this process."""
    server = _Server(uvicorn.Config(app, port=0, http="httptools", ws="none", log_config=None, access_log=False, lifespan="on"))
    running = asyncio.create_task(server._serve())
    try:
        await server.listens.wait()
        yield server.port
    finally:
        server.should_exit = True
        await running


async def exchange(port: int, request: bytes) -> bytes:
    """What comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


HEAD = b"POST /api/v1/things HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def test_body_that_does_not_arrive_in_time_is_408_and_the_connection_closes(bench: Bench) -> None:
    async with served(make_app(bench, server={"request_timeout_seconds": 0.1})) as port:
        answer = await exchange(port, HEAD + b'Content-Length: 100\r\n\r\n{"name":')
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nconnection: close" in head.lower()
    assert json.loads(body)["error"] == "request_timeout"
    assert bench.calls == []


async def test_client_that_sends_too_much_still_reads_its_413(bench: Bench) -> None:
    async with served(make_app(bench)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        answer = await http.post("/api/v1/things", content=b"x" * 3_000_000, headers={"Content-Type": "application/json"})
        problem(answer, 413, "body_too_large")
        assert (await http.post("/api/v1/things", json=BODY)).status_code == 201


async def test_client_that_asks_before_it_sends_is_told_413_without_sending(bench: Bench) -> None:
    async with served(make_app(bench)) as port:
        answer = await exchange(port, HEAD + b"Content-Length: 99999999\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_stream_flows_piece_by_piece(bench: Bench) -> None:
    async with (
        served(make_app(bench)) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        http.stream("GET", "/stream") as answer,
    ):
        pieces = answer.aiter_bytes()
        # The second is not made before the first is read: nothing on the way holds it back.
        assert await anext(pieces) == b"first\n"
        bench.go_on.set()
        assert await anext(pieces) == b"second\n"


async def test_answer_that_breaks_in_the_middle_is_never_taken_for_a_whole_one(bench: Bench) -> None:
    async with (
        served(make_app(bench)) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        http.stream("GET", "/stream?name=break") as answer,
    ):
        pieces = answer.aiter_bytes()
        assert await anext(pieces) == b"first\n"
        bench.go_on.set()
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(pieces)


async def test_error_behind_the_first_byte_goes_on_to_the_server_and_begins_no_second_answer(bench: Bench) -> None:
    bench.go_on.set()
    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    async def receive() -> Message:
        return await asyncio.Future()

    with pytest.raises(RuntimeError, match="broken in the middle"):
        await make_app(bench)(scope_of("GET", "/stream", [(b"host", b"localhost")], query_string=b"name=break"), receive, send)
    assert sent == ["http.response.start", "http.response.body"]


async def test_head_of_a_stream_on_a_socket_leaves_the_connection_usable(bench: Bench) -> None:
    async with served(make_app(bench)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.head("/stream")).status_code == 200
        assert (await http.head("/nothing")).status_code == 404
        assert (await http.get("/api/v1/things")).status_code == 200
