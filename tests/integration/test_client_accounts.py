"""The Python client where credentials are needed: logins, keys, users, over the two ways of sending either."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from xzepr_client import Client, NewApiKey, NewEventReceiver, NewUser, ProblemError, UnexpectedAnswer, UserChanges, each

from conftest import fresh_database
from support.accounts import ADMIN, PASSWORD, SETTINGS
from support.installation import installation
from support.scripted import Answer, Request, problem, scripted

GOOD = "the rain in november"


@pytest.fixture(scope="module")
def url(first_server: str) -> Iterator[str]:
    made = fresh_database(first_server)
    database_url = asyncio.run(made.__aenter__())
    try:
        with installation(XZEPR__DATABASE__URL=database_url, XZEPR__SERVER__WORKERS="2", **SETTINGS) as running:
            yield running.url
    finally:
        asyncio.run(made.__aexit__())


@pytest.fixture
def admin(url: str) -> Iterator[Client]:
    with Client(url) as client:
        client.login(ADMIN, PASSWORD)
        yield client


def code_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(ProblemError) as caught:
        call(*arguments)
    return caught.value.code


def test_a_client_without_a_credential_is_told_so(url: str) -> None:
    with Client(url) as client:
        assert code_of(client.search_events) == "unauthenticated"
        assert code_of(client.login, ADMIN, "wrong") == "invalid_credentials"
        # A login that failed is no credential.
        assert code_of(client.me) == "unauthenticated"


def test_users_are_managed(admin: Client) -> None:
    user_id = admin.create_user(NewUser(username="bob", password=GOOD, email="bob@example.com", roles=["user"]), idempotency_key="bob")
    assert admin.create_user(NewUser(username="bob", password=GOOD, email="bob@example.com", roles=["user"]), idempotency_key="bob") == user_id
    assert code_of(admin.create_user, NewUser(username="Bob", password=GOOD)) == "conflict"
    bob = admin.get_user(user_id)
    assert (bob.username, bob.email, bob.roles, bob.enabled, bob.issuer, bob.last_login_at) == ("bob", "bob@example.com", ["user"], True, None, None)
    assert [user.id for user in each(admin.search_users, username="BOB")] == [user_id]
    assert admin.search_users(enabled=False).data == []
    assert admin.set_user_roles(user_id, ["event_viewer"]).roles == ["event_viewer"]
    changed = admin.change_user(user_id, UserChanges(email=None, enabled=False))
    assert (changed.email, changed.enabled) == (None, False)
    admin.delete_user(user_id)
    assert code_of(admin.get_user, user_id) == "not_found"


def test_a_login_renews_itself_and_ends(url: str, admin: Client) -> None:
    admin.create_user(NewUser(username="carol", password=GOOD, roles=["user"]))
    (carol,) = admin.search_users(username="carol").data
    with Client(url) as client:
        pair = client.login("carol", GOOD)
        assert (pair.user.username, client.me().how) == ("carol", "password")
        # Ends the token; the login goes on with another.
        admin.set_user_roles(carol.id, ["event_viewer"])
        time.sleep(1)
        assert client.me().roles == ["event_viewer"]
        receiver_id = admin.create_receiver(NewEventReceiver(name="x", type="t", version="1", schema={}))
        admin.set_user_roles(carol.id, ["event_manager"])
        time.sleep(1)
        messages = client.follow(after=0)
        assert next(messages).envelope.id == receiver_id
        messages.close()
        assert code_of(client.refresh, pair.refresh_token) in {"refresh_superseded", "invalid_token"}
        client.logout()
        assert code_of(client.me) == "unauthenticated"


def test_keys_are_made_used_and_revoked(url: str, admin: Client) -> None:
    ends_at = datetime.now(UTC) + timedelta(hours=1)
    key = admin.create_api_key(NewApiKey(name="ci", scopes=["event:read"], expires_at=ends_at))
    assert key.key is not None
    with Client(url, api_key=key.key) as client, Client(url, token=key.key) as by_token:
        for one in (client, by_token):
            me = one.me()
            assert (me.how, me.permissions) == ("api_key", ["event:read"])
            assert one.search_events().data == []
        assert code_of(client.create_api_key, NewApiKey(name="x", scopes=["event:read"])) == "permission_denied"
    (listed,) = [each_key for each_key in each(admin.list_api_keys) if each_key.id == key.id]
    assert (listed.key, listed.revoked_at, listed.event_receiver_ids) == (None, None, None)
    admin.revoke_api_key(key.id)
    time.sleep(1)
    with Client(url, api_key=key.key) as client:
        assert code_of(client.me) == "invalid_token"
    assert code_of(admin.revoke_api_key, key.id) == "not_found"


@pytest.mark.parametrize("secret", ["", " ", "two words", "line\nbreak", "ä"])
def test_what_can_be_no_credential_is_refused_and_not_shown(secret: str) -> None:
    for given in ({"api_key": secret}, {"token": secret}):
        with pytest.raises(ValueError, match="must be printable ASCII") as caught:
            Client("http://127.0.0.1:1", **given)
        assert not secret.strip() or secret not in str(caught.value)
    with pytest.raises(ValueError, match="one of api_key, token and auth"):
        Client("http://127.0.0.1:1", api_key="a", token="b")


def test_a_token_that_no_header_could_hold_is_no_answer_of_ours() -> None:
    user = {"id": "1", "username": "u", "email": None, "roles": []}
    pair = {"access_token": "a\r\nX-Other: b", "refresh_token": "r", "expires_in": 900, "expires_at": "x", "user": user}
    with scripted(lambda _: (200, pair, {})) as scripted_url, Client(scripted_url) as client, pytest.raises(UnexpectedAnswer):
        client.login("u", "p")


def test_a_refused_token_is_sent_once_more_and_no_more(url: str) -> None:
    seen: list[str | None] = []

    class Tokens:
        def token(self) -> str:
            return "old"

        def renewed(self, refused: str) -> str | None:
            assert refused == "old"
            return "new"

    def script(request: Request) -> Answer:
        seen.append(request.headers.get("authorization"))
        return problem(401, "invalid_token")

    with scripted(script) as scripted_url, Client(scripted_url, auth=Tokens()) as client:
        assert code_of(client.me) == "invalid_token"
        assert seen == ["Bearer old", "Bearer new"]
        seen.clear()
        # What is no fault of the token is not mended by another.
        assert code_of(client.login, "u", "p") == "invalid_token"
        assert seen == [None]
