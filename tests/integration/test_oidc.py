"""Logging in through a provider that misbehaves: whatever it does, nobody is let in who should not be, and the person learns why.

The provider is a scripted one on a real socket, the database is real. tests/integration/test_keycloak.py does the same with a real provider and a real
browser.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from hashlib import sha256
from typing import Any

import httpx2
import jwt
import pytest
import structlog
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from starlette.datastructures import Headers

from support.oidc_app import CALLBACK, HTML, JSON, LOGIN, LOGOUT, Site, begin, log_in, oidc_settings, query_of
from support.oidc_provider import CLIENT_ID, CLIENT_SECRET, EC_KEY, KEY, OTHER_KEY, ScriptedProvider, jwk, scripted_provider
from xzepr import clock, ids
from xzepr.auth import browser as sessions
from xzepr.auth import issuer_keys, oidc, outside, provider
from xzepr.auth.opaque import digest, new_secret
from xzepr.auth.permissions import Role
from xzepr.auth.principal import How, Principal
from xzepr.auth.provider_users import user_of_provider
from xzepr.db.pool import Database
from xzepr.errors import InvalidInput, PermissionDenied
from xzepr.ids import UserId

pytestmark = pytest.mark.anyio

NOW_S = int(time.time())
CLI_AUTHORIZE, CLI_TOKEN = "/api/v1/auth/cli/authorize", "/api/v1/auth/cli/token"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def module_provider() -> Iterator[ScriptedProvider]:
    with scripted_provider() as running:
        yield running


@pytest.fixture
def idp(module_provider: ScriptedProvider) -> ScriptedProvider:
    module_provider.sane()
    return module_provider


@pytest.fixture
async def site(module_database_url: str, idp: ScriptedProvider) -> AsyncIterator[Site]:
    async with Site(oidc_settings(module_database_url, idp)).open() as opened:
        yield opened


@pytest.fixture
async def alice(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    async with site.browser() as opened:
        yield opened


async def user_row(site: Site, idp: ScriptedProvider) -> Any:
    async with site.house.database.connection() as connection:
        return await connection.fetchrow("select u.* from users u where u.issuer = $1 and u.subject = $2", idp.issuer, idp.person.sub)


async def session_of(site: Site, browser: httpx2.AsyncClient) -> Any:
    token = browser.cookies.get("xzepr_session")
    if token is None:
        return None
    async with site.house.database.connection() as connection:
        return await sessions.find_session(connection, digest(token), clock.now())


async def require_outside(
    site: Site, browser: httpx2.AsyncClient, answer: httpx2.Response, status: int, code: str, reason: str, kept: str | None = None
) -> None:
    """Refused with a problem that says why, no session, no stack; and the audit log has the reason, or what it keeps of it."""
    assert (answer.status_code, answer.json()["error"]) == (status, code), answer.text
    assert reason in answer.json()["detail"]
    assert "Traceback" not in answer.text
    assert "xzepr_session" not in str(answer.headers)
    assert await session_of(site, browser) is None
    await site.house.denials.flush()
    last = (await site.acts(browser))[-1]
    assert (last["act"], last["outcome"], last["details"]["error"]) == ("auth.login", "failure", code)
    assert (kept or reason) in last["details"]["reason"]


# --- what a sound provider gives


async def test_a_login_gives_a_session_with_the_mapped_roles(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    url = await begin(alice, redirect_to="/docs?x=1")
    asked = query_of(url)
    assert asked["code_challenge_method"] == "S256"
    assert asked["response_type"] == "code"
    assert {"openid"} <= set(asked["scope"].split())
    assert len(asked["state"]) >= 43
    assert len(asked["nonce"]) >= 43
    answer = await alice.get(idp.come_back(url))
    assert (answer.status_code, answer.headers["location"]) == (303, "/docs?x=1")
    session, user = await session_of(site, alice), await user_row(site, idp)
    assert (session["user_id"], session["roles"], session["method"]) == (user["id"], ["event_manager"], "browser")
    assert (user["username"], user["email"], user["password_hash"]) == (idp.person.username, "alice@example.com", None)
    assert user["last_login_at"] is not None
    assert session["expires_at"] - session["created_at"] == timedelta(days=7)


async def test_a_login_is_an_audit_row_in_the_persons_name(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    await log_in(alice, idp)
    user = await user_row(site, idp)
    made, login = await site.acts(alice)
    assert (made["act"], made["object_id"], made["details"]) == (
        "user.create",
        user["id"],
        {"username": user["username"], "roles": ["event_manager"]},
    )
    assert (login["act"], login["outcome"], login["actor_name"]) == ("auth.login", "success", user["username"])
    assert (login["actor_kind"], login["object_id"]) == ("browser", user["id"])


async def test_cookies_on_this_machine_are_read_by_no_script(alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    first = await alice.get(LOGIN)
    assert first.headers["set-cookie"].startswith("xzepr_oidc=")
    assert first.headers["set-cookie"].endswith("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax")
    answer = await alice.get(idp.come_back(first.headers["location"]))
    assert answer.headers["set-cookie"].startswith("xzepr_session=")
    assert answer.headers["set-cookie"].endswith("; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax")


async def test_cookies_over_tls_are_of_this_host_alone(module_database_url: str, idp: ScriptedProvider) -> None:
    own_url = "https://xzepr.example.com"
    async with Site(oidc_settings(module_database_url, idp, own_url=own_url), own_url).open() as site, site.browser() as browser:
        url = await begin(browser)
        assert browser.cookies.get("__Host-xzepr_oidc")
        answer = await browser.get(idp.come_back(url))
        assert answer.status_code == 303, answer.text
        assert answer.headers["set-cookie"].startswith("__Host-xzepr_session=")
        assert answer.headers["set-cookie"].endswith("; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax; Secure")
        # A cookie that another host of the domain, or plain HTTP, could have planted does not count.
        browser.cookies.clear()
        planted = new_secret()
        second = await browser.get(LOGIN, headers={"Cookie": f"xzepr_oidc={planted}"})
        assert planted not in second.headers["set-cookie"]


async def test_neither_state_nor_session_is_stored_as_it_is(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    url = await begin(alice)
    state, binder = query_of(url)["state"], alice.cookies["xzepr_oidc"]
    async with site.house.database.connection() as connection:
        stored = await connection.fetchrow("select l.* from oidc_logins l where l.state_sha256 = $1", sha256(state.encode()).digest())
        assert stored["browser_sha256"] == sha256(binder.encode()).digest()
        assert state not in str(dict(stored))
        await alice.get(idp.come_back(url))
        token = alice.cookies["xzepr_session"]
        found = await connection.fetchrow("select s.* from browser_sessions s where s.token_sha256 = $1", sha256(token.encode()).digest())
        assert found is not None
        assert token not in str(dict(found))


async def test_the_code_is_turned_in_with_secret_and_verifier(alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    await log_in(alice, idp)
    [form], [authorization] = idp.forms, idp.authorizations
    assert form["grant_type"] == "authorization_code"
    assert "client_secret" not in form
    assert authorization is not None
    # Both are form-encoded before they are joined (RFC 6749, 2.3.1).
    assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == "xzepr:a%20secret%2Fwith%3Asigns"


async def test_a_secret_goes_into_the_body_where_the_provider_takes_it_only_there(alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    idp.script.discovery = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert (await log_in(alice, idp)).status_code == 303
    assert (idp.forms[0]["client_id"], idp.forms[0]["client_secret"], idp.authorizations[0]) == (CLIENT_ID, CLIENT_SECRET, None)


async def test_a_client_without_a_secret_names_itself(module_database_url: str, idp: ScriptedProvider) -> None:
    async with Site(oidc_settings(module_database_url, idp, client_secret=None)).open() as site, site.browser() as browser:
        assert (await log_in(browser, idp)).status_code == 303
        assert (idp.forms[0]["client_id"], idp.authorizations[0]) == (CLIENT_ID, None)


async def test_a_program_is_given_the_address_and_then_tokens(site: Site, idp: ScriptedProvider) -> None:
    async with site.browser(**JSON) as program:
        begun = await program.get(LOGIN)
        assert begun.status_code == 200
        assert begun.json()["state"] == query_of(begun.json()["authorization_url"])["state"]
        answer = await program.get(idp.come_back(begun.json()["authorization_url"]))
        assert answer.status_code == 200
        assert answer.json().keys() == {"access_token", "refresh_token", "token_type", "expires_in", "token", "expires_at", "user"}
        assert answer.json()["user"]["roles"] == ["event_manager"]
        assert "set-cookie" not in answer.headers
        assert site.logins.begun == [(idp.person.username, How.OIDC)]
        assert [(row["act"], row["actor_kind"]) for row in await site.acts(program)] == [("user.create", "oidc"), ("auth.login", "oidc")]


async def test_a_program_that_says_where_to_go_gets_a_session(site: Site, idp: ScriptedProvider) -> None:
    async with site.browser(**JSON) as program:
        begun = await program.get(LOGIN, params={"redirect_to": "/docs"})
        answer = await program.get(idp.come_back(begun.json()["authorization_url"]))
        assert (answer.status_code, answer.headers["location"]) == (303, "/docs")
        assert site.logins.begun == []


async def test_two_tabs_of_one_browser_log_in_at_the_same_time(alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    first, second = await begin(alice), await begin(alice)
    assert (await alice.get(idp.come_back(first))).status_code == 303
    assert (await alice.get(idp.come_back(second))).status_code == 303


async def test_discovery_and_keys_are_fetched_once_for_many_logins(site: Site, idp: ScriptedProvider) -> None:
    async def once() -> int:
        async with site.browser() as browser:
            return (await log_in(browser, idp)).status_code

    assert await asyncio.gather(*(once() for _ in range(8))) == [303] * 8
    assert (idp.asked.count("discovery"), idp.asked.count("jwks"), idp.asked.count("token")) == (1, 1, 8)


async def test_parameters_of_the_provider_that_nobody_knows_are_ignored(alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    callback = idp.come_back(await begin(alice)) + "&scope=openid&authuser=0&x=1"
    assert (await alice.get(callback)).status_code == 303


# --- roles


@pytest.mark.parametrize("place", ["id_token", "access_token", "userinfo"])
async def test_roles_come_from_the_first_that_has_the_claim(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider, place: str) -> None:
    idp.script.roles_in = place
    idp.person.roles = ["release-manager", "xzepr-admin", "something else"]
    assert (await log_in(alice, idp)).status_code == 303
    assert (await session_of(site, alice))["roles"] == ["admin", "event_manager"]
    assert ("userinfo" in idp.asked) == (place == "userinfo")


async def test_an_empty_claim_is_an_answer_and_not_a_reason_to_look_further(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    idp.script.claims = {"realm_access": {"roles": []}}
    assert (await log_in(alice, idp)).status_code == 303
    assert (await session_of(site, alice))["roles"] == []


async def test_a_person_without_any_role_may_come_in_and_do_nothing(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    idp.person.roles = None
    assert (await log_in(alice, idp)).status_code == 303
    assert (await session_of(site, alice))["roles"] == []


@pytest.mark.parametrize("spoilt", ["opaque", "header.payload.signature", "by another key"])
async def test_an_access_token_that_cannot_be_verified_gives_no_role(
    site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider, spoilt: str
) -> None:
    forged = {"iss": idp.issuer, "sub": idp.person.sub, "exp": NOW_S + 999, "iat": NOW_S, "realm_access": {"roles": ["xzepr-admin"]}}
    token = jwt.encode(forged, OTHER_KEY, algorithm="RS256", headers={"kid": "k1"}) if spoilt == "by another key" else spoilt
    idp.script.access_token = token
    assert (await log_in(alice, idp)).status_code == 303
    assert (await session_of(site, alice))["roles"] == []


async def test_roles_follow_the_provider_at_each_login_and_end_older_tokens(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    await log_in(alice, idp)
    before = await user_row(site, idp)
    await log_in(alice, idp)
    same = await user_row(site, idp)
    assert (same["auth_epoch"], same["roles"]) == (before["auth_epoch"], ["event_manager"])
    idp.person.roles = ["release-viewer"]
    await log_in(alice, idp)
    after = await user_row(site, idp)
    assert (after["id"], after["roles"], after["auth_epoch"]) == (before["id"], ["event_viewer"], before["auth_epoch"] + 1)
    async with site.house.database.connection() as connection:
        told = await connection.fetch("select c.kind, c.epoch from auth_changes c where c.subject = $1", before["id"])
    assert [tuple(row) for row in told] == [("user", before["auth_epoch"] + 1)]
    changed = [row for row in await site.acts(alice) if row["act"] == "user.change_roles"]
    assert [row["details"] for row in changed] == [{"before": ["event_manager"], "after": ["event_viewer"]}]


@pytest.mark.parametrize(
    ("path", "payload", "roles"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["a", "b"]}}, ["a", "b"]),
        ("resource_access.xzepr.roles", {"resource_access": {"xzepr": {"roles": ["a"]}}}, ["a"]),
        ("https://acme.com/roles", {"https://acme.com/roles": ["a"]}, ["a"]),
        ("groups", {"groups": "a"}, ["a"]),
        ("groups", {"groups": ["a", 1, None, ["b"], {"c": 1}]}, ["a"]),
        ("groups", {"groups": {"a": 1}}, None),
        ("groups.x", {"groups": ["x"]}, None),
        ("groups.x.y", {"groups": {"x": None}}, None),
        ("groups", {}, None),
        ("groups", {"groups": []}, []),
    ],
)
def test_a_path_of_a_claim(path: str, payload: dict[str, Any], roles: list[str] | None) -> None:
    assert provider.roles_in(payload, path) == roles


# --- users


async def test_a_local_name_is_not_taken_over(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    local = ids.mint(UserId)
    async with site.house.database.connection() as connection:
        await connection.execute(
            "insert into users (id, username, password_hash, roles, enabled, created_at, updated_at) values ($1, $2, 'x', '{admin}', true, now(), now())",
            local,
            idp.person.username.upper(),
        )
    await log_in(alice, idp)
    user = await user_row(site, idp)
    assert user["id"] != local
    assert (user["username"], user["roles"]) == (f"{idp.person.username}-2", ["event_manager"])
    async with site.house.database.connection() as connection:
        kept = await connection.fetchrow("select u.issuer, u.roles, u.password_hash from users u where u.id = $1", local)
    assert tuple(kept) == (None, ["admin"], "x")


async def test_one_subject_is_one_user_whatever_it_is_called(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    await log_in(alice, idp)
    before = await user_row(site, idp)
    idp.person.username, idp.person.email = "renamed", "new@example.com"
    await log_in(alice, idp)
    after = await user_row(site, idp)
    assert (after["id"], after["username"], after["email"]) == (before["id"], before["username"], "new@example.com")


async def test_another_subject_of_the_same_name_is_another_user(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    await log_in(alice, idp)
    first = await user_row(site, idp)
    idp.person.sub += "x"
    await log_in(alice, idp)
    second = await user_row(site, idp)
    assert (second["username"], second["id"] == first["id"]) == (f"{first['username']}-2", False)


async def test_first_logins_of_one_subject_at_the_same_time_make_one_user(site: Site, idp: ScriptedProvider) -> None:
    async def once() -> int:
        async with site.browser() as browser:
            return (await log_in(browser, idp)).status_code

    assert await asyncio.gather(*(once() for _ in range(6))) == [303] * 6
    async with site.house.database.connection() as connection:
        assert await connection.fetchval("select count(*) from users u where u.subject = $1", idp.person.sub) == 1


async def test_a_name_of_which_every_number_is_taken_gets_one_of_its_own(site: Site) -> None:
    async with site.house.database.transaction() as connection:
        names = [
            (
                await user_of_provider(connection, "https://sso", f"many {place}", username="System", email=None, roles=[Role.USER], now=clock.now())
            ).username
            for place in range(10)
        ]
    assert names[:8] == [f"System-{number}" for number in range(2, 10)]
    assert len(set(names)) == 10
    assert all(name.startswith("System-") for name in names), "the audit log's own names stay its own"


async def test_the_last_administrator_stays_one_whatever_the_provider_says(database: Database) -> None:
    async def come_in(subject: str, *roles: Role) -> list[Role]:
        async with database.transaction() as connection:
            user = await user_of_provider(connection, "https://sso", subject, username=subject, email=None, roles=roles, now=clock.now())
            # Both are at it at the same time.
            await asyncio.sleep(0.05)
            return user.roles

    assert await come_in("alice", Role.ADMIN) == [Role.ADMIN]
    with structlog.testing.capture_logs() as lines:
        assert await come_in("alice", Role.USER) == [Role.ADMIN, Role.USER]
    assert [(line["event"], line["username"]) for line in lines] == [("oidc.last_administrator", "alice")]
    await come_in("bob", Role.ADMIN)
    assert await come_in("alice", Role.USER) == [Role.USER]
    await come_in("alice", Role.ADMIN)
    left = await asyncio.gather(come_in("alice"), come_in("bob"))
    assert sorted(left) == [[], [Role.ADMIN]]
    async with database.connection() as connection:
        # One who is disabled or gone is none.
        await connection.execute("update users set roles = '{admin}', enabled = username = 'alice'")
    assert await come_in("alice", Role.USER) == [Role.ADMIN, Role.USER]


async def test_a_disabled_user_is_not_let_in(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    await log_in(alice, idp)
    alice.cookies.delete("xzepr_session")
    async with site.house.database.connection() as connection:
        await connection.execute("update users set enabled = false where subject = $1", idp.person.sub)
    answer = await log_in(alice, idp)
    await require_outside(site, alice, answer, 403, "permission_denied", "this account is disabled")


@pytest.mark.parametrize(
    ("claims", "username", "email"),
    [
        ({"preferred_username": ...}, "alice@example.com", "alice@example.com"),
        ({"preferred_username": ..., "email": ..., "name": "Alice\nAnders"}, "Alice Anders", None),
        ({"preferred_username": ..., "email": ...}, None, None),
        ({"preferred_username": "a\x00b" + "c" * 400}, "a b" + "c" * 197, "alice@example.com"),
        ({"preferred_username": 7, "email": "a@b", "email_verified": False}, None, None),
    ],
)
async def test_names_are_kept_as_they_can_be_shown(
    site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider, claims: dict[str, Any], username: str | None, email: str | None
) -> None:
    idp.script.claims = claims
    assert (await log_in(alice, idp)).status_code == 303
    user = await user_row(site, idp)
    assert user["email"] == email
    assert user["username"].partition("-")[0] == (username or idp.person.sub)


# --- tokens that do not hold


def _none_token(idp: ScriptedProvider, nonce: str) -> str:
    claims = {"iss": idp.issuer, "sub": "x", "aud": CLIENT_ID, "exp": NOW_S + 999, "iat": NOW_S, "nonce": nonce}
    return jwt.encode(claims, None, algorithm="none")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "wrong nonce": ({"claims": {"nonce": "of another login"}}, "(nonce)"),
    "nonce that is no character": ({"claims": {"nonce": "\ud800"}}, "(nonce)"),
    "subject that is no character": ({"claims": {"sub": "\ud800"}}, "(sub)"),
    "at_hash that is no character": ({"claims": {"at_hash": "\ud800"}}, "(at_hash)"),
    "expiry of another type": ({"claims": {"exp": {}}}, "not valid"),
    "expiry without end": ({"claims": {"exp": float("inf")}}, "not valid"),
    "no nonce": ({"claims": {"nonce": ...}}, "(nonce)"),
    "nonce that is no text": ({"claims": {"nonce": 7}}, "(nonce)"),
    "wrong audience": ({"claims": {"aud": "another"}}, "not valid"),
    "no audience": ({"claims": {"aud": ...}}, "not valid"),
    "several audiences, no party": ({"claims": {"aud": [CLIENT_ID, "another"], "azp": ...}}, "(azp)"),
    "made for another client": ({"claims": {"aud": [CLIENT_ID, "another"], "azp": "another"}}, "(azp)"),
    "made for another client alone": ({"claims": {"azp": "another"}}, "(azp)"),
    "expired": ({"claims": {"exp": NOW_S - 3600}}, "not valid"),
    "no expiry": ({"claims": {"exp": ...}}, "not valid"),
    "from the future": ({"claims": {"iat": NOW_S + 3600, "exp": NOW_S + 7200}}, "not valid"),
    "not yet": ({"claims": {"nbf": NOW_S + 3600}}, "not valid"),
    "no time of issue": ({"claims": {"iat": ...}}, "not valid"),
    "wrong issuer": ({"claims": {"iss": "https://evil.example.com"}}, "not valid"),
    "no issuer": ({"claims": {"iss": ...}}, "not valid"),
    "no subject": ({"claims": {"sub": ...}}, "not valid"),
    "empty subject": ({"claims": {"sub": ""}}, "(sub)"),
    "subject with NUL": ({"claims": {"sub": "a\x00b"}}, "(sub)"),
    "long subject": ({"claims": {"sub": "s" * 256}}, "(sub)"),
    "at_hash of another token": ({"claims": {"at_hash": "x" * 22}}, "(at_hash)"),
    "swapped keys": ({"key": OTHER_KEY}, "not valid"),
    "key that is not published": ({"key": OTHER_KEY, "header": {"kid": "k2"}}, "does not publish"),
    "key for encryption": ({"key": OTHER_KEY, "header": {"kid": "enc"}}, "does not publish"),
    "keys that are swapped in the list": ({"published": [jwk(OTHER_KEY, "k1")]}, "not valid"),
    "two keys of one id": ({"published": [jwk(KEY, "k1"), jwk(OTHER_KEY, "k1")]}, "two keys have its name"),
    "key for another algorithm": ({"published": [jwk(KEY, "k1", alg="RS512")]}, "not one for this algorithm"),
    "key that cannot be read": ({"published": [{"kty": "RSA", "kid": "k1", "n": "!", "e": "AQAB"}, jwk(KEY, "k2")]}, "does not publish"),
    "key without parts": ({"published": [{"kty": "RSA", "kid": "k1"}, jwk(KEY, "k2")]}, "does not publish"),
    "HS256 with the secret": ({"key": CLIENT_SECRET.ljust(32, "x"), "algorithm": "HS256"}, "HS256, which is not accepted"),
    "signed by nobody": ({"id_token": "none"}, "none, which is not accepted"),
    "no token at all": ({"id_token": "nonsense"}, "not valid"),
    "access token of another person": ({"access_claims": {"sub": "another"}}, "of another person"),
    "userinfo of another person": ({"roles_in": "userinfo", "userinfo": {"sub": "another"}}, "of another person"),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_token_that_does_not_hold_lets_nobody_in(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider, what: str) -> None:
    spoilt, reason = BAD[what]
    for name, value in spoilt.items():
        setattr(idp.script, name, value)
    url = await begin(alice)
    if what == "signed by nobody":
        idp.script.id_token = _none_token(idp, query_of(url)["nonce"])
    answer = await alice.get(idp.come_back(url))
    await require_outside(site, alice, answer, 401, "login_failed", reason)
    assert await user_row(site, idp) is None


async def test_a_short_rsa_key_is_refused(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    idp.script.published = [jwk(weak, "k1"), jwk(KEY, "k2")]
    now = int(time.time())
    url = await begin(alice)
    # PyJWT itself would not sign with it.
    header, payload = (
        {"alg": "RS256", "kid": "k1"},
        {"iss": idp.issuer, "sub": "x", "aud": CLIENT_ID, "exp": now + 60, "iat": now, "nonce": query_of(url)["nonce"]},
    )
    idp.script.id_token = _signed_by_hand(weak, header, payload)
    answer = await alice.get(idp.come_back(url))
    await require_outside(site, alice, answer, 401, "login_failed", "does not publish")


def _signed_by_hand(key: Any, header: dict[str, Any], payload: dict[str, Any]) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    signature = key.sign(b".".join(parts), padding.PKCS1v15(), hashes.SHA256())
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ({"claims": {"aud": [CLIENT_ID]}}, "a list of one"),
        ({"claims": {"aud": [CLIENT_ID, "another"]}}, "several, made for us"),
        ({"claims": {"azp": ...}}, "one audience needs no party"),
        ({"claims": {"at_hash": ...}}, "at_hash is optional in the code flow"),
        ({"claims": {"exp": -5}}, "clocks may differ by jwt.leeway_seconds"),
        ({"header": {"kid": ...}}, "one key that fits needs no id"),
        ({"algorithm": "PS256"}, "of the RSA family"),
        ({"algorithm": "ES256", "key": EC_KEY, "published": [jwk(EC_KEY, "k1"), jwk(KEY, "k1")]}, "elliptic curves"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_the_standard_allows_is_allowed(alice: httpx2.AsyncClient, idp: ScriptedProvider, script: dict[str, Any], why: str) -> None:
    for name, value in script.items():
        setattr(idp.script, name, value)
    if "exp" in idp.script.claims:
        # From this moment on, not from when the file was read.
        idp.script.claims = {"exp": int(time.time()) + idp.script.claims["exp"]}
    answer = await log_in(alice, idp)
    assert answer.status_code == 303, f"{why}: {answer.text}"


async def test_a_new_key_is_fetched_and_an_invented_one_not_again_and_again(
    site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await log_in(alice, idp)).status_code == 303
    idp.script.key, idp.script.header, idp.script.published = OTHER_KEY, {"kid": "new"}, [jwk(KEY, "k1"), jwk(OTHER_KEY, "new")]
    # Just fetched: for RETRY_S an unknown id asks nobody.
    assert (await log_in(alice, idp)).status_code == 401
    assert idp.asked.count("jwks") == 1
    monkeypatch.setattr(issuer_keys, "RETRY_S", 0.0)
    assert (await log_in(alice, idp)).status_code == 303
    assert idp.asked.count("jwks") == 2


# --- logins that are not this browser's, or not any more


async def test_a_state_counts_once(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    url = await begin(alice)
    callback = idp.come_back(url)
    assert (await alice.get(callback)).status_code == 303
    for again in (callback, idp.come_back(url)):
        answer = await alice.get(again)
        assert (answer.status_code, answer.json()["error"]) == (401, "login_failed")
        assert "not known here" in answer.json()["detail"]
    assert idp.asked.count("token") == 1


async def test_of_callbacks_at_the_same_time_one_is_taken(alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    url = await begin(alice)
    answers = await asyncio.gather(*(alice.get(idp.come_back(url)) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [303, *[401] * 5]


@pytest.mark.parametrize("cookie", ["none", "another", "malformed", "two"])
async def test_a_login_that_another_browser_began_is_not_finished_here(
    site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider, cookie: str
) -> None:
    url = await begin(alice)
    own = alice.cookies["xzepr_oidc"]
    sent = {
        "none": "",
        "another": f"xzepr_oidc={new_secret()}",
        "malformed": "xzepr_oidc=x",
        "two": f"xzepr_oidc={own}; xzepr_oidc={new_secret()}",
    }
    async with site.browser() as mallory:
        answer = await mallory.get(idp.come_back(url), headers={"Cookie": sent[cookie]})
        assert (answer.status_code, answer.json()["error"]) == (401, "login_failed")
        assert await site.acts(mallory) == [], "anybody can make states up"
    assert "token" not in idp.asked
    # And it has spoilt nothing for the one who began.
    assert (await alice.get(idp.come_back(url))).status_code == 303


@pytest.mark.parametrize("changes", [{"state": None}, {"state": "invented"}, {"state": ""}])
async def test_an_unknown_state_is_refused(alice: httpx2.AsyncClient, idp: ScriptedProvider, changes: dict[str, str | None]) -> None:
    answer = await alice.get(idp.come_back(await begin(alice), **changes))
    assert (answer.status_code, answer.json()["error"]) == (401, "login_failed")
    assert "token" not in idp.asked


async def test_a_login_that_took_too_long_is_over(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    url = await begin(alice)
    await _age(site, "oidc_logins", timedelta(minutes=10, seconds=1))
    answer = await alice.get(idp.come_back(url))
    assert (answer.status_code, answer.json()["error"]) == (401, "login_failed")
    assert "token" not in idp.asked


async def _age(site: Site, table: str, by: timedelta) -> None:
    async with site.house.database.connection() as connection:
        await connection.execute(f"update {table} set created_at = created_at - $1::interval", by)


async def test_what_nobody_can_finish_is_swept(site: Site, alice: httpx2.AsyncClient) -> None:
    await begin(alice)
    await _age(site, "oidc_logins", timedelta(hours=1))
    await begin(alice)
    await oidc.sweep(site.house.database, clock.now())
    async with site.house.database.connection() as connection:
        assert await connection.fetchval("select count(*) from oidc_logins") == 1


async def test_a_code_of_another_login_is_refused_by_its_challenge(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    mine, others = await begin(alice), await begin(alice)
    code = query_of(idp.come_back(others))["code"]
    answer = await alice.get(idp.come_back(mine, code=code))
    await require_outside(site, alice, answer, 401, "login_failed", "invalid_grant: PKCE verification failed")


@pytest.mark.parametrize("iss", ["https://evil.example.com", "", None])
async def test_an_answer_of_another_provider_is_refused(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider, iss: str | None) -> None:
    answer = await alice.get(idp.come_back(await begin(alice), iss=iss))
    await require_outside(site, alice, answer, 401, "login_failed", "comes from the provider")
    assert "token" not in idp.asked


async def test_a_provider_that_does_not_name_itself_in_its_answers_need_not(alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    idp.script.discovery = {"authorization_response_iss_parameter_supported": False}
    assert (await alice.get(idp.come_back(await begin(alice), iss=None))).status_code == 303


# --- where to go afterwards


@pytest.mark.parametrize(
    "hostile",
    [
        "https://evil.example.com",
        "//evil.example.com",
        "/\\evil.example.com",
        "\\\\evil",
        "/\t/evil",
        "/a\r\nSet-Cookie: x=y",
        "evil",
        "javascript:alert(1)",
        " /docs",
        "/a\\b",
    ],
)
async def test_only_own_paths_are_gone_to(alice: httpx2.AsyncClient, idp: ScriptedProvider, hostile: str) -> None:
    answer = await alice.get(LOGIN, params={"redirect_to": hostile})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_input")
    assert answer.json()["errors"][0]["pointer"] == "?redirect_to"
    with pytest.raises(InvalidInput):
        oidc.require_own_path(hostile)


@pytest.mark.parametrize(("wanted", "sent"), [("/", "/"), ("/docs?a=%2F%2Fx#y", "/docs?a=%2F%2Fx#y"), ("/é", "/%C3%A9")])
async def test_an_own_path_is_gone_to(alice: httpx2.AsyncClient, idp: ScriptedProvider, wanted: str, sent: str) -> None:
    assert (await log_in(alice, idp, redirect_to=wanted)).headers["location"] == sent


# --- a provider that refuses, lies, or is away


async def test_what_the_provider_says_is_shown(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    said = {"code": None, "error": "access_denied", "error_description": "The person <b>said</b> no\n"}
    answer = await alice.get(idp.come_back(await begin(alice), **said))
    reason = "the provider refused the login: access_denied: The person <b>said</b> no"
    await require_outside(site, alice, answer, 401, "login_failed", reason, kept="the browser came back with an error")


async def test_who_comes_back_with_errors_fills_no_log_and_chooses_no_word_of_it(
    site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider
) -> None:
    for number in range(30):
        said = {"code": None, "error": f"error-{number}", "error_description": "said by mallory " * 10}
        assert (await alice.get(idp.come_back(await begin(alice), **said))).status_code == 401
        # Another way to bring words of one's own.
        assert (await alice.get(idp.come_back(await begin(alice), iss=f"https://mallory-{number}.example.com"))).status_code == 401
    await site.house.denials.flush(is_last=True)
    rows = await site.acts(alice)
    # A row each, or two when a minute ended meanwhile.
    assert 2 <= len(rows) <= 4
    assert sum(row["details"]["count"] for row in rows) == 60
    assert {(row["act"], row["outcome"]) for row in rows} == {("auth.login", "failure")}
    assert "mallory" not in str(rows)
    assert "error-" not in str(rows)


async def test_logins_that_begin_are_bounded_for_each_address(site: Site, alice: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = clock.now().replace(second=15)
    monkeypatch.setattr(clock, "now", lambda: moment)
    for _ in range(oidc.BEGUN_MAX):
        await begin(alice)
    for path, query in ((LOGIN, {}), (CLI_AUTHORIZE, {"port": "8123", "state": "s", "code_challenge": CHALLENGE})):
        answer = await alice.get(path, params=query)
        assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (429, "too_many_attempts", "45")
    async with site.browser(address="192.0.2.7") as elsewhere:
        await begin(elsewhere)
    monkeypatch.setattr(clock, "now", lambda: moment + timedelta(seconds=45))
    await begin(alice)


async def test_a_browser_is_shown_a_page_without_anything_of_the_providers(site: Site, idp: ScriptedProvider) -> None:
    async with site.browser(**HTML) as browser:
        said = {"code": None, "error": "access_denied", "error_description": "<script>alert(1)</script>"}
        answer = await browser.get(idp.come_back(await begin(browser), **said))
        assert (answer.status_code, answer.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert "<h1>Login failed</h1>" in answer.text
        assert "access_denied: &lt;script&gt;alert(1)&lt;/script&gt;" in answer.text
        assert browser.headers["X-Request-ID"] in answer.text
        assert f'href="{LOGIN}"' in answer.text
        assert "<script>" not in answer.text


async def test_neither_code_nor_error_is_a_refusal(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    answer = await alice.get(idp.come_back(await begin(alice), code=None))
    await require_outside(site, alice, answer, 401, "login_failed", "neither a code nor a reason")


async def test_a_code_that_the_provider_does_not_know_is_told_in_its_words(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    answer = await alice.get(idp.come_back(await begin(alice), code="invented"))
    await require_outside(site, alice, answer, 401, "login_failed", "invalid_grant: Code not valid")


TOKEN_FAULTS: dict[str, tuple[dict[str, Any], int, str]] = {
    "500": ({"status": {"token": 500}}, 503, "answered 500"),
    "no JSON": ({"body": {"token": b"<html>"}}, 503, "cannot be read"),
    "without end": ({"body": {"token": b'{"x":' + b"[" * 200_000}}, 503, "cannot be read"),
    "an array": ({"body": {"token": b"[]"}}, 503, "cannot be read"),
    "no id_token": ({"body": {"token": b'{"access_token":"x"}'}}, 503, "cannot be read"),
    "refused without JSON": ({"status": {"token": 403}, "body": {"token": b"no"}}, 401, "it answered 403"),
    "refused with an array": ({"status": {"token": 400}, "body": {"token": b"[]"}}, 401, "it answered 400"),
    "sent elsewhere": ({"status": {"token": 302}, "headers": {"token": {"Location": "http://127.0.0.1:1/"}}}, 401, "the provider refused"),
    "too much": ({"body": {"token": b" " * 300_000}}, 503, "more than 262144 bytes"),
    "too many keys": ({"published": [jwk(KEY, f"k{n}") for n in range(201)]}, 503, "more than 200 keys"),
    "keys that are none": ({"body": {"jwks": b'{"keys":{}}'}}, 503, "list of keys that cannot be read"),
    "no keys": ({"status": {"jwks": 404}}, 503, "answered 404 to the question for its keys"),
    "no key that can be used": ({"published": [jwk(OTHER_KEY, "enc", use="enc")]}, 503, "publishes no key that can be used"),
    "too many bytes of keys": ({"body": {"jwks": b" " * 300_000}}, 503, "more than 262144 bytes"),
    "userinfo that fails": ({"roles_in": "userinfo", "status": {"userinfo": 500}}, 503, "userinfo"),
    "userinfo that is signed": ({"roles_in": "userinfo", "body": {"userinfo": b"a.b.c"}}, 503, "userinfo that cannot be read"),
}


@pytest.mark.parametrize("what", TOKEN_FAULTS)
async def test_a_provider_that_answers_nonsense_lets_nobody_in(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider, what: str) -> None:
    spoilt, status, reason = TOKEN_FAULTS[what]
    for name, value in spoilt.items():
        setattr(idp.script, name, value)
    answer = await log_in(alice, idp)
    await require_outside(site, alice, answer, status, "provider_unavailable" if status == 503 else "login_failed", reason)


DISCOVERY_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"discovery": {"issuer": "https://evil.example.com"}}, "calls itself https://evil.example.com"),
    "plain http": ({"discovery": {"token_endpoint": "http://sso.example.com/token"}}, "token_endpoint that is neither https nor on this machine"),
    "no http": ({"discovery": {"authorization_endpoint": "javascript:alert(1)"}}, "authorization_endpoint that is neither"),
    "a user in it": ({"discovery": {"jwks_uri": "https://a:b@sso.example.com/jwks"}}, "jwks_uri that is neither"),
    "no PKCE": ({"discovery": {"code_challenge_methods_supported": ["plain"]}}, "does not know PKCE"),
    "a part is missing": ({"discovery": {"token_endpoint": ...}}, "token_endpoint"),
    "404": ({"status": {"discovery": 404}}, "is auth.keycloak.issuer_url right?"),
    "sent elsewhere": ({"status": {"discovery": 302}, "headers": {"discovery": {"Location": "/"}}}, "answered 302"),
    "no JSON": ({"body": {"discovery": b"\xff"}}, "cannot be read"),
    "too much": ({"body": {"discovery": b" " * 300_000}}, "more than 262144 bytes"),
}


@pytest.mark.parametrize("what", DISCOVERY_FAULTS)
async def test_a_discovery_that_does_not_hold_begins_no_login(alice: httpx2.AsyncClient, idp: ScriptedProvider, what: str) -> None:
    spoilt, reason = DISCOVERY_FAULTS[what]
    for name, value in spoilt.items():
        setattr(idp.script, name, value)
    answer = await alice.get(LOGIN)
    assert (answer.status_code, answer.json()["error"]) == (503, "provider_unavailable")
    assert reason in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("how", ["slow", "dripping"])
async def test_a_slow_provider_is_given_up(
    alice: httpx2.AsyncClient, idp: ScriptedProvider, monkeypatch: pytest.MonkeyPatch, site: Site, how: str
) -> None:
    monkeypatch.setattr(outside, "ANSWER_S", 0.5)
    url = await begin(alice)
    if how == "slow":
        idp.script.delay_s = {"token": 30}
    else:
        idp.script.drip = {"token"}
    began_s = time.monotonic()
    answer = await alice.get(idp.come_back(url))
    assert time.monotonic() - began_s < 3
    await require_outside(site, alice, answer, 503, "provider_unavailable", "")


async def test_a_provider_that_is_down_is_said_at_once_and_tried_again_later(
    module_database_url: str, idp: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = oidc_settings(module_database_url, idp, issuer_url="http://127.0.0.1:1/realms/acme")
    async with Site(nowhere).open() as site, site.browser() as browser:
        answer = await browser.get(LOGIN)
        assert (answer.status_code, answer.json()["error"]) == (503, "provider_unavailable")
        assert "the provider (127.0.0.1:1) does not answer" in answer.json()["detail"]
        assert (await browser.get("/health")).json()["components"]["oidc"] == "degraded"
    idp.script.status = {"discovery": 500}
    async with Site(oidc_settings(module_database_url, idp)).open() as site, site.browser() as browser:
        answers = await asyncio.gather(*(browser.get(LOGIN) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {503}
        assert idp.asked == ["discovery"], "who waits for the same thing asks once"
        idp.script.status = {}
        monkeypatch.setattr(provider, "RETRY_AFTER_S", 0.0)
        assert (await browser.get(LOGIN)).status_code == 302
        assert (await browser.get("/health")).json()["components"]["oidc"] == "healthy"


async def test_what_is_known_of_the_provider_counts_on_while_it_is_away(
    alice: httpx2.AsyncClient, idp: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await log_in(alice, idp)).status_code == 303
    monkeypatch.setattr(provider, "FRESH_S", 0.0)
    idp.script.status = {"discovery": 500, "jwks": 500}
    assert (await log_in(alice, idp)).status_code == 303
    assert idp.asked.count("discovery") >= 2


# --- the session


async def test_a_session_is_found_until_it_ends_or_expires_or_its_user_may_not_come_in(
    site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider
) -> None:
    await log_in(alice, idp)
    token = alice.cookies["xzepr_session"]
    hashed = digest(token)
    async with site.house.database.connection() as connection:
        now = clock.now()
        assert (await sessions.find_session(connection, hashed, now))["username"] == idp.person.username
        assert await sessions.find_session(connection, hashed, now + timedelta(days=7)) is None
        assert await sessions.find_session(connection, digest(token + "x"), now) is None
        for column, off, on in (("enabled", "false", "true"), ("deleted_at", "now()", "null")):
            await connection.execute(f"update users set {column} = {off} where subject = $1", idp.person.sub)
            assert await sessions.find_session(connection, hashed, now) is None
            await connection.execute(f"update users set {column} = {on} where subject = $1", idp.person.sub)
        ended = await sessions.end_session(connection, hashed, now)
        assert await sessions.find_session(connection, hashed, now) is None
        assert await sessions.end_session(connection, hashed, now) is None
        told = await connection.fetch("select c.kind, c.epoch from auth_changes c where c.subject = $1", ended["family_id"])
        assert [tuple(row) for row in told] == [("family", None)]


async def test_logout_ends_the_session_here_and_says_where_it_ends_at_the_provider(
    site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider
) -> None:
    await log_in(alice, idp)
    token = alice.cookies["xzepr_session"]
    answer = await alice.post(LOGOUT, headers={"X-CSRF-Token": sessions.csrf_token_of(token)})
    assert answer.status_code == 200
    assert answer.headers["set-cookie"] == "xzepr_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"
    url = answer.json()["logout_url"]
    assert url.startswith(f"{idp.issuer}/logout?")
    asked = query_of(url)
    assert (asked["client_id"], asked["post_logout_redirect_uri"]) == (CLIENT_ID, "http://localhost:8042/")
    assert jwt.decode(asked["id_token_hint"], options={"verify_signature": False})["sub"] == idp.person.sub
    async with site.house.database.connection() as connection:
        assert await sessions.find_session(connection, digest(token), clock.now()) is None
    assert [(row["act"], row["actor_name"]) for row in await site.acts(alice)][-1] == ("auth.logout", idp.person.username)


async def test_a_browser_that_logs_in_again_leaves_no_session_behind(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    await log_in(alice, idp)
    first = alice.cookies["xzepr_session"]
    await log_in(alice, idp)
    assert alice.cookies["xzepr_session"] != first
    async with site.house.database.connection() as connection:
        assert await sessions.find_session(connection, digest(first), clock.now()) is None
    assert await session_of(site, alice) is not None
    assert [row["act"] for row in await site.acts(alice)][-2:] == ["auth.login", "auth.logout"]


async def test_a_login_that_fails_ends_no_session(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    await log_in(alice, idp)
    idp.script.claims = {"nonce": "of another login"}
    assert (await log_in(alice, idp)).status_code == 401
    assert await session_of(site, alice) is not None


@pytest.mark.parametrize("given", [{}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": sessions.csrf_token_of("x" * 43)}])
async def test_logout_without_the_pages_own_token_is_refused(
    site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider, given: dict[str, str]
) -> None:
    await log_in(alice, idp)
    answer = await alice.post(LOGOUT, headers=given)
    assert (answer.status_code, answer.json()["error"]) == (403, "permission_denied")
    assert await session_of(site, alice) is not None


async def test_logout_without_a_session_is_401(alice: httpx2.AsyncClient) -> None:
    assert (await alice.post(LOGOUT)).status_code == 401


async def test_logout_needs_no_provider(
    site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider, monkeypatch: pytest.MonkeyPatch, module_database_url: str
) -> None:
    await log_in(alice, idp)
    token = alice.cookies["xzepr_session"]
    idp.script.status = {"discovery": 500}
    csrf = {"X-CSRF-Token": sessions.csrf_token_of(token)}
    # Another process, which knows nothing of the provider yet.
    async with Site(oidc_settings(module_database_url, idp)).open() as other, other.browser() as browser:
        answer = await browser.post(LOGOUT, headers={**csrf, "Cookie": f"xzepr_session={token}"})
    assert (answer.status_code, answer.json()) == (200, {"logout_url": None})
    assert await session_of(site, alice) is None


def test_a_csrf_token_belongs_to_its_session() -> None:
    token = new_secret()
    good = Headers({"X-CSRF-Token": sessions.csrf_token_of(token)})
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        sessions.require_csrf(good, token, method, Principal())
        for bad in (Headers({}), Headers({"X-CSRF-Token": token}), Headers({"X-CSRF-Token": sessions.csrf_token_of(new_secret())})):
            with pytest.raises(PermissionDenied):
                sessions.require_csrf(bad, token, method, Principal())
    for method in ("GET", "HEAD", "OPTIONS"):
        sessions.require_csrf(Headers({}), token, method, Principal())
    assert token not in sessions.csrf_token_of(token)


# --- the command line


async def _command_code(browser: httpx2.AsyncClient, idp: ScriptedProvider) -> dict[str, str]:
    begun = await browser.get(CLI_AUTHORIZE, params={"port": "40404", "state": "s1", "code_challenge": CHALLENGE})
    assert begun.status_code == 302, begun.text
    answer = await browser.get(idp.come_back(begun.headers["location"]))
    assert answer.status_code == 302
    assert answer.headers["location"].startswith("http://127.0.0.1:40404/?")
    assert "set-cookie" not in answer.headers
    return query_of(answer.headers["location"])


async def test_the_command_line_logs_in_through_the_browser(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    given = await _command_code(alice, idp)
    assert given["state"] == "s1"
    async with site.browser() as command:
        body = {"code": given["code"], "code_verifier": VERIFIER}
        answer = await command.post(CLI_TOKEN, json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["user"]["username"] == idp.person.username
        assert answer.json()["user"]["roles"] == ["event_manager"]
        assert site.logins.begun == [(idp.person.username, How.OIDC)]
        again = await command.post(CLI_TOKEN, json=body)
        assert (again.status_code, again.json()["error"]) == (401, "login_failed")
        assert [(row["act"], row["outcome"], row["actor_kind"]) for row in await site.acts(command)] == [("auth.login", "success", "oidc")]


async def test_a_code_is_gone_after_a_wrong_verifier(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    given = await _command_code(alice, idp)
    async with site.browser() as command:
        for verifier in ("w" * 43, VERIFIER):
            answer = await command.post(CLI_TOKEN, json={"code": given["code"], "code_verifier": verifier})
            assert (answer.status_code, answer.json()["error"]) == (401, "login_failed")
        [failure] = await site.acts(command)
        assert (failure["act"], failure["outcome"], failure["object_id"]) == ("auth.login", "failure", (await user_row(site, idp))["id"])
    assert site.logins.begun == []


async def test_a_code_is_good_for_sixty_seconds(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    given = await _command_code(alice, idp)
    await _age(site, "cli_codes", timedelta(seconds=61))
    answer = await alice.post(CLI_TOKEN, json={"code": given["code"], "code_verifier": VERIFIER})
    assert (answer.status_code, answer.json()["error"]) == (401, "login_failed")


async def test_a_user_who_was_disabled_in_between_gets_no_tokens(site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    given = await _command_code(alice, idp)
    async with site.house.database.connection() as connection:
        await connection.execute("update users set enabled = false where subject = $1", idp.person.sub)
    answer = await alice.post(CLI_TOKEN, json={"code": given["code"], "code_verifier": VERIFIER})
    assert (answer.status_code, answer.json()["error"]) == (403, "permission_denied")
    assert site.logins.begun == []


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"port": "1023"}, "?port"),
        ({"port": "65536"}, "?port"),
        ({"port": "x"}, "?port"),
        ({"port": None}, "?port"),
        ({"state": ""}, "?state"),
        ({"state": "a b"}, "?state"),
        ({"state": "s" * 201}, "?state"),
        ({"code_challenge": "c" * 42}, "?code_challenge"),
        ({"code_challenge": "c" * 42 + "+"}, "?code_challenge"),
        ({"code_challenge": None}, "?code_challenge"),
        ({"host": "evil.example.com"}, "?host"),
    ],
)
async def test_a_command_that_asks_wrongly_is_told_by_field(alice: httpx2.AsyncClient, changes: dict[str, str | None], pointer: str) -> None:
    asked = {"port": "40404", "state": "s1", "code_challenge": CHALLENGE, **changes}
    answer = await alice.get(CLI_AUTHORIZE, params={name: value for name, value in asked.items() if value is not None})
    assert answer.status_code == 400
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


async def test_a_page_cannot_begin_a_login_of_the_command_line(alice: httpx2.AsyncClient) -> None:
    asked = {"port": "40404", "state": "s1", "code_challenge": CHALLENGE}
    for site_of in ("cross-site", "same-site"):
        answer = await alice.get(CLI_AUTHORIZE, params=asked, headers={"Sec-Fetch-Site": site_of})
        assert (answer.status_code, answer.json()["error"]) == (403, "foreign_origin")
    assert (await alice.get(CLI_AUTHORIZE, params=asked, headers={"Sec-Fetch-Site": "none"})).status_code == 302


# --- switched off


async def test_without_a_provider_every_address_says_so(module_database_url: str) -> None:
    async with Site(oidc_settings(module_database_url, None)).open() as site, site.browser() as browser:
        asked = {"port": "40404", "state": "s1", "code_challenge": CHALLENGE}
        answers = [
            await browser.get(LOGIN),
            await browser.get(CALLBACK, params={"state": "x", "code": "y"}),
            await browser.post(LOGOUT),
            await browser.get(CLI_AUTHORIZE, params=asked),
            await browser.post(CLI_TOKEN, json={"code": "x", "code_verifier": VERIFIER}),
        ]
        for answer in answers:
            assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
            assert "auth.enable_oidc" in answer.json()["detail"]
        assert (await browser.get("/health")).json()["components"]["oidc"] == "disabled"
