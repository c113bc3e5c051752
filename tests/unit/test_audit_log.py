"""The audit log, as far as it needs no database: encodings, lines of logs, the record of a start, and that every act is known."""

import ast
import json
import re
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from support.settings_home import values_of
from xzepr.audit.acts import Act
from xzepr.audit.chain import ROW_COLUMNS, encoded, row_hash
from xzepr.audit.start import facts_of
from xzepr.audit.verify import checkpoints_in
from xzepr.settings import Settings
from xzepr.settings.model import SECRETS, knobs
from xzepr.settings.names import KNOBS

ROOT = Path(__file__).parents[2]
FIELDS = st.lists(st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | st.binary(max_size=8) | st.integers(), max_size=6)


# --- encodings


def test_the_encoding_is_the_documented_one() -> None:
    assert encoded("grün", None, "", 12, b"\x00") == b"5:gr\xc3\xbcn-0:2:121:\x00"
    row = dict.fromkeys(ROW_COLUMNS) | {"id": "R", "details": "{}"}
    assert row_hash(row) == sha256(b"17:xzepr audit row 11:R---------2:{}").digest()


@given(FIELDS, FIELDS)
def test_no_two_records_have_the_same_encoding(one: list[Any], other: list[Any]) -> None:
    def plain(fields: list[Any]) -> list[Any]:
        return [field if field is None else field if isinstance(field, bytes) else str(field).encode() for field in fields]

    assert (encoded(*one) == encoded(*other)) == (plain(one) == plain(other))


@given(
    st.fixed_dictionaries({column: st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=4) for column in ROW_COLUMNS}), st.data()
)
def test_a_row_that_differs_in_any_column_has_another_hash(row: dict[str, Any], data: st.DataObject) -> None:
    column = data.draw(st.sampled_from(ROW_COLUMNS))
    value = data.draw(st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=4))
    assert (row_hash(row) == row_hash({**row, column: value})) == (row[column] == value)


# --- checkpoints in a log

FACTS = {"number": 3, "seal": 17, "sha256": "ab" * 32, "signed_at": "2026-11-25T06:00:00.000001Z", "kid": "k-1_x", "signature": "c2ln"}
FOR_PEOPLE = "2026-11-25T06:00:00Z [info     ] audit.checkpoint               " + " ".join(f"{name}={value}" for name, value in sorted(FACTS.items()))


@pytest.mark.parametrize(
    "line",
    [
        FOR_PEOPLE,
        "xzepr-1  | " + FOR_PEOPLE,
        "\x1b[2m2026\x1b[0m [\x1b[32minfo\x1b[0m] \x1b[1maudit.checkpoint\x1b[0m \x1b[36mkid\x1b[0m=\x1b[35mk-1_x\x1b[0m "
        + " ".join(f"{name}={value}" for name, value in FACTS.items() if name != "kid"),
        json.dumps({"event": "audit.checkpoint", "level": "info", **FACTS}),
        "Nov 25 host xzepr[812]: " + json.dumps({**FACTS, "event": "audit.checkpoint"}),
    ],
)
def test_a_checkpoint_is_found_in_a_log_of_either_form(line: str) -> None:
    [found] = checkpoints_in(["something else", line, "audit.checkpoint_unsigned reason=x"])
    assert (found.number, found.seal, found.sha256.hex(), found.signed_at) == (3, 17, "ab" * 32, FACTS["signed_at"])
    assert (found.kid, found.signature) == ("k-1_x", b64decode("c2ln"))


@pytest.mark.parametrize("colors", [True, False])
@given(st.binary(min_size=1, max_size=64))
def test_a_checkpoint_is_read_back_as_the_server_writes_it(colors: bool, signature: bytes) -> None:
    facts = {**FACTS, "signature": b64encode(signature).decode(), "event": "audit.checkpoint", "level": "info", "timestamp": "2026-11-25T06:00:00Z"}
    for renderer in (structlog.dev.ConsoleRenderer(colors=colors), structlog.processors.JSONRenderer()):
        [found] = checkpoints_in([str(renderer(None, "info", dict(facts)))])
        assert (found.signature, found.kid, found.number) == (signature, "k-1_x", 3)


def test_an_unsigned_checkpoint_is_found() -> None:
    [found] = checkpoints_in([json.dumps({**FACTS, "event": "audit.checkpoint", "kid": "-", "signature": "-"})])
    assert (found.kid, found.signature) == (None, None)


@pytest.mark.parametrize(
    "change", [{"sha256": "xyz"}, {"number": "-1"}, {"number": "9" * 30}, {"signature": "*"}, {"seal": None}, {"signed_at": ...}], ids=str
)
def test_a_mangled_checkpoint_is_refused_and_not_passed_over(change: dict[str, Any]) -> None:
    facts = {name: value for name, value in {**FACTS, **change}.items() if value is not ...}
    with pytest.raises(ValueError, match="is not whole"):
        list(checkpoints_in([json.dumps({"event": "audit.checkpoint", **facts})]))


def test_a_line_that_only_mentions_checkpoints_is_passed_over() -> None:
    assert list(checkpoints_in(['{"event": "request", "path": "audit.checkpoint"}', "GET path=/audit.checkpoint number=1"])) == []


# --- the record of a start


def with_value(path: str, value: Any) -> Settings:
    import msgspec

    tree: dict[str, Any] = {}
    node = tree
    *parents, last = path.split(".")
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = value
    return msgspec.convert(tree, Settings)


SECRET_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=8, max_size=40).filter(lambda text: text.strip("*") == text)


@given(st.sampled_from(sorted(SECRETS)), SECRET_TEXT)
def test_a_secret_never_appears_in_the_record_of_a_start(path: str, secret: str) -> None:
    facts = facts_of(with_value(path, secret), "serve")
    told = json.dumps(facts, ensure_ascii=False)
    shown = json.loads(told)["settings"][path]
    # A URL is shown without its password; a text that is no URL is not shown at all.
    assert "://" in secret or shown == "********"
    assert "://" in secret or secret not in told.replace(path, "")


@given(
    st.sampled_from(["database.url", "database.direct_url", "security.rate_limit.redis_url"]),
    st.from_regex(r"[A-Za-z0-9@/:?!]{8,30}", fullmatch=True),
)
def test_a_password_in_a_url_never_appears_in_the_record_of_a_start(path: str, secret: str) -> None:
    told = json.dumps(facts_of(with_value(path, f"postgresql://xzepr:s3{secret}3s@db.example:5432/xzepr"), "serve"))
    assert f"s3{secret}3s" not in told
    assert "db.example:5432/xzepr" in told


@given(st.data())
def test_what_differs_from_the_defaults_is_told(data: st.DataObject) -> None:
    knob = data.draw(st.sampled_from([knob for knob in knobs() if knob.path not in SECRETS]))
    value = data.draw(values_of(knob))
    settings = with_value(knob.path, value)
    facts = facts_of(settings, "serve")
    from xzepr.settings.model import value_of

    assert (knob.path in facts["settings"]) == (value_of(settings, knob.path) != knob.default)
    assert facts["settings"].keys() <= KNOBS.keys()


def test_the_digest_tells_configurations_apart_and_says_nothing_of_secrets() -> None:
    plain = facts_of(Settings(), "serve")["settings_sha256"]
    assert facts_of(with_value("server.port", 8043), "serve")["settings_sha256"] != plain
    one, other = (facts_of(with_value("kafka.sasl_password", secret), "serve")["settings_sha256"] for secret in ("hunter2", "hunter3"))
    assert one == other != plain


# --- every act is known


def recorded_acts() -> set[str]:
    """Acts that the code writes out as text in a call of record() or note(), in whatever module."""
    found = set()
    for file in sorted((ROOT / "src" / "xzepr").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("record", "note"):
                texts = [each.value for each in node.args[:3] if isinstance(each, ast.Constant) and isinstance(each.value, str)]
                found |= {text for text in texts if re.fullmatch(r"[a-z_]+\.[a-z_]+", text)}
    return found


def used_members() -> set[str]:
    source = "\n".join(file.read_text("utf-8") for file in (ROOT / "src" / "xzepr").rglob("*.py") if file.name != "acts.py")
    return set(re.findall(r"\bAct\.([A-Z_]+)\b", source))


def test_every_act_is_in_the_enum_and_every_one_there_is_recorded() -> None:
    assert recorded_acts() - {act.value for act in Act} == set(), "add it to src/xzepr/audit/acts.py and docs/reference/audit.md"
    assert {act.name for act in Act if act.value not in recorded_acts()} - used_members() == set(), "nothing records these"


def test_the_reference_has_a_line_for_each_act_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "audit.md").read_text("utf-8")
    table = page.partition("\n## Acts\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", table, re.MULTILINE) == [act.value for act in Act]


def test_the_reference_shows_the_encoding_of_every_column() -> None:
    page = (ROOT / "docs" / "reference" / "audit.md").read_text("utf-8")
    assert ", ".join(f"`{column}`" for column in ROW_COLUMNS) in " ".join(page.split())
