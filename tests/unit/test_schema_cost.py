"""What can be bounded when a receiver is made is bounded there; what is called cheap is cheap by the clock."""

import json
import time
from itertools import pairwise
from typing import Any

import pytest

from xzepr.errors import InvalidInput
from xzepr.receivers.schema import CompiledSchema, compile_here, compile_schema
from xzepr.receivers.schema_cost import PATTERN_BYTES_MAX

Schema = dict[str, Any]
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def compiled(schema: Schema) -> CompiledSchema:
    return compile_schema(json.dumps(schema))


def refusals(schema: Schema) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        compiled(schema)
    return {fault.pointer: fault.message for fault in caught.value.faults}


def doublings(levels: int, keyword: str = "allOf", **beside: object) -> Schema:
    links: Schema = {f"d{level}": {keyword: [{"$ref": f"#/$defs/d{level + 1}"}] * 2, **beside} for level in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{levels}": {"type": ["object", "array", "string", "number"]}}}


def nested(levels: int, outer: Schema, at: str) -> Schema:
    schema: Schema = {"properties": {"a": {"type": "integer"}, "b": True}}
    for _ in range(levels):
        schema = {**outer, at: schema if at == "contains" else [schema]}
    return schema


def test_28_doublings_by_reference_are_refused_at_once() -> None:
    began = time.process_time()
    for keyword in ("allOf", "anyOf", "oneOf"):
        assert "2,684,354,585 steps" in refusals(doublings(28, keyword))["/schema"]
    assert time.process_time() - began < 0.5


def test_a_number_of_steps_that_has_thousands_of_digits_is_not_written_out() -> None:
    assert "more than can be counted" in refusals(doublings(5_000))["/schema"]


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_nesting_unevaluated_properties_multiplies(keyword: str) -> None:
    steps = [compiled(nested(levels, {"unevaluatedProperties": False}, keyword)).cost.steps for levels in (2, 4, 6, 8)]
    assert all(later > 6 * earlier for earlier, later in pairwise(steps))
    assert "steps" in refusals(nested(40, {"unevaluatedProperties": False}, keyword))["/schema"]


def test_nesting_contains_and_unevaluated_items_multiplies() -> None:
    assert "steps" in refusals(nested(30, {"unevaluatedItems": False}, "contains"))["/schema"]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"anyOf": [{"$ref": "#"}]}]},
        {"not": {"$ref": "#"}},
        {"if": {"$ref": "#"}},
        {"dependentSchemas": {"a": {"$ref": "#"}}},
        {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"oneOf": [{"$ref": "#/$defs/y"}]}, "y": {"then": {"$ref": "#/$defs/x"}}}},
        {"$schema": DRAFT_7, "dependencies": {"a": {"$ref": "#"}}},
        {"$dynamicAnchor": "me", "allOf": [{"$dynamicRef": "#me"}]},
        {"$id": "http://example.com/me", "allOf": [{"$ref": "me"}]},
    ],
)
def test_a_circle_that_never_comes_to_another_part_of_the_payload_is_refused(schema: Schema) -> None:
    assert "refers to itself without coming to another part of the payload" in refusals(schema).values()


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"children": {"type": "array", "items": {"$ref": "#"}}}},
        {"additionalProperties": {"$ref": "#"}, "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
        {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/list"}], "$defs": {"list": {"items": {"$ref": "#"}}}},
        {"$schema": DRAFT_7, "items": [{"$ref": "#"}, {"$ref": "#"}], "additionalItems": {"$ref": "#"}},
        {"prefixItems": [{"$ref": "#"}, {"$ref": "#"}], "items": {"$ref": "#"}},
    ],
)
def test_recursion_in_which_one_way_leads_to_each_value_is_bounded(schema: Schema) -> None:
    assert not compiled(schema).cost.unsafe
    assert compile_here(json.dumps(schema)) is not None


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]},
        {"properties": {"a": {"$ref": "#"}}, "patternProperties": {"a": {"$ref": "#"}}},
        {"items": {"$ref": "#"}, "contains": {"$ref": "#"}},
        {"properties": {"a": {"$ref": "#"}}, "unevaluatedProperties": False},
        {"items": {"$ref": "#"}, "uniqueItems": True},
        {"items": {"$ref": "#"}, "allOf": [{"$ref": "#/$defs/b"}], "$defs": {"b": {"items": {"$ref": "#/$defs/b"}}}},
        {"$dynamicAnchor": "n", "properties": {"c": {"$dynamicRef": "#n"}}},
        {"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveAnchor": True, "properties": {"c": {"$recursiveRef": "#"}}},
        {"$ref": "http://example.com/x", "$defs": {"x": {"$id": "http://example.com/x"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$schema": "http://json-schema.org/draft-04/schema#"}}},
        {
            "$ref": "#/$defs/d0",
            "$defs": {**{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}]} for n in range(500)}, "d500": {"items": {"$ref": "#"}}},
        },
    ],
)
def test_what_no_bound_holds_for_never_runs_in_the_process_that_serves(schema: Schema) -> None:
    assert compiled(schema).cost.unsafe
    assert compile_here(json.dumps(schema)) is None


@pytest.mark.parametrize(
    "pattern",
    ["(a{200}){200}b", "(a{1000}){1000}", "((((((a{50}){50}){50}){50}){50}){50})", r"(\p{L}{40}){40}", "(?:" * 30_000 + "a" + ")" * 30_000],
)
def test_patterns_that_are_too_large_are_refused_with_their_pointer(pattern: str) -> None:
    began = time.process_time()
    found = refusals({"properties": {"a/b": {"pattern": pattern}}, "$defs": {"unused": {"patternProperties": {pattern: {}}}}})
    assert "/schema/properties/a~1b/pattern" in found
    assert len(found) == 2
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("pattern", ["(?=a)b", "(?!a)b", "(?<=a)b", r"(a)\1", "[", "(?P<n>a)(?P=n)"])
def test_patterns_that_linear_time_cannot_run_are_refused_with_their_pointer(pattern: str) -> None:
    found = refusals({"properties": {"a": {"pattern": pattern}}, "patternProperties": {"^ok$": {}, pattern: {}}})
    assert set(found) == {"/schema/properties/a/pattern", "/schema/patternProperties/" + pattern.replace("~", "~0").replace("/", "~1")}
    assert all("linear time" in message for message in found.values())


@pytest.mark.parametrize(
    "pattern", ["^.{1,255}$", r"^\w{1,255}$", "^[a-f0-9]{128}$", r"^pkg:[A-Za-z.+-]+/[^@]+@.+$", r"^\p{Lu}\p{L}*$", r"\cA\u0041\-", "^$", ""]
)
def test_patterns_that_people_write_are_taken(pattern: str) -> None:
    assert compiled({"pattern": pattern}).cost.pattern_bytes <= PATTERN_BYTES_MAX


def test_a_pattern_counts_for_each_way_that_leads_to_it() -> None:
    def byte_ns(ways: int) -> float:
        return compiled({"allOf": [{"$ref": "#/$defs/p"}] * ways, "$defs": {"p": {"pattern": "(a|b)*a(a|b)c"}}}).cost.byte_ns

    assert byte_ns(50) == pytest.approx(50 * byte_ns(1))


def test_a_pattern_with_only_one_way_to_match_is_cheap_on_long_text() -> None:
    digest, free = compiled({"pattern": "^sha256:[a-f0-9]{64}$"}), compiled({"pattern": "[ab]*a[ab]{64}"})
    text = json.dumps("a" * 200_000)
    assert digest.is_cheap(text)
    assert not free.is_cheap(text)


LARGE = [2**70 + number for number in range(2_000)]
HOSTILE: list[tuple[str, Schema, Any]] = [
    ("doublings", doublings(16), {"a": 1}),
    ("doublings times values", {"items": doublings(12)["$defs"]["d12"], **doublings(10)}, list(range(2_000))),
    ("unevaluated", nested(11, {"unevaluatedProperties": False}, "allOf"), {"a": 1, "b": 2}),
    ("unevaluated deeper", nested(8, {"unevaluatedProperties": False, "anyOf": [True]}, "allOf"), {"a": 1, "b": 2}),
    (
        "unevaluated wide",
        {"allOf": [{"properties": {f"k{n}": {}}} for n in range(300)], "unevaluatedProperties": False},
        {f"k{n}": 1 for n in range(300)},
    ),
    ("pattern, many states", {"pattern": "(?:a|b|ab|ba|aa|bb)*a(?:a|b){20}c"}, "abba" * 20_000 + "c"),
    ("pattern, large", {"pattern": "(a{100}){100}b"}, "a" * 20_000 + "b"),
    ("pattern, many", {"allOf": [{"pattern": f"[ab]*a[ab]{{20}}{n}|."} for n in range(100)]}, "abbab" * 1_000),
    ("pattern of names", {"patternProperties": {f"^a{n}.*b": {} for n in range(300)}}, {f"a{n}zzz": 1 for n in range(1_000)}),
    ("equal items, large numbers", {"uniqueItems": True}, LARGE),
    ("equal items, large numbers within", {"uniqueItems": True}, [{"a": [number]} for number in LARGE]),
    ("equal items", {"uniqueItems": True}, [{"a": [number]} for number in range(20_000)]),
    ("equal items, prefixes", {"uniqueItems": True}, ["a" * 200 + str(number) for number in range(4_000)]),
    ("enum of objects", {"items": {"enum": [{"a": list(range(50)), "b": n} for n in range(500)]}}, [{"a": list(range(50)), "b": 499}] * 40),
    ("enum of large numbers", {"items": {"enum": LARGE}}, [LARGE[-1]] * 100),
    ("enum, mixed", {"items": {"enum": [[n] if n % 2 else n for n in range(2_000)]}}, [[1999]] * 500),
    ("enum", {"items": {"enum": list(range(100_000))}}, list(range(20_000))),
    ("const, deep", {"items": {"const": [list(range(100))] * 100}}, [[list(range(100))] * 100] * 50),
    ("multipleOf, tiny", {"items": {"multipleOf": 5e-324}}, [1.5, 1e308] * 10_000),
    ("multipleOf, decimal", {"items": {"multipleOf": 0.01}}, [19.99] * 100_000),
    ("multipleOf, large numbers", {"items": {"multipleOf": 7}}, [7 * 10**990] * 900),
    ("maximum, large numbers", {"items": {"maximum": 10**999}}, [10**990] * 900 + [1e308] * 10_000),
    ("lengths", {"allOf": [{"maxLength": 2_000_000 + n} for n in range(500)]}, "é" * 300_000),
    ("formats", {"items": {"format": "idn-hostname"}}, ["é." * 60] * 4_000),
    ("formats, regex", {"format": "regex"}, "(" * 200_000 + ")" * 200_000),
    ("names", {"propertyNames": {"pattern": "^k[0-9]+$", "maxLength": 10}}, {f"k{n}": 1 for n in range(50_000)}),
    ("required", {"items": {"required": [f"k{n}" for n in range(1_000)]}}, [{f"k{n}": 1 for n in range(1_000)}] * 40),
    ("oneOf, wide", {"items": {"oneOf": [{"properties": {f"k{n}": {"const": n}}, "required": [f"k{n}"]} for n in range(200)]}}, [{"k7": 7}] * 2_000),
    ("nothing asked", {}, [[1, 2, {"a": "b"}]] * 30_000),
]


@pytest.mark.parametrize(("schema", "payload"), [pytest.param(schema, payload, id=name) for name, schema, payload in HOSTILE])
def test_what_is_called_cheap_takes_some_tens_of_milliseconds_at_the_worst(schema: Schema, payload: Any) -> None:
    ready = compiled(schema)
    # As much of the payload as is still called cheap: the nearer to the limit, the sharper the test.
    while not ready.is_cheap(json.dumps(payload)):
        if len(payload) < 2:
            return
        payload = dict(list(payload.items())[: len(payload) // 2]) if isinstance(payload, dict) else payload[len(payload) - len(payload) // 2 :]
    began = time.process_time()
    ready.validator.is_valid(payload)
    assert time.process_time() - began < 0.15


@pytest.mark.parametrize(
    ("schema", "payload", "cheap"),
    [
        ({"uniqueItems": True}, LARGE, False),
        ({"uniqueItems": True}, list(range(2_000)), True),
        ({"pattern": "(a{100}){100}b"}, "a" * 20_000, False),
        (nested(12, {"unevaluatedProperties": False}, "allOf"), {"a": 1, "b": 2}, False),
        ({"items": {"multipleOf": 1e-300}}, [1e308] * 3_000, False),
        (
            {"type": "object", "properties": {f"field{n}": {"type": "string", "maxLength": 255} for n in range(40)}},
            {f"field{n}": "some text" for n in range(40)},
            True,
        ),
    ],
)
def test_hostile_checks_are_not_called_cheap_and_ordinary_ones_are(schema: Schema, payload: Any, cheap: bool) -> None:
    assert compiled(schema).is_cheap(json.dumps(payload)) is cheap


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "^.{1,255}$"},
        {"allOf": [{"properties": {f"k{n}": {}}} for n in range(2_000)]},
        {"anyOf": [{"pattern": "x" * 300 + str(n)} for n in range(20)]},
        {"unevaluatedProperties": False, **doublings(11)},
    ],
)
def test_a_schema_that_might_take_long_to_compile_is_not_compiled_where_requests_are_served_before_a_helper_has_tried(schema: Schema) -> None:
    text = json.dumps(schema)
    compile_schema(text)
    began = time.process_time()
    assert compile_here(text) is None
    assert time.process_time() - began < 0.05


def test_a_large_schema_is_examined_in_a_second() -> None:
    began = time.process_time()
    compiled({"properties": {f"key{n}": {"type": "string", "maxLength": 20, "pattern": "^[a-z]+$"} for n in range(10_000)}})
    assert time.process_time() - began < 2.0
