"""`make reference`: docs/reference/api.md, written from the routing table and its OpenAPI document.

What a program reads in `/openapi.json` a person reads here, so the two cannot differ; a test compares the page with what this writes. Only the head
(the rules that hold for every route) and the advice for each problem code are written by hand. A problem code without advice is told by a test.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from xzepr import errors
from xzepr.app import ROUTES
from xzepr.auth.permissions import ROLE_PERMISSIONS, Permission
from xzepr.errors import XzeprError
from xzepr.web import pages
from xzepr.web.openapi import build_document, problems_of
from xzepr.web.problems import title_of
from xzepr.web.reference_head import ADVICE, HEAD
from xzepr.web.routes import Route

_COMPONENT: Final = "#/components/schemas/"
_ULID_PATTERN: Final = re.compile(r"\{25\}\$$")
_LANGUAGES: Final = {"application/json": "json", "text/event-stream": "text", "text/html": "text"}
# Said in the head for every route; repeated at each they would hide what is particular.
_EVERYWHERE: Final = frozenset({"internal_error", "unavailable", "unknown_host"})


def reference_page() -> str:
    """`docs/reference/api.md`."""
    table = [*ROUTES, *pages.routes(ROUTES)]
    document = json.loads(msgspec.json.encode(build_document(table)))
    shown = [route for route in table if route.in_document]
    parts = [
        HEAD.format(roles=_roles()),
        _contents(shown),
        *_rooms(shown, document),
        _types(document["components"]["schemas"]),
        _problems(),
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def problem_kinds() -> list[type[XzeprError]]:
    """Every problem that there is, by status and code."""
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, XzeprError)}
    return sorted(kinds, key=lambda kind: (kind.status, kind.code))


def slug(heading: str) -> str:
    """The anchor that a heading gets on the usual hosts of repositories."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _roles() -> str:
    rows = ["| role | permissions |", "|---|---|"]
    for role, permissions in ROLE_PERMISSIONS.items():
        given = "all" if permissions == frozenset(Permission) else ", ".join(f"`{permission}`" for permission in sorted(permissions))
        rows.append(f"| `{role}` | {given} |")
    return "\n".join(rows)


def _contents(routes: Iterable[Route]) -> str:
    rows = ["## All routes\n", "| | permission | |", "|---|---|---|"]
    for route in routes:
        title = _title(route)
        rows.append(f"| [`{title}`](#{slug(title)}) | {_permission(route)} | {route.summary} |")
    return "\n".join(rows) + "\n"


def _title(route: Route) -> str:
    return f"{route.method} {route.path}"


def _permission(route: Route) -> str:
    return " and ".join(f"`{permission}`" for permission in route.permissions) or "public"


def _rooms(routes: list[Route], document: Mapping[str, Any]) -> Iterator[str]:
    abouts = {tag["name"]: tag.get("description", "") for tag in document["tags"]}
    for tag, about in abouts.items():
        yield f"## {tag.capitalize()}\n\n{about}\n"
        for route in routes:
            if route.tag == tag:
                yield from _route(route, document["paths"][route.path][route.method.lower()])


def _route(route: Route, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{_title(route)}`\n"
    yield f"{operation['summary'].rstrip('.?')}{'?' if operation['summary'].endswith('?') else '.'}"
    if "description" in operation:
        yield f"\n{operation['description']}"
    yield f"\n**Permission:** {_permission(route)}\n"
    if "parameters" in operation:
        yield _parameters(operation["parameters"])
    if "requestBody" in operation:
        yield from _body(route, operation["requestBody"])
    for status, answer in operation["responses"].items():
        if int(status) < 400:
            yield from _answer(status, answer)
    yield _problems_of(route)


def _parameters(parameters: Iterable[Mapping[str, Any]]) -> str:
    rows = ["| parameter | in | takes | |", "|---|---|---|---|"]
    for parameter in parameters:
        schema = parameter["schema"]
        need = "needed" if parameter.get("required") else f"default `{json.dumps(schema['default'])}`" if "default" in schema else ""
        about = parameter.get("description", "")
        rows.append(f"| `{parameter['name']}` | {parameter['in']} | {in_words(schema)} | {_joined(need, about)} |")
    return "\n".join(rows) + "\n"


def _joined(*texts: str) -> str:
    return "; ".join(_cell(text) for text in texts if text)


def _body(route: Route, body: Mapping[str, Any]) -> Iterator[str]:
    for media_type, content in body["content"].items():
        yield f"**Body:** `{media_type}`, {in_words(content['schema'])}\n"
        for example in _examples(content):
            yield f"```http\n{route.method} {route.path}\nContent-Type: {media_type}\n\n{_pretty(example)}\n```\n"


def _answer(status: str, answer: Mapping[str, Any]) -> Iterator[str]:
    headers = ", ".join(f"`{name}`" for name in answer.get("headers", ()) if name != "X-Request-ID")
    with_headers = f", with {headers}" if headers else ""
    contents = answer.get("content", {})
    if not contents:
        yield f"**Answer:** {status} without a body{with_headers}\n"
    for media_type, content in contents.items():
        what = "" if media_type == "text/html" else f", {in_words(content['schema'])}"
        yield f"**Answer:** {status} `{media_type}`{what}{with_headers}\n"
        for example in _examples(content):
            yield f"```{_LANGUAGES.get(media_type, 'json')}\n{_pretty(example)}\n```\n"


def _examples(content: Mapping[str, Any]) -> list[Any]:
    if "example" in content:
        return [content["example"]]
    return [example["value"] for example in content.get("examples", {}).values() if "value" in example]


def _pretty(example: Any) -> str:
    return example.rstrip() if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)


def _problems_of(route: Route) -> str:
    by_status: dict[int, list[str]] = {}
    for kind in problems_of(route):
        if kind.code not in _EVERYWHERE:
            by_status.setdefault(kind.status, []).append(f"`{kind.code}`")
    listed = " · ".join(f"{status} {', '.join(codes)}" for status, codes in by_status.items())
    return f"**[Problems](#problem-codes):** {listed}\n" if listed else ""


def _types(components: Mapping[str, Any]) -> str:
    parts = ["## Types\n"]
    for name, schema in sorted(components.items()):
        parts.append(f"### {_type_title(name)}\n\n{_about(schema)}\n")
        if schema.get("properties"):
            parts.append(_fields(schema))
    return "\n".join(parts)


def _type_title(name: str) -> str:
    """`Page_Event_`, as msgspec writes Page[Event], for people."""
    outer, _, inner = name.rstrip("_").partition("_")
    return f"{outer} of {inner}" if inner else outer


def _about(schema: Mapping[str, Any]) -> str:
    lines = [line.strip() for line in schema.get("description", "").splitlines()]
    return "\n".join(lines).strip()


def _fields(schema: Mapping[str, Any]) -> str:
    # What is asked for names every field that may be left out; an answer always has all of its own.
    optional = set(schema["properties"]) - set(schema.get("required", ())) if schema.get("additionalProperties") is False else set()
    rows = ["| field | takes | |", "|---|---|---|"]
    for name, field in schema["properties"].items():
        need = "" if name not in optional else f"default `{json.dumps(field['default'])}`" if field.get("default") is not None else "may be left out"
        rows.append(f"| `{name}` | {in_words(field)} | {_joined(need, field.get('description', ''))} |")
    return "\n".join(rows) + "\n"


def _problems() -> str:
    rows = ["## Problem codes\n", "| status | `error` | what it means | what to do |", "|---|---|---|---|"]
    rows += [f"| {kind.status} | `{kind.code}` | {title_of(kind)}. | {ADVICE.get(kind.code, '')} |" for kind in problem_kinds()]
    return "\n".join(rows) + "\n"


def in_words(schema: Mapping[str, Any]) -> str:
    """What a value must be, for a cell of a table: JSON Schema as the document writes it, in a few words."""
    if "$ref" in schema:
        title = _type_title(schema["$ref"].removeprefix(_COMPONENT))
        return f"[{title}](#{slug(title)})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(in_words(kind) for kind in schema[several])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    return _kind_in_words(schema)


def _kind_in_words(schema: Mapping[str, Any]) -> str:
    match schema.get("type"):
        case "string":
            return _text_in_words(schema)
        case "integer" | "number" as kind:
            return f"{kind}{_range(schema, 'minimum', 'maximum')}"
        case "boolean":
            return "true or false"
        case "array":
            items = in_words(schema["items"]) if schema.get("items") else "any JSON"
            return f"list of {items}{_range(schema, 'minItems', 'maxItems')}"
        case "object":
            return "object"
        case "null":
            return "null"
    return "any JSON"


def _text_in_words(schema: Mapping[str, Any]) -> str:
    pattern = schema.get("pattern", "")
    if _ULID_PATTERN.search(pattern):
        return "ULID"
    if schema.get("format") == "date-time":
        return "time"
    length = _range({**schema, "minLength": schema.get("minLength") or None}, "minLength", "maxLength")
    return f"text{length}{' characters' if length else ''}{', not blank' if pattern == chr(92) + 'S' else ''}"


def _range(schema: Mapping[str, Any], least: str, most: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if low is not None and high is not None:
        return f", {low} to {high}"
    if low is not None:
        return f", {low} or more"
    return f", at most {high}" if high is not None else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(reference_page())
