"""Settings handed on lose nothing, settings shown keep their secrets."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from support.settings_home import DEVELOPMENT, Home, ready_for_production, values_of
from xzepr.cli.config import config
from xzepr.cli.main import main
from xzepr.settings import Settings, decode_settings, encode_settings
from xzepr.settings.masking import MASK, masked, masked_url
from xzepr.settings.model import knobs
from xzepr.settings.names import KNOBS


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@trials(deadline=None)
@given(st.fixed_dictionaries({}, optional={knob.path: values_of(knob) for knob in knobs()}))
def test_encoding_for_a_child_loses_nothing(given_values: dict[str, Any]) -> None:
    tree: dict[str, Any] = {"env": "production"}
    for path, value in given_values.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    settings = msgspec.convert(tree, Settings)
    assert decode_settings(encode_settings(settings)) == settings


@trials(deadline=None)
@given(st.text(), st.sampled_from(["postgresql://user:{}@db.example:5432/xzepr", "rediss://:{}@cache"]))
@example("p@ss/w?rd#", "postgresql://user:{}@db.example:5432/xzepr")
def test_of_a_url_only_the_password_is_hidden(password: str, url: str) -> None:
    assert masked_url(url.format(password)) == url.format(MASK)


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        (
            "database.url",
            "postgresql:///xzepr?host=/run&password=hunter2&sslpassword=x",
            f"postgresql:///xzepr?host=/run&password={MASK}&sslpassword={MASK}",
        ),
        ("database.url", "postgresql://db/xzepr", "postgresql://db/xzepr"),
        ("database.url", None, None),
        ("kafka.sasl_password", "hunter2", MASK),
        ("telemetry.otlp_endpoint", "http://u:hunter2@otel:4318/v1/traces", f"http://u:{MASK}@otel:4318/v1/traces"),
        ("server.allowed_hosts", ["a:b@c"], ["a:b@c"]),
        ("auth.trusted_issuers", [{"jwks_url": "https://u:hunter2@ci/keys"}], [{"jwks_url": f"https://u:{MASK}@ci/keys"}]),
    ],
)
def test_secrets_and_passwords_within_urls_are_not_shown(path: str, value: Any, shown: Any) -> None:
    assert masked(path, value) == shown


@pytest.fixture
def run(home: Home, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`xzepr config …` in that directory: exit code, standard output, standard error."""
    monkeypatch.chdir(home.path)
    for name in [name for name in os.environ if name.upper().startswith("XZEPR")]:
        monkeypatch.delenv(name)

    def invoke(*arguments: str, **environ: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(config, arguments, env=environ)
        return result.exit_code, result.stdout, result.stderr

    return invoke


def test_config_show_prints_every_value_with_its_source_and_no_secret(home: Home, run: Any) -> None:
    home.write(DEVELOPMENT, {"server": {"port": 9}, "auth": {"bootstrap_admin": {"password": "hunter2 hunter3"}}})
    environ = {"XZEPR__DATABASE__URL": "postgresql://u:hunter2@db/xzepr"}
    code, out, err = run("show", **environ)
    assert code == 0
    assert "hunter2" not in out + err
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert list(lines) == list(KNOBS)
    assert lines["server.port"] == f"9  ({home.path / DEVELOPMENT})"
    assert lines["database.url"] == f'"postgresql://u:{MASK}@db/xzepr"  (XZEPR__DATABASE__URL)'
    assert lines["server.host"] == '"127.0.0.1"  (default)'
    code, out, err = run("show", "--json", **environ)
    shown = json.loads(out)
    assert (code, list(shown)) == (0, list(KNOBS))
    assert shown["server.port"] == {"value": 9, "source": str(home.path / DEVELOPMENT)}
    assert shown["auth.bootstrap_admin.password"] == {"value": MASK, "source": str(home.path / DEVELOPMENT)}


def test_config_check_exits_with_1_on_a_fault_and_names_faults_and_warnings_on_standard_error(home: Home, run: Any) -> None:
    assert run("check") == (0, "the settings are in order\n", "")
    code, out, err = run("check", XZEPR__KAFKA__BROKERS="a:1")
    assert (code, err) == (0, "warning: kafka.brokers: has no effect yet (from XZEPR__KAFKA__BROKERS)\n")
    code, out, err = run("check", XZEPR__KAFKA__BROKERS="a:1", XZEPR__SERVER__PROT="1", XZEPR__SERVER__PORT="x")
    assert (code, out) == (1, "")
    assert [line.split(":")[0] for line in err.splitlines()] == ["warning", "error", "error"]


def test_a_start_that_is_refused_names_faults_and_warnings_alike(run: Any) -> None:
    environ = {"XZEPR__KAFKA__BROKERS": "a:1", "XZEPR__SERVER__PORT": "x"}
    _, _, checked = run("check", **environ)
    refused = CliRunner().invoke(main, ["serve"], env=environ)
    assert (refused.exit_code, refused.stderr) == (1, checked)
    assert [line.split(":")[0] for line in checked.splitlines()] == ["warning", "error"]


def test_config_takes_a_file_and_the_word_for_the_embedded_database(home: Home, run: Any) -> None:
    home.write("mine.yaml", {"server": {"port": 7}})
    assert json.loads(run("show", "--json", "--config", "mine.yaml")[1])["server.port"]["value"] == 7
    assert run("check", "--config", "nowhere.yaml")[0] == 1
    ready = ready_for_production(home) | {"XZEPR__DATABASE__URL": ""}
    assert run("check", **ready)[0] == 1
    assert run("check", "--allow-embedded", **ready)[0] == 0
