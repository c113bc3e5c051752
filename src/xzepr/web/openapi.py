"""The OpenAPI 3.1 document, from the routing table: what is enforced is what is described."""

from collections.abc import Sequence
from typing import Any, Final, get_type_hints

import msgspec

from xzepr import __version__
from xzepr.errors import (
    BodyTooLarge,
    ForeignOrigin,
    InvalidId,
    InvalidInput,
    MalformedBody,
    PermissionDenied,
    RequestTimeout,
    Unauthenticated,
    Unavailable,
    UnknownHost,
    UnsupportedMediaType,
    XzeprError,
)
from xzepr.web import problems
from xzepr.web.routes import Route

_REF: Final = "#/components/schemas/{name}"
ULID: Final = {
    "type": "string",
    "description": "A ULID: 26 characters of Crockford's base 32; lower case is accepted.",
    "pattern": "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$",
    "examples": ["01M88Q7AG504QSGMQWKDMNZ1V5"],
}
_TAGS: Final = {
    "events": "Records of acts on artifacts. Never changed.",
    "receivers": "Kinds of acts, each with the JSON Schema of its payloads.",
    "groups": "Receivers that together decide something: release gates, and why they are shut.",
    "stream": "All messages, by position.",
    "service": "The server itself.",
}


def build_document(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole document as plain objects."""
    shown = [route for route in routes if route.in_document]
    types = [kind for route in shown for kind in (route.body, route.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components([*types, problems.Problem], ref_template=_REF)
    by_type = dict(zip(map(repr, [*types, problems.Problem]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "XZepr",
            "version": __version__,
            "summary": "Event provenance for the software supply chain",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items() if any(route.tag == name for route in shown)],
        "paths": paths,
        "components": {"schemas": dict(components)},
    }


def _operation(route: Route, by_type: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "tags": [route.tag],
        "summary": route.summary,
        "x-permission": list(route.permissions) or "public",
    }
    if route.description:
        operation["description"] = route.description
    if parameters := [*_path_parameters(route), *_query_parameters(route)]:
        operation["parameters"] = parameters
    if route.body is not None:
        content: dict[str, Any] = {"schema": by_type[repr(route.body)]}
        if route.example_body is not None:
            content["example"] = route.example_body
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    operation["responses"] = {str(route.status): _success(route, by_type), **_problem_answers(route)}
    return operation


def _success(route: Route, by_type: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": route.summary}
    if route.answer is not None:
        content: dict[str, Any] = {"schema": by_type[repr(route.answer)]}
        if route.example_answer is not None:
            content["example"] = route.example_answer
        answer["content"] = {route.media_type: content}
    return answer


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": ULID} for name in route.path_params]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    hints = get_type_hints(route.query, include_extras=True)
    parameters = []
    for field in msgspec.structs.fields(route.query):
        schema = msgspec.json.schema(hints[field.name])
        if not field.required and isinstance(schema.get("anyOf"), list):
            # null cannot be written in a query: leaving the parameter out is how to say it.
            kinds = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
            schema = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        if not field.required and field.default not in (None, msgspec.NODEFAULT):
            schema = {**schema, "default": field.default}
        parameters.append({"name": field.encode_name, "in": "query", "required": field.required, "schema": schema})
    return parameters


def problems_of(route: Route) -> list[type[XzeprError]]:
    """Every problem that the route may answer."""
    kinds: set[type[XzeprError]] = {UnknownHost, InvalidInput, Unavailable, XzeprError, *route.problems}
    if route.permissions:
        kinds |= {Unauthenticated, PermissionDenied}
    if route.path_params:
        kinds.add(InvalidId)
    if route.method not in ("GET", "HEAD"):
        kinds.add(ForeignOrigin)
    if route.body is not None:
        kinds |= {MalformedBody, BodyTooLarge, RequestTimeout, UnsupportedMediaType}
    return sorted(kinds, key=lambda kind: (kind.status, kind.code))


def _problem_answers(route: Route) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for kind in problems_of(route):
        answer = answers.setdefault(
            str(kind.status),
            {"description": "", "content": {problems.MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}}},
        )
        line = f"`{kind.code}`: {(kind.__doc__ or '').partition(chr(10))[0]}"
        answer["description"] = "\n\n".join(filter(None, (answer["description"], line)))
    return answers
