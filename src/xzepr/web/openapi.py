"""The OpenAPI 3.1 document, from the routing table: what is enforced is what is described.

Types become JSON Schema 2020-12 components; each operation names its permission in `x-permission` (a list of all that are needed, or
`public`), the headers it takes and gives, and every problem it may answer with the codes of each status. Each body and answer has an example. HEAD
goes with each GET and is not listed; neither are OPTIONS and what belongs to no operation (components/responses). Security schemes come with
credentials.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, get_type_hints

import msgspec

from xzepr import __version__
from xzepr.errors import (
    BodyTooLarge,
    Conflict,
    ForeignOrigin,
    InFlight,
    InvalidId,
    InvalidInput,
    InvalidToken,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    RequestTimeout,
    Unauthenticated,
    Unavailable,
    UnknownHost,
    UnsupportedMediaType,
    XzeprError,
)
from xzepr.idempotency import KEY_MAX_CHARS
from xzepr.ids import EventId, EventReceiverGroupId, EventReceiverId, MessageId, UserId
from xzepr.web import problems
from xzepr.web.examples import example_of
from xzepr.web.routes import Route

_REF: Final = "#/components/schemas/{name}"
_IDS: Final = (EventId, EventReceiverId, EventReceiverGroupId, MessageId, UserId)
ULID: Final = {
    "type": "string",
    "description": "A ULID: 26 characters of Crockford's base 32; lower case is accepted.",
    "pattern": "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$",
    "examples": ["01M88Q7AG504QSGMQWKDMNZ1V5"],
}
_ABOUT: Final = """Rules for every address:

- `/api/v1` is also served as `/xzepr/api/v1`. A trailing slash equals none. HEAD works where GET does; OPTIONS answers 204 with `Allow`.
- Another method is 405 (components/responses/MethodNotAllowed), an unknown address 404 (components/responses/NoSuchAddress).
- Unknown parameters and unknown fields of a body are refused, and so is NUL anywhere; all faults are told at once, each with its JSON pointer.
- JSON must survive being stored: no duplicate members, no lone surrogates, UTF-8, no number beyond a double's range written with an exponent, no
  integer of more than 1,000 digits, at most 128 levels. Everything else in a payload or schema comes back as it was sent.
- `X-Request-ID` (1 to 128 printable ASCII characters without space) is taken and echoed; without one the server makes one. `traceparent` is honoured.
- A head has at most 64 KiB and 100 lines (431 `headers_too_large`), and must have arrived within 15 seconds (408); both close the connection.
- What the HTTP parser itself refuses (400, 414, 431, 501, 505) may be plain text; the connection then closes.
"""
_TAGS: Final = {
    "events": "Records of acts on artifacts. Never changed.",
    "artifacts": "What the events are about, and what happened to each.",
    "receivers": "Kinds of acts, each with the JSON Schema of its payloads.",
    "groups": "Receivers that together decide something: release gates, and why they are shut.",
    "stream": "All messages, by position.",
    "accounts": "Logins and tokens, users and what they may do.",
    "logins": "How people come in: through the provider, in a browser or from the command line.",
    "service": "The server itself.",
}
# Description, schema, and whether it stands on each answer that names it.
_HEADERS: Final[dict[str, tuple[str, dict[str, Any], bool]]] = {
    "X-Request-ID": (
        "The request's id: the caller's, or one of ours. Give it when you ask about a failure.",
        {"type": "string", "pattern": "^[!-~]{1,128}$"},
        True,
    ),
    "Location": ("Where the new object is.", {"type": "string", "pattern": "^/"}, True),
    "ETag": ("The resource_version, for If-Match.", {"type": "string", "pattern": '^"[0-9]+"$'}, True),
    "Idempotency-Replayed": ("`true`: an earlier request with this Idempotency-Key did it; nothing was done now.", {"const": "true"}, False),
    "WWW-Authenticate": ("How to authenticate.", {"type": "string"}, True),
    "Allow": ("The methods that this address takes.", {"type": "string"}, True),
    "Retry-After": ("Seconds to wait before the next try.", {"type": "string", "pattern": "^[0-9]+$"}, False),
}
# Where a browser is sent on to: here or to another server.
_GO_ON: Final = {"Location": {"description": "Where to go on.", "required": True, "schema": {"type": "string", "format": "uri-reference"}}}
_IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Sent again with the same body within 24 hours, the request does its work once and gets the first answer; with another body: 409.",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_MAX_CHARS, "pattern": "^[ -~]+$"},
}
_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "Only if the resource_version is still one of these, quoted or bare, or `*`; otherwise 412.",
    "schema": {"type": "string", "pattern": r'^\s*(\*|"?[0-9]{1,9}"?(\s*,\s*"?[0-9]{1,9}"?)*)\s*$'},
}
_LAST_EVENT_ID: Final = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The position to go on behind; counts before `after`.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,19}$"},
}
# What the name of a field says beyond its type: the contract fixes names, and what is an id or a time by its name is one everywhere.
_BY_NAME: Final[dict[str, dict[str, Any]]] = {
    **{
        name: {"pattern": ULID["pattern"]}
        for name in ("id", "event_id", "event_receiver_id", "event_receiver_ids", "last_event_id", "message_id", "user_id")
    },
    **{
        name: {"format": "date-time"}
        for name in ("created_at", "updated_at", "decided_at", "expires_at", "last_event_at", "last_login_at", "last_used_at", "added_at", "time")
    },
    "fingerprint": {"pattern": "^[0-9a-f]{64}$"},
}
# What the example of a problem tells.
_FAULTS: Final = {
    "invalid_input": problems.InputFault("/name", "must not be blank"),
    "invalid_id": problems.InputFault("id", "is not a ULID"),
    "malformed_body": problems.InputFault("/payload/a", "stands there twice"),
    "payload_mismatch": problems.InputFault("/payload/failed", "-1 is less than the minimum of 0"),
}


def build_document(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole document as plain objects. routes: complete (routes.require_complete)."""
    shown = [route for route in routes if route.in_document]
    types: list[Any] = [kind for route in shown for kind in (route.body, route.answer) if kind is not None]
    types += [form.kind for route in shown for form in route.forms if not isinstance(form.kind, dict)]
    schemas, components = msgspec.json.schema_components([*types, problems.Problem], ref_template=_REF)
    by_type = {_key(kind): schema for kind, schema in zip([*types, problems.Problem], schemas, strict=True)}
    with_etag = {route.path for route in shown if route.conditional}
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type, has_etag=route.path in with_etag)
    kinds = {kind for route in shown for kind in problems_of(route)} | {NotFound, MethodNotAllowed}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "XZepr",
            "version": __version__,
            "summary": "Event provenance for the software supply chain",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [_tag(name) for name in dict.fromkeys(route.tag for route in shown)],
        "paths": paths,
        "components": {
            "schemas": {name: _sharpened(schema) for name, schema in components.items()},
            "headers": {name: {"description": text, "required": always, "schema": schema} for name, (text, schema, always) in _HEADERS.items()},
            "responses": {"NoSuchAddress": _problem_answer(404, [NotFound]), "MethodNotAllowed": _problem_answer(405, [MethodNotAllowed])},
            "examples": {kind.code: {"value": _problem_example(kind)} for kind in sorted(kinds, key=_by_status)},
        },
    }


def _sharpened(component: dict[str, Any]) -> dict[str, Any]:
    """With what the names of its fields say."""
    if "properties" not in component:
        return component
    return {**component, "properties": {name: _sharper(schema, _BY_NAME.get(name, {})) for name, schema in component["properties"].items()}}


def _sharper(schema: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """extra: of its texts, wherever they stand in it."""
    if not extra:
        return schema
    if "anyOf" in schema:
        return {**schema, "anyOf": [_sharper(branch, extra) for branch in schema["anyOf"]]}
    if schema.get("type") == "array":
        # A list of ids names each thing once.
        return {**schema, "items": _sharper(schema["items"], extra), "uniqueItems": True}
    return {**schema, **extra} if schema.get("type") == "string" else schema


def operation_id(route: Route) -> str:
    """Method and path as one name, such as `get_groups_id_status`: unique because the address is."""
    words = re.findall(r"[A-Za-z0-9]+", re.sub(r"^/api/v1(?=/)", "", route.path))
    return "_".join([route.method.lower(), *(words or ["home"])])


def _tag(name: str) -> dict[str, str]:
    return {"name": name, "description": _TAGS[name]} if name in _TAGS else {"name": name}


def _operation(route: Route, by_type: dict[Any, Any], *, has_etag: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id(route),
        "tags": [route.tag],
        "summary": route.summary,
        "x-permission": list(route.permissions) or "public",
    }
    if route.description:
        operation["description"] = route.description
    if parameters := [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)]:
        operation["parameters"] = parameters
    if route.takes_body:
        operation["requestBody"] = {"required": True, "content": _bodies(route, by_type)}
    answer = _success(route, by_type, has_etag=has_etag)
    operation["responses"] = {str(route.status): answer, **_problem_answers(route)}
    for status in route.redirects:
        operation["responses"].setdefault(str(status), {"description": "Sent on.", "headers": _headers(["X-Request-ID"]) | _GO_ON})
    for status in route.other_statuses:
        # The same body beside the problem of that status.
        other = operation["responses"].setdefault(str(status), {**answer, "content": {}})
        other["content"] = {**answer["content"], **other["content"]}
    return operation


def _key(kind: Any) -> Any:
    """Of a type, as a key: a list type is another object each time it is written."""
    return repr(kind)


def _bodies(route: Route, by_type: dict[Any, Any]) -> dict[str, Any]:
    """By media type."""
    found = {}
    if route.body is not None:
        found["application/json"] = _content(by_type[_key(route.body)], route.body, route.example_body)
    for form in route.forms:
        schema = form.kind if isinstance(form.kind, dict) else by_type[_key(form.kind)]
        found[form.media_type] = {"schema": schema} if form.example is None else {"schema": schema, "example": form.example}
    return found


def _content(schema: Any, kind: Any, own_example: Any) -> dict[str, Any]:
    """own_example: of the route; None: made from the type."""
    example = example_of(kind) if own_example is None else own_example
    return {"schema": schema} if example is None else {"schema": schema, "example": example}


def _success(route: Route, by_type: dict[Any, Any], *, has_etag: bool) -> dict[str, Any]:
    names = ["X-Request-ID"]
    if route.status == 201 and route.has_location:
        names.append("Location")
    if has_etag and route.answer is not None:
        names.append("ETag")
    if route.idempotent:
        names.append("Idempotency-Replayed")
    answer: dict[str, Any] = {"description": route.summary, "headers": _headers(names)}
    if route.status in route.redirects:
        answer["headers"] |= _GO_ON
    if route.answer is not None:
        answer["content"] = {route.media_type: _content(by_type[_key(route.answer)], route.answer, route.example_answer)}
    if route.has_page:
        answer["content"]["text/html"] = {"schema": {"type": "string"}}
    return answer


def _headers(names: Sequence[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": ULID} for name in route.path_params]


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    found = []
    if route.idempotent:
        found.append(_IDEMPOTENCY_KEY)
    if route.conditional:
        found.append(_IF_MATCH)
    if route.media_type == "text/event-stream":
        found.append(_LAST_EVENT_ID)
    return found


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
    # An enum is told by reference, which leads nowhere from here.
    named = schema.pop("$defs", {})
    if isinstance(schema.get("anyOf"), list):
        kinds = [named.get(kind.get("$ref", "").rpartition("/")[2], kind) for kind in schema["anyOf"] if kind != {"type": "null"}]
        schema = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if hint is datetime or datetime in alternatives:
        schema = {"type": "string", "format": "date-time", "description": "RFC 3339 with its zone."}
    return schema


def problems_of(route: Route) -> list[type[XzeprError]]:
    """Every problem that the route may answer, by status."""
    kinds: set[type[XzeprError]] = {UnknownHost, InvalidInput, Unavailable, XzeprError, *route.problems}
    if not route.is_public:
        kinds |= {Unauthenticated, InvalidToken, PermissionDenied}
    if route.path_params:
        kinds.add(InvalidId)
    if route.method != "GET":
        kinds.add(ForeignOrigin)
    if route.takes_body:
        kinds |= {MalformedBody, BodyTooLarge, RequestTimeout, UnsupportedMediaType}
        # Bodies and cursors hold ids as well.
        kinds.add(InvalidId)
    if route.query is not None:
        kinds.add(InvalidId)
    if route.idempotent:
        kinds |= {Conflict, InFlight}
    if route.conditional:
        kinds.add(PreconditionFailed)
    return sorted(kinds, key=_by_status)


def _by_status(kind: type[XzeprError]) -> tuple[int, str]:
    return kind.status, kind.code


def _problem_answers(route: Route) -> dict[str, Any]:
    by_status: dict[int, list[type[XzeprError]]] = {}
    for kind in problems_of(route):
        by_status.setdefault(kind.status, []).append(kind)
    answers = {str(status): _problem_answer(status, kinds) for status, kinds in by_status.items()}
    if route.redirects:
        for answer in answers.values():
            answer["content"]["text/html"] = {"schema": {"type": "string"}}
    return answers


def _problem_answer(status: int, kinds: list[type[XzeprError]]) -> dict[str, Any]:
    special = {401: ["WWW-Authenticate"], 405: ["Allow"], 429: ["Retry-After"], 503: ["Retry-After"]}.get(status, [])
    codes = {"status": {"const": status}, "error": {"enum": [kind.code for kind in kinds]}}
    schema = {"allOf": [{"$ref": _REF.format(name="Problem")}, {"type": "object", "properties": codes}]}
    examples = {kind.code: {"$ref": f"#/components/examples/{kind.code}"} for kind in kinds}
    return {
        "description": "\n\n".join(f"`{kind.code}`: {problems.title_of(kind)}." for kind in kinds),
        "headers": _headers(["X-Request-ID", *special]),
        "content": {problems.MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }


def _problem_example(kind: type[XzeprError]) -> Any:
    fault = _FAULTS.get(kind.code)
    told = f"{fault.pointer}: {fault.message}" if fault else f"{problems.title_of(kind)}."
    return msgspec.to_builtins(
        problems.Problem(
            type=f"{problems.TYPE_BASE}{kind.code}",
            title=problems.title_of(kind),
            status=kind.status,
            detail=told,
            instance="/api/v1/events",
            error=kind.code,
            message=told,
            request_id="01M88Q7AG504QSGMQWKDMNZ1V8",
            errors=[fault] if fault else [],
        )
    )
