"""What must hold together before anything starts."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from support.settings_home import DEFAULT, PRODUCTION, URL, Home, ready_for_production, tree_of
from xzepr.settings.checks import NOT_THERE_YET
from xzepr.settings.model import knobs
from xzepr.settings.names import KNOBS


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# --- what must hold together


def test_anonymous_networks_beyond_this_machine_need_a_word(home: Home) -> None:
    wide = {"XZEPR__AUTH__ANONYMOUS_NETWORKS": "127.0.0.1,::1,10.0.0.0/8", "XZEPR__AUTH__ANONYMOUS_ROLES": "user"}
    (problem,) = home.problems(**wide)
    assert problem.startswith("auth.anonymous_networks: 10.0.0.0/8 reaches beyond this machine")
    assert home.load(**wide, XZEPR__AUTH__ALLOW_ANONYMOUS_REMOTE="true").warnings[0].startswith("auth.anonymous_roles: ")
    assert home.load(XZEPR__AUTH__ANONYMOUS_NETWORKS="127.0.0.53,::1").warnings == []


@pytest.mark.parametrize("proxies", ["0.0.0.0/0", "10.0.0.1,::/0"])
def test_a_proxy_that_is_everybody_and_roles_without_credentials_do_not_go_together(home: Home, proxies: str) -> None:
    given = {"XZEPR__SERVER__TRUSTED_PROXIES": proxies}
    assert home.load(**given).settings.server.trusted_proxies == proxies.split(",")
    assert home.problems(**given, XZEPR__AUTH__ANONYMOUS_ROLES="admin")[0].startswith("server.trusted_proxies: ")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"PASSWORD": "admin"}, "auth.bootstrap_admin.password: must have at least 8 characters"),
        ({"PASSWORD": "password1"}, "auth.bootstrap_admin.password: is among those that are guessed first"),
        ({"USERNAME": "charlie", "PASSWORD": "charlie-1"}, "auth.bootstrap_admin.password: must be more than a name"),
        ({"USERNAME": " admin"}, "auth.bootstrap_admin.username: must be 1 to 100 characters"),
        ({"USERNAME": "a\tb"}, "auth.bootstrap_admin.username: must be 1 to 100 characters"),
        ({"USERNAME": "x" * 101}, "auth.bootstrap_admin.username: must be 1 to 100 characters"),
    ],
)
@pytest.mark.parametrize("env", ["development", "production"])
def test_the_first_administrator_is_held_to_the_rules_for_users(home: Home, given: dict[str, str], problem: str, env: str) -> None:
    ready = ready_for_production(home) if env == "production" else {}
    variables = {f"XZEPR__AUTH__BOOTSTRAP_ADMIN__{name}": value for name, value in given.items()}
    (told,) = home.problems(**ready, **variables)
    assert told.startswith(problem)
    assert given.get("PASSWORD", "never shown") not in told.partition(":")[2]
    # Where nobody logs in by a password nobody is made.
    home.load(**ready, **variables, XZEPR__AUTH__ENABLE_LOCAL_AUTH="false")


def test_any_origin_with_credentials_warns(home: Home) -> None:
    origins = {"XZEPR__SECURITY__CORS__ALLOWED_ORIGINS": "*"}
    assert home.load(**origins).warnings[0].startswith("security.cors.allowed_origins: ")
    assert home.load(**origins, XZEPR__SECURITY__CORS__ALLOW_CREDENTIALS="false").warnings == []


def test_traces_without_an_endpoint_warn(home: Home) -> None:
    reason = "telemetry.tracing_enabled: there is no telemetry.otlp_endpoint to send traces to (from XZEPR__TELEMETRY__TRACING_ENABLED)"
    on = {"XZEPR__TELEMETRY__TRACING_ENABLED": "true"}
    assert reason in home.load(**on).warnings
    assert reason not in home.load(**on, XZEPR__TELEMETRY__OTLP_ENDPOINT="http://x:4318/v1/traces").warnings


@pytest.mark.parametrize("path", [path for path in KNOBS if any(path.startswith(beginning) for beginning in NOT_THERE_YET)])
def test_a_key_without_a_part_warns_or_stops_the_start_where_ignoring_it_weakens_security(home: Home, path: str) -> None:
    reason = next(reason for beginning, reason in NOT_THERE_YET.items() if path.startswith(beginning))
    knob = KNOBS[path]
    value: Any = "http://x:4318/v1/traces" if path.endswith(("_endpoint", "_url")) else "x"
    if path.startswith("jwt.") and path.endswith("_path"):
        value = str(home.write("key.pem", "key"))
    elif isinstance(knob.default, bool):
        value = not knob.default
    elif isinstance(knob.default, int | float):
        value = knob.default + 1 if isinstance(knob.default, int) else knob.default / 2
    elif path == "telemetry.metrics_port":
        value = 9
    elif not isinstance(knob.default, str | None) or path in ("server.dialect", "kafka.security_protocol"):
        value = {
            "security.rate_limit.per_endpoint": {"x": 1},
            "kafka.brokers": ["a:1"],
            "auth.keycloak.role_map": {"x": ["user"]},
            "auth.trusted_issuers": [{"issuer": "i", "audience": "a", "rules": []}],
            "server.dialect": "epr",
            "kafka.security_protocol": "SSL",
        }[path]
    home.write(DEFAULT, tree_of(path, value))
    if reason is None:
        assert f"{path}: has no effect yet (from {home.path / DEFAULT})" in home.load().warnings
    else:
        assert f"{path}: {reason} (from {DEFAULT})" in home.problems()


def test_tls_without_its_files_names_each(home: Home) -> None:
    problems = home.problems(XZEPR__SERVER__ENABLE_HTTPS="true")
    assert [problem for problem in problems if problem.startswith("tls.")] == [
        "tls.cert_path: is missing; server.enable_https needs it",
        "tls.key_path: is missing; server.enable_https needs it",
    ]


def test_every_key_either_has_a_reader_or_says_that_its_part_is_not_there() -> None:
    """A key that nobody reads would be ignored without a word."""
    house = Path(__file__).parents[2] / "src" / "xzepr"
    readers = "\n".join(path.read_text("utf-8") for path in house.rglob("*.py") if path.parent.name != "settings")
    checked_here = {"auth.allow_anonymous_remote"}
    ignored = [
        knob.path
        for knob in knobs()
        if not any(knob.path.startswith(beginning) for beginning in NOT_THERE_YET) and f".{knob.path.rpartition('.')[2]}" not in readers
    ]
    assert set(ignored) == checked_here


OIDC = {
    "XZEPR__AUTH__ENABLE_OIDC": "true",
    "XZEPR__AUTH__KEYCLOAK__ISSUER_URL": "https://sso.example.com/realms/acme",
    "XZEPR__AUTH__KEYCLOAK__CLIENT_ID": "xzepr",
    "XZEPR__AUTH__KEYCLOAK__REDIRECT_URL": "http://localhost:8042/api/v1/auth/oidc/callback",
    "XZEPR__AUTH__KEYCLOAK__ROLE_MAP": '{"ops": ["admin"]}',
}


def test_login_through_a_provider_needs_all_that_it_needs(home: Home) -> None:
    assert home.load(**OIDC).warnings == []
    assert [problem.partition(" (from")[0] for problem in home.problems(XZEPR__AUTH__ENABLE_OIDC="true")] == [
        f"auth.keycloak.{name}: is missing; auth.enable_oidc needs it" for name in ("issuer_url", "client_id", "redirect_url")
    ]


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://sso.example.com/realms/acme", True),
        ("http://localhost:8080/realms/acme", True),
        ("http://127.0.0.1:8080/realms/acme", True),
        ("http://[::1]:8080/realms/acme", True),
        ("http://sso.example.com/realms/acme", False),
        ("http://127.0.0.1.example.com/realms/acme", False),
        ("http://10.0.0.1/realms/acme", False),
        ("https://user:password@sso.example.com/realms/acme", False),
        ("https://sso.example.com/realms/acme#x", False),
        ("ftp://sso.example.com/realms/acme", False),
    ],
)
def test_the_provider_is_spoken_to_where_nobody_listens(home: Home, url: str, good: bool) -> None:
    given = {**OIDC, "XZEPR__AUTH__KEYCLOAK__ISSUER_URL": url}
    if good:
        assert home.load(**given).settings.auth.keycloak.issuer_url == url
    else:
        (problem,) = home.problems(**given)
        assert problem.startswith("auth.keycloak.issuer_url: ")
        assert "password" not in problem


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://xzepr.example.com/api/v1/auth/oidc/callback", "must begin with https://"),
        ("https://xzepr.example.com/", "does not end with /api/v1/auth/oidc/callback"),
        ("https://xzepr.example.com/api/v1/auth/oidc/callback?x", "does not end with /api/v1/auth/oidc/callback"),
    ],
)
def test_browsers_come_back_to_the_right_place_and_not_in_the_clear(home: Home, url: str, reason: str) -> None:
    (problem,) = home.problems(**{**OIDC, "XZEPR__AUTH__KEYCLOAK__REDIRECT_URL": url})
    assert problem.startswith(f"auth.keycloak.redirect_url: {reason}")


def test_a_provider_that_leads_nowhere_warns(home: Home) -> None:
    only = {"XZEPR__AUTH__KEYCLOAK__ISSUER_URL": OIDC["XZEPR__AUTH__KEYCLOAK__ISSUER_URL"]}
    assert home.load(**only).warnings[0].startswith("auth.keycloak.issuer_url: has no effect: auth.enable_oidc is off")
    without_map = {name: value for name, value in OIDC.items() if not name.endswith("ROLE_MAP")}
    assert home.load(**without_map).warnings[0].startswith("auth.keycloak.role_map: is empty")
    public = {**OIDC, "XZEPR__AUTH__KEYCLOAK__REDIRECT_URL": "https://xzepr.example.com/api/v1/auth/oidc/callback"}
    assert "which server.allowed_hosts does not name" in home.load(**public).warnings[0]
    assert home.load(**public, XZEPR__SERVER__ALLOWED_HOSTS="xzepr.example.com").warnings == []


# --- production


def test_what_is_missing_for_production_is_named_one_per_line(home: Home) -> None:
    problems = home.problems(XZEPR_ENV="production", XZEPR__AUTH__ANONYMOUS_ROLES="user", XZEPR__SECURITY__CORS__ALLOWED_ORIGINS="*")
    assert [problem.partition(":")[0] for problem in problems] == [
        "jwt.private_key_path",
        "jwt.public_key_path",
        "auth.anonymous_roles",
        "security.cors.allowed_origins",
        "server.trusted_proxies",
        "database.url",
    ]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"XZEPR__DATABASE__URL": ""}, "database.url"),
        ({"XZEPR__SERVER__TRUSTED_PROXIES": ""}, "server.trusted_proxies"),
        ({"XZEPR__JWT__PRIVATE_KEY_PATH": ""}, "jwt.private_key_path"),
        ({"XZEPR__JWT__PUBLIC_KEY_PATH": "nowhere"}, "jwt.public_key_path"),
        ({"XZEPR__AUTH__ANONYMOUS_ROLES": "user"}, "auth.anonymous_roles"),
        ({"XZEPR__SECURITY__CORS__ALLOWED_ORIGINS": "https://a.example,*"}, "security.cors.allowed_origins"),
    ],
)
def test_production_starts_when_nothing_is_missing_and_not_otherwise(home: Home, change: dict[str, str], path: str) -> None:
    ready = ready_for_production(home)
    assert home.load(**ready).settings.env == "production"
    (problem,) = home.problems(**(ready | change))
    assert problem.startswith(f"{path}: ")


def test_the_embedded_database_in_production_needs_a_word(home: Home) -> None:
    ready = ready_for_production(home) | {"XZEPR__DATABASE__URL": ""}
    assert home.problems(**ready)[0].startswith("database.url: is missing (--allow-embedded")
    assert home.load(allow_embedded=True, **ready).settings.database.url is None


def test_the_production_guide_reads_and_what_is_missing_is_named(home: Home) -> None:
    home.write(
        PRODUCTION,
        """
        server: {host: "0.0.0.0", port: 8042, enable_https: true}
        database: {max_connections: 20, min_connections: 5, connection_timeout_seconds: 30}
        jwt: {issuer: "xzepr.io", audience: "xzepr-api", access_token_expiration: 900, refresh_token_expiration: 604800}
        security: {cors: {allow_credentials: true, max_age_seconds: 3600}, rate_limit: {anonymous_rpm: 10, authenticated_rpm: 100, admin_rpm: 1000}}
        telemetry: {metrics_enabled: true, tracing_enabled: true, log_level: "info", json_logs: true}
        """,
    )
    problems = home.problems(
        XZEPR_ENV="production",
        XZEPR__DATABASE__URL=URL,
        XZEPR__DATABASE__MAX_CONNECTIONS="20",
        XZEPR__JWT__PRIVATE_KEY_PATH=str(home.write("private.pem", "key")),
        XZEPR__JWT__PUBLIC_KEY_PATH=str(home.write("public.pem", "key")),
        XZEPR__JWT__ACCESS_TOKEN_EXPIRATION="900",
        XZEPR__JWT__REFRESH_TOKEN_EXPIRATION="604800",
        XZEPR__SECURITY__CORS__ALLOWED_ORIGINS="https://app.example.com,https://admin.example.com",
        XZEPR__SECURITY__RATE_LIMIT__ANONYMOUS_RPM="10",
        XZEPR__SECURITY__RATE_LIMIT__AUTHENTICATED_RPM="100",
        XZEPR__TELEMETRY__JAEGER_ENDPOINT="http://localhost:14268/api/traces",
        XZEPR__TELEMETRY__LOG_LEVEL="info",
        XZEPR__TELEMETRY__JSON_LOGS="true",
    )
    not_there = ["server.enable_https"] if "server.enable_https" in NOT_THERE_YET else []
    assert [problem.partition(":")[0] for problem in problems] == [*not_there, "tls.cert_path", "tls.key_path"]


# --- the signing key


def test_a_signing_key_that_everybody_can_read_stops_the_start(home: Home) -> None:
    key = home.write("private.pem", "key", 0o644)
    (problem,) = home.problems(XZEPR__JWT__PRIVATE_KEY_PATH="private.pem")
    assert problem.startswith("jwt.private_key_path: everybody can read private.pem: chmod 600 it")
    key.chmod(0o640)
    assert home.load(XZEPR__JWT__PRIVATE_KEY_PATH="private.pem").settings.jwt.private_key_path == "private.pem"


def test_a_signing_key_that_systemd_hands_in_may_be_readable(home: Home) -> None:
    home.write("credentials/private.pem", "key", 0o644)
    (home.path / "link").symlink_to(home.path / "credentials")
    key = {"XZEPR__JWT__PRIVATE_KEY_PATH": "link/private.pem"}
    assert home.load(**key, CREDENTIALS_DIRECTORY=str(home.path / "credentials")).settings.jwt.private_key_path
    assert home.problems(**key, CREDENTIALS_DIRECTORY=str(home.path / "credentials-of-another"))[0].startswith("jwt.private_key_path: everybody")


def test_a_signing_key_on_a_read_only_mount_may_be_readable(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("private.pem", "key", 0o644)
    asked: list[Path] = []

    class ReadOnly:
        f_flag = os.ST_RDONLY | os.ST_NOSUID

    def statvfs(path: Path) -> ReadOnly:
        asked.append(path)
        return ReadOnly()

    monkeypatch.setattr("xzepr.settings.checks.os.statvfs", statvfs)
    assert home.load(XZEPR__JWT__PRIVATE_KEY_PATH="private.pem").settings.jwt.private_key_path
    assert asked == [home.path / "private.pem"]


def test_a_key_file_that_cannot_be_read_stops_the_start(home: Home) -> None:
    home.write("keys/public.pem", "key")
    assert home.problems(XZEPR__JWT__PUBLIC_KEY_PATH="keys")[0].startswith("jwt.public_key_path: keys: Is a directory")
    home.write("keys/private.pem", "key", 0o000)
    nobody, me = 65534, os.geteuid()
    if me == 0:
        os.seteuid(nobody)
    try:
        problems = home.problems(XZEPR__JWT__PRIVATE_KEY_PATH="keys/private.pem")
    finally:
        if me == 0:
            os.seteuid(me)
    # Another account may not reach the directory either, and is told so first.
    assert problems[-1].startswith("jwt.private_key_path: keys/private.pem: Permission denied")


# --- trusted issuers


def issuer(**changed: Any) -> dict[str, Any]:
    rule = {"claims": {"repository": "acme/*"}, "roles": ["event_manager"]}
    return {"issuer": "https://ci.example.com", "audience": "xzepr", "rules": [rule], **changed}


def issuers(*given: dict[str, Any]) -> dict[str, str]:
    return {"XZEPR__AUTH__TRUSTED_ISSUERS": json.dumps(given)}


def test_trusted_issuers_that_are_in_order_say_nothing(home: Home) -> None:
    given = [
        issuer(),
        issuer(issuer="kubernetes/serviceaccount", jwks_url="https://k8s.example.com/openid/v1/jwks"),
        issuer(issuer="http://127.0.0.1:8080/realms/acme"),
        issuer(issuer="http://localhost:8080", jwks_url="http://[::1]:8080/keys"),
        issuer(issuer="https://other.example.com", rules=[]),
        issuer(issuer="https://third.example.com", rules=[{"claims": {"iss": "*", "sub": "repo:acme/*"}, "roles": []}]),
    ]
    assert home.load(**issuers(*given)).warnings == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            issuer(rules=[{"claims": {"iss": "https://ci.example.com", "aud": "xzepr"}, "roles": ["user"]}]),
            "rule 1 matches every token of the issuer",
        ),
        (issuer(rules=[{"claims": {"aud": "xzepr"}, "roles": ["admin"]}]), "rule 1 matches every token of the issuer"),
        (issuer(rules=[{"claims": {"sub": "*"}, "roles": ["admin"]}]), "rule 1 matches every token of the issuer"),
        (issuer(rules=[*issuer()["rules"], {"claims": {"iss": "x", "sub": "**"}, "roles": ["admin"]}]), "rule 2 matches every token of the issuer"),
        (issuer(jwks_url="http://keys.example.com/jwks"), "jwks_url is not a URL that begins with https://"),
        (issuer(jwks_url="keys.example.com/jwks"), "jwks_url is not a URL that begins with https://"),
        (issuer(jwks_url="https://user@keys.example.com/jwks"), "jwks_url is not a URL that begins with https://"),
        (issuer(issuer="http://ci.example.com"), "its keys cannot be found by discovery: set its jwks_url"),
        (issuer(issuer="kubernetes/serviceaccount"), "its keys cannot be found by discovery: set its jwks_url"),
        (issuer(issuer="xzepr.io", jwks_url="https://keys.example.com/jwks"), "is jwt.issuer, the name of this server's own tokens"),
    ],
)
def test_a_trusted_issuer_that_would_let_anybody_in_stops_the_start(home: Home, given: dict[str, Any], reason: str) -> None:
    (problem,) = home.problems(**issuers(given))
    assert problem.startswith(f"auth.trusted_issuers: issuer 1 ({given['issuer']}): ")
    assert reason in problem


def test_an_issuer_that_stands_there_twice_stops_the_start(home: Home) -> None:
    (problem,) = home.problems(**issuers(issuer(), issuer(audience="another")))
    assert problem.startswith("auth.trusted_issuers: issuer 2 (https://ci.example.com) stands there twice")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (issuer(audience=""), "audience"),
        ({name: value for name, value in issuer().items() if name != "audience"}, "audience"),
        (issuer(rules=[{"claims": {}, "roles": ["user"]}]), "claims"),
        (issuer(rules=[{"claims": {"sub": "x"}, "roles": ["root"]}]), "roles"),
        (issuer(rules=[{"claims": {"sub": "x"}, "roles": ["user"], "event_receiver_ids": ["x"]}]), "event_receiver_ids"),
        (issuer(jwks="https://keys.example.com"), "jwks"),
    ],
)
def test_a_misspelt_issuer_stops_the_start(home: Home, given: dict[str, Any], reason: str) -> None:
    (problem,) = home.problems(**issuers(given))
    assert reason in problem


# --- retention


def rules(*given: tuple[str, int]) -> dict[str, str]:
    return {"XZEPR__RETENTION__RULES": json.dumps([{"event_receiver_type": kind, "older_than_days": days} for kind, days in given])}


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"event_receiver_typ": "artifact.*", "older_than_days": 365}, "event_receiver_typ"),
        ({"event_receiver_type": "artifact.*", "older_than_day": 365}, "older_than_day"),
        ({"event_receiver_type": "artifact.*"}, "older_than_days"),
        ({"event_receiver_type": "artifact.*", "older_than_days": 0}, ">= 1"),
        ({"event_receiver_type": "artifact.*", "older_than_days": "a year"}, "Expected int"),
        ({"event_receiver_type": "", "older_than_days": 1}, ">= 1"),
        ({"event_receiver_type": " ", "older_than_days": 1}, "Expected str"),
        ({"event_receiver_type": "a" * 256, "older_than_days": 1}, "<= 255"),
        ("artifact.*", "Expected object"),
    ],
)
def test_a_misspelt_rule_stops_the_start_and_says_which(home: Home, rule: Any, reason: str) -> None:
    right = {"event_receiver_type": "build.*", "older_than_days": 30}
    (problem,) = home.problems(XZEPR__RETENTION__RULES=json.dumps([right, rule]))
    assert problem.startswith("XZEPR__RETENTION__RULES: takes a list, each an object of event_receiver_type, older_than_days: ")
    assert reason in problem
    assert "at [1]" in problem


def test_a_rule_that_never_counts_warns(home: Home) -> None:
    (warning,) = home.load(**rules(("artifact.*", 30), ("build.*", 30), ("artifact.signed", 3650))).warnings
    assert "rule 3 (artifact.signed) never counts: rule 1 (artifact.*) stands before it" in warning
    assert home.load(**rules(("artifact.signed", 3650), ("artifact.*", 30), ("*", 1))).warnings == []
    assert "white space" in home.load(**rules((" artifact.signed", 1))).warnings[0]


def test_the_rules_have_an_effect_and_say_nothing_of_it(home: Home) -> None:
    assert home.load(**rules(("artifact.*", 30)), XZEPR__STREAM__RETENTION_DAYS="7").warnings == []
