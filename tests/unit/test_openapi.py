"""The OpenAPI document: valid by itself, and the same as what is enforced."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from xzepr import errors
from xzepr.app import ROUTES
from xzepr.auth.permissions import PUBLIC
from xzepr.errors import XzeprError
from xzepr.web import examples, pages
from xzepr.web.openapi import ULID, build_document, operation_id, problems_of
from xzepr.web.problems import MEDIA_TYPE, InputFault
from xzepr.web.routes import Route

TABLE = [*ROUTES, *pages.routes(ROUTES)]
SHOWN = [route for route in TABLE if route.in_document]
# Through JSON and back: it must be plain data.
DOCUMENT: dict[str, Any] = json.loads(msgspec.json.encode(build_document(TABLE)))

# What OpenAPI 3.1 asks of the parts that we use, written down here: `additionalProperties` would hide a misspelt keyword.
OPEN = {"type": "object"}
CONTENT = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {
        "type": "object",
        "required": ["schema"],
        "properties": {"schema": OPEN, "example": True, "examples": {"type": "object", "additionalProperties": {"required": ["$ref"]}}},
        "not": {"required": ["example", "examples"]},
        "additionalProperties": False,
    },
}
RESPONSE = {
    "type": "object",
    "required": ["description"],
    "properties": {"description": {"type": "string", "minLength": 1}, "headers": OPEN, "content": CONTENT},
    "additionalProperties": False,
}
PARAMETER = {
    "type": "object",
    "required": ["name", "in", "schema"],
    "properties": {
        "name": {"type": "string"},
        "in": {"enum": ["path", "query", "header"]},
        "required": {"type": "boolean"},
        "description": {"type": "string", "minLength": 1},
        "schema": OPEN,
    },
    "additionalProperties": False,
    "if": {"properties": {"in": {"const": "path"}}},
    "then": {"required": ["required"], "properties": {"required": {"const": True}}},
}
OPERATION = {
    "type": "object",
    "required": ["operationId", "tags", "summary", "responses", "x-permission"],
    "properties": {
        "operationId": {"type": "string", "pattern": "^[a-z][A-Za-z0-9_]*$"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "summary": {"type": "string", "minLength": 1},
        "description": {"type": "string", "minLength": 1},
        "x-permission": {"anyOf": [{"const": "public"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
        "parameters": {"type": "array", "items": PARAMETER},
        "requestBody": {
            "type": "object",
            "required": ["content", "required"],
            "properties": {"content": CONTENT, "required": {"const": True}},
            "additionalProperties": False,
        },
        "responses": {"type": "object", "minProperties": 1, "patternProperties": {"^[1-5][0-9][0-9]$": RESPONSE}, "additionalProperties": False},
    },
    "additionalProperties": False,
}
STRUCTURE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["openapi", "info", "paths"],
    "properties": {
        "openapi": {"type": "string", "pattern": r"^3\.1\.\d+$"},
        "info": {
            "type": "object",
            "required": ["title", "version"],
            "properties": {
                "title": {"type": "string"},
                "version": {"type": "string"},
                "summary": {"type": "string"},
                "description": {"type": "string", "minLength": 1},
                "license": {"type": "object", "required": ["name"], "not": {"required": ["identifier", "url"]}},
            },
            "additionalProperties": False,
        },
        "servers": {"type": "array", "items": {"type": "object", "required": ["url"]}},
        "tags": {"type": "array", "items": {"type": "object", "required": ["name"]}},
        "paths": {
            "type": "object",
            "propertyNames": {"pattern": "^/"},
            "additionalProperties": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"enum": ["get", "post", "put", "patch", "delete"]},
                "additionalProperties": OPERATION,
            },
        },
        "components": {
            "type": "object",
            "properties": {
                "schemas": {"type": "object", "propertyNames": {"pattern": "^[A-Za-z0-9._-]+$"}, "additionalProperties": OPEN},
                "headers": {"type": "object", "additionalProperties": {"type": "object", "required": ["description", "required", "schema"]}},
                "responses": {"type": "object", "additionalProperties": RESPONSE},
                "examples": {"type": "object", "additionalProperties": {"type": "object", "required": ["value"]}},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}


def operations() -> Iterator[tuple[Route, dict[str, Any]]]:
    for route in SHOWN:
        yield route, DOCUMENT["paths"][route.path][route.method.lower()]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def schemas() -> Iterator[Any]:
    yield from DOCUMENT["components"]["schemas"].values()
    for _, operation in operations():
        yield from (parameter["schema"] for parameter in operation.get("parameters", []))
        contents = [operation["requestBody"]] if "requestBody" in operation else []
        for part in [*contents, *operation["responses"].values()]:
            yield from (content["schema"] for content in part.get("content", {}).values())


def bundled(schema: Any) -> dict[str, Any]:
    """The schema with the components that it refers to."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": DOCUMENT["components"], "allOf": [schema]}


def test_document_has_the_structure_that_openapi_asks_for() -> None:
    assert [error.message for error in jsonschema_rs.Draft202012Validator(STRUCTURE).iter_errors(DOCUMENT)] == []


def test_every_reference_leads_somewhere_inside() -> None:
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        place: Any = DOCUMENT
        assert reference.startswith("#/")
        for part in reference[2:].split("/"):
            place = place[part]


def test_every_schema_is_a_json_schema() -> None:
    for schema in schemas():
        assert jsonschema_rs.meta.is_valid({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}), schema


def test_operation_ids_are_unique() -> None:
    names = [operation["operationId"] for _, operation in operations()]
    assert len(set(names)) == len(names)


def test_operation_id_is_method_and_path() -> None:
    by_name = {operation_id(route) for route in SHOWN}
    assert {"get_home", "post_events", "get_groups_id_status", "patch_groups_id", "get_health_live"} <= by_name


def test_path_parameters_are_those_of_the_path() -> None:
    for route, operation in operations():
        named = re.findall(r"\{(\w+)\}", route.path)
        assert named == [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"]


def test_query_parameters_are_those_of_the_type() -> None:
    for route, operation in operations():
        wanted = [field.encode_name for field in msgspec.structs.fields(route.query)] if route.query else []
        assert wanted == [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]


def test_optional_query_parameter_is_never_null() -> None:
    for _, operation in operations():
        for parameter in operation.get("parameters", []):
            assert "null" not in json.dumps(parameter["schema"])


def test_every_permission_is_named() -> None:
    for route, operation in operations():
        assert operation["x-permission"] == ([str(permission) for permission in route.permissions] or "public")


def test_every_example_satisfies_its_schema() -> None:
    checked = 0
    for route, operation in operations():
        parts = [operation["responses"][str(route.status)], *([operation["requestBody"]] if route.body else [])]
        for content in (content for part in parts for content in part.get("content", {}).values()):
            if "example" in content:
                jsonschema_rs.validator_for(bundled(content["schema"])).validate(content["example"])
                checked += 1
    assert checked


def test_every_body_and_answer_that_is_an_object_has_an_example_without_gaps() -> None:
    for route, operation in operations():
        parts = [operation["responses"][str(route.status)], *([operation["requestBody"]] if route.body else [])]
        for content in (content for part in parts for content in part.get("content", {}).values()):
            if "$ref" in content["schema"]:
                assert examples.UNNAMED not in json.dumps(content["example"], ensure_ascii=False), (route.path, content["example"])


def test_example_of_every_problem_is_one() -> None:
    schema = {"$ref": "#/components/schemas/Problem"}
    for code, example in DOCUMENT["components"]["examples"].items():
        jsonschema_rs.validator_for(bundled(schema)).validate(example["value"])
        assert example["value"]["error"] == code


def test_headers_follow_from_what_a_route_is() -> None:
    conditional = {route.path for route in SHOWN if route.conditional}
    for route, operation in operations():
        taken = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "header"}
        given = operation["responses"][str(route.status)]["headers"]
        assert ("Idempotency-Key" in taken) == ("Idempotency-Replayed" in given) == route.idempotent
        assert ("If-Match" in taken) == route.conditional
        assert ("Last-Event-ID" in taken) == (route.media_type == "text/event-stream")
        assert ("ETag" in given) == (route.path in conditional and route.answer is not None)
        assert ("Location" in given) == ((route.status == 201 and route.has_location) or route.status in route.redirects)
        assert "X-Request-ID" in given


def test_fields_that_are_ids_and_times_by_their_names_are_described_as_such() -> None:
    components = DOCUMENT["components"]["schemas"]
    pattern = ULID["pattern"]
    assert components["NewEvent"]["properties"]["event_receiver_id"] == {"type": "string", "pattern": pattern}
    assert components["Event"]["properties"]["created_at"] == {"type": "string", "format": "date-time"}
    assert components["Gate"]["properties"]["event_id"]["anyOf"][0] == {"type": "string", "pattern": pattern}
    members = components["NewEventReceiverGroup"]["properties"]["event_receiver_ids"]
    assert (members["items"]["pattern"], members["uniqueItems"]) == (pattern, True)
    assert "pattern" not in components["Event"]["properties"]["owner_id"]["anyOf"][0], "another issuer's users have other ids"


def test_status_with_the_same_body_is_described_beside_its_problem() -> None:
    async def never(_: Any) -> Any:
        raise AssertionError

    own = {"method": "GET", "path": "/well", "handler": never, "permission": PUBLIC, "answer": InputFault, "tag": "service", "summary": "Well?"}
    answers = build_document([Route(**own, other_statuses=(207, 503))])["paths"]["/well"]["get"]["responses"]
    assert answers["503"]["content"].keys() == {"application/json", MEDIA_TYPE}
    assert answers["207"]["content"] == answers["200"]["content"]
    assert answers["200"]["content"].keys() == {"application/json"}


def test_redirect_is_described_with_where_it_leads() -> None:
    async def never(_: Any) -> Any:
        raise AssertionError

    own = {"method": "GET", "path": "/go", "handler": never, "permission": PUBLIC, "tag": "service", "summary": "Go"}
    [beside, alone] = [
        build_document([Route(**own, **more)])["paths"]["/go"]["get"]["responses"]
        for more in ({"answer": InputFault, "redirects": (302,)}, {"status": 303, "redirects": (303,)})
    ]
    assert beside["200"]["content"].keys() == {"application/json"}
    for answer in (beside["302"], alone["303"]):
        assert answer["headers"].keys() == {"X-Request-ID", "Location"}
        assert "content" not in answer
    assert {"application/problem+json", "text/html"} == beside["400"]["content"].keys()


def test_what_belongs_to_no_operation_is_described() -> None:
    answers = DOCUMENT["components"]["responses"]
    assert answers["MethodNotAllowed"]["headers"].keys() == {"X-Request-ID", "Allow"}
    for name, code in (("NoSuchAddress", "not_found"), ("MethodNotAllowed", "method_not_allowed")):
        _, own = answers[name]["content"][MEDIA_TYPE]["schema"]["allOf"]
        assert own["properties"]["error"] == {"enum": [code]}


def test_raw_json_is_any_json_or_the_kind_it_must_be() -> None:
    components = DOCUMENT["components"]["schemas"]
    assert components["NewEvent"]["properties"]["payload"] == {}
    assert components["NewEventReceiver"]["properties"]["schema"] == {"type": "object"}


def test_unknown_fields_of_a_body_are_refused_in_the_document_too() -> None:
    for route, operation in operations():
        if route.body is not None:
            content = operation["requestBody"]["content"]["application/json"]
            [reference] = references(content["schema"])
            assert DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]["additionalProperties"] is False


@pytest.mark.parametrize("route", SHOWN, ids=operation_id)
def test_every_problem_of_a_route_is_described(route: Route) -> None:
    responses = DOCUMENT["paths"][route.path][route.method.lower()]["responses"]
    for kind in problems_of(route):
        answer = responses[str(kind.status)]
        assert f"`{kind.code}`" in answer["description"]
        problem, own = answer["content"][MEDIA_TYPE]["schema"]["allOf"]
        assert problem == {"$ref": "#/components/schemas/Problem"}
        assert own["properties"]["status"] == {"const": kind.status}
        assert kind.code in own["properties"]["error"]["enum"]
    expected = {
        "500",
        "503",
        "400",
        str(route.status),
        *({"401", "403"} if route.permissions else ()),
        *({"408", "413", "415"} if route.body else ()),
    }
    assert expected <= set(responses)


def test_codes_of_problems_are_unique_and_explained() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, XzeprError)]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    page = pages._page("problems.html", rows=pages._problem_rows())
    assert all(f'id="{code}"' in page for code in codes)


@pytest.mark.parametrize("name", ["home.html", "docs.html", "problems.html"])
def test_pages_load_nothing_from_elsewhere_and_hold_nothing_inline(name: str) -> None:
    require_own(pages._page(name))


def test_page_of_a_failure_shows_what_it_is_given_as_text() -> None:
    page = pages.failure_page("Login failed", "<script>x</script>", "r1", again="/again")
    require_own(page)
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert 'href="/again"' in page


def require_own(page: str) -> None:
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert loaded
    assert all(address.startswith("/") and not address.startswith("//") for address in loaded)
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=|javascript:", page) == []


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("text/html", True),
        ("application/json;q=0.5, text/html", True),
        ("application/json, text/html;q=0.5", False),
        ("application/json", False),
        ("*/*", False),
        ("", False),
        ("text/html;q=0", False),
        ("text/html;q=nonsense", False),
    ],
)
def test_page_is_for_those_who_rank_html_above_json(accept: str, html: bool) -> None:
    assert pages.prefers_html(accept) is html
