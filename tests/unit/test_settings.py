"""Where settings come from, in which order, and which values are refused."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from support.settings_home import DEFAULT, DEVELOPMENT, URL, Home, a_home, tree_of, values_of
from xzepr.auth.permissions import Role
from xzepr.settings import Settings
from xzepr.settings.model import SECRETS, value_of
from xzepr.settings.names import KNOBS, variable


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# --- layers

# Keys that no check relates to another.
FREE = (
    "server.port",
    "server.workers",
    "server.request_timeout_seconds",
    "jwt.leeway_seconds",
    "telemetry.log_level",
    "telemetry.json_logs",
    "graphql.max_depth",
)


def test_without_files_and_environment_every_value_is_the_default(home: Home) -> None:
    loaded = home.load()
    assert loaded.settings == Settings()
    assert loaded.warnings == []
    assert loaded.sources == dict.fromkeys(KNOBS, "default")


@trials(deadline=None)
@given(
    st.sampled_from(FREE).flatmap(
        lambda path: st.tuples(st.just(path), st.lists(values_of(KNOBS[path]), min_size=3, max_size=3), st.sets(st.integers(0, 2)))
    )
)
def test_the_last_layer_that_gives_a_key_wins_and_is_its_source(case: tuple[str, list[Any], set[int]]) -> None:
    path, layer_values, layers = case
    with a_home() as home:
        places = [home.path / DEFAULT, home.path / DEVELOPMENT, variable(path)]
        for layer in layers & {0, 1}:
            home.write((DEFAULT, DEVELOPMENT)[layer], tree_of(path, layer_values[layer]))
        environ = {variable(path): str(layer_values[2])} if 2 in layers else {}
        loaded = home.load(**environ)
        value, source = (layer_values[max(layers)], str(places[max(layers)])) if layers else (KNOBS[path].default, "default")
        assert value_of(loaded.settings, path) == value
        assert loaded.sources[path] == source
        others = {key: where for key, where in loaded.sources.items() if key != path}
        assert set(others.values()) == {"default"}


def test_the_environment_chooses_its_file_and_a_given_file_takes_its_place(home: Home) -> None:
    home.write(DEVELOPMENT, {"server": {"port": 1}})
    home.write("config/staging.yaml", {"server": {"port": 2}})
    home.write("mine.yaml", {"server": {"port": 3}})
    assert home.load().settings.server.port == 1
    assert home.load(XZEPR_ENV="").settings.env == "development"
    staging = home.load(XZEPR_ENV="staging")
    assert (staging.settings.server.port, staging.settings.env, staging.warnings) == (2, "staging", [])
    assert home.load("mine.yaml", XZEPR_ENV="staging").settings.server.port == 3


def test_a_given_file_that_is_missing_is_a_problem_and_an_environment_without_file_a_warning(home: Home) -> None:
    assert home.problems("mine.yaml") == ["there is no settings file mine.yaml"]
    assert home.load(XZEPR_ENV="staging").warnings == [f"there is no settings file {home.path}/config/staging.yaml"]


@pytest.mark.parametrize("name", ["Production", "../production", "a b"])
def test_an_environment_name_that_could_miss_the_rules_of_production_is_refused(home: Home, name: str) -> None:
    assert home.problems(XZEPR_ENV=name)[0].startswith("XZEPR_ENV: ")


def test_a_name_that_looks_like_production_warns_that_its_rules_do_not_count(home: Home) -> None:
    home.write("config/prod.yaml", {})
    assert home.load(XZEPR_ENV="prod").warnings == ["XZEPR_ENV: with prod the rules for production do not count; their name is production"]


def test_all_problems_of_all_layers_are_told_at_once(home: Home) -> None:
    home.write(DEFAULT, {"server": {"prot": 1}, "nonsense": {"a": 1}})
    problems = home.problems(
        XZEPR_ENV="production", XZEPR__SERVER__PORT="x", XZEPR__AUTH__ANONYMOUS_NETWORKS="10.0.0.0/8", XZEPR__SERVER__TRUSTED_PROXIES="10.0.0.1"
    )
    places = [problem.split(" ", 1)[0] for problem in problems]
    assert places == [
        DEFAULT + ":",
        DEFAULT + ":",
        "XZEPR__SERVER__PORT:",
        "auth.anonymous_networks:",
        "jwt.private_key_path:",
        "jwt.public_key_path:",
        "database.url:",
    ]
    assert all("\n" not in problem for problem in problems)


def test_a_key_with_a_wrong_value_is_not_reported_again_as_missing(home: Home) -> None:
    problems = home.problems(XZEPR_ENV="production", XZEPR__DATABASE__URL_FILE="nowhere")
    assert [problem for problem in problems if "database.url" in problem.lower()] == []
    assert problems[0] == "XZEPR__DATABASE__URL_FILE: nowhere: No such file or directory"


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings().server.port = 1  # type: ignore[misc]


# --- values


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        (
            "security.cors.allowed_origins",
            "https://app.example.com,https://admin.example.com",
            ["https://app.example.com", "https://admin.example.com"],
        ),
        ("security.cors.allowed_origins", " https://a.example , ", ["https://a.example"]),
        ("kafka.brokers", "[::1]:9092,b:9092", ["[::1]:9092", "b:9092"]),
        ("kafka.brokers", '["a:1", "b:2"]', ["a:1", "b:2"]),
        ("auth.anonymous_roles", "event_viewer,user", [Role.EVENT_VIEWER, Role.USER]),
        ("auth.anonymous_roles", "", []),
        ("security.rate_limit.per_endpoint", '{"POST /events": 5}', {"POST /events": 5}),
        ("security.rate_limit.per_endpoint", "", {}),
        ("auth.keycloak.role_map", '{"ops": ["admin"]}', {"ops": [Role.ADMIN]}),
        ("database.url", "", None),
        ("telemetry.metrics_port", "", None),
        ("telemetry.metrics_port", "9090", 9090),
        ("server.workers", "auto", "auto"),
        ("server.workers", "3", 3),
        ("server.request_timeout_seconds", "2.5", 2.5),
        ("telemetry.json_logs", "TRUE", True),
        ("kafka.sasl_password", "null", "null"),
        ("jwt.issuer", "12345", "12345"),
    ],
)
def test_text_of_the_environment_becomes_the_keys_type(home: Home, path: str, text: str, value: Any) -> None:
    assert value_of(home.load(**{variable(path): text}).settings, path) == value


def test_lists_of_objects_in_the_environment_are_json(home: Home) -> None:
    rules = [{"event_receiver_type": "artifact.*", "older_than_days": 365}]
    settings = home.load(XZEPR__RETENTION__RULES=json.dumps(rules)).settings
    assert msgspec.to_builtins(settings.retention.rules) == rules
    assert home.problems(XZEPR__RETENTION__RULES="artifact.*:365") == ["XZEPR__RETENTION__RULES: takes JSON here, and this is none"]


def test_a_trusted_issuer_reads_as_the_contract_writes_it(home: Home) -> None:
    home.write(
        DEFAULT,
        "auth: {trusted_issuers: [{issuer: https://ci.example, audience: xzepr, rules: "
        '[{claims: {repository: acme/api, ref: "refs/heads/*"}, roles: [event_manager], event_receiver_ids: []}]}]}',
    )
    (issuer,) = home.load().settings.auth.trusted_issuers
    assert issuer.jwks_url is None
    assert issuer.rules[0].claims == {"repository": "acme/api", "ref": "refs/heads/*"}
    assert issuer.rules[0].roles == [Role.EVENT_MANAGER]


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("server.port", "70000", "takes a whole number from 0 to 65535, not '70000'"),
        ("server.port", "", "takes a whole number from 0 to 65535, not ''"),
        ("server.workers", "0", "takes auto or a whole number from 1 to 64, not '0'"),
        ("server.workers", "65", "takes auto or a whole number from 1 to 64, not '65'"),
        ("server.dialect", "rust", "takes one of epr, xzepr, not 'rust'"),
        ("server.host", "", "takes a text that is not empty, not ''"),
        ("telemetry.log_level", "loud", "takes one of debug, error, info, warning, not 'loud'"),
        ("telemetry.sample_ratio", "1.01", "takes a number from 0 to 1, not '1.01'"),
        ("telemetry.sample_ratio", "nan", "takes a number from 0 to 1, not 'nan'"),
        ("telemetry.json_logs", "yes", "takes true or false, not 'yes'"),
        ("auth.anonymous_roles", "boss", "takes a list, each one of admin, event_manager, event_viewer, user: Invalid enum value 'boss', at [0]"),
        ("server.host", "a\udcff", "is not UTF-8 text"),
        ("server.host", "x" * 10 + "\0", "holds a NUL character"),
    ],
)
def test_a_value_that_its_key_does_not_take_is_refused_with_what_it_takes(home: Home, path: str, text: str, reason: str) -> None:
    assert home.problems(**{variable(path): text}) == [f"{variable(path)}: {reason}"]


@pytest.mark.parametrize(("content", "reason"), [("server: {port: '8042'}", "not '8042'"), ("server: {request_timeout_seconds: .inf}", "not inf")])
def test_a_file_gives_a_value_in_its_own_type(home: Home, content: str, reason: str) -> None:
    home.write(DEFAULT, content)
    (problem,) = home.problems()
    assert problem.startswith(f"{DEFAULT}: server.")
    assert problem.endswith(reason)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("server.trusted_proxies", "10.0.0.0/33"),
        ("auth.anonymous_networks", "localhost"),
        ("server.allowed_hosts", "*.example.com"),
        ("server.allowed_hosts", "https://example.com"),
        ("security.cors.allowed_origins", "app.example.com"),
        ("security.cors.allowed_origins", "https://*.example.com"),
        ("security.cors.allowed_origins", "https://app.example.com/page"),
        ("security.cors.allowed_origins", "https://[x"),
        ("database.url", "mysql://db"),
        ("telemetry.otlp_endpoint", "collector:4318"),
        ("telemetry.otlp_endpoint", "http://collector:port/v1/traces"),
        ("server.state_dir", "~/xzepr"),
    ],
)
def test_a_value_that_could_never_work_stops_the_start(home: Home, path: str, value: str) -> None:
    (problem,) = home.problems(**{variable(path): value})
    assert problem.startswith(f"{path}: ")
    assert problem.endswith(f"(from {variable(path)})")


def test_connections_kept_open_are_at_most_all_of_them(home: Home) -> None:
    assert home.load(XZEPR__DATABASE__MIN_CONNECTIONS="20").warnings == []
    assert home.problems(XZEPR__DATABASE__MIN_CONNECTIONS="21")[0].startswith("database.min_connections: 21 is more than")


def test_a_direct_url_needs_a_url(home: Home) -> None:
    assert home.problems(XZEPR__DATABASE__DIRECT_URL=URL)[0].startswith("database.direct_url: goes with database.url")
    assert home.load(XZEPR__DATABASE__DIRECT_URL=URL, XZEPR__DATABASE__URL=URL).warnings == []


# --- secrets from files


@pytest.mark.parametrize("path", sorted(SECRETS))
def test_every_secret_may_come_from_a_file_without_its_last_line_break(home: Home, path: str) -> None:
    secret = URL if path.startswith("database.") else "s3cret, and long enough "
    home.write("secret", secret + "\n")
    home.write("base.yaml", {"database": {"url": URL}})
    loaded = home.load("base.yaml", **{variable(path) + "_FILE": "secret"})
    assert value_of(loaded.settings, path) == secret
    assert loaded.sources[path] == variable(path) + "_FILE"
    home.write(DEFAULT, tree_of(path + "_file", str(home.path / "secret")))
    assert value_of(home.load(**({} if path == "database.url" else {"XZEPR__DATABASE__URL": URL})).settings, path) == secret


def test_value_and_file_together_in_a_layer_are_refused(home: Home) -> None:
    home.write("secret", URL)
    assert home.problems(XZEPR__DATABASE__URL=URL, XZEPR__DATABASE__URL_FILE="secret") == [
        "XZEPR__DATABASE__URL_FILE: database.url is given twice, also as XZEPR__DATABASE__URL"
    ]
    home.write(DEFAULT, {"database": {"url": URL, "url_file": "secret"}})
    assert home.problems() == [f"{DEFAULT}: database.url_file: database.url is given twice, also as {DEFAULT}: database.url"]


def test_a_null_beside_a_file_is_no_contradiction_and_a_later_layer_overrides_a_file(home: Home) -> None:
    home.write("secret", URL)
    home.write(DEFAULT, {"database": {"url": None, "url_file": "secret"}})
    assert home.load().settings.database.url == URL
    assert home.load(XZEPR__DATABASE__URL="postgresql://other/db").settings.database.url == "postgresql://other/db"
    home.write(DEFAULT, {"database": {"url": None, "url_file": None}})
    assert home.load(XZEPR__DATABASE__URL_FILE="").settings.database.url is None


def test_a_secret_file_that_gives_no_secret_stops_the_start(home: Home) -> None:
    home.write("empty", "\n")
    (home.path / "binary").write_bytes(b"\xff\xfe")
    home.write("long", "x" * 70_000)
    name = "XZEPR__AUTH__BOOTSTRAP_ADMIN__PASSWORD_FILE"
    assert home.problems(**{name: "empty"}) == [f"{name}: empty is empty"]
    assert home.problems(**{name: "binary"}) == [f"{name}: binary is not UTF-8 text"]
    assert home.problems(**{name: "long"}) == [f"{name}: long is longer than 65536 bytes"]
    assert home.problems(**{name: "nowhere"}) == [f"{name}: nowhere: No such file or directory"]
    home.write(DEFAULT, {"auth": {"bootstrap_admin": {"password_file": 5}}})
    assert home.problems() == [f"{DEFAULT}: auth.bootstrap_admin.password_file: takes the path of a file, not int"]


def test_what_is_no_secret_has_no_file(home: Home) -> None:
    assert home.problems(XZEPR__SERVER__HOST_FILE="x")[0].startswith("XZEPR__SERVER__HOST_FILE: unknown key")
