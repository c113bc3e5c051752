"""The short way of POST /api/v1/events answers as the ordinary one does, byte for byte, and gives way wherever it may not be taken."""

import asyncio
import json
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest
import uvicorn

from support.cast import event, make_receiver
from support.installation import Installation, installation
from xzepr.app import build_app, build_hot_route, build_house
from xzepr.auth.permissions import Role
from xzepr.settings import Settings
from xzepr.settings.model import Auth, DatabaseSettings, Server
from xzepr.web.hot import HotProtocol

# A header that the short way does not know: the ordinary one is taken.
ORDINARY = {"X-Something": "else"}


class Raw:
    """A connection by hand."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=20)
        self._unread = b""

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, body: bytes, headers: dict[str, str] | None = None, version: str = "1.1", path: str = "/api/v1/events") -> bytes:
        lines = [f"POST {path} HTTP/{version}", f"Host: {self.host}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self._unread:
            self._more()
        head, _, rest = self._unread.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        self._unread = rest
        length = int(headers["content-length"])
        while len(self._unread) < length:
            self._more()
        body, self._unread = self._unread[:length], self._unread[length:]
        return int(status.split()[1]), headers, body

    def _more(self) -> None:
        piece = self.socket.recv(65536)
        assert piece, "the connection was closed"
        self._unread += piece


@pytest.fixture
def receiver(http: httpx2.Client) -> str:
    made = make_receiver(http, schema={"type": "object", "properties": {"n": {"type": "integer"}}})
    for _ in range(8):
        # Each worker keeps it from now on.
        http.post("/api/v1/events", json=event(made), headers={**ORDINARY, "Connection": "close"})
    return made


def shape(answer: httpx2.Response) -> tuple[int, dict[str, str]]:
    """Without what differs from answer to answer."""
    return answer.status_code, {name: value for name, value in sorted(answer.headers.items()) if name not in ("date", "location", "x-request-id")}


def test_answers_have_the_same_headers(http: httpx2.Client, receiver: str) -> None:
    body = event(receiver, payload={"n": 1})
    hot = http.post("/api/v1/events", json=body, headers={"X-Request-ID": "mine"})
    ordinary = http.post("/api/v1/events", json=body, headers={"X-Request-ID": "mine", **ORDINARY})
    assert shape(hot) == shape(ordinary)
    for answer in (hot, ordinary):
        assert answer.headers["x-request-id"] == "mine"
        assert answer.headers["location"] == f"/api/v1/events/{answer.json()['data']}"
        stored = http.get(answer.headers["location"]).json()
        assert stored["payload"] == {"n": 1}
        assert stored["event_receiver_id"] == receiver


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"name":"\xff"}', 400),
        (b'{"a":1,"a":2}', 400),
        (b"[]", 400),
    ],
)
def test_faults_are_told_by_the_ordinary_door(http: httpx2.Client, content: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json", "X-Request-ID": "same"}
    hot = http.post("/api/v1/events", content=content, headers=headers)
    ordinary = http.post("/api/v1/events", content=content, headers={**headers, **ORDINARY})
    assert (hot.status_code, hot.json(), shape(hot)) == (status, ordinary.json(), shape(ordinary))


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": {"n": "x"}},
        {"name": ""},
        {"name": " "},
        {"name": "n" * 256},
        {"extra": 1},
        {"success": "yes"},
        {"event_receiver_id": "nonsense"},
        {"event_receiver_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV"},
        {"payload": {"n": 1.5}},
    ],
)
def test_refusals_are_those_of_the_ordinary_door(http: httpx2.Client, receiver: str, changes: dict[str, Any]) -> None:
    body = {**event(receiver), **changes}
    hot = http.post("/api/v1/events", json=body, headers={"X-Request-ID": "same"})
    ordinary = http.post("/api/v1/events", json=body, headers={"X-Request-ID": "same", **ORDINARY})
    assert hot.status_code in (400, 422)
    assert (hot.json(), shape(hot)) == (ordinary.json(), shape(ordinary))


def test_host_and_origin_rules_hold(shared_installation: Installation, receiver: str) -> None:
    body = json.dumps(event(receiver)).encode()
    with Raw(shared_installation.url) as raw:
        raw.socket.sendall(raw.request(body))
        assert raw.answer()[0] == 201
        known = raw.host
        raw.host = "evil.example"
        raw.socket.sendall(raw.request(body))
        status, _, problem = raw.answer()
        assert (status, json.loads(problem)["error"]) == (400, "unknown_host")
        raw.host = known
        raw.socket.sendall(raw.request(body, {"Origin": "https://evil.example"}))
        assert raw.answer()[0] == 403
        raw.socket.sendall(raw.request(body, {"X-Forwarded-For": "10.0.0.1"}))
        assert raw.answer()[0] == 401


def test_pipelined_requests_are_answered_in_order(shared_installation: Installation, receiver: str) -> None:
    with Raw(shared_installation.url) as raw:
        bodies = [json.dumps(event(receiver, name=f"pipelined-{number}")).encode() for number in range(20)]
        bad = b"{"
        raw.socket.sendall(b"".join(raw.request(body, {"X-Request-ID": f"r{place}"}) for place, body in enumerate([*bodies[:10], bad, *bodies[10:]])))
        answers = [raw.answer() for _ in range(21)]
        assert [answer[1]["x-request-id"] for answer in answers] == [f"r{place}" for place in range(21)]
        assert [answer[0] for answer in answers] == [201] * 10 + [400] + [201] * 10
        raw.socket.sendall(raw.request(bodies[0]))
        assert raw.answer()[0] == 201, "the connection goes on"


def test_a_request_in_pieces_is_one_request(shared_installation: Installation, receiver: str) -> None:
    with Raw(shared_installation.url) as raw:
        request = raw.request(json.dumps(event(receiver)).encode())
        for cut in (5, 40, len(request) - 30, len(request) - 1):
            raw.socket.sendall(request[:cut])
            time.sleep(0.05)
            raw.socket.sendall(request[cut:])
            assert raw.answer()[0] == 201


def test_old_and_closing_connections_are_closed(shared_installation: Installation, receiver: str) -> None:
    body = json.dumps(event(receiver)).encode()
    for headers, version in (({"Connection": "close"}, "1.1"), ({}, "1.0")):
        with Raw(shared_installation.url) as raw:
            raw.socket.sendall(raw.request(body, headers, version))
            status, given, _ = raw.answer()
            assert (status, given["connection"]) == (201, "close")
            assert raw.socket.recv(1) == b""


def test_repeated_and_contradicting_headers_take_the_ordinary_way(shared_installation: Installation, receiver: str) -> None:
    body = json.dumps(event(receiver)).encode()
    with Raw(shared_installation.url) as raw:
        raw.socket.sendall(raw.request(body, {"content-type": "text/plain"}))
        assert raw.answer()[0] in (201, 415)
        raw.socket.sendall(raw.request(body, {"Host ": "x"}))
        # The parser refuses it, or the rule of hosts does.
        assert raw.socket.recv(65536).split()[1] == b"400"


def test_a_receiver_that_changes_is_met_in_its_new_form(http: httpx2.Client, receiver: str) -> None:
    assert http.post("/api/v1/events", json=event(receiver, payload={"n": 1})).status_code == 201
    assert http.put(f"/api/v1/receivers/{receiver}", json={"schema": {"required": ["m"]}}).status_code == 204
    for _ in range(6):
        assert http.post("/api/v1/events", json=event(receiver, payload={"n": 1})).status_code == 422
    assert http.post("/api/v1/events", json=event(receiver, payload={"m": 1})).status_code == 201


def test_without_permission_nothing_is_taken(database_url: str) -> None:
    environ = {"XZEPR__DATABASE__URL": database_url, "XZEPR__SERVER__WORKERS": "1", "XZEPR__AUTH__ANONYMOUS_ROLES": "event_viewer"}
    with installation(**environ) as running, httpx2.Client(base_url=running.url, timeout=30) as http:
        answer = http.post("/api/v1/events", json=event("01ARZ3NDEKTSV4RRFFQ69G5FAV"))
        assert (answer.status_code, answer.json()["error"]) == (403, "permission_denied")


async def test_an_event_whose_client_leaves_is_stored(shared_installation: Installation, receiver: str, http: httpx2.Client) -> None:
    for number in range(20):
        with Raw(shared_installation.url) as raw:
            raw.socket.sendall(raw.request(json.dumps(event(receiver, name=f"leaving-{receiver}-{number}")).encode()))
    deadline = time.monotonic() + 10
    url = shared_installation.environ["XZEPR__DATABASE__URL"]
    connection = await asyncpg.connect(url)
    while await connection.fetchval("select count(*) from events where name like $1", f"leaving-{receiver}-%") < 20:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    await connection.close()
    assert http.post("/api/v1/events", json=event(receiver)).status_code == 201


async def test_idle_connections_are_closed_and_busy_ones_are_not(database_url: str, tmp_path: Path) -> None:
    settings = Settings(server=Server(state_dir=str(tmp_path)), database=DatabaseSettings(url=database_url), auth=Auth(anonymous_roles=[Role.ADMIN]))
    house = build_house(settings, connections_min=1, connections_max=2)
    app = build_app(house)
    protocol = partial(HotProtocol, hot=build_hot_route(house, app))
    config = uvicorn.Config(app, port=0, http=protocol, ws="none", log_config=None, timeout_keep_alive=1)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    def use() -> tuple[list[int], float]:
        with httpx2.Client(base_url=url) as client:
            receiver = make_receiver(client)
            body = json.dumps(event(receiver)).encode()
            with Raw(url) as raw:
                statuses = []
                for _ in range(6):
                    raw.socket.sendall(raw.request(body))
                    statuses.append(raw.answer()[0])
                    time.sleep(0.4)
                began_s = time.monotonic()
                assert raw.socket.recv(1) == b""
                return statuses, time.monotonic() - began_s

    statuses, idle_s = await asyncio.to_thread(use)
    assert statuses == [201] * 6
    assert 0.2 < idle_s < 2.5
    server.should_exit = True
    await serving
