"""What a written name stands for, today and in older deployments, and how files are read."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from support.settings_home import DEFAULT, DEVELOPMENT, Home, a_home, tree_of
from xzepr.settings import Settings
from xzepr.settings.model import SECRETS, value_of
from xzepr.settings.names import KNOBS, variable
from xzepr.settings.older import MOVED_SECTIONS, RENAMED


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# --- names


@trials(deadline=None)
@given(
    st.sampled_from([*KNOBS, *(f"{secret}_file" for secret in SECRETS)]).flatmap(lambda path: st.tuples(st.just(path), st.integers(0, len(path) - 1)))
)
@example(("server.port", 6))
def test_a_name_with_a_letter_missing_is_refused_with_the_name_it_lacks_one_of(case: tuple[str, int]) -> None:
    path, gap = case
    misspelt = path[:gap] + path[gap + 1 :]
    with a_home() as home:
        (problem,) = home.problems(**{variable(misspelt): "1"})
        assert problem == f"{variable(misspelt)}: unknown key; the nearest is {variable(path)}"
        home.write(DEFAULT, tree_of(misspelt, 1))
        (problem,) = home.problems()
        assert problem == f"{DEFAULT}: {misspelt}: unknown key; the nearest is {path}"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("XZEPR_SERVER__PORT", "XZEPR__SERVER__PORT"),
        ("XZEPR__SERVER_PORT", "XZEPR__SERVER__PORT"),
        ("XZEPR_SERVER_PORT", "XZEPR__SERVER__PORT"),
        ("XZEPR_SERVER__PROT", "XZEPR__SERVER__PORT"),
        ("XZEPR__PORT", "XZEPR__SERVER__PORT"),
        ("XZEPR_DATABASE_URL_FILE", "XZEPR__DATABASE__URL_FILE"),
        ("xzepr_server__port", "XZEPR__SERVER__PORT"),
        ("XZEPR__TELEMTRY__LOG_LEVEL", "XZEPR__TELEMETRY__LOG_LEVEL"),
        ("XZEPR__KAFKA__PASSWORD", "XZEPR__KAFKA__SASL_PASSWORD"),
        ("XZEPR__ENV", "the variable XZEPR_ENV"),
    ],
)
def test_a_variable_that_only_looks_like_a_setting_is_refused_with_the_nearest(home: Home, name: str, meant: str) -> None:
    (problem,) = home.problems(**{name: "1"})
    assert problem.startswith(f"{name}: unknown ")
    assert problem.endswith(f"; the nearest is {meant}")


def test_variables_of_clients_and_of_kubernetes_are_left_alone(home: Home) -> None:
    loaded = home.load(
        XZEPR_ENV="development",
        XZEPR_URL="http://localhost:8042",
        XZEPR_API_KEY="xzepr_1",
        XZEPR_TOKEN="t",
        XZEPR_SERVER_PORT="tcp://10.0.0.1:8042",
        XZEPR_SERVICE_HOST="10.0.0.1",
        XZEPR_PORT_8042_TCP_ADDR="10.0.0.1",
        PATH="/bin",
    )
    assert (loaded.settings, loaded.warnings) == (Settings(), [])


def test_a_variable_counts_in_small_letters_too_but_not_twice(home: Home) -> None:
    assert home.load(xzepr__server__port="9").settings.server.port == 9
    assert "given twice" in home.problems(xzepr__server__port="9", XZEPR__SERVER__PORT="9")[0]


def test_a_section_takes_no_value_and_an_empty_one_changes_nothing(home: Home) -> None:
    home.write(DEFAULT, "server:\nkafka:\n  auth:\n    sasl_config:\nauth: {jwt: }\nsecurity: {monitoring: {}}\n")
    assert home.load().settings == Settings()
    home.write(DEFAULT, "server: 5\n")
    assert home.problems() == [f"{DEFAULT}: server: is a section of keys, not a value"]
    assert home.problems(DEFAULT, XZEPR__KAFKA="x")[-1] == "XZEPR__KAFKA: is a section of keys, not a value"


# --- older names


@pytest.mark.parametrize(
    ("old", "new"),
    [*RENAMED.items(), *((old + key.rpartition(".")[2], key) for old, new in MOVED_SECTIONS.items() for key in KNOBS if key.startswith(new))],
)
def test_an_older_name_is_taken_with_a_warning_that_gives_the_new_one(home: Home, old: str, new: str) -> None:
    given = "SSL" if new == "kafka.security_protocol" else KNOBS[new].default
    if given is None:
        given = "http://x:4318/v1/traces" if "endpoint" in new else "x"
    if new == "telemetry.metrics_port":
        given = 9
    if new in ("jwt.private_key_path", "jwt.public_key_path"):
        given = str(home.write("key.pem", "key"))
    text = str(given).lower() if isinstance(given, bool) else str(given)
    loaded = home.load(**{variable(old): text})
    assert value_of(loaded.settings, new) == given
    assert loaded.sources[new] == variable(old)
    assert f"{variable(old)}: an older name; use {variable(new)}" in loaded.warnings
    path = home.write(DEFAULT, tree_of(old, given))
    loaded = home.load()
    assert value_of(loaded.settings, new) == given
    assert f"{path}: {old}: an older name; use {new}" in loaded.warnings


def test_an_older_secret_may_come_from_a_file(home: Home) -> None:
    home.write("secret", "s3cret")
    loaded = home.load(XZEPR__KAFKA__AUTH__SASL_CONFIG__PASSWORD_FILE="secret")
    assert loaded.settings.kafka.sasl_password == "s3cret"
    assert loaded.warnings[0] == "XZEPR__KAFKA__AUTH__SASL_CONFIG__PASSWORD_FILE: an older name; use XZEPR__KAFKA__SASL_PASSWORD_FILE"


def test_older_and_new_name_together_are_refused(home: Home) -> None:
    assert "kafka.partitions is given twice" in home.problems(XZEPR__KAFKA__PARTITIONS="1", XZEPR__KAFKA__DEFAULT_TOPIC_PARTITIONS="2")[0]


def test_an_unknown_key_of_an_older_section_is_unknown(home: Home) -> None:
    assert home.problems(XZEPR__AUTH__JWT__ISSUR="x") == ["XZEPR__AUTH__JWT__ISSUR: unknown key; the nearest is XZEPR__JWT__ISSUER"]


def test_a_shared_jwt_secret_is_ignored_with_the_reason(home: Home) -> None:
    loaded = home.load(XZEPR__AUTH__JWT_SECRET="hunter2")
    assert loaded.settings == Settings()
    (warning,) = loaded.warnings
    assert warning.startswith("XZEPR__AUTH__JWT_SECRET: ignored: ")
    assert "RS256" in warning
    assert "hunter2" not in warning


def test_brokers_of_a_file_may_be_one_text(home: Home) -> None:
    home.write(DEFAULT, 'kafka: {brokers: "a:9092, b:9092"}')
    assert home.load().settings.kafka.brokers == ["a:9092", "b:9092"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("http://localhost:14268/api/traces", "http://localhost:4318/v1/traces"),
        ("https://user:hunter2@jaeger.example/api/traces", "https://jaeger.example:4318/v1/traces"),
        ("jaeger:6831", "http://jaeger:4318/v1/traces"),
        ("http://[::1]:14268/api/traces", "http://[::1]:4318/v1/traces"),
    ],
)
def test_a_jaeger_endpoint_becomes_the_otlp_route_of_its_host(home: Home, old: str, new: str) -> None:
    loaded = home.load(XZEPR__TELEMETRY__JAEGER_ENDPOINT=old)
    assert loaded.settings.telemetry.otlp_endpoint == new
    assert loaded.sources["telemetry.otlp_endpoint"] == "XZEPR__TELEMETRY__JAEGER_ENDPOINT"
    assert "OTLP" in loaded.warnings[0]
    assert new in loaded.warnings[0]
    assert "hunter2" not in " ".join(loaded.warnings)


def test_a_jaeger_endpoint_beside_an_otlp_endpoint_is_ignored_and_one_without_host_refused(home: Home) -> None:
    loaded = home.load(XZEPR__TELEMETRY__JAEGER_ENDPOINT="http://a:14268", XZEPR__TELEMETRY__OTLP_ENDPOINT="http://b:4318/v1/traces")
    assert loaded.settings.telemetry.otlp_endpoint == "http://b:4318/v1/traces"
    assert loaded.warnings[0].startswith("telemetry.jaeger_endpoint: ignored")
    for wrong in ("http://[x/api/traces", "http:///api/traces"):
        assert home.problems(XZEPR__TELEMETRY__JAEGER_ENDPOINT=wrong)[0].startswith("telemetry.jaeger_endpoint: takes a URL")


# --- files


@pytest.mark.parametrize(
    "content",
    [
        'database:\n  url: "postgresql://u:hunter2@db/x\n  max_connections: 20\n',
        "database:\n  url: !hunter2'x\n",
        "database:\n  url: *hunter2\n",
        "database:\n  url: hunter2: x: y\n",
        "database:\n  url: [hunter2, }\n",
        "auth: {bootstrap_admin: {password: [hunter2]}}\n",
        "kafka: {sasl_password: {hunter2: hunter2}}\nkafka: {}\n",
    ],
)
def test_a_file_that_is_wrong_is_named_without_showing_a_secret(home: Home, content: str) -> None:
    home.write(DEFAULT, content)
    problems = home.problems()
    assert problems
    assert all(problem.startswith(f"{DEFAULT}: ") and "hunter2" not in problem and "\n" not in problem for problem in problems)


def test_a_key_given_twice_in_a_file_is_refused_at_any_depth(home: Home) -> None:
    home.write(DEFAULT, "server:\n  port: 1\n  port: 2\n")
    assert home.problems() == [f"{DEFAULT}: is not YAML at line 2: the key port stands there twice"]
    home.write(DEFAULT, "retention:\n  rules:\n    - {older_than_days: 1, older_than_days: 2}\n")
    assert home.problems() == [f"{DEFAULT}: is not YAML at line 3: the key older_than_days stands there twice"]


def test_a_key_that_overrides_a_merged_one_is_not_given_twice(home: Home) -> None:
    home.write(DEFAULT, "security: {rate_limit: {per_endpoint: {<<: {x: 1, y: 2}, y: 3}}}\n")
    assert home.load().settings.security.rate_limit.per_endpoint == {"x": 1, "y": 3}


@pytest.mark.parametrize("merged", ["{<<: {x: 1, y: 2}, y: 3}", "[{x: 1}, {x: 2}]", "5"])
def test_a_merge_of_which_it_is_not_plain_who_wins_is_refused(home: Home, merged: str) -> None:
    home.write(DEFAULT, f"security:\n  rate_limit:\n    per_endpoint: {{<<: {merged}}}\n")
    assert home.problems() == [f"{DEFAULT}: is not YAML at line 3: only one mapping can be merged, and none that merges another"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"- a\n", "holds no mapping of sections"),
        (b"a: \xff\n", "is not UTF-8 text"),
        (b"a: \x01\n", "holds a character that YAML does not allow"),
        (b"jwt: {issuer: 2020-13-45}\n", "holds a number or a date that does not exist; text that looks like one needs quotes"),
        (b"a: &a {b: *a}\n", "is nested too deeply"),
    ],
)
def test_a_file_that_is_no_settings_file_says_why(home: Home, content: bytes, reason: str) -> None:
    home.write(DEFAULT, "").write_bytes(content)
    assert home.problems() == [f"{DEFAULT}: {reason}"]


def test_an_empty_file_changes_nothing_and_a_directory_is_a_problem(home: Home) -> None:
    home.write(DEFAULT, "# nothing\n")
    assert home.load().settings == Settings()
    (home.path / DEVELOPMENT).mkdir()
    assert home.problems() == [f"{DEVELOPMENT}: Is a directory"]
