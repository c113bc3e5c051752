"""Credentials that ended stay ended: however long nobody used them, on connections that are kept, in streams, and under a body that is held back."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest
from xzepr_client import Client, ClientError, ProblemError

from support.accounts import Person, bearer, log_in, make_key
from support.cast import created, event, make_receiver
from support.own_site import Site, own_site
from xzepr import clock
from xzepr.auth import browser

# Longer than an access token lives, and what ended is remembered.
FORGOTTEN_S = 1200
# Changes reach every process within a second.
HEARD_S = 1.0


@pytest.fixture(scope="module")
def site(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with own_site(module_database_url, tmp_path_factory.mktemp("state")) as running:
        yield running


class Session:
    """Of a browser in which the administrator is logged in. headers: what the browser sends by itself."""

    def __init__(self, site: Site, database_url: str) -> None:
        self._url = database_url
        admin_id = site.http.get("/api/v1/auth/me", headers=site.admin).json()["id"]
        self.token, self.family_id = asyncio.run(self._begin(admin_id))
        self.headers = {"Cookie": f"{browser.SESSION_COOKIE}={self.token}"}

    async def _begin(self, user_id: str) -> tuple[str, str]:
        connection = await asyncpg.connect(self._url)
        try:
            return await browser.begin_session(connection, user_id, None, clock.now(), timedelta(days=7))
        finally:
            await connection.close()

    async def end(self) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            async with connection.transaction():
                assert await browser.end_session(connection, browser.digest(self.token), clock.now()) is not None
        finally:
            await connection.close()


def wait_until(is_so: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def forget(site: Site, family_id: str | None, key_id: str | None) -> None:
    """Until the process has heard of the end, and long after."""
    wait_until(lambda: site.house.changes.ends(None, 0, family_id, key_id))
    site.pass_time(FORGOTTEN_S)
    wait_until(lambda: not site.house.changes.ends(None, 0, family_id, key_id))


def refused(answer: httpx2.Response) -> bool:
    return (answer.status_code, answer.json()["error"]) == (401, "invalid_token")


def test_a_revoked_key_that_nobody_used_for_long_does_not_count_again(site: Site) -> None:
    person = Person(site.http, site.admin, "event_manager")
    with httpx2.Client(base_url=site.url, headers=person.headers) as http:
        receiver = make_receiver(http)
    made = make_key(site.http, person.headers, "event:read", "event:create")
    key = {"X-API-Key": made["key"]}
    with httpx2.Client(base_url=site.url, headers=key) as reader, httpx2.Client(base_url=site.url, headers=key) as poster:
        assert reader.get("/api/v1/events?limit=1").status_code == 200
        for _ in range(2):
            # The second one by the short way, which keeps what it knows with the connection.
            assert poster.post("/api/v1/events", json=event(receiver)).status_code == 201
        assert site.http.delete(f"/api/v1/api-keys/{made['id']}", headers=person.headers).status_code == 204
        forget(site, None, made["id"])
        assert refused(poster.post("/api/v1/events", json=event(receiver)))
        assert refused(reader.get("/api/v1/events?limit=1"))


def test_a_session_that_ended_does_not_count_again(site: Site, module_database_url: str) -> None:
    session = Session(site, module_database_url)
    with httpx2.Client(base_url=site.url, headers=session.headers) as http:
        assert http.get("/api/v1/auth/me").json()["how"] == "browser"
        asyncio.run(session.end())
        forget(site, session.family_id, None)
        assert refused(http.get("/api/v1/auth/me"))


def test_what_did_not_end_goes_on_counting(site: Site) -> None:
    key = {"X-API-Key": make_key(site.http, bearer(log_in(site.http)), "event:read")["key"]}
    for _ in range(3):
        assert site.http.get("/api/v1/events?limit=1", headers=key).status_code == 200
        site.pass_time(FORGOTTEN_S)


def test_the_token_of_a_session_is_no_bearer_token(site: Site, module_database_url: str) -> None:
    session = Session(site, module_database_url)
    receiver = {"name": "forged", "type": "forged", "version": "1", "schema": {}}
    assert site.http.get("/api/v1/auth/me", headers=session.headers).status_code == 200
    for headers in ({"Authorization": f"Bearer {session.token}"}, {"X-API-Key": session.token}):
        assert refused(site.http.post("/api/v1/receivers", json=receiver, headers=headers))
    assert site.http.post("/api/v1/receivers", json=receiver, headers=session.headers).status_code == 403
    csrf = {"X-CSRF-Token": browser.csrf_token_of(session.token)}
    created(site.http.post("/api/v1/receivers", json=receiver, headers={**session.headers, **csrf}))


# Streams.


class Reader:
    """A stream in a thread of its own. ended_at_s: when the answer was over; error: if it did not end by itself."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.ended_at_s: float | None = None
        self.error: Exception | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(url, headers), daemon=True)
        self._thread.start()
        assert self._begun.wait(10), self.error

    def _read(self, url: str, headers: dict[str, str]) -> None:
        try:
            with httpx2.stream("GET", f"{url}/api/v1/stream", headers=headers, timeout=20) as answer:
                assert answer.status_code == 200, answer.read()
                for _ in answer.iter_raw():
                    self._begun.set()
        except (httpx2.HTTPError, AssertionError) as error:
            self.error = error
        self.ended_at_s = time.monotonic()

    def is_over(self) -> bool:
        return self.ended_at_s is not None

    def ended_after_s(self, since_s: float) -> float:
        self._thread.join(20)
        assert self.error is None
        assert self.ended_at_s is not None
        return self.ended_at_s - since_s


@pytest.mark.parametrize("what", ["revoke", "disable", "roles", "logout", "password"])
def test_a_stream_ends_with_its_credential(site: Site, what: str) -> None:
    person, other = Person(site.http, site.admin, "event_viewer", "event_manager"), Person(site.http, site.admin, "event_viewer")
    made = make_key(site.http, person.headers, "stream:read")
    by_key, by_token, beside = (
        Reader(site.url, {"X-API-Key": made["key"]}),
        Reader(site.url, person.headers),
        Reader(site.url, other.headers),
    )
    user = f"/api/v1/admin/users/{person.id}"
    acts: dict[str, tuple[Callable[[], httpx2.Response], list[Reader], list[Reader]]] = {
        "revoke": (lambda: site.http.delete(f"/api/v1/api-keys/{made['id']}", headers=person.headers), [by_key], [by_token]),
        "disable": (lambda: site.http.patch(user, json={"enabled": False}, headers=site.admin), [by_key, by_token], []),
        # A key goes on being known, and may no longer read.
        "roles": (lambda: site.http.put(f"{user}/roles", json={"roles": ["user"]}, headers=site.admin), [by_key, by_token], []),
        "logout": (lambda: site.http.post("/api/v1/auth/logout", headers=person.headers), [by_token], [by_key]),
        "password": (lambda: site.http.patch(user, json={"password": "quite another one"}, headers=site.admin), [by_token], [by_key]),
    }
    act, over, going_on = acts[what]
    time.sleep(1.2)
    assert not any(reader.is_over() for reader in (by_key, by_token, beside))
    assert act().is_success
    ended_s = time.monotonic()
    for reader in over:
        assert reader.ended_after_s(ended_s) < HEARD_S + 0.5
    time.sleep(0.6)
    assert not any(reader.is_over() for reader in (*going_on, beside))
    for one in (other.id, person.id):
        site.http.patch(f"/api/v1/admin/users/{one}", json={"enabled": False}, headers=site.admin)
    wait_until(lambda: all(reader.is_over() for reader in (*going_on, beside)))


def test_a_stream_asks_the_database_nothing_as_long_as_nothing_ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key(site.http, bearer(log_in(site.http)), "stream:read")
    reader = Reader(site.url, {"X-API-Key": key["key"]})
    asked: list[object] = []
    authenticator = site.house.authenticator
    monkeypatch.setattr(authenticator, "_verify", asked.append)
    before = site.house.tail.read
    read: list[int] = []
    monkeypatch.setattr(type(site.house.tail), "read", lambda _, after: read.append(after) or before(after))
    time.sleep(2)
    assert (asked, read) == ([], [])
    monkeypatch.undo()
    site.http.delete(f"/api/v1/api-keys/{key['id']}", headers=bearer(log_in(site.http)))
    assert reader.ended_after_s(time.monotonic()) < HEARD_S + 0.5


@pytest.fixture
def short_site(module_database_url: str, tmp_path: Path) -> Iterator[Site]:
    """Access tokens live for two seconds."""
    with own_site(module_database_url, tmp_path, jwt={"access_token_expiration": 2, "leeway_seconds": 0}) as running:
        yield running


@pytest.mark.timeout(60)
def test_a_stream_ends_when_its_token_expires(short_site: Site) -> None:
    begun_s = time.monotonic()
    token = bearer(log_in(short_site.http))
    assert 0.9 < Reader(short_site.url, token).ended_after_s(begun_s) < 2 + HEARD_S
    assert refused(short_site.http.get("/api/v1/stream", headers=token))


@pytest.mark.timeout(60)
def test_a_client_follows_on_with_a_new_token_and_stops_when_its_login_is_over(short_site: Site) -> None:
    admin = bearer(log_in(short_site.http))
    person = Person(short_site.http, admin, "event_viewer")
    told: list[ClientError] = []
    with Client(short_site.url) as client:
        client.login(person.username, person.password)

        def interrupted(error: ClientError, _: float) -> None:
            told.append(error)
            if len(told) == 3:
                admin = bearer(log_in(short_site.http))
                body: dict[str, Any] = {"enabled": False}
                assert short_site.http.patch(f"/api/v1/admin/users/{person.id}", json=body, headers=admin).status_code == 200

        with pytest.raises(ProblemError) as caught:
            next(client.follow(on_interruption=interrupted))
    assert (caught.value.status, caught.value.code) == (401, "invalid_token")
    assert [str(error) for error in told[:3]] == [f"no answer from {short_site.url}: the stream ended"] * 3


# Bodies that are held back.


@pytest.mark.parametrize("more", ["", "X-Something: else\r\n"], ids=["short", "ordinary"])
def test_a_body_that_comes_after_the_end_of_its_credential_is_not_taken(site: Site, more: str) -> None:
    person = Person(site.http, site.admin, "event_manager")
    with httpx2.Client(base_url=site.url, headers=person.headers) as http:
        receiver = make_receiver(http)
        made = make_key(http, {}, "event:create")
        post = httpx2.Client(base_url=site.url, headers={"X-API-Key": made["key"]})
        assert post.post("/api/v1/events", json=event(receiver, name="before")).status_code == 201
        body = json.dumps(event(receiver, name="held back")).encode()
        parts = urlsplit(site.url)
        head = f"POST /api/v1/events HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}"
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as held:
            held.sendall(f"{head}X-API-Key: {made['key']}\r\n\r\n".encode() + body[:20])
            time.sleep(0.2)
            assert http.delete(f"/api/v1/api-keys/{made['id']}").status_code == 204
            time.sleep(HEARD_S)
            held.sendall(body[20:])
            assert held.recv(65536).split()[1] == b"401"
        stored = http.get("/api/v1/events", params={"event_receiver_id": receiver}).json()["data"]
        assert [one["name"] for one in stored] == ["before"]
        post.close()
