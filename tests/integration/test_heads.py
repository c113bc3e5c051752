"""What no door sees: heads that are too large, too slow, or never there; headers behind a body."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest

from support.accounts import make_key
from support.cast import event, make_receiver
from support.own_site import KEEP_ALIVE_S, Site, own_site
from xzepr.web import hot

HEAD_S = 1.0


@pytest.fixture(scope="module")
def site(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Behind a proxy on this machine; callers from 10.9.9.0/24 may do everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hot, "HEAD_S", HEAD_S)
        auth = {"anonymous_roles": ["admin"], "anonymous_networks": ["10.9.9.0/24"]}
        with own_site(module_database_url, tmp_path_factory.mktemp("state"), auth=auth, server={"trusted_proxies": ["127.0.0.1"]}) as running:
            yield running


@contextlib.contextmanager
def connected(site: Site) -> Iterator[socket.socket]:
    parts = urlsplit(site.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as made:
        yield made


def rest(connection: socket.socket) -> bytes:
    """Until the server closes."""
    answered = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            answered += piece
    return answered


def answer(connection: socket.socket) -> bytes:
    """One, with its body."""
    answered = b""
    while b"\r\n\r\n" not in answered:
        piece = connection.recv(65536)
        assert piece, answered
        answered += piece
    head, _, body = answered.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def refused(answered: bytes, status: int, code: str) -> None:
    head, _, body = answered.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status, answered
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    assert json.loads(body)["error"] == code


def head_of(site: Site, *lines: str, method: str = "GET", path: str = "/health/live") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {urlsplit(site.url).netloc}", *lines, "", ""]).encode()


def test_a_head_may_have_a_hundred_lines(site: Site) -> None:
    lines = [f"X-{number}: a" for number in range(hot.HEADERS_MAX)]
    with connected(site) as connection:
        connection.sendall(head_of(site, *lines[:-1]))
        assert answer(connection).split()[1] == b"200"
        connection.sendall(head_of(site, *lines))
        refused(rest(connection), 431, "headers_too_large")


@pytest.mark.parametrize("value", ["a" * 60_000, "a" * 70_000])
@pytest.mark.parametrize("where", ["header", "path"])
@pytest.mark.parametrize("is_slow", [False, True])
def test_a_head_may_have_64_kib(site: Site, value: str, where: str, *, is_slow: bool) -> None:
    head = head_of(site, f"X-Long: {value}") if where == "header" else head_of(site, path=f"/health/live?{value}")
    with connected(site) as connection:
        for place in range(0, len(head), 5_000 if is_slow else len(head)):
            with contextlib.suppress(ConnectionError):
                connection.sendall(head[place : place + (5_000 if is_slow else len(head))])
            if is_slow:
                time.sleep(0.01)
        if len(value) > hot.HEAD_MAX_BYTES:
            refused(rest(connection), 431, "headers_too_large")
        else:
            assert answer(connection).split()[1] in (b"200", b"400")


def test_a_head_without_end_is_refused_before_it_is_whole(site: Site) -> None:
    with connected(site) as connection:
        connection.sendall(head_of(site)[:-2] + b"X-Endless: ")
        with pytest.raises(ConnectionError):
            for _ in range(500):
                connection.sendall(b"a" * 4096)
                time.sleep(0.002)


@pytest.mark.parametrize("flood", [b"X-Trailer: " + b"a" * 4096, b"\r\n" * 2048, b"0;" + b"x" * 4096], ids=["trailer", "lines", "extension"])
def test_bytes_that_move_nothing_on_end_the_connection(site: Site, flood: bytes) -> None:
    with connected(site) as connection:
        if flood[:2] != b"\r\n":
            connection.sendall(
                head_of(site, "Transfer-Encoding: chunked", "Content-Type: application/json", method="POST", path="/api/v1/auth/login")
            )
            connection.sendall(b"0\r\n" if flood.startswith(b"X") else b"")
        with pytest.raises(ConnectionError):
            for number in range(500):
                connection.sendall(flood if number == 0 else flood[-4096:])
                time.sleep(0.002)


def test_many_small_requests_at_once_are_no_large_head(site: Site) -> None:
    with connected(site) as connection:
        connection.sendall(head_of(site, f"X-Some: {'a' * 400}") * 400)
        answered = b""
        while answered.count(b"HTTP/1.1 200") < 400:
            piece = connection.recv(65536)
            assert piece
            answered += piece


def test_a_connection_that_says_nothing_is_closed(site: Site) -> None:
    with connected(site) as connection:
        began_s = time.monotonic()
        assert rest(connection) == b""
        assert HEAD_S - 0.1 < time.monotonic() - began_s < HEAD_S + 1.5


@pytest.mark.parametrize("earlier", [0, 2])
def test_a_head_that_comes_drop_by_drop_has_no_more_time(site: Site, earlier: int) -> None:
    with connected(site) as connection:
        for _ in range(earlier):
            connection.sendall(head_of(site))
            assert answer(connection).split()[1] == b"200"
        began_s = time.monotonic()
        connection.settimeout(0.1)
        answered = b""
        for drop in (head_of(site)[:-2] + b"X-Slow: " + b"a" * 1000)[:400]:
            connection.sendall(bytes([drop]))
            with contextlib.suppress(TimeoutError):
                answered = connection.recv(65536)
                break
        took_s = time.monotonic() - began_s
        connection.settimeout(20)
        refused(answered + rest(connection), 408, "request_timeout")
        assert HEAD_S - 0.3 < took_s < 2 * HEAD_S + 1.5


def test_a_connection_that_was_used_may_rest(site: Site) -> None:
    with connected(site) as connection:
        for _ in range(3):
            connection.sendall(head_of(site))
            assert answer(connection).split()[1] == b"200"
            time.sleep(HEAD_S + 0.5)


def test_the_rest_of_a_body_that_was_answered_holds_no_connection(site: Site) -> None:
    with connected(site) as connection:
        connection.sendall(head_of(site, "Content-Type: application/json", "Content-Length: 100000", method="POST", path="/api/v1/receivers"))
        assert answer(connection).split()[1] == b"401"
        began_s = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - began_s < KEEP_ALIVE_S + 5:
                connection.sendall(b"a")
                time.sleep(0.1)
        assert time.monotonic() - began_s > KEEP_ALIVE_S - 0.5


@pytest.mark.parametrize("trailer", ["X-Forwarded-For: 10.9.9.9", "Content-Type: application/json", "X-API-Key: {key}"])
def test_headers_behind_a_body_are_none(site: Site, trailer: str) -> None:
    key = make_key(site.http, site.admin, "receiver:create")["key"]
    body = json.dumps({"name": "forged", "type": "forged", "version": "1", "schema": {}}).encode()
    lines = ["Transfer-Encoding: chunked", "X-Forwarded-For: 203.0.113.9"]
    if not trailer.startswith("Content-Type"):
        lines.append("Content-Type: application/json")
    else:
        lines.append(f"X-API-Key: {key}")
    with connected(site) as connection:
        head = head_of(site, *lines, method="POST", path="/api/v1/receivers")
        # In one piece, so that all of it is there before anybody asks.
        connection.sendall(head + b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(body), body, trailer.format(key=key).encode()))
        assert answer(connection).split()[1] == (b"415" if trailer.startswith("Content-Type") else b"401")
    with httpx2.Client(base_url=site.url, headers=site.admin) as http:
        assert http.get("/api/v1/receivers", params={"name": "forged"}).json()["data"] == []


def test_a_body_in_chunks_with_a_trailer_is_taken(site: Site) -> None:
    with httpx2.Client(base_url=site.url, headers=site.admin) as http:
        body = json.dumps(event(make_receiver(http))).encode()
    lines = ["Transfer-Encoding: chunked", "Content-Type: application/json", f"Authorization: {site.admin['Authorization']}"]
    with connected(site) as connection:
        head = head_of(site, *lines, method="POST", path="/api/v1/events")
        for _ in range(2):
            connection.sendall(head + b"%x\r\n%b\r\n0\r\nX-Checksum: 1\r\n\r\n" % (len(body), body))
            assert answer(connection).split()[1] == b"201"
