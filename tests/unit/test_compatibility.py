"""Each kind of change that would break a client of the last release is found, and what is only added is not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from support.compatibility import breaks

Json = dict[str, Any]
Change = Callable[[Json], object]

BASE: Json = {
    "paths": {
        "/things": {
            "post": {
                "operationId": "post_things",
                "x-permission": ["thing:create"],
                "parameters": [
                    {"name": "dry_run", "in": "query", "required": False, "schema": {"type": "boolean"}},
                    {"name": "limit", "in": "query", "required": False, "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
                    {"name": "kind", "in": "query", "required": True, "schema": {"enum": ["a", "b"]}},
                ],
                "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewThing"}}}},
                "responses": {
                    "201": {
                        "description": "made",
                        "headers": {"Location": {}, "X-Request-ID": {}},
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                    },
                    "400": {
                        "description": "refused",
                        "content": {
                            "application/problem+json": {
                                "schema": {
                                    "allOf": [
                                        {"$ref": "#/components/schemas/Problem"},
                                        {"properties": {"error": {"enum": ["invalid_id", "invalid_input"]}}},
                                    ]
                                }
                            }
                        },
                    },
                },
            },
            "get": {"operationId": "get_things", "x-permission": "public", "responses": {"200": {"description": "all"}}},
        },
        "/other": {"get": {"operationId": "get_other", "x-permission": "public", "responses": {"200": {"description": "it"}}}},
    },
    "components": {
        "schemas": {
            "NewThing": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 255},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "parts": {"type": "array", "items": {"type": "string"}, "maxItems": 100},
                    "weight": {"type": "number"},
                    "state": {"enum": ["new", "used"]},
                    "inner": {"$ref": "#/components/schemas/NewThing"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "payload": {},
                },
                "required": ["name"],
                "additionalProperties": False,
            },
            "Thing": {
                "type": "object",
                "properties": {
                    "id": {"type": "string"},
                    "count": {"type": "integer"},
                    "owner": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "children": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}},
                    "state": {"enum": ["open", "closed"]},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                },
                "required": ["id", "count", "owner", "children", "state"],
            },
            "Problem": {
                "type": "object",
                "properties": {"error": {"type": "string"}, "status": {"type": "integer"}},
                "required": ["error", "status"],
            },
        }
    },
}


def post(document: Json) -> Json:
    found: Json = document["paths"]["/things"]["post"]
    return found


def parameter(document: Json, name: str) -> Json:
    found: Json = next(each for each in post(document)["parameters"] if each["name"] == name)
    return found


def new_thing(document: Json) -> Json:
    found: Json = document["components"]["schemas"]["NewThing"]
    return found


def thing(document: Json) -> Json:
    found: Json = document["components"]["schemas"]["Thing"]
    return found


def codes(document: Json) -> list[str]:
    content = post(document)["responses"]["400"]["content"]["application/problem+json"]
    found: list[str] = content["schema"]["allOf"][1]["properties"]["error"]["enum"]
    return found


def after(change: Change) -> list[str]:
    new = copy.deepcopy(BASE)
    change(new)
    assert new != BASE, "the change changes nothing"
    return breaks(BASE, new)


BREAKING: list[tuple[str, Change, str]] = [
    ("path removed", lambda d: d["paths"].pop("/other"), "/other: the path is gone"),
    ("method removed", lambda d: d["paths"]["/things"].pop("get"), "GET /things: the method is gone"),
    ("operation renamed", lambda d: post(d).update(operationId="make_thing"), "POST /things: operationId"),
    ("permission added", lambda d: post(d)["x-permission"].append("thing:read"), "POST /things: needs the permission thing:read now"),
    ("public no more", lambda d: d["paths"]["/things"]["get"].update({"x-permission": ["a:b"]}), "GET /things: needs the permission a:b now"),
    ("parameter removed", lambda d: post(d)["parameters"].pop(0), "query parameter dry_run: is gone"),
    ("parameter required", lambda d: parameter(d, "dry_run").update(required=True), "query parameter dry_run: is required now"),
    (
        "required parameter added",
        lambda d: post(d)["parameters"].append({"name": "x", "in": "header", "required": True, "schema": {}}),
        "header parameter x: is new and required",
    ),
    ("maximum lowered", lambda d: parameter(d, "limit")["schema"].update(maximum=500), "limit: maximum was 1000, is 500"),
    ("minimum raised", lambda d: parameter(d, "limit")["schema"].update(minimum=2), "limit: minimum was 1, is 2"),
    ("enum of a request narrowed", lambda d: parameter(d, "kind")["schema"]["enum"].pop(), "kind: does not take b any more"),
    ("enum put on a request", lambda d: new_thing(d)["properties"]["name"].update(enum=["x"]), "body.name: takes only x now"),
    ("type of a parameter changed", lambda d: parameter(d, "dry_run").update(schema={"type": "string"}), "dry_run: type was boolean"),
    ("body required", lambda d: d["paths"]["/things"]["get"].update(requestBody={"required": True, "content": {}}), "GET /things body: is required"),
    ("body removed", lambda d: post(d).pop("requestBody"), "POST /things body: is gone"),
    (
        "media type of a body removed",
        lambda d: post(d)["requestBody"].update(content={"text/csv": {"schema": {}}}),
        "body: application/json is not taken any more",
    ),
    ("field of a request required", lambda d: new_thing(d)["required"].append("note"), "body.note: is required now"),
    (
        "required field of a request added",
        lambda d: (new_thing(d)["properties"].update(extra={"type": "string"}), new_thing(d)["required"].append("extra")),
        "body.extra: is required now",
    ),
    ("field of a request removed", lambda d: new_thing(d)["properties"].pop("note"), "body.note: the field is gone"),
    ("length of a request lowered", lambda d: new_thing(d)["properties"]["name"].update(maxLength=100), "body.name: maxLength was 255, is 100"),
    ("length asked for", lambda d: new_thing(d)["properties"]["note"]["anyOf"][0].update(minLength=1), "body.note: does not take string any more"),
    ("items asked for", lambda d: new_thing(d)["properties"]["parts"].update(minItems=1), "body.parts: minItems was not there, is 1"),
    ("fewer items taken", lambda d: new_thing(d)["properties"]["parts"].update(maxItems=10), "body.parts: maxItems was 100, is 10"),
    ("items of a request changed", lambda d: new_thing(d)["properties"]["parts"].update(items={"type": "integer"}), "body.parts[]: type was string"),
    ("pattern put on a request", lambda d: new_thing(d)["properties"]["name"].update(pattern="^a"), "body.name: pattern was not there, is ^a"),
    ("format put on a request", lambda d: new_thing(d)["properties"]["name"].update(format="date"), "body.name: format was not there, is date"),
    ("number becomes integer", lambda d: new_thing(d)["properties"].update(weight={"type": "integer"}), "body.weight: type was integer, number"),
    ("null not taken any more", lambda d: new_thing(d)["properties"].update(note={"type": "string"}), "body.note: does not take null any more"),
    ("any JSON becomes an object", lambda d: new_thing(d)["properties"].update(payload={"type": "object"}), "body.payload: type was array, boolean"),
    (
        "values of a map changed",
        lambda d: new_thing(d)["properties"]["labels"].update(additionalProperties={"type": "boolean"}),
        "body.labels.*: type was string, is boolean",
    ),
    (
        "map closed",
        lambda d: new_thing(d)["properties"]["labels"].update(additionalProperties=False),
        "body.labels: unknown fields are not taken any more",
    ),
    ("answer removed", lambda d: post(d)["responses"].pop("201"), "POST /things 201: the answer is gone"),
    ("status of an answer changed", lambda d: post(d)["responses"].update({"200": post(d)["responses"].pop("201")}), "201: the answer is gone"),
    ("header of an answer removed", lambda d: post(d)["responses"]["201"]["headers"].pop("Location"), "201 header Location: is gone"),
    ("body of an answer removed", lambda d: post(d)["responses"]["201"].pop("content"), "201: application/json is not answered any more"),
    ("field of an answer removed", lambda d: thing(d)["properties"].pop("count"), "201.count: the field is gone"),
    ("field of an answer may be missing", lambda d: thing(d)["required"].remove("count"), "201.count: may be missing now"),
    ("type of an answer changed", lambda d: thing(d)["properties"].update(count={"type": "string"}), "201.count: type was integer, is string"),
    ("integer becomes number", lambda d: thing(d)["properties"].update(count={"type": "number"}), "201.count: type was integer"),
    (
        "answer may be null",
        lambda d: thing(d)["properties"].update(id={"anyOf": [{"type": "string"}, {"type": "null"}]}),
        "201.id: may be null now",
    ),
    ("items of an answer changed", lambda d: thing(d)["properties"]["children"].update(items={"type": "string"}), "201.children[]: type was object"),
    (
        "values of a map in an answer changed",
        lambda d: thing(d)["properties"]["labels"].update(additionalProperties={"type": "integer"}),
        "201.labels.*: type was string, is integer",
    ),
    ("problem code removed", lambda d: codes(d).remove("invalid_id"), "POST /things 400: the problem code invalid_id is gone"),
    ("status of a problem removed", lambda d: post(d)["responses"].pop("400"), "POST /things 400: the answer is gone"),
    ("field of problems removed", lambda d: d["components"]["schemas"]["Problem"]["properties"].pop("status"), "400.status: the field is gone"),
]

ADDITIONS: list[tuple[str, Change]] = [
    ("path", lambda d: d["paths"].update({"/more": d["paths"]["/other"]})),
    ("method", lambda d: d["paths"]["/other"].update({"delete": d["paths"]["/other"]["get"]})),
    ("optional parameter", lambda d: post(d)["parameters"].append({"name": "x", "in": "query", "required": False, "schema": {"type": "string"}})),
    ("parameter no longer required", lambda d: parameter(d, "kind").update(required=False)),
    ("wider bounds", lambda d: parameter(d, "limit")["schema"].update(minimum=0, maximum=10_000)),
    ("no bounds", lambda d: parameter(d, "limit").update(schema={"type": "integer"})),
    ("value of an enum in a request", lambda d: parameter(d, "kind")["schema"]["enum"].append("c")),
    ("no enum in a request", lambda d: parameter(d, "kind").update(schema={"type": "string"})),
    ("optional field of a request", lambda d: new_thing(d)["properties"].update(extra={"type": "string"})),
    ("field of a request no longer required", lambda d: new_thing(d)["required"].clear()),
    ("wider type of a request", lambda d: new_thing(d)["properties"].update(parts={})),
    ("another type of a request", lambda d: new_thing(d)["properties"]["note"]["anyOf"].append({"type": "integer"})),
    ("integer becomes number in a request", lambda d: parameter(d, "limit").update(schema={"type": "number", "minimum": 1, "maximum": 1000})),
    ("unknown fields taken", lambda d: new_thing(d).pop("additionalProperties")),
    ("another media type of a body", lambda d: post(d)["requestBody"]["content"].update({"text/csv": {"schema": {}}})),
    ("field of an answer", lambda d: thing(d)["properties"].update(extra={"type": "string"})),
    ("promise of a field in an answer", lambda d: thing(d)["required"].append("labels")),
    ("value of an enum in an answer", lambda d: thing(d)["properties"]["state"]["enum"].append("missing")),
    ("narrower answer", lambda d: thing(d)["properties"].update(owner={"type": "string", "maxLength": 26})),
    ("header of an answer", lambda d: post(d)["responses"]["201"]["headers"].update({"ETag": {}})),
    ("another answer", lambda d: post(d)["responses"].update({"202": {"description": "later"}})),
    ("problem code", lambda d: codes(d).append("malformed_body")),
    ("fewer permissions", lambda d: post(d)["x-permission"].clear()),
    ("other words", lambda d: post(d).update(summary="Make a thing", description="It is made.")),
]


@pytest.mark.parametrize(("change", "told"), [case[1:] for case in BREAKING], ids=[case[0] for case in BREAKING])
def test_each_breaking_change_is_found_and_named(change: Change, told: str) -> None:
    found = after(change)
    assert any(told in line for line in found), found


@pytest.mark.parametrize("change", [case[1] for case in ADDITIONS], ids=[case[0] for case in ADDITIONS])
def test_additions_break_nobody(change: Change) -> None:
    assert after(change) == []


def test_same_document_breaks_nobody() -> None:
    assert breaks(BASE, copy.deepcopy(BASE)) == []


def test_every_break_is_told_not_only_the_first() -> None:
    def change(document: Json) -> None:
        document["paths"].pop("/other")
        thing(document)["properties"].pop("count")
        codes(document).clear()

    # A thing holds things: what is gone from all of them is told once.
    assert len(after(change)) == 4
