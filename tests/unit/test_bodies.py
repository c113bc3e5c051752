"""Bodies and query parameters: strict, and every fault at once with its place."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from xzepr.errors import InvalidId, InvalidInput, MalformedBody
from xzepr.fields import PageLimit, ShortText
from xzepr.ids import EventReceiverId
from xzepr.inputs import PARAMETERS_MAX, decode_body, decode_query, faults_of
from xzepr.json_text import FAULTS_MAX

RECEIVER_ID = "01M88Q7AG504QSGMQWKDMNZ1V5"


class Part(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, Meta(ge=1, le=9)]
    label: str | None = None


class Thing(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    name: ShortText
    success: bool
    payload: msgspec.Raw
    schema: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})] = msgspec.Raw(b"{}")
    parts: Annotated[list[Part], Meta(max_length=3)] = []
    counts: dict[str, int] = {}
    mode: Literal["on", "off"] = "on"
    from_: str = ""
    extra: Part | None = None
    ratio: Annotated[float, Meta(gt=0)] | None = None


class Filter(msgspec.Struct, kw_only=True, frozen=True, rename={"from_": "from"}):
    name: ShortText
    success: bool | None = None
    event_receiver_id: EventReceiverId | None = None
    from_: datetime | None = None
    mode: Literal["on", "off"] | None = None
    limit: PageLimit = 50


def faults(error: InvalidInput) -> dict[str, str]:
    return {fault.pointer: fault.message for fault in error.faults}


def body_faults(**changes: Any) -> dict[str, str]:
    tree = {"name": "api", "success": True, "payload": 1, **changes}
    with pytest.raises(InvalidInput) as raised:
        decode_body(json.dumps(tree).encode(), Thing)
    return faults(raised.value)


def query_faults(text: str) -> dict[str, str]:
    with pytest.raises(InvalidInput) as raised:
        decode_query(text.encode(), Filter)
    return faults(raised.value)


def test_body_is_decoded_with_its_payload_as_sent() -> None:
    thing, tree = decode_body(b'{"name":"api","success":true,"payload":{"b":1.50,"a":[]},"from":"x"}', Thing)
    assert (thing.name, thing.success, thing.from_) == ("api", True, "x")
    assert bytes(thing.payload) == b'{"b":1.50,"a":[]}'
    assert tree["payload"] == {"b": 1.5, "a": []}


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as raised:
        decode_body(b'{"name":" ","sucess":true,"parts":[{"size":0},{"size":1},{"label":5}],"mode":"maybe","a/b~c":1}', Thing)
    assert faults(raised.value) == {
        "/name": "must not be blank",
        "/success": "is missing",
        "/payload": "is missing",
        "/parts/0/size": "must be at least 1",
        "/parts/2/size": "is missing",
        "/parts/2/label": "must be a string or null, not an integer",
        "/mode": "must be one of on, off",
        "/sucess": "is not a field here; did you mean success?",
        "/a~1b~0c": "is not a field here",
    }
    assert raised.value.code == "invalid_input"
    assert raised.value.message == "/name: must not be blank (and 8 more)"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": ""}, {"/name": "must not be blank"}),
        ({"name": "\t\n"}, {"/name": "must not be blank"}),
        ({"name": "x" * 256}, {"/name": "must have at most 255 characters"}),
        ({"name": None}, {"/name": "must be a string, not null"}),
        ({"name": {}}, {"/name": "must be a string, not an object"}),
        ({"success": 1}, {"/success": "must be a boolean, not an integer"}),
        ({"success": "true"}, {"/success": "must be a boolean, not a string"}),
        ({"schema": []}, {"/schema": "must be an object, not an array"}),
        ({"schema": None}, {"/schema": "must be an object, not null"}),
        ({"parts": {}}, {"/parts": "must be an array, not an object"}),
        ({"parts": [{"size": 1}] * 4}, {"/parts": "must have at most 3 items, not 4"}),
        ({"parts": [{"size": 1}] * 3 + [5]}, {"/parts": "must have at most 3 items, not 4", "/parts/3": "must be an object, not an integer"}),
        ({"counts": {"a": 1, "b/c": "2"}}, {"/counts/b~1c": "must be an integer, not a string"}),
        ({"extra": 5}, {"/extra": "must be an object or null, not an integer"}),
        ({"extra": {"size": 10}}, {"/extra/size": "must be at most 9"}),
        ({"ratio": 0}, {"/ratio": "must be greater than 0.0"}),
        ({"from_": "x"}, {"/from_": "is not a field here; did you mean from?"}),
    ],
)
def test_fault_of_a_body_has_its_place_and_plain_words(changes: dict[str, Any], expected: dict[str, str]) -> None:
    assert body_faults(**changes) == expected


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"5", b"null", b"true"])
def test_body_that_is_no_object_is_one_fault_at_the_root(body: bytes) -> None:
    with pytest.raises(InvalidInput) as raised:
        decode_body(body, Thing)
    assert list(faults(raised.value)) == [""]
    assert faults(raised.value)[""].startswith("must be an object, not ")


@pytest.mark.parametrize("body", [b"", b"{", b"{]}", b'{"name":"a","name":"b"}', b'{"name":"\\u0000"}', b'{"name":"\xff"}', b"{} {}"])
def test_body_that_would_not_survive_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBody) as raised:
        decode_body(body, Thing)
    assert raised.value.faults


def test_number_of_faults_told_is_bounded() -> None:
    assert len(body_faults(**{f"field{number}": 1 for number in range(10_000)})) == FAULTS_MAX


def test_name_of_an_unknown_field_is_cut_to_what_can_be_shown() -> None:
    assert body_faults(**{"x" * 100_000: 1}) == {"/" + "x" * 80: "is not a field here"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 12) | st.sampled_from(["", " ", "on", "off", "x", "y" * 256]) | st.sampled_from([0.5, -0.5, 3.0]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["size", "label", "a", "b/c"]), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = ["name", "success", "payload", "schema", "parts", "counts", "mode", "from", "extra", "ratio", "nmae"]


@given(st.dictionaries(st.sampled_from(MEMBERS), VALUES))
def test_walk_finds_a_fault_exactly_when_the_decoder_refuses(tree: dict[str, Any]) -> None:
    body = {"name": "api", "success": True, "payload": None, **tree}
    # One rule is the walk's alone: a schema must be an object, which the decoder does not ask of a raw text.
    found = [fault for fault in faults_of(body, Thing, "") if fault.pointer != "/schema"]
    try:
        msgspec.json.decode(json.dumps(body).encode(), type=Thing)
    except msgspec.ValidationError:
        assert found
    else:
        assert not found


def test_query_is_decoded_by_its_types() -> None:
    text = f"name=a%20b&success=TRUE&event_receiver_id={RECEIVER_ID.lower()}&from=2026-11-25T06:00:00.5%2B01:00&mode=off&limit=7"
    assert decode_query(text.encode(), Filter) == Filter(
        name="a b",
        success=True,
        event_receiver_id=EventReceiverId(RECEIVER_ID),
        from_=datetime(2026, 11, 25, 5, 0, 0, 500_000, tzinfo=UTC),
        mode="off",
        limit=7,
    )


def test_text_parameter_stays_text() -> None:
    assert decode_query(b"name=null", Filter).name == "null"
    assert decode_query(b"name=5", Filter).name == "5"
    assert decode_query(b"name=%C3%A9&limit=1", Filter).name == "é"


def test_all_faults_of_a_query_are_told_at_once() -> None:
    assert query_faults("sucess=true&limit=0&limit=5&mode=x&from=2026-11-25&event_receiver_id=7") == {
        "?sucess": "is not a parameter here; did you mean success?",
        "?limit": "is given twice",
        "?mode": "must be one of on, off",
        "?from": "must be an RFC 3339 time with its zone, such as 2026-11-25T06:00:00Z (a + is written %2B)",
        "?event_receiver_id": "'7' is not a ULID: 26 characters of 0-9 and A-Z without I, L, O, U",
        "?name": "is missing",
    }


@pytest.mark.parametrize(
    ("text", "pointer", "message"),
    [
        ("name=", "?name", "must not be blank"),
        ("name", "?name", "must not be blank"),
        ("name=a&limit=0", "?limit", "must be at least 1"),
        ("name=a&limit=1001", "?limit", "must be at most 1000"),
        ("name=a&limit=99999999999999999999999999", "?limit", "must be at most 1000"),
        ("name=a&limit=1e2", "?limit", "must be an integer"),
        ("name=a&limit=5.0", "?limit", "must be an integer"),
        ("name=a&limit=%D9%A3", "?limit", "must be an integer"),
        ("name=a&limit=null", "?limit", "must be an integer"),
        ("name=a&success=null", "?success", "must be true or false"),
        ("name=a&success=", "?success", "must be true or false"),
        ("name=a&from=1700000000", "?from", "must be an RFC 3339 time with its zone"),
        ("name=a&from=2026-11-25T06:00:00", "?from", "must be an RFC 3339 time with its zone"),
        ("name=a&from=2026-13-25T06:00:00Z", "?from", "invalid RFC3339"),
        ("name=a%00b", "?name", "must not hold NUL"),
        ("name=%FF", "?", "is not UTF-8"),
        ("name=a&Limit=5", "?Limit", "is not a parameter here; did you mean limit?"),
    ],
)
def test_fault_of_a_query_has_its_place_and_plain_words(text: str, pointer: str, message: str) -> None:
    found = query_faults(text)
    assert list(found) == [pointer]
    assert found[pointer].startswith(message)


def test_only_wrong_ids_are_invalid_id_and_anything_else_invalid_input() -> None:
    with pytest.raises(InvalidId):
        decode_query(b"name=a&event_receiver_id=7", Filter)
    for text in (b"name=a&event_receiver_id=7&limit=0", b"event_receiver_id=7"):
        with pytest.raises(InvalidInput) as raised:
            decode_query(text, Filter)
        assert raised.value.code == "invalid_input"


def test_query_has_a_bounded_number_of_parameters() -> None:
    assert query_faults("&".join(["a=1"] * (PARAMETERS_MAX + 1))) == {"?": f"has more than {PARAMETERS_MAX} parameters"}
