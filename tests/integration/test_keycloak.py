"""Logging in through a real Keycloak, in a real browser, from our first redirect to the session and back out again."""

import asyncio
import base64
import http.server
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
import httpx2
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from conftest import fresh_database, make_migrated
from support import chromium, keycloak
from support.keycloak import Keycloak
from support.logins import PlainLogins
from support.oidc_app import LOGIN, LOGOUT, oidc_settings
from support.site_thread import free_port, served
from xzepr.auth.browser import csrf_token_of
from xzepr.auth.opaque import digest

# Keycloak alone keeps a core busy while it starts; the first test waits for it, the very first for its download as well.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(1200)]

PASSWORDS = {"alice": "alice-only-for-tests", "bob": "bob-only-for-tests"}
WAIT_S = 60


@dataclass
class Place:
    """Everything that runs. url: of our server."""

    url: str
    database_url: str
    keycloak: Keycloak
    logins: PlainLogins

    def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        async def fetch() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(self.database_url)
            try:
                return [dict(row) for row in await connection.fetch(sql, *values)]
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def user(self, username: str) -> dict[str, Any]:
        [row] = self.rows("select u.* from users u where u.username = $1", username)
        return row


@pytest.fixture(scope="module")
def place(first_server: str) -> Iterator[Place]:
    lacks = [reason for reason in (keycloak.missing(), chromium.missing()) if reason is not None]
    if lacks:
        pytest.skip("; ".join(lacks))
    with ExitStack() as stack:
        made = fresh_database(first_server)
        url = asyncio.run(made.__aenter__())
        stack.callback(lambda: asyncio.run(made.__aexit__()))
        asyncio.run(make_migrated(url))
        running = stack.enter_context(keycloak.running_keycloak())
        listening, own_url = stack.enter_context(free_port())
        settings = oidc_settings(url, None, own_url=own_url, issuer_url=running.issuer, client_secret="only-for-tests")
        logins = stack.enter_context(served(settings, listening))
        yield Place(own_url, url, running, logins)


@pytest.fixture
def browser(place: Place) -> Iterator[webdriver.Chrome]:
    """A new one, that nobody logged in with; the persons have the roles of the realm file."""
    place.keycloak.set_roles("alice", ["release-manager"])
    place.keycloak.set_roles("bob", ["release-viewer"])
    with chromium.running_chromium() as driver:
        yield driver


def wait(browser: webdriver.Chrome, condition: Any, what: str) -> Any:
    return WebDriverWait(browser, WAIT_S).until(condition, f"{what}, but the browser is at {browser.current_url}:\n{browser.page_source[:2000]}")


def fill_in(browser: webdriver.Chrome, username: str, password: str) -> None:
    """Keycloak's own form."""
    wait(browser, lambda driver: driver.find_elements(By.ID, "kc-login"), "Keycloak asks who it is")
    name = browser.find_element(By.ID, "username")
    name.clear()
    name.send_keys(username)
    browser.find_element(By.ID, "password").send_keys(password)
    browser.find_element(By.ID, "kc-login").click()


def log_in(place: Place, browser: webdriver.Chrome, username: str, to: str = "/docs/problems") -> None:
    browser.get(f"{place.url}{LOGIN}?{urlencode({'redirect_to': to})}")
    fill_in(browser, username, PASSWORDS[username])
    wait(browser, lambda driver: driver.current_url == place.url + to, f"logged in and sent to {to}")


def session_cookie(browser: webdriver.Chrome) -> dict[str, Any] | None:
    return next((cookie for cookie in browser.get_cookies() if cookie["name"] == "xzepr_session"), None)


def live_session(place: Place, token: str) -> list[dict[str, Any]]:
    sql = """select f.method, u.username, u.roles, s.id_token from browser_sessions s join login_families f on f.id = s.family_id
        join users u on u.id = f.user_id where s.token_sha256 = $1 and f.ended_at is null"""
    return place.rows(sql, digest(token))


def test_a_person_logs_in_with_the_roles_of_the_realm(place: Place, browser: webdriver.Chrome) -> None:
    log_in(place, browser, "alice")
    assert "Problems" in browser.page_source
    cookie = session_cookie(browser)
    assert cookie is not None
    [session] = live_session(place, cookie["value"])
    assert (session["method"], session["username"], session["roles"]) == ("browser", "alice", ["event_manager"])
    user = place.user("alice")
    assert (user["issuer"], user["email"], user["password_hash"]) == (place.keycloak.issuer, "alice@example.com", None)
    acts = place.rows("select a.act, a.outcome, a.address from audit_log a where a.actor_id = $1 order by a.id", user["id"])
    assert acts[-1] == {"act": "auth.login", "outcome": "success", "address": "127.0.0.1"}


def test_the_cookie_of_the_session_is_out_of_reach(place: Place, browser: webdriver.Chrome) -> None:
    log_in(place, browser, "alice")
    cookie = session_cookie(browser)
    assert cookie is not None
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"], cookie["domain"]) == (True, "Lax", "/", "localhost")
    # Plain HTTP on this machine: with Secure it would not come back everywhere.
    assert cookie["secure"] is False
    assert "xzepr" not in browser.execute_script("return document.cookie")
    assert cookie["value"] not in str(place.rows("select s.* from browser_sessions s"))


def test_a_wrong_password_is_shown_by_keycloak_and_gives_nothing(place: Place, browser: webdriver.Chrome) -> None:
    browser.get(f"{place.url}{LOGIN}?redirect_to=/docs/problems")
    fill_in(browser, "alice", "wrong")
    wait(browser, lambda driver: "Invalid username or password" in driver.page_source, "Keycloak says that the password is wrong")
    assert browser.current_url.startswith(place.keycloak.issuer)
    browser.get(f"{place.url}/docs")
    assert session_cookie(browser) is None
    # And the right one works afterwards.
    log_in(place, browser, "alice")
    assert session_cookie(browser) is not None


def test_roles_that_changed_at_the_realm_count_from_the_next_login_on(place: Place, browser: webdriver.Chrome) -> None:
    log_in(place, browser, "bob")
    before = place.user("bob")
    assert before["roles"] == ["event_viewer"]
    place.keycloak.set_roles("bob", ["release-viewer", "xzepr-admin"])
    # Keycloak still knows the person, and does not ask again.
    browser.get(f"{place.url}{LOGIN}?redirect_to=/docs")
    wait(browser, lambda driver: driver.current_url == f"{place.url}/docs", "logged in without a question")
    after = place.user("bob")
    assert (after["id"], after["roles"], after["auth_epoch"]) == (before["id"], ["admin", "event_viewer"], before["auth_epoch"] + 1)
    told = place.rows("select c.epoch from auth_changes c where c.kind = 'user' and c.subject = $1", before["id"])
    assert told[-1] == {"epoch": after["auth_epoch"]}


def test_logging_out_ends_both_sessions(place: Place, browser: webdriver.Chrome) -> None:
    log_in(place, browser, "alice")
    cookie = session_cookie(browser)
    assert cookie is not None
    sessions_before = place.keycloak.sessions("alice")
    # As the console's page does.
    script = """const [path, token, done] = arguments;
        fetch(path, {method: 'POST', headers: {'X-CSRF-Token': token}}).then(answer => answer.json()).then(done, error => done(String(error)))"""
    answer = browser.execute_async_script(script, LOGOUT, csrf_token_of(cookie["value"]))
    assert isinstance(answer, dict), answer
    assert live_session(place, cookie["value"]) == []
    browser.get(answer["logout_url"])
    wait(browser, lambda driver: driver.current_url == f"{place.url}/", "sent back to our own page")
    assert session_cookie(browser) is None
    assert place.keycloak.sessions("alice") == sessions_before - 1
    browser.get(f"{place.url}{LOGIN}")
    wait(browser, lambda driver: driver.find_elements(By.ID, "kc-login"), "asked again who it is")


def test_a_login_that_was_finished_elsewhere_is_told_on_a_page(place: Place, browser: webdriver.Chrome) -> None:
    browser.get(f"{place.url}/api/v1/auth/oidc/callback?state=invented&code=x&iss={place.keycloak.issuer}")
    assert browser.find_element(By.TAG_NAME, "h1").text == "Login failed"
    assert "not known here" in browser.page_source
    browser.find_element(By.LINK_TEXT, "Try again").click()
    wait(browser, lambda driver: driver.find_elements(By.ID, "kc-login"), "a new login")


def test_the_command_line_gets_its_tokens_through_the_browser(place: Place, browser: webdriver.Chrome) -> None:
    verifier = "v" * 50
    challenge = base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    with Command() as command:
        browser.get(f"{place.url}/api/v1/auth/cli/authorize?{urlencode({'port': command.port, 'state': 'abc', 'code_challenge': challenge})}")
        fill_in(browser, "bob", PASSWORDS["bob"])
        wait(browser, lambda driver: "You may close this" in driver.page_source, "the command has its code")
    assert command.given["state"] == "abc"
    body = {"code": command.given["code"], "code_verifier": verifier}
    answer = httpx2.post(f"{place.url}/api/v1/auth/cli/token", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["user"]["username"] == "bob"
    assert place.logins.begun[-1] == ("bob", "oidc")
    assert httpx2.post(f"{place.url}/api/v1/auth/cli/token", json=body).status_code == 401
    assert session_cookie(browser) is None


class Command:
    """What waits on the person's machine for the browser. given: the parameters that it came with."""

    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if parts.path == "/":
                    outer.given = dict(parse_qsl(parts.query))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"You may close this window.")

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "Command":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
