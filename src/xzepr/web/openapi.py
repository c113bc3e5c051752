"""The OpenAPI 3.1 document, from the routing table: what is enforced is what is described.

Types become JSON Schema 2020-12 components; each operation names its permission in `x-permission` (a list of all that are needed, or
`public`) and every problem it may answer. HEAD goes with each GET and is not listed. Security schemes come with credentials.
"""

import re
from collections.abc import Sequence
from datetime import datetime
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
from xzepr.ids import EventId, EventReceiverGroupId, EventReceiverId, MessageId, UserId
from xzepr.web import problems
from xzepr.web.routes import Route

_REF: Final = "#/components/schemas/{name}"
_IDS: Final = (EventId, EventReceiverId, EventReceiverGroupId, MessageId, UserId)
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
_HEADERS: Final = {
    "X-Request-ID": "The request's id: the caller's, or one of ours. Give it when you ask about a failure.",
    "Location": "Where the new object is.",
    "WWW-Authenticate": "How to authenticate.",
    "Retry-After": "Seconds to wait before the next try.",
}


def build_document(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole document as plain objects. routes: complete (routes.require_complete)."""
    shown = [route for route in routes if route.in_document]
    types: list[Any] = [kind for route in shown for kind in (route.body, route.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components([*types, problems.Problem], ref_template=_REF)
    by_type = dict(zip([*types, problems.Problem], schemas, strict=True))
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
        "tags": [_tag(name) for name in dict.fromkeys(route.tag for route in shown)],
        "paths": paths,
        "components": {
            "schemas": dict(components),
            "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()},
        },
    }


def operation_id(route: Route) -> str:
    """Method and path as one name, such as `get_groups_id_status`: unique because the address is."""
    words = re.findall(r"[A-Za-z0-9]+", re.sub(r"^/api/v1(?=/)", "", route.path))
    return "_".join([route.method.lower(), *(words or ["home"])])


def _tag(name: str) -> dict[str, str]:
    return {"name": name, "description": _TAGS[name]} if name in _TAGS else {"name": name}


def _operation(route: Route, by_type: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id(route),
        "tags": [route.tag],
        "summary": route.summary,
        "x-permission": list(route.permissions) or "public",
    }
    if route.description:
        operation["description"] = route.description
    if parameters := [*_path_parameters(route), *_query_parameters(route)]:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": _content(by_type[route.body], route.example_body)},
        }
    operation["responses"] = {str(route.status): _success(route, by_type), **_problem_answers(route)}
    return operation


def _content(schema: Any, example: Any) -> dict[str, Any]:
    return {"schema": schema} if example is None else {"schema": schema, "example": example}


def _success(route: Route, by_type: dict[Any, Any]) -> dict[str, Any]:
    names = ["X-Request-ID", *(["Location"] if route.status == 201 else [])]
    answer: dict[str, Any] = {"description": route.summary, "headers": _headers(names)}
    if route.answer is not None:
        answer["content"] = {route.media_type: _content(by_type[route.answer], route.example_answer)}
    return answer


def _headers(names: Sequence[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": ULID} for name in route.path_params]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    hints = get_type_hints(route.query, include_extras=True)
    parameters = []
    for field in msgspec.structs.fields(route.query):
        schema = _query_schema(hints[field.name])
        if not field.required and field.default not in (None, msgspec.NODEFAULT):
            schema = {**schema, "default": msgspec.to_builtins(field.default)}
        parameters.append({"name": field.encode_name, "in": "query", "required": field.required, "schema": schema})
    return parameters


def _query_schema(hint: Any) -> dict[str, Any]:
    """null cannot be written in a query: leaving the parameter out is how to say it."""
    alternatives = getattr(hint, "__args__", ())
    if hint in _IDS or any(kind in _IDS for kind in alternatives):
        return ULID
    schema = msgspec.json.schema(hint)
    if isinstance(schema.get("anyOf"), list):
        kinds = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
        schema = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if hint is datetime or datetime in alternatives:
        schema = {"type": "string", "format": "date-time", "description": "RFC 3339 with its zone."}
    return schema


def problems_of(route: Route) -> list[type[XzeprError]]:
    """Every problem that the route may answer, by status."""
    kinds: set[type[XzeprError]] = {UnknownHost, InvalidInput, Unavailable, XzeprError, *route.problems}
    if route.permissions:
        kinds |= {Unauthenticated, PermissionDenied}
    if route.path_params:
        kinds.add(InvalidId)
    if route.method != "GET":
        kinds.add(ForeignOrigin)
    if route.body is not None:
        kinds |= {MalformedBody, BodyTooLarge, RequestTimeout, UnsupportedMediaType}
    return sorted(kinds, key=lambda kind: (kind.status, kind.code))


def _problem_answers(route: Route) -> dict[str, Any]:
    by_status: dict[int, list[type[XzeprError]]] = {}
    for kind in problems_of(route):
        by_status.setdefault(kind.status, []).append(kind)
    return {str(status): _problem_answer(status, kinds) for status, kinds in by_status.items()}


def _problem_answer(status: int, kinds: list[type[XzeprError]]) -> dict[str, Any]:
    special = {401: ["WWW-Authenticate"], 503: ["Retry-After"]}.get(status, [])
    return {
        "description": "\n\n".join(f"`{kind.code}`: {problems.title_of(kind)}." for kind in kinds),
        "headers": _headers(["X-Request-ID", *special]),
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
    }
