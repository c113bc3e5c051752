"""Users, logins, tokens and keys over HTTP, on two web workers that share nothing but the database."""

import asyncio
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import asyncpg
import httpx2
import pytest

from conftest import fresh_database
from support.accounts import ADMIN, PASSWORD, SETTINGS, Person, bearer, log_in, make_key
from support.cast import created, event, make_receiver
from support.installation import Installation, installation

# Changes reach every process within a second.
HEARD_S = 1.0


class Town:
    """One installation, its database, and its administrator's header."""

    def __init__(self, running: Installation, url: str, http: httpx2.Client) -> None:
        self.running = running
        self.url = url
        self.http = http
        self.admin = bearer(log_in(http))

    def sql(self, statement: str, *arguments: Any) -> Any:
        async def run() -> Any:
            connection = await asyncpg.connect(self.url)
            try:
                return await connection.fetch(statement, *arguments)
            finally:
                await connection.close()

        return asyncio.run(run())

    def audit(self, act: str, object_id: str) -> list[Any]:
        return list(self.sql("select * from audit_log where act = $1 and object_id = $2 order by id", act, object_id))

    def status(self, headers: dict[str, str], path: str = "/api/v1/auth/me") -> int:
        """Of a new connection, so of whichever process takes it."""
        return httpx2.get(f"{self.running.url}{path}", headers=headers).status_code

    def dies(self, headers: dict[str, str]) -> None:
        """In every process, within the second."""
        deadline = time.monotonic() + HEARD_S
        while time.monotonic() < deadline:
            time.sleep(0.05)
        assert {self.status(headers) for _ in range(12)} == {401}


@pytest.fixture(scope="module")
def town(first_server: str) -> Iterator[Town]:
    made = fresh_database(first_server)
    url = asyncio.run(made.__aenter__())
    try:
        with (
            installation(XZEPR__DATABASE__URL=url, XZEPR__SERVER__WORKERS="2", XZEPR__SERVER__TRUSTED_PROXIES="127.0.0.1", **SETTINGS) as running,
            httpx2.Client(base_url=running.url, timeout=30) as http,
        ):
            yield Town(running, url, http)
    finally:
        asyncio.run(made.__aexit__())


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["error"]) == (status, code), answer.text
    return dict(answer.json())


def test_nobody_is_told_what_to_do(town: Town) -> None:
    answer = town.http.get("/api/v1/events")
    assert "log in" in problem(answer, 401, "unauthenticated")["detail"]
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert town.http.get("/health").status_code == 200


def test_a_login_gives_what_the_contract_says(town: Town) -> None:
    pair = log_in(town.http, ADMIN.upper())
    assert list(pair) == ["access_token", "refresh_token", "token_type", "expires_in", "token", "expires_at", "user"]
    assert (pair["token"], pair["token_type"], pair["expires_in"]) == (pair["access_token"], "Bearer", 900)
    assert pair["user"] == {"id": pair["user"]["id"], "username": ADMIN, "email": None, "roles": ["admin"]}
    ends_at = datetime.fromisoformat(pair["expires_at"])
    assert timedelta(seconds=890) < ends_at - datetime.now(UTC) <= timedelta(seconds=900)
    me = town.http.get("/api/v1/auth/me", headers=bearer(pair)).json()
    assert (me["id"], me["how"], me["roles"]) == (pair["user"]["id"], "password", ["admin"])
    assert "user:manage" in me["permissions"]


def test_every_failed_login_looks_the_same(town: Town) -> None:
    gone = Person(town.http, town.admin)
    assert town.http.patch(f"/api/v1/admin/users/{gone.id}", json={"enabled": False}, headers=town.admin).status_code == 200
    tried = [(ADMIN, "wrong"), ("nobody-of-this-name", "wrong"), (gone.username, gone.password), (ADMIN, PASSWORD + "\x00"), (ADMIN, "x" * 4000)]
    answers = []
    for number, (username, password) in enumerate(tried):
        answer = town.http.post(
            "/api/v1/auth/login", json={"username": username, "password": password}, headers={"X-Forwarded-For": f"198.51.100.{number}"}
        )
        if password.endswith("\x00"):
            # No body may hold NUL, whatever it is for.
            assert problem(answer, 400, "malformed_body")
            continue
        told = problem(answer, 401, "invalid_credentials")
        answers.append({name: value for name, value in told.items() if name != "request_id"})
    assert all(answer == answers[0] for answer in answers)


def test_guesses_wait_longer_and_longer_and_lock_nobody_out(town: Town) -> None:
    person = Person(town.http, town.admin)

    def guess(address: str, password: str = "wrong") -> httpx2.Response:
        body = {"username": person.username, "password": password}
        return town.http.post("/api/v1/auth/login", json=body, headers={"X-Forwarded-For": address})

    statuses = [guess("203.0.113.7").status_code for _ in range(8)]
    assert statuses[:5] == [401] * 5
    assert statuses[-1] == 429
    told = guess("203.0.113.7", person.password)
    assert problem(told, 429, "too_many_attempts")
    assert 1 <= int(told.headers["retry-after"]) <= 60
    # From where nobody guessed the right password is right at once; and a name that does not exist is slowed down just the same.
    assert guess("203.0.113.8", person.password).status_code == 200
    unknown = {"username": "nobody-of-this-name-either", "password": "wrong"}
    headers = {"X-Forwarded-For": "203.0.113.9"}
    assert [town.http.post("/api/v1/auth/login", json=unknown, headers=headers).status_code for _ in range(8)] == statuses
    time.sleep(int(told.headers["retry-after"]) + 0.2)
    assert guess("203.0.113.7", person.password).status_code == 200


def test_of_many_guesses_at_once_no_more_are_looked_at_than_one_after_the_other(town: Town) -> None:
    person = Person(town.http, town.admin)

    def guess(address: str, password: str) -> int:
        body = {"username": person.username, "password": password}
        return httpx2.post(f"{town.running.url}/api/v1/auth/login", json=body, headers={"X-Forwarded-For": address}, timeout=30).status_code

    with ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(lambda number: guess("203.0.113.20", f"wrong {number}"), range(40)))
    # Whoever came when the first second of waiting was over may have been the sixth.
    assert statuses.count(401) in (5, 6)
    assert set(statuses) == {401, 429}
    # An attempt that was right counts no more when it is over, however many there were.
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: guess("203.0.113.21", person.password), range(20))) == [200] * 20
    assert [guess("203.0.113.21", "wrong") for _ in range(6)][:5] == [401] * 5
    # A login from the same address neither clears what was counted for all of its accounts nor makes the wait longer.
    address = town.sql("select failures, last_at from login_guesses where failures = 5 order by last_at desc limit 1")[0]
    other = Person(town.http, town.admin)
    answer = town.http.post(
        "/api/v1/auth/login", json={"username": other.username, "password": other.password}, headers={"X-Forwarded-For": "203.0.113.21"}
    )
    assert answer.status_code == 200
    assert town.sql("select count(*) as n from login_guesses where failures = 5 and last_at = $1", address["last_at"])[0]["n"] == 2


def test_one_who_exists_and_one_who_does_not_take_as_long(town: Town) -> None:
    person = Person(town.http, town.admin)
    took: dict[str, list[float]] = {person.username: [], "nobody-at-all-of-this-name": []}
    for number in range(60):
        for username in took if number % 2 else reversed(took):
            headers = {"X-Forwarded-For": f"2001:db8:{number}:{len(username)}::1"}
            begun = time.perf_counter()
            answer = town.http.post("/api/v1/auth/login", json={"username": username, "password": "wrong"}, headers=headers)
            took[username].append(time.perf_counter() - begun)
            assert answer.status_code == 401
    there, not_there = took.values()
    # Of two equal distributions this share is a half, give or take 0.053 (Mann-Whitney, 60 and 60); four times that never happens by chance.
    greater = sum((a > b) + 0.5 * (a == b) for a in there for b in not_there) / (len(there) * len(not_there))
    assert 0.5 - 4 * 0.053 < greater < 0.5 + 4 * 0.053, (greater, statistics.median(there), statistics.median(not_there))


def test_a_refresh_token_is_good_for_one_use(town: Town) -> None:
    person = Person(town.http, town.admin, "user")
    first = person.pair["refresh_token"]

    def refresh(token: str) -> httpx2.Response:
        return town.http.post("/api/v1/auth/refresh", json={"refresh_token": token})

    second = refresh(first)
    assert second.status_code == 200
    assert town.status(bearer(second.json())) == 200
    # A race or a retry: nothing ends.
    problem(refresh(first), 409, "refresh_superseded")
    third = refresh(second.json()["refresh_token"])
    assert third.status_code == 200
    # Its successor was used: two hold it. The whole family ends, and so do its access tokens.
    told = problem(refresh(first), 401, "invalid_token")
    assert "ended" in told["detail"]
    problem(refresh(third.json()["refresh_token"]), 401, "invalid_token")
    town.dies(bearer(third.json()))
    family = town.sql("select id from login_families where user_id = $1", person.id)[0]["id"]
    [row] = town.audit("auth.refresh_reuse", family)
    assert (row["outcome"], row["actor_id"], row["address"]) == ("failure", person.id, None)


def test_a_refresh_token_used_again_later_ends_its_family_also_when_nobody_went_on(town: Town) -> None:
    person = Person(town.http, town.admin, "user")
    body = {"refresh_token": person.pair["refresh_token"]}
    successor = town.http.post("/api/v1/auth/refresh", json=body).json()["refresh_token"]
    town.sql(
        "update refresh_tokens set used_at = used_at - interval '11 s' where family_id in (select id from login_families where user_id = $1)",
        person.id,
    )
    problem(town.http.post("/api/v1/auth/refresh", json=body), 401, "invalid_token")
    problem(town.http.post("/api/v1/auth/refresh", json={"refresh_token": successor}), 401, "invalid_token")


def test_of_many_who_refresh_at_once_one_wins(town: Town) -> None:
    for _ in range(5):
        person = Person(town.http, town.admin, "user")
        body = {"refresh_token": person.pair["refresh_token"]}

        def refresh(_: int, body: dict[str, str] = body) -> httpx2.Response:
            return httpx2.post(f"{town.running.url}/api/v1/auth/refresh", json=body, timeout=30)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(refresh, range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
        [won] = [answer.json() for answer in answers if answer.status_code == 200]
        assert town.status(bearer(won)) == 200
        assert town.http.post("/api/v1/auth/refresh", json={"refresh_token": won["refresh_token"]}).status_code == 200


@pytest.mark.parametrize("token", ["", "x", "x" * 5000, "ä"])
def test_a_refresh_token_of_nobody_is_refused(town: Town, token: str) -> None:
    answer = town.http.post("/api/v1/auth/refresh", json={"refresh_token": token})
    assert answer.status_code == (401 if token in ("x", "ä") else 400)


def test_an_expired_refresh_token_is_refused(town: Town) -> None:
    person = Person(town.http, town.admin, "user")
    town.sql("update refresh_tokens t set expires_at = now() from login_families f where f.id = t.family_id and f.user_id = $1", person.id)
    problem(town.http.post("/api/v1/auth/refresh", json={"refresh_token": person.pair["refresh_token"]}), 401, "invalid_token")


def test_a_login_that_began_at_a_provider_is_not_prolonged(town: Town) -> None:
    family_of = "select id, expires_at from login_families where user_id = $1"
    mine, theirs = Person(town.http, town.admin, "user"), Person(town.http, town.admin, "user")
    town.sql("update login_families set expires_at = expires_at - interval '1 day' where user_id = any($1)", [mine.id, theirs.id])
    town.sql("update login_families set method = 'oidc' where user_id = $1", theirs.id)
    before = {person: town.sql(family_of, person.id)[0] for person in (mine, theirs)}
    tokens = {}
    for person in (mine, theirs):
        answer = town.http.post("/api/v1/auth/refresh", json={"refresh_token": person.pair["refresh_token"]})
        assert answer.status_code == 200
        tokens[person] = answer.json()["refresh_token"]
    assert town.sql(family_of, mine.id)[0]["expires_at"] > before[mine]["expires_at"]
    assert town.sql(family_of, theirs.id)[0]["expires_at"] == before[theirs]["expires_at"]
    newest = town.sql("select max(expires_at) as at from refresh_tokens where family_id = $1", before[theirs]["id"])[0]["at"]
    assert newest >= before[theirs]["expires_at"]
    town.sql("update login_families set expires_at = now() where user_id = $1", theirs.id)
    problem(town.http.post("/api/v1/auth/refresh", json={"refresh_token": tokens[theirs]}), 401, "invalid_token")


def test_logout_ends_this_login_and_no_other(town: Town) -> None:
    person = Person(town.http, town.admin, "user")
    other = bearer(log_in(town.http, person.username, person.password))
    assert town.http.post("/api/v1/auth/logout", headers=person.headers).status_code == 204
    town.dies(person.headers)
    problem(town.http.post("/api/v1/auth/refresh", json={"refresh_token": person.pair["refresh_token"]}), 401, "invalid_token")
    assert town.status(other) == 200
    assert len(town.audit("auth.logout", person.id)) == 1


@pytest.mark.parametrize("what", ["disabled", "password", "roles", "deleted"])
def test_what_changes_a_user_ends_its_tokens(town: Town, what: str) -> None:
    person = Person(town.http, town.admin, "event_viewer")
    key = {"X-API-Key": make_key(town.http, person.headers, "event:read")["key"]}
    assert (town.status(person.headers), town.status(key)) == (200, 200)
    user = f"/api/v1/admin/users/{person.id}"
    if what == "disabled":
        answer = town.http.patch(user, json={"enabled": False}, headers=town.admin)
    elif what == "password":
        answer = town.http.patch(user, json={"password": "quite another one"}, headers=town.admin)
    elif what == "roles":
        answer = town.http.put(f"{user}/roles", json={"roles": ["user"]}, headers=town.admin)
    else:
        answer = town.http.delete(user, headers=town.admin)
    assert answer.status_code in (200, 204), answer.text
    town.dies(person.headers)
    refreshed = town.http.post("/api/v1/auth/refresh", json={"refresh_token": person.pair["refresh_token"]})
    # Other roles are no reason to log in again: the next token has them.
    assert refreshed.status_code == (200 if what == "roles" else 401)
    if what == "roles":
        assert refreshed.json()["user"]["roles"] == ["user"]
        assert town.http.get("/api/v1/auth/me", headers=key).json()["permissions"] == ["event:read"]
    assert town.status(key) == (200 if what in ("password", "roles") else 401)


def test_users_are_managed(town: Town) -> None:
    person = Person(town.http, town.admin, "event_viewer", "user", "user")
    shown = town.http.get(f"/api/v1/admin/users/{person.id}", headers=town.admin).json()
    assert list(shown) == ["id", "username", "email", "issuer", "roles", "enabled", "created_at", "updated_at", "last_login_at"]
    assert (shown["roles"], shown["enabled"]) == (["event_viewer", "user"], True)
    listed = town.http.get("/api/v1/admin/users", params={"username": person.username.upper()}, headers=town.admin).json()
    assert [user["id"] for user in listed["data"]] == [person.id]
    taken = {"username": person.username.upper(), "password": "long enough for anybody"}
    problem(town.http.post("/api/v1/admin/users", json=taken, headers=town.admin), 409, "conflict")
    changed = town.http.patch(f"/api/v1/admin/users/{person.id}", json={"email": "a@example.com"}, headers=town.admin)
    assert changed.json()["email"] == "a@example.com"
    assert town.status(person.headers) == 200
    problem(town.http.get("/api/v1/admin/users", headers=person.headers), 403, "permission_denied")
    assert town.http.delete(f"/api/v1/admin/users/{person.id}", headers=town.admin).status_code == 204
    problem(town.http.get(f"/api/v1/admin/users/{person.id}", headers=town.admin), 404, "not_found")
    # Its name is free again.
    created(town.http.post("/api/v1/admin/users", json=taken, headers=town.admin))


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ("short", "at least 8"),
        ("password1", "guessed first"),
        ("aaaaaaaaaaaa", "guessed first"),
        ("abcdefghijk", "guessed first"),
        ("some-name-1", "more than a name"),
        ("x" * 1025, "at most"),
        ("Qwertyuiop", "guessed first"),
    ],
)
def test_a_password_that_would_be_guessed_is_refused(town: Town, password: str, says: str) -> None:
    answer = town.http.post("/api/v1/admin/users", json={"username": "some-name", "password": password}, headers=town.admin)
    [fault] = problem(answer, 400, "invalid_input")["errors"]
    assert fault["pointer"] == "/password"
    assert says in fault["message"]


@pytest.mark.parametrize(
    "body", [{"username": " x", "password": "long enough for anybody"}, {"username": "x\n", "password": "long enough for anybody"}]
)
def test_a_name_that_looks_like_another_is_refused(town: Town, body: dict[str, str]) -> None:
    answer = town.http.post("/api/v1/admin/users", json=body, headers=town.admin)
    assert [fault["pointer"] for fault in problem(answer, 400, "invalid_input")["errors"]] == ["/username"]


def test_a_user_is_made_once_by_a_repeated_request(town: Town) -> None:
    body = {"username": "made-once", "password": "long enough for anybody"}
    answers = [town.http.post("/api/v1/admin/users", json=body, headers={**town.admin, "Idempotency-Key": "user-1"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert [answer.status_code for answer in answers] == [201, 201]
    other = {**body, "password": "long enough for nobody"}
    problem(town.http.post("/api/v1/admin/users", json=other, headers={**town.admin, "Idempotency-Key": "user-1"}), 409, "conflict")
    # Whoever reads the database can try passwords on what is kept of the body no faster than on the hash of the password itself.
    [kept] = town.sql("select body_sha256 from idempotency_keys where key = 'user-1'")
    assert kept["body_sha256"] != sha256(httpx2.Request("POST", town.running.url, json=body).content).digest()


def test_the_last_administrator_stays(town: Town) -> None:
    me = town.http.get("/api/v1/auth/me", headers=town.admin).json()["id"]
    user = f"/api/v1/admin/users/{me}"
    for answer in (
        town.http.delete(user, headers=town.admin),
        town.http.patch(user, json={"enabled": False}, headers=town.admin),
        town.http.put(f"{user}/roles", json={"roles": ["user"]}, headers=town.admin),
    ):
        assert "last administrator" in problem(answer, 409, "conflict")["detail"]
    others = [Person(town.http, town.admin, "admin") for _ in range(2)]

    def demote(person: Person) -> int:
        path = f"{town.running.url}/api/v1/admin/users/{person.id}/roles"
        return httpx2.put(path, json={"roles": []}, headers=town.admin, timeout=30).status_code

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(demote, others)) == [200, 200]


def test_a_key_that_manages_users_makes_nobody_an_administrator(town: Town) -> None:
    key = {"X-API-Key": make_key(town.http, town.admin, "user:manage")["key"]}
    me = town.http.get("/api/v1/auth/me", headers=town.admin).json()["id"]
    body = {"username": "sneaky", "password": "long enough for anybody", "roles": ["admin"]}
    problem(town.http.post("/api/v1/admin/users", json=body, headers=key), 403, "permission_denied")
    problem(town.http.patch(f"/api/v1/admin/users/{me}", json={"password": "long enough for anybody"}, headers=key), 403, "permission_denied")
    problem(town.http.put(f"/api/v1/admin/users/{me}/roles", json={"roles": ["admin"]}, headers=key), 403, "permission_denied")


def test_a_key_that_manages_users_gets_no_further_than_its_scopes(town: Town) -> None:
    person = Person(town.http, town.admin, "event_manager")
    plain = Person(town.http, town.admin)
    key = {"X-API-Key": make_key(town.http, town.admin, "user:manage", "role:manage", "event:read")["key"]}
    good = "long enough for anybody"

    def send(method: str, path: str, body: Any) -> int:
        answer = town.http.request(method, f"/api/v1/admin/users{path}", json=body, headers=key)
        if answer.status_code == 403:
            assert "needs the permission event:create, " in problem(answer, 403, "permission_denied")["detail"]
        return answer.status_code

    assert send("PATCH", f"/{person.id}", {"password": good}) == 403
    assert send("PUT", f"/{plain.id}/roles", {"roles": ["event_manager"]}) == 403
    assert send("POST", "", {"username": "too-much", "password": good, "roles": ["event_manager"]}) == 403
    assert town.status(person.headers) == 200
    assert log_in(town.http, person.username, person.password)
    # What the key may itself it may give.
    assert send("PATCH", f"/{plain.id}", {"password": good}) == 200
    assert send("PUT", f"/{plain.id}/roles", {"roles": ["user"]}) == 200
    assert send("PATCH", f"/{plain.id}", {"password": good + "!"}) == 200
    assert send("POST", "", {"username": "just-right", "password": good, "roles": ["user"]}) == 201
    # To disable somebody, or to take a role away, gains nothing.
    assert send("PATCH", f"/{person.id}", {"enabled": False}) == 200
    assert send("PUT", f"/{person.id}/roles", {"roles": []}) == 200


def test_a_key_may_what_its_scopes_and_its_owner_may(town: Town) -> None:
    person = Person(town.http, town.admin, "event_manager")
    too_wide = town.http.post("/api/v1/api-keys", json={"name": "x", "scopes": ["event:read", "user:manage"]}, headers=person.headers)
    assert [fault["pointer"] for fault in problem(too_wide, 400, "invalid_input")["errors"]] == ["/scopes/1"]
    made = make_key(town.http, person.headers, "event:create", "receiver:create")
    assert made["key"].startswith("xzepr_")
    key = {"X-API-Key": made["key"]}
    with httpx2.Client(base_url=town.running.url, headers=key) as client:
        receiver = make_receiver(client)
    # The ordinary way first, then the short one; as a bearer token, too.
    for headers in (key, key, {"Authorization": f"Bearer {made['key']}"}):
        event_id = created(town.http.post("/api/v1/events", json=event(receiver), headers=headers))
        assert town.http.get(f"/api/v1/events/{event_id}", headers=person.headers).json()["owner_id"] == person.id
    problem(town.http.get("/api/v1/events", headers=key), 403, "permission_denied")
    assert town.http.put(f"/api/v1/admin/users/{person.id}/roles", json={"roles": ["event_viewer"]}, headers=town.admin).status_code == 200
    time.sleep(HEARD_S)
    for _ in range(8):
        problem(httpx2.post(f"{town.running.url}/api/v1/events", json=event(receiver), headers=key), 403, "permission_denied")


def test_keys_are_made_by_people(town: Town) -> None:
    key = make_key(town.http, town.admin, "event:read")["key"]
    body = {"name": "x", "scopes": ["event:read"]}
    problem(town.http.post("/api/v1/api-keys", json=body, headers={"X-API-Key": key}), 403, "permission_denied")
    problem(town.http.post("/api/v1/api-keys", json=body), 401, "unauthenticated")
    problem(town.http.post("/api/v1/api-keys", json=body, headers={**town.admin, "Idempotency-Key": "k"}), 400, "invalid_input")


def test_keys_are_listed_and_revoked_by_their_owner(town: Town) -> None:
    person, other = Person(town.http, town.admin, "user"), Person(town.http, town.admin, "user")
    made = make_key(town.http, person.headers, "event:read")
    key = {"X-API-Key": made["key"]}
    assert town.status(key) == 200
    listed = town.http.get("/api/v1/api-keys", headers=person.headers).json()["data"]
    assert [each["id"] for each in listed] == [made["id"]]
    assert "key" not in listed[0]
    assert town.http.get("/api/v1/api-keys", headers=other.headers).json()["data"] == []
    problem(town.http.get("/api/v1/api-keys", params={"user_id": person.id}, headers=other.headers), 403, "permission_denied")
    problem(town.http.delete(f"/api/v1/api-keys/{made['id']}", headers=other.headers), 404, "not_found")
    problem(town.http.delete(f"/api/v1/api-keys/{made['id']}", headers=key), 403, "permission_denied")
    assert town.http.delete(f"/api/v1/api-keys/{made['id']}", headers=person.headers).status_code == 204
    town.dies(key)
    problem(town.http.delete(f"/api/v1/api-keys/{made['id']}", headers=person.headers), 404, "not_found")
    assert [len(town.audit(act, made["id"])) for act in ("api_key.create", "api_key.revoke")] == [1, 1]


def test_a_key_expires(town: Town) -> None:
    past = town.http.post("/api/v1/api-keys", json={"name": "x", "scopes": ["event:read"], "expires_at": "2020-01-01T00:00:00Z"}, headers=town.admin)
    assert [fault["pointer"] for fault in problem(past, 400, "invalid_input")["errors"]] == ["/expires_at"]
    soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    key = {"X-API-Key": make_key(town.http, town.admin, "event:read", expires_at=soon)["key"]}
    assert town.status(key) == 200
    time.sleep(1.6)
    town.dies(key)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer x"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer xzepr_unknown"},
        {"X-API-Key": "xzepr_unknown"},
        {"X-API-Key": ""},
        {"X-API-Key": "x" * 20_000},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_credential_that_does_not_count_is_never_anonymous(town: Town, headers: dict[str, str], method: str) -> None:
    answer = town.http.request(method, "/api/v1/events", json=event("01ARZ3NDEKTSV4RRFFQ69G5FAV") if method == "POST" else None, headers=headers)
    problem(answer, 401, "invalid_token")


def test_two_credentials_are_one_too_many(town: Town) -> None:
    key = make_key(town.http, town.admin, "event:read")["key"]
    problem(town.http.get("/api/v1/auth/me", headers={**town.admin, "X-API-Key": key}), 400, "invalid_input")


def test_a_login_works_with_an_old_token_at_hand(town: Town) -> None:
    answer = town.http.post("/api/v1/auth/login", json={"username": ADMIN, "password": PASSWORD}, headers={"Authorization": "Bearer not.one.anymore"})
    assert answer.status_code == 200


def test_nothing_that_opens_a_door_is_stored(town: Town) -> None:
    person = Person(town.http, town.admin, "user")
    key = make_key(town.http, person.headers, "event:read")["key"]
    secrets = [person.password, person.pair["access_token"], person.pair["refresh_token"], key, key.removeprefix("xzepr_")]
    tables = [row["tablename"] for row in town.sql("select tablename from pg_tables where schemaname = 'public'")]
    for table in tables:
        for row in town.sql(f'select t::text as row from "{table}" t'):
            assert not [secret for secret in secrets if secret in row["row"]], table
    assert not [line for line in town.running.lines if any(secret in line for secret in secrets)]


def test_the_use_of_a_key_is_noted(town: Town) -> None:
    made = make_key(town.http, town.admin, "event:read")
    assert town.status({"X-API-Key": made["key"]}) == 200
    # Written once a minute, and when a process ends.
    for child in town.running.children("web"):
        child.terminate()
    deadline = time.monotonic() + 20
    while town.sql("select last_used_at from api_keys where id = $1", made["id"])[0]["last_used_at"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while True:
        try:
            if town.status(town.admin) == 200:
                break
        except httpx2.HTTPError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_is_over_is_swept(town: Town) -> None:
    person = Person(town.http, town.admin, "user")
    town.sql("update login_families set expires_at = now() - interval '8 days' where user_id = $1", person.id)
    town.sql("insert into auth_changes (at, kind, subject, epoch) values (now() - interval '2 days', 'user', 'long ago', 1)")
    town.sql("insert into login_guesses (bucket, failures, last_at) values ('long ago', 9, now() - interval '2 hours')")
    # The relay sweeps when it begins.
    for child in town.running.children("relay"):
        child.terminate()
    deadline = time.monotonic() + 20
    counts = """select (select count(*) from login_families where user_id = $1) + (select count(*) from refresh_tokens t where not exists
        (select from login_families f where f.id = t.family_id)) + (select count(*) from auth_changes where subject = 'long ago')
        + (select count(*) from login_guesses where bucket = 'long ago') as left"""
    while town.sql(counts, person.id)[0]["left"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
