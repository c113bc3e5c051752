"""`--ref`: what a schema refers to is put into it, so that the server's own compiler resolves it, and nothing else of the text changes."""

import json
from pathlib import Path
from typing import Any

import pytest

from xzepr.cli.refs import RefError, bundle, read_refs
from xzepr.receivers.schema import compile_schema

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_4 = "http://json-schema.org/draft-04/schema#"
BASE = "http://cyclonedx.org/schema/"

# The shape of the CycloneDX 1.5 schema and of the two files that it refers to.
BOM: dict[str, Any] = {
    "$schema": DRAFT_7,
    "$id": f"{BASE}bom-1.5.schema.json",
    "type": "object",
    "required": ["bomFormat"],
    "properties": {
        "bomFormat": {"enum": ["CycloneDX"]},
        "components": {"type": "array", "items": {"$ref": "#/definitions/component"}},
        "signature": {"$ref": "#/definitions/signature"},
    },
    "definitions": {
        "component": {"type": "object", "properties": {"license": {"$ref": "spdx.schema.json"}}},
        "signature": {"$ref": "jsf-0.82.schema.json#/definitions/signature"},
    },
}
SPDX: dict[str, Any] = {"$schema": DRAFT_7, "$id": f"{BASE}spdx.schema.json", "type": "string", "enum": ["MIT", "Apache-2.0"]}
JSF: dict[str, Any] = {
    "$schema": DRAFT_7,
    "$id": f"{BASE}jsf-0.82.schema.json",
    "type": "object",
    "definitions": {
        "signature": {"type": "object", "required": ["algorithm"], "properties": {"publicKey": {"$ref": "#/definitions/publicKey"}}},
        "publicKey": {"type": "object", "required": ["kty"]},
    },
}
REFS = {"spdx.schema.json": SPDX, "jsf-0.82.schema.json": JSF}


def text(schema: Any) -> bytes:
    return json.dumps(schema).encode()


def bundled(schema: Any, refs: dict[str, Any]) -> bytes:
    return bundle(text(schema), {uri: text(each) for uri, each in refs.items()})


def accepts(schema: bytes, payload: Any) -> bool:
    """As the server compiles and checks."""
    return compile_schema(schema.decode()).validator.is_valid(payload)


def require_sbom(schema: bytes) -> None:
    bom = {"bomFormat": "CycloneDX"}
    assert accepts(schema, {**bom, "components": [{"license": "MIT"}], "signature": {"algorithm": "RS256", "publicKey": {"kty": "RSA"}}})
    assert not accepts(schema, {**bom, "components": [{"license": "no such licence"}]})
    assert not accepts(schema, {**bom, "signature": {}})
    assert not accepts(schema, {**bom, "signature": {"algorithm": "RS256", "publicKey": {}}})


def test_a_schema_shaped_like_cyclonedx_compiles_on_the_server() -> None:
    require_sbom(bundled(BOM, REFS))


def test_the_reference_may_be_named_by_what_it_resolves_to() -> None:
    require_sbom(bundled(BOM, {f"{BASE}{name}": schema for name, schema in REFS.items()}))


def test_a_schema_without_an_id_of_its_own_gets_its_references_all_the_same() -> None:
    require_sbom(bundled({key: value for key, value in BOM.items() if key != "$id"}, REFS))


def test_files_without_an_id_get_the_one_that_is_referred_to() -> None:
    bare = {uri: {key: value for key, value in schema.items() if key not in ("$id", "$schema")} for uri, schema in REFS.items()}
    require_sbom(bundled(BOM, bare))


@pytest.mark.parametrize(
    "draft",
    [
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        DRAFT_7,
        "http://json-schema.org/draft-06/schema#",
        DRAFT_4,
    ],
)
@pytest.mark.parametrize("with_id", [True, False])
def test_each_draft_finds_what_is_embedded(draft: str, with_id: bool) -> None:
    keyword = "id" if draft == DRAFT_4 else "$id"
    schema = {
        "$schema": draft,
        "properties": {"a": {"$ref": "other.json#/definitions/small"}},
        **({keyword: "http://here/x.json"} if with_id else {}),
    }
    other = {"$schema": draft, "definitions": {"small": {"type": "integer", "maximum": 3}}}
    made = bundled(schema, {"other.json": other})
    assert accepts(made, {"a": 3})
    assert not accepts(made, {"a": 4})


@pytest.mark.parametrize("root_id", [{}, {"$id": f"{BASE}root.json"}])
def test_in_an_old_draft_a_schema_that_is_nothing_but_a_reference_works(root_id: dict[str, str]) -> None:
    made = bundled({"$schema": DRAFT_7, **root_id, "$ref": "spdx.schema.json"}, {"spdx.schema.json": SPDX})
    assert accepts(made, "MIT")
    assert not accepts(made, "none")


def test_an_embedded_file_that_is_nothing_but_a_reference_works() -> None:
    schema = {"$schema": DRAFT_7, "properties": {"a": {"$ref": "a.json"}}}
    alias = {"$schema": DRAFT_7, "$id": "elsewhere.json", "$ref": "#/definitions/a", "definitions": {"a": {"const": 1}}}
    made = bundled(schema, {"a.json": alias})
    assert accepts(made, {"a": 1})
    assert not accepts(made, {"a": 2})


def test_what_embedded_files_refer_to_is_embedded_too_and_circles_end() -> None:
    schema = {"$id": "http://x/root.json", "properties": {"a": {"$ref": "a.json"}}}
    first = {"type": "object", "properties": {"b": {"$ref": "b.json"}}}
    second = {"type": "object", "required": ["n"], "properties": {"a": {"$ref": "a.json"}, "root": {"$ref": "root.json"}}}
    made = bundled(schema, {"a.json": first, "b.json": second})
    assert accepts(made, {"a": {"b": {"n": 1, "a": {"b": {"n": 2}}}}})
    assert not accepts(made, {"a": {"b": {"n": 1, "a": {"b": {}}}}})
    assert sorted(json.loads(made)["$defs"]) == ["http://x/a.json", "http://x/b.json"]


def test_names_of_properties_and_constants_are_no_references() -> None:
    schema = {
        "properties": {"$ref": {"type": "string"}, "enum": {"$ref": "a.json"}},
        "not": {"const": {"$ref": "never.json"}},
        "default": {"$ref": "never.json"},
    }
    made = bundled(schema, {"a.json": {"const": 1}})
    assert accepts(made, {"$ref": "text", "enum": 1})
    assert not accepts(made, {"enum": 2})
    with pytest.raises(RefError, match=r"nothing refers to never\.json"):
        bundled(schema, {"a.json": {"const": 1}, "never.json": {}})


def test_all_else_of_both_texts_stays_as_it_is() -> None:
    schema = b'{"z":1,"$id":"http://x/r.json","maximum":1e3,"multipleOf":0.10,"b":{"$ref":"a.json"},"properties":{"a":{"$ref":"a.json"}},"a":18446744073709551617}'
    other = b'{"maximum":1.0,"default":18446744073709551618.50}'
    made = bundle(schema, {"a.json": other})
    assert made == schema[:-1] + b',"$defs":{"http://x/a.json":{"$id":"http://x/a.json",' + other[1:] + b"}}"


def test_definitions_that_are_there_are_kept() -> None:
    schema = {"$defs": {"a.json": {"type": "integer"}}, "anyOf": [{"$ref": "a.json"}, {"$ref": "#/$defs/a.json"}]}
    made = bundled(schema, {"a.json": {"const": "x"}})
    assert json.loads(made)["$defs"] == {"a.json": {"type": "integer"}, "a.json_": {"$id": "a.json", "const": "x"}}
    assert accepts(made, "x")
    assert accepts(made, 5)
    assert not accepts(made, "y")


def test_what_the_schema_holds_already_is_not_embedded_again() -> None:
    schema = {"$defs": {"a": {"$id": "a.json", "const": 1}}, "$ref": "a.json"}
    with pytest.raises(RefError, match="the schema refers to nothing outside itself"):
        bundled(schema, {"a.json": {"const": 2}})


def test_a_reference_that_nothing_uses_is_a_fault_that_tells_what_there_is() -> None:
    with pytest.raises(RefError, match=r"nothing refers to spdx\.json; the schema refers to jsf-0\.82\.schema\.json, spdx\.schema\.json"):
        bundled(BOM, {"spdx.json": SPDX, "jsf-0.82.schema.json": JSF})


@pytest.mark.parametrize(
    ("schema", "refs", "message"),
    [
        (b"[]", {}, "the schema is not a JSON object"),
        (b"{", {}, "the schema is not a JSON object"),
        (b'{"$ref":"a","$ref":"a"}', {}, "the schema: a member of an object stands there twice"),
        (b'{"$ref":"a"}', {"a": b"\xff"}, "the file for a is not a JSON object"),
        (b'{"$ref":"a"}', {"a": b'{"b":1,"b":2}'}, "the file for a: a member of an object stands there twice"),
        (b'{"$ref":"a","$defs":[]}', {"a": b"{}"}, r"\$defs of the schema is not an object"),
        (b"[" * 100_000, {}, "the schema is not a JSON object"),
    ],
)
def test_what_cannot_be_bundled_is_told_in_one_line(schema: bytes, refs: dict[str, bytes], message: str) -> None:
    with pytest.raises(RefError, match=message) as caught:
        bundle(schema, refs)
    assert "\n" not in str(caught.value)


def test_files_are_read_by_uri_which_may_hold_an_equals_sign(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert read_refs([f"http://x/?v=1#={tmp_path / 'a.json'}"]) == {"http://x/?v=1": b"{}"}
    for wrong in ("a.json", "=a.json", "uri="):
        with pytest.raises(RefError, match="is not URI=FILE"):
            read_refs([wrong])
    with pytest.raises(RefError, match="cannot be read: No such file"):
        read_refs([f"uri={tmp_path / 'absent.json'}"])
