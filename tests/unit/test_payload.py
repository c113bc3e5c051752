"""A receiver's schema is valid, complete in itself and asserted in full; a payload's faults are told one by one, briefly."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from xzepr.errors import InvalidInput, PayloadMismatch
from xzepr.json_text import parse_strict
from xzepr.receivers.payload import PayloadChecker
from xzepr.receivers.schema import FAULTS_MAX, MESSAGE_MAX_CHARS, compile_schema

Schema = dict[str, Any]
DRAFTS = {
    "4": "http://json-schema.org/draft-04/schema#",
    "6": "http://json-schema.org/draft-06/schema#",
    "7": "http://json-schema.org/draft-07/schema#",
    "2019-09": "https://json-schema.org/draft/2019-09/schema",
    "2020-12": "https://json-schema.org/draft/2020-12/schema",
}


def refusals(schema: object, default_draft: str = "2020-12") -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        compile_schema(json.dumps(schema), default_draft=default_draft)
    assert caught.value.status == 400
    return {fault.pointer: fault.message for fault in caught.value.faults}


def takes(schema: Schema, payload_text: str, default_draft: str = "2020-12") -> bool:
    ready = compile_schema(json.dumps(schema), default_draft=default_draft)
    return ready.validator.is_valid(parse_strict(payload_text.encode()))


async def mismatch(schema: Schema, payload: object) -> PayloadMismatch:
    """Of a cheap check, right here: no helper is started."""
    checker, text = PayloadChecker(), json.dumps(payload)
    with pytest.raises(PayloadMismatch) as caught:
        await checker.check("r", 1, json.dumps(schema), "2020-12", parse_strict(text.encode()), text)
    await checker.close()
    assert caught.value.status == 422
    return caught.value


@pytest.mark.parametrize("schema", [True, False, [1], "x", 1, None])
def test_a_schema_is_an_object(schema: object) -> None:
    assert refusals(schema) == {"/schema": "must be a JSON object"}


def test_every_fault_against_the_metaschema_has_its_pointer() -> None:
    found = refusals({"type": "nonsense", "properties": {"a/b": {"minimum": "x"}, "c": {"required": [1]}}})
    assert set(found) == {"/schema/type", "/schema/properties/a~1b/minimum", "/schema/properties/c/required/0"}


@pytest.mark.parametrize("draft", DRAFTS)
def test_each_draft_is_known_by_its_address(draft: str) -> None:
    named = {"$schema": DRAFTS[draft], "properties": {"a": {"type": "integer"}}}
    assert compile_schema(json.dumps(named)).draft == draft
    assert takes(named, '{"a":1}')
    assert not takes(named, '{"a":"x"}')
    assert compile_schema(json.dumps({**named, "$schema": DRAFTS[draft].rstrip("#")})).draft == draft


@pytest.mark.parametrize("draft", DRAFTS)
def test_without_an_address_the_default_draft_counts(draft: str) -> None:
    assert compile_schema("{}", default_draft=draft).draft == draft
    # exclusiveMaximum is true or false in draft 4 and a number later.
    assert ("/schema/exclusiveMaximum" in refusals({"maximum": 5, "exclusiveMaximum": 5 if draft == "4" else True}, draft)) is True


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/schema",
        "",
        "draft-07",
        "http://evil.example//json-schema.org/draft-07/schema",
        "ftp://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-03/schema#",
        7,
    ],
)
def test_an_unknown_draft_is_refused(address: object) -> None:
    assert set(refusals({"$schema": address})) == {"/schema/$schema"}


@pytest.mark.parametrize("draft", DRAFTS)
def test_formats_are_asserted(draft: str) -> None:
    schema = {"$schema": DRAFTS[draft], "properties": {"t": {"format": "date-time"}, "i": {"format": "ipv4"}, "e": {"format": "email"}}}
    assert takes(schema, '{"t":"2026-11-25T06:00:00Z","i":"127.0.0.1","e":"alice@example.com"}')
    for payload in ('{"t":"yesterday"}', '{"i":"1.2.3"}', '{"e":"alice"}'):
        assert not takes(schema, payload)


REDIRECTIONS: list[Schema] = [
    {"$ref": "http://HOST/x"},
    {"$ref": "https://HOST/x"},
    {"$ref": "file:///etc/hostname"},
    {"$ref": "//HOST/x"},
    {"$ref": "x.json"},
    {"$id": "http://HOST/a/", "properties": {"a": {"$ref": "b.json"}}},
    {"$id": "http://HOST/a/", "properties": {"a": {"$ref": "/b.json#/definitions/c"}}},
    {"properties": {"a": {"$id": "http://HOST/x", "$ref": "#/$defs/q"}}, "$defs": {"q": {}}},
    {"$defs": {"a": {"$id": "http://HOST/a", "properties": {"x": {"$ref": "#/$defs/b"}}}, "b": {}}, "$ref": "#/$defs/a"},
    {"$dynamicRef": "http://HOST/x#n"},
    {"$schema": DRAFTS["2019-09"], "$recursiveRef": "http://HOST/x"},
    {"$schema": DRAFTS["7"], "definitions": {"a": {"$id": "http://HOST/a", "items": {"$ref": "b"}}}},
    {"$schema": DRAFTS["4"], "id": "http://HOST/a", "items": {"$ref": "b"}},
    {"$ref": "https://json-schema.org/draft/2020-12/schema"},
    {"$ref": "#/$defs/missing"},
    {"$ref": "#missing"},
    {"$ref": "#/enum/0", "enum": [{}]},
]


@contextmanager
def nobody_calls() -> Iterator[str]:
    """host:port of a listener that takes connections; none may have come."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(BlockingIOError):
            listener.accept()
        with socket.create_connection(listener.getsockname()):
            listener.settimeout(5)
            listener.accept()[0].close()


@pytest.mark.parametrize("schema", REDIRECTIONS, ids=json.dumps)
def test_a_reference_that_leads_out_of_the_document_is_refused_and_nothing_is_fetched(schema: Schema) -> None:
    with nobody_calls() as host:
        found = refusals(json.loads(json.dumps(schema).replace("HOST", host)))
    assert [message for pointer, message in found.items() if "not in this document" in message and pointer.endswith("ef")]


def test_a_draft_of_its_own_for_a_part_is_not_fetched_either() -> None:
    with nobody_calls() as host:
        address = f"http://{host}/x"
        compile_schema(json.dumps({"allOf": [{"$schema": address, "type": "string"}, {"$id": address, "$schema": address}]}))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, "1", '"x"'),
        ({"$ref": "#/$defs/%25", "$defs": {"%": {"type": "integer"}, "%25": {"type": "string"}}}, "1", '"x"'),
        ({"$ref": "#/$defs/%2525", "$defs": {"%": {"type": "string"}, "%25": {"type": "integer"}}}, "1", '"x"'),
        ({"$ref": "#count", "$defs": {"x": {"$anchor": "count", "type": "integer"}}}, "1", '"x"'),
        ({"$ref": "http://example.com/x", "$defs": {"x": {"$id": "http://example.com/x", "type": "integer"}}}, "1", '"x"'),
        ({"$id": "http://example.com/s/", "$ref": "x#/$defs/y", "$defs": {"x": {"$id": "x", "$defs": {"y": {"type": "integer"}}}}}, "1", '"x"'),
        (
            {"$schema": DRAFTS["7"], "properties": {"a": {"$ref": "#n"}}, "definitions": {"x": {"$id": "#n", "type": "integer"}}},
            '{"a":1}',
            '{"a":"x"}',
        ),
        (
            {"$schema": DRAFTS["4"], "properties": {"a": {"$ref": "#n"}}, "definitions": {"x": {"id": "#n", "type": "integer"}}},
            '{"a":1}',
            '{"a":"x"}',
        ),
        ({"$dynamicAnchor": "n", "type": "object", "properties": {"c": {"items": {"$dynamicRef": "#n"}}}}, '{"c":[{"c":[]}]}', '{"c":[{"c":[1]}]}'),
        ({"$ref": "#/allOf/1", "allOf": [True, {"type": "integer"}]}, "1", '"x"'),
        (
            {"properties": {"$ref": {"$ref": "#/$defs/s"}, "$id": {"type": "string"}}, "$defs": {"s": {"type": "integer"}}},
            '{"$ref":1}',
            '{"$ref":"#"}',
        ),
    ],
)
def test_references_within_the_document_are_followed(schema: Schema, good: str, bad: str) -> None:
    assert takes(schema, good)
    assert not takes(schema, bad)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"maximum": 2**70}, str(2**70), str(2**70 + 1)),
        ({"exclusiveMaximum": 2**53 + 1}, str(2**53), str(2**53 + 1)),
        ({"const": 2**70}, str(2**70), str(2**70 + 1)),
        ({"enum": [10**999]}, str(10**999), str(10**999 + 1)),
        ({"multipleOf": 3}, str(3 * 10**900), str(10**900)),
        ({"uniqueItems": True}, f"[{2**70},{2**70 + 1}]", "[1,1.0]"),
        ({"type": "integer"}, "1.0", "1.5"),
        ({"type": "integer"}, "1e308", "1e-308"),
        ({"maximum": 1e308}, "1e308", "1" + "0" * 400),
        ({"minimum": 10**400}, "1" + "0" * 400 + ".5", "1e308"),
        ({"multipleOf": 0.01}, "19.99", "19.999"),
        ({"const": 1}, "1.0", "true"),
        ({"maxLength": 1}, '"\U0001f600"', '"ab"'),
    ],
)
def test_numbers_are_compared_exactly(schema: Schema, good: str, bad: str) -> None:
    assert takes(schema, good)
    assert not takes(schema, bad)


@pytest.mark.anyio
async def test_each_fault_of_a_payload_has_its_pointer() -> None:
    schema = {"properties": {"a/b": {"type": "integer"}, "c": {"items": {"maxLength": 2}}}, "required": ["d"], "additionalProperties": False}
    error = await mismatch(schema, {"a/b": "x", "c": ["ok", "long"], "e~": 1})
    assert sorted(fault.pointer for fault in error.faults) == ["/payload", "/payload", "/payload/a~1b", "/payload/c/1"]
    assert error.message.startswith("the payload does not satisfy the receiver's schema: /payload")
    assert error.message.endswith("(and 3 more)")


@pytest.mark.anyio
async def test_faults_are_bounded_and_the_last_line_counts_the_rest() -> None:
    error = await mismatch({"items": {"type": "string"}}, list(range(200)))
    assert len(error.faults) == FAULTS_MAX + 1
    assert (error.faults[-1].pointer, error.faults[-1].message) == ("/payload", "and 150 more faults")


@pytest.mark.anyio
async def test_a_fault_never_echoes_a_long_value() -> None:
    error = await mismatch({"properties": {"k" * 2_000: {"type": "string"}}, "maxProperties": 0}, {"k" * 2_000: ["v" * 5_000]})
    assert error.faults
    for fault in error.faults:
        assert len(fault.message) <= MESSAGE_MAX_CHARS + 3
        assert len(fault.pointer) <= 1_000
    assert len(error.message) < 2_000


@pytest.mark.anyio
async def test_a_new_version_of_a_receiver_is_checked_by_its_own_schema() -> None:
    checker = PayloadChecker()
    await checker.check("r", 1, '{"type":"integer"}', "2020-12", 1, "1")
    await checker.check("r", 2, '{"type":"string"}', "2020-12", "x", '"x"')
    await checker.check("r", 1, '{"type":"integer"}', "2020-12", 2, "2")
    with pytest.raises(PayloadMismatch):
        await checker.check("r", 2, '{"type":"string"}', "2020-12", 1, "1")
    await checker.close()
