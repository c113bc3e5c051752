"""`xzepr admin`, `login`, `logout`, `whoami` and `api-key`, on an installation whose callers need credentials."""

import asyncio
import itertools
import json
import re
import socket
import stat
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from conftest import fresh_database
from support.accounts import ADMIN, PASSWORD, SETTINGS, Person, bearer, log_in
from support.cast import make_receiver, post_event
from support.cli import Cli
from support.installation import XZEPR, Installation, installation
from support.oidc_app import ROLE_MAP
from support.oidc_provider import CLIENT_ID, CLIENT_SECRET, scripted_provider
from support.scripted import Answer, Request, problem, scripted

GOOD = "the rain in november"
_numbers = itertools.count(1)


class Town:
    """An installation, its database, and what its administrator does over HTTP."""

    def __init__(self, running: Installation, database_url: str, http: httpx2.Client) -> None:
        self.url = running.url
        self.database_url = database_url
        self.http = http
        self.admin = bearer(log_in(http))
        # On the server's own machine; the settings are those of the server.
        self.local = Cli(running.url, **{name: value for name, value in running.environ.items() if name.startswith("XZEPR__")})

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        async def run() -> Any:
            connection = await asyncpg.connect(self.database_url)
            try:
                return await connection.fetch(statement, *arguments)
            finally:
                await connection.close()

        return list(asyncio.run(run()))

    def acts(self, user_id: str) -> list[tuple[str, str]]:
        rows = self.sql("select act, actor_kind from audit_log where object_id = $1 order by id", user_id)
        return [(row["act"], row["actor_kind"]) for row in rows]

    def can_log_in(self, username: str, password: str) -> bool:
        return self.http.post("/api/v1/auth/login", json={"username": username, "password": password}).status_code == 200


@pytest.fixture(scope="module")
def town(first_server: str) -> Iterator[Town]:
    made = fresh_database(first_server)
    url = asyncio.run(made.__aenter__())
    try:
        with (
            installation(XZEPR__DATABASE__URL=url, XZEPR__SERVER__WORKERS="2", **SETTINGS) as running,
            httpx2.Client(base_url=running.url, timeout=30) as http,
        ):
            yield Town(running, url, http)
    finally:
        asyncio.run(made.__aexit__())


@pytest.fixture
def cli(town: Town, tmp_path: Path) -> Cli:
    """With a place for logins of its own, and none there yet."""
    return Cli(town.url, tmp_path / "config")


def fresh(what: str = "user") -> str:
    return f"{what}-of-the-line-{next(_numbers)}"


def log_in_as(cli: Cli, username: str, password: str) -> None:
    cli.ok("login", "--username", username, "--password-stdin", stdin=password)


def kept(cli: Cli) -> dict[str, Any]:
    """The one login that is kept."""
    file = Path(cli.environ["XDG_CONFIG_HOME"]) / "xzepr" / "credentials.json"
    (found,) = json.loads(file.read_text())["servers"].values()
    return dict(found)


def change_kept(cli: Cli, **changes: Any) -> None:
    file = Path(cli.environ["XDG_CONFIG_HOME"]) / "xzepr" / "credentials.json"
    content = json.loads(file.read_text())
    for found in content["servers"].values():
        found.update(changes)
    file.write_text(json.dumps(content))


# --- xzepr admin ---


def test_a_user_is_made_and_managed_on_the_servers_machine(town: Town) -> None:
    admin, name = ("admin",), fresh()
    made = town.local.ok(
        *admin, "create-user", name, "--email", "a@example.com", "--role", "user", "--role", "event_viewer", "--password-stdin", stdin=f"{GOOD}\n"
    )
    assert re.fullmatch(r"\S{26}", made)
    assert town.can_log_in(name, GOOD)
    (shown,) = [user for user in town.local.json(*admin, "list-users") if user["id"] == made]
    assert (shown["username"], shown["email"], shown["roles"], shown["enabled"]) == (name, "a@example.com", ["user", "event_viewer"], True)
    assert town.local.ok(*admin, "add-role", name, "event_manager", "user") == f"{name} has the roles: user, event_viewer, event_manager"
    assert town.local.ok(*admin, "remove-role", made.lower(), "user", "admin") == f"{name} has the roles: event_viewer, event_manager"
    assert "is disabled" in town.local.ok(*admin, "disable-user", name.upper())
    assert not town.can_log_in(name, GOOD)
    assert name in town.local.ok(*admin, "list-users", "--disabled")
    assert name not in town.local.ok(*admin, "list-users", "--enabled")
    assert "is enabled" in town.local.ok(*admin, "enable-user", made)
    assert "has a new password" in town.local.ok(*admin, "reset-password", name, "--password-stdin", stdin="another rain in may")
    assert (town.can_log_in(name, GOOD), town.can_log_in(name, "another rain in may")) == (False, True)
    acts = ["create", "change_roles", "change_roles", "disable", "enable", "change_password"]
    assert [act for act in town.acts(made) if act[0].startswith("user.")] == [(f"user.{act}", "system") for act in acts]
    assert len(town.local.json(*admin, "list-users", "--limit", "1")) == 1


def test_what_is_wrong_is_one_line(town: Town) -> None:
    name = fresh()
    create = ("admin", "create-user", name, "--password-stdin")
    for password, says in (
        ("short", "error: password: must have at least 8 characters (auth.password_min_chars)\n"),
        ("password1", "error: password: is among those that are guessed first\n"),
    ):
        assert town.local.fails(1, *create, stdin=password) == says
    assert "error: /username: " in town.local.fails(1, "admin", "create-user", " x", "--password-stdin", stdin=GOOD)
    assert "error: /email: " in town.local.fails(1, *create, "--email", "nobody", stdin=GOOD)
    town.local.ok(*create, stdin=GOOD)
    assert town.local.fails(1, *create, stdin=GOOD) == "error: another user has this name\n"
    assert town.local.fails(1, "admin", "reset-password", name, "--password-stdin", stdin="short").startswith("error: /password: must have at least")
    for command in (("disable-user",), ("enable-user",)):
        assert town.local.fails(1, "admin", *command, "nobody at all") == "error: there is no user nobody at all\n"
    assert "is not one of" in town.local.fails(2, "admin", "add-role", name, "boss")
    assert "Missing argument" in town.local.fails(2, "admin", "add-role", name)
    assert "is not UTF-8" in town.local.fails(2, "admin", "add-role", "\udcff", "user")
    # Arguments can be seen by everybody on the machine.
    assert "No such option" in town.local.fails(2, "admin", "create-user", fresh(), "--password", GOOD)


def test_the_last_administrator_stays(town: Town) -> None:
    for command in (("disable-user", ADMIN), ("remove-role", ADMIN, "admin")):
        assert town.local.fails(1, "admin", *command) == "error: this is the last administrator\n"
    assert town.can_log_in(ADMIN, PASSWORD)


@pytest.mark.parametrize("text", ["", "\n", "\r\n", "\udcff", "x" * 20_000])
def test_standard_input_that_is_no_password_is_wrong_usage(town: Town, text: str) -> None:
    command = ["admin", "create-user", fresh(), "--password-stdin"]
    given = text.encode("utf-8", "surrogateescape")
    done = subprocess.run([XZEPR, *command], env=town.local.environ, input=given, capture_output=True, timeout=60, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False)


def test_a_password_is_its_line_with_the_blanks_in_it(town: Town) -> None:
    name = fresh()
    town.local.ok("admin", "create-user", name, "--password-stdin", stdin=" the rain \r\n")
    assert town.can_log_in(name, " the rain ")


def test_a_person_is_asked_twice_and_sees_nothing(town: Town) -> None:
    name = fresh()
    code, shown = town.local.at_a_terminal("admin", "create-user", name, types=["one of the two", "the other one", GOOD, GOOD])
    assert code == 0, shown
    assert "do not match" in shown
    assert GOOD not in shown
    assert "the other one" not in shown
    assert town.can_log_in(name, GOOD)
    assert "nobody can be asked for the password here: give --password-stdin" in town.local.fails(2, "admin", "reset-password", name)


# --- xzepr login, logout, whoami ---


def test_a_login_is_used_by_the_other_commands_until_logout(town: Town, cli: Cli) -> None:
    told = cli.fails(1, "receiver", "list")
    assert "(401 unauthenticated)" in told
    assert "advice: `xzepr login` asks for your name and password" in told
    done = cli.run("login", "--username", ADMIN, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"logged in to {town.url} as {ADMIN} (roles: admin)\n"
    file = Path(cli.environ["XDG_CONFIG_HOME"]) / "xzepr" / "credentials.json"
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    cli.ok("receiver", "list")
    me = cli.json("whoami")
    assert (me["username"], me["roles"], me["how"]) == (ADMIN, ["admin"], "password")
    assert "user:manage" in cli.ok("whoami")
    headers = {"Authorization": f"Bearer {kept(cli)['access_token']}"}
    assert cli.run("logout").stderr == f"logged out of {town.url}\n"
    time.sleep(1)
    assert town.http.get("/api/v1/auth/me", headers=headers).status_code == 401
    assert "(401 unauthenticated)" in cli.fails(1, "whoami")
    assert cli.run("logout").stderr == f"there is no login to {town.url}\n"


def test_a_person_is_asked_for_name_and_password(town: Town, cli: Cli) -> None:
    person = Person(town.http, town.admin, "user")
    code, shown = cli.at_a_terminal("login", types=[person.username, person.password])
    assert code == 0, shown
    assert "Username: " in shown
    assert person.password not in shown
    assert cli.json("whoami")["id"] == person.id
    for arguments in ((), ("--username", "x"), ("--password-stdin",), ("--browser", "--username", "x")):
        assert "Usage: xzepr login" in cli.fails(2, "login", *arguments)


def test_a_wrong_password_is_told_and_the_login_before_stays(town: Town, cli: Cli) -> None:
    person = Person(town.http, town.admin, "user")
    log_in_as(cli, person.username, person.password)
    told = cli.fails(1, "login", "--username", person.username, "--password-stdin", stdin="wrong")
    assert told == "error: The name or the password is wrong. (401 invalid_credentials)\n"
    assert cli.json("whoami")["id"] == person.id


def test_a_guesser_is_told_how_long_to_wait(cli: Cli) -> None:
    def script(_: Request) -> Answer:
        status, body, headers = problem(429, "too_many_attempts")
        return status, body, {**headers, "Retry-After": "60"}

    with scripted(script) as url:
        cli.environ["XZEPR_URL"] = url
        told = cli.fails(1, "login", "--username", "u", "--password-stdin", stdin="wrong")
    assert told == "error: scripted too_many_attempts (429 too_many_attempts)\n  try again in 60 s\n"


def test_variables_go_before_a_login(town: Town, cli: Cli) -> None:
    login, token_of, key_of = (Person(town.http, town.admin, role) for role in ("user", "event_viewer", "event_manager"))
    log_in_as(cli, login.username, login.password)
    key = town.http.post("/api/v1/api-keys", json={"name": "x", "scopes": ["event:read"]}, headers=key_of.headers).json()["key"]
    cli.environ["XZEPR_TOKEN"] = token_of.pair["access_token"]
    assert cli.json("whoami")["id"] == token_of.id
    cli.environ["XZEPR_API_KEY"] = f"{key}\n"
    assert cli.json("whoami")["id"] == key_of.id
    assert re.search(r"credential\s+XZEPR_API_KEY", cli.ok("whoami"))
    warned = cli.run("login", "--username", login.username, "--password-stdin", stdin=login.password).stderr
    assert "warning: XZEPR_API_KEY is set and goes before this login" in warned
    told = cli.fails(1, "receiver", "create", "--name", "x", "--type", "t", "--version", "1")
    assert "(403 permission_denied)" in told
    assert "advice: `xzepr whoami` tells what you may do; `xzepr login`" in told
    cli.environ["XZEPR_API_KEY"] = "xzepr_unknown"
    assert "advice: `xzepr login` again; XZEPR_API_KEY and XZEPR_TOKEN" in cli.fails(1, "whoami")
    cli.environ["XZEPR_API_KEY"] = "two words"
    assert "XZEPR_API_KEY holds no credential" in cli.fails(2, "whoami")
    cli.environ |= {"XZEPR_API_KEY": "", "XZEPR_TOKEN": ""}
    assert cli.json("whoami")["id"] == login.id


def test_a_file_that_others_can_read_is_refused(town: Town, cli: Cli) -> None:
    log_in_as(cli, ADMIN, PASSWORD)
    file = Path(cli.environ["XDG_CONFIG_HOME"]) / "xzepr" / "credentials.json"
    file.chmod(0o644)
    for arguments in (("whoami",), ("login", "--username", ADMIN, "--password-stdin"), ("logout",)):
        told = cli.fails(1, *arguments, stdin=PASSWORD)
        assert told.startswith(f"error: {file} can be read by others (mode 0644)")
        assert "advice: " in told
    # What needs no login does not look for one.
    assert Cli(town.url, Path(cli.environ["XDG_CONFIG_HOME"]), XZEPR_API_KEY="xzepr_unknown").fails(1, "whoami").startswith("error: ")


def test_a_token_is_renewed_silently_and_once_by_commands_at_the_same_time(town: Town, cli: Cli) -> None:
    person = Person(town.http, town.admin, "event_viewer")
    log_in_as(cli, person.username, person.password)
    count = "select count(*) from refresh_tokens t join login_families f on f.id = t.family_id where f.user_id = $1"
    before, old = town.sql(count, person.id)[0]["count"], kept(cli)
    change_kept(cli, expires_at=time.time() + 30)
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: cli.run("receiver", "list", "--json"), range(6)))
    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * 6
    assert town.sql(count, person.id)[0]["count"] == before + 1
    renewed = kept(cli)
    assert renewed["refresh_token"] != old["refresh_token"]
    assert renewed["expires_at"] > time.time() + 600


def test_a_token_that_the_server_refuses_is_renewed(town: Town, cli: Cli) -> None:
    person = Person(town.http, town.admin, "user")
    log_in_as(cli, person.username, person.password)
    assert "(403 permission_denied)" in cli.fails(1, "receiver", "list")
    # Other roles end the token, not the login.
    town.local.ok("admin", "add-role", person.username, "event_manager")
    time.sleep(1)
    assert "event_manager" in cli.json("whoami")["roles"]
    with httpx2.Client(base_url=town.url, headers=town.admin) as http:
        receiver, name = make_receiver(http), fresh("watched")
        posted = post_event(http, receiver, name=name)
    town.local.ok("admin", "remove-role", person.username, "user")
    time.sleep(1)
    assert json.loads(cli.ok("watch", "--after", "0", "--name", name, "--count", "1", "--json"))["id"] == posted


def test_a_login_that_was_ended_is_told_and_forgotten(town: Town, cli: Cli) -> None:
    person = Person(town.http, town.admin, "event_viewer")
    log_in_as(cli, person.username, person.password)
    town.local.ok("admin", "reset-password", person.username, "--password-stdin", stdin=GOOD)
    time.sleep(1)
    told = cli.fails(1, "receiver", "list")
    assert "(401 invalid_token)" in told
    assert "advice: `xzepr login` again" in told
    assert "(401 unauthenticated)" in cli.fails(1, "receiver", "list")
    log_in_as(cli, person.username, GOOD)
    cli.ok("receiver", "list")


def test_a_logout_that_the_server_does_not_hear_is_told(cli: Cli) -> None:
    pair = {
        "access_token": "a",
        "refresh_token": "r",
        "expires_in": 900,
        "expires_at": "x",
        "user": {"id": "1", "username": "u", "email": None, "roles": []},
    }

    def script(request: Request) -> Answer:
        return (200, pair, {}) if request.path == "/auth/login" else problem(500, "internal_error")

    with scripted(script) as url:
        cli.environ["XZEPR_URL"] = url
        log_in_as(cli, "u", "p")
        told = cli.fails(1, "logout")
        assert told.startswith("error: this machine has forgotten the login, but the server has not heard of it: ")
        assert "there is no login" in cli.run("logout").stderr


def test_a_password_over_a_plain_connection_warns(cli: Cli) -> None:
    cli.environ["XZEPR_URL"] = "http://xzepr.invalid:1"
    told = cli.fails(1, "login", "--username", "u", "--password-stdin", "--timeout", "2", stdin="p")
    assert told.startswith("warning: http://xzepr.invalid:1 is not encrypted")


# --- in a browser ---

_BROWSER = """\
#!{python}
import sys, urllib.error, urllib.parse, urllib.request
begin = sys.argv[1]
port = urllib.parse.parse_qs(urllib.parse.urlsplit(begin).query)["port"][0]
for wrong in ("/?code=stolen&state=guessed", "/?code=stolen", "/favicon.ico", "/?error=access_denied"):
    try:
        urllib.request.urlopen("http://127.0.0.1:" + port + wrong)
    except urllib.error.HTTPError as refused:
        print(refused.code, file=open({told!r}, "a"))
print(urllib.request.urlopen(begin).read().decode(), file=open({told!r}, "a"))
"""


class Provider:
    """The server's side of a login in a browser, by the contract."""

    def __init__(self, *, answer: str = "code=the-code") -> None:
        self.answer = answer
        self.challenge = ""
        self.turned_in = 0

    def __call__(self, request: Request) -> Answer:
        if request.path == "/auth/oidc/login":
            return 200, {"authorization_url": "https://sso.example.com/auth", "state": "s"}, {}
        if request.path == "/auth/cli/authorize":
            assert set(request.query) == {"port", "state", "code_challenge"}
            self.challenge = request.query["code_challenge"]
            state = request.query["state"]
            return 302, None, {"Location": f"http://127.0.0.1:{request.query['port']}/?{self.answer}&state={state}"}
        if request.path == "/auth/cli/token":
            self.turned_in += 1
            assert "authorization" not in request.headers
            digest = urlsafe_b64encode(sha256(request.body["code_verifier"].encode()).digest()).rstrip(b"=").decode()
            if request.body["code"] != "the-code" or digest != self.challenge:
                return problem(401, "invalid_token")
            user = {"id": "01M88Q7AG504QSGMQWKDMNZ1V2", "username": "alice", "email": None, "roles": ["event_viewer"]}
            return 200, {"access_token": "a.b.c", "refresh_token": "r", "expires_in": 900, "expires_at": "x", "user": user}, {}
        assert request.path == "/auth/me"
        assert request.headers["authorization"] == "Bearer a.b.c"
        return 200, {"id": None, "username": "alice", "roles": [], "permissions": [], "how": "oidc"}, {}


def with_browser(cli: Cli, url: str, tmp_path: Path) -> Path:
    """What the browser saw."""
    told, browser = tmp_path / "told", tmp_path / "browser"
    browser.write_text(_BROWSER.format(python=sys.executable, told=str(told)))
    browser.chmod(0o755)
    cli.environ |= {"XZEPR_URL": url, "BROWSER": f"{browser} %s"}
    return told


def test_a_login_in_a_browser_takes_its_own_answer_and_no_other(cli: Cli, tmp_path: Path) -> None:
    provider = Provider()
    with scripted(provider) as url:
        told = with_browser(cli, url, tmp_path)
        done = cli.run("login", "--browser")
        assert done.returncode == 0, done.stderr
        # The address is shown, too: the browser may be one that we cannot start.
        assert f"{url}/xzepr/api/v1/auth/cli/authorize?port=" in done.stderr
        assert done.stderr.endswith(f"logged in to {url} as alice (roles: event_viewer)\n")
        deadline_s = time.monotonic() + 10
        while "You are logged in" not in told.read_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert told.read_text().split()[:4] == ["400", "400", "404", "400"]
        assert cli.json("whoami")["how"] == "oidc"
    assert provider.turned_in == 1
    assert (kept(cli)["refresh_token"], kept(cli)["username"]) == ("r", "alice")


def test_a_login_that_the_provider_refused_is_told(cli: Cli, tmp_path: Path) -> None:
    provider = Provider(answer="error=access_denied&error_description=not+today")
    with scripted(provider) as url:
        with_browser(cli, url, tmp_path)
        assert "error: the login was refused: not today\n" in cli.fails(1, "login", "--browser")
    assert provider.turned_in == 0


def test_a_code_that_does_not_count_is_told(cli: Cli, tmp_path: Path) -> None:
    with scripted(Provider(answer="code=another")) as url:
        with_browser(cli, url, tmp_path)
        assert "(401 invalid_token)" in cli.fails(1, "login", "--browser")
        assert "there is no login" in cli.run("logout").stderr


def test_a_server_that_no_browser_can_log_in_to_says_so_at_once(cli: Cli, tmp_path: Path) -> None:
    with scripted(lambda _: problem(404, "not_found")) as url:
        told = with_browser(cli, url, tmp_path)
        assert "(404 not_found)" in cli.fails(1, "login", "--browser")
        assert not told.exists(), "no browser was opened"


def test_the_command_and_the_server_understand_each_other(first_server: str, tmp_path: Path) -> None:
    """No script here: the real command at the real server, at whose provider a person logs in."""
    made = fresh_database(first_server)
    database_url = asyncio.run(made.__aenter__())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    try:
        with scripted_provider() as provider:
            keycloak = {"ISSUER_URL": provider.issuer, "CLIENT_ID": CLIENT_ID, "CLIENT_SECRET": CLIENT_SECRET, "ROLE_MAP": json.dumps(ROLE_MAP)}
            keycloak["REDIRECT_URL"] = f"http://127.0.0.1:{port}/api/v1/auth/oidc/callback"
            settings = {f"XZEPR__AUTH__KEYCLOAK__{name}": value for name, value in keycloak.items()}
            settings |= {"XZEPR__AUTH__ENABLE_OIDC": "true", "XZEPR__SERVER__PORT": port, "XZEPR__SERVER__WORKERS": "2"}
            with installation(XZEPR__DATABASE__URL=database_url, **SETTINGS, **settings) as running:
                cli = Cli(running.url, tmp_path / "config", BROWSER="", DISPLAY="", WAYLAND_DISPLAY="")
                command = subprocess.Popen([XZEPR, "login", "--browser"], env=cli.environ, stderr=subprocess.PIPE, text=True)
                assert command.stderr is not None
                told = [command.stderr.readline() for _ in range(3)]
                with httpx2.Client(timeout=30) as browser:
                    at_the_provider = browser.get(told[2].strip()).headers["location"]
                    back = browser.get(f"{running.url}{provider.come_back(at_the_provider)}").headers["location"]
                    assert "You are logged in" in browser.get(back).text
                _, rest = command.communicate(timeout=30)
                assert (command.returncode, rest.strip().endswith("(roles: event_manager)")) == (0, True), rest
                me = cli.json("whoami")
                assert (me["how"], me["username"], me["roles"]) == ("oidc", provider.person.username, ["event_manager"])
                assert cli.ok("api-key", "create", "--name", "x", "--scope", "event:create").startswith("xzepr_")
                change_kept(cli, expires_at=time.time())
                cli.ok("receiver", "list")
                cli.ok("logout")
    finally:
        asyncio.run(made.__aexit__())


# --- API keys ---


def test_a_key_is_made_used_and_revoked(town: Town, cli: Cli) -> None:
    person = Person(town.http, town.admin, "event_manager")
    log_in_as(cli, person.username, person.password)
    name = fresh("receiver")
    mine = cli.ok("receiver", "create", "--name", name, "--type", "t", "--version", "1")
    other = cli.ok("receiver", "create", "--name", fresh("receiver"), "--type", "t", "--version", "1")
    create = ("api-key", "create", "--name", "ci of api")
    made = cli.run(*create, "--scope", "event:create", "--scope", "event:read", "--receiver", name, "--expires-in", "90d")
    key = made.stdout.strip()
    assert re.fullmatch(r"xzepr_[\w-]{43}", key), made.stderr
    (listed,) = cli.json("api-key", "list")
    assert listed["id"] in made.stderr
    assert key not in made.stderr
    assert (listed["scopes"], listed["event_receiver_ids"], listed["key"]) == (["event:create", "event:read"], [mine], None)
    assert 89 < (time.mktime(time.strptime(listed["expires_at"][:19], "%Y-%m-%dT%H:%M:%S")) - time.time()) / 86_400 < 91
    assert "ci of api" in cli.ok("api-key", "list")
    program = Cli(town.url, XZEPR_API_KEY=key)
    artifact = ("--name", "api", "--version", "1", "--release", "1", "--platform-id", "any", "--package", "oci")
    event_id = program.ok("event", "post", "--receiver", mine, *artifact, "--success")
    assert program.json("event", "show", event_id)["owner_id"] == person.id
    assert "other event receivers" in program.fails(1, "event", "post", "--receiver", other, *artifact, "--success")
    assert "(403 permission_denied)" in program.fails(1, *create, "--scope", "event:read")
    cli.ok("api-key", "revoke", listed["id"], "--yes")
    time.sleep(1)
    assert "(401 invalid_token)" in program.fails(1, "event", "list")
    assert "(404 not_found)" in cli.fails(1, "api-key", "revoke", listed["id"], "--yes")
    assert cli.json(*create, "--scope", "event:read")["key"].startswith("xzepr_")


def test_a_key_that_could_do_more_than_its_maker_is_refused(town: Town, cli: Cli) -> None:
    person = Person(town.http, town.admin, "user")
    log_in_as(cli, person.username, person.password)
    create = ("api-key", "create", "--name", "x")
    assert "/scopes/1" in cli.fails(1, *create, "--scope", "event:read", "--scope", "user:manage")
    assert "/scopes/0" in cli.fails(1, *create, "--scope", "event:everything")
    assert "Missing option '--scope'" in cli.fails(2, *create)
    assert "is no duration" in cli.fails(2, *create, "--scope", "event:read", "--expires-in", "soon")
    assert "leave it out" in cli.fails(2, *create, "--scope", "event:read", "--expires-in", "999999999d")
    assert cli.run("api-key", "list").stderr == "no API keys\n"
    assert "only an administrator" in cli.fails(1, "api-key", "list", "--user", "01M88Q7AG504QSGMQWKDMNZ1V5")


# --- the first login ---


def test_the_first_login_is_pointed_out_until_its_password_is_changed(first_server: str, tmp_path: Path) -> None:
    made = fresh_database(first_server)
    url = asyncio.run(made.__aenter__())
    state_dir = tmp_path / "state"
    settings = {"XZEPR__DATABASE__URL": url, "XZEPR__SERVER__WORKERS": "1", "XZEPR__SERVER__STATE_DIR": str(state_dir)}
    settings["XZEPR__AUTH__ANONYMOUS_ROLES"] = ""
    file = state_dir / "first-login.json"
    try:
        for _ in range(2):
            with installation(**settings) as running:
                running.wait_for(rf"^First login: {re.escape(str(file))}$")
                first = json.loads(file.read_text())
                cli = Cli(running.url, tmp_path / "config")
                log_in_as(cli, first["username"], first["password"])
                assert cli.json("whoami")["roles"] == ["admin"]
                with httpx2.Client(base_url=running.url) as http:
                    assert http.get("/api/v1/events").status_code == 401
                assert not any(first["password"] in line for line in running.lines)
        local = Cli(running.url, **settings)
        local.ok("admin", "reset-password", first["username"], "--password-stdin", stdin=GOOD)
        with installation(**settings) as running:
            running.wait_for("process.ready .*role=relay")
            assert not any("First login" in line for line in running.lines)
    finally:
        asyncio.run(made.__aexit__())
