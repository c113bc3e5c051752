"""Would a client of the last release still work? Two OpenAPI documents, old and new, compared.

A client sends what the old document allowed and reads what the old document promised. So in requests nothing may be narrowed, in answers nothing may
go away or change its type. Whatever is only added (a path, an optional parameter, a field of an answer, a value of an enum in an answer, a problem
code) is fine. Every incompatibility is one line that names its place; what is not understood here is not passed over: a keyword that constrains and
differs is told.

Only what our documents are made of is looked at: `$ref` inside the document, and the keywords below.
"""

from collections.abc import Iterator
from typing import Any, Final

Json = dict[str, Any]

METHODS: Final = ("get", "post", "put", "patch", "delete")
_MINIMA: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MAXIMA: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
# Narrow as soon as they are there or differ.
_EXACT: Final = ("pattern", "format", "uniqueItems", "multipleOf", "not")
_ANY: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def breaks(old: Json, new: Json) -> list[str]:
    """What in `new` would break a client of `old`, in the order of `old`; empty: nothing."""
    return list(_Comparison(old, new).breaks())


class _Comparison:
    def __init__(self, old: Json, new: Json) -> None:
        self._old, self._new = old, new
        # Pairs of references on the way down: a schema that contains itself is compared once.
        self._open: set[tuple[str, str]] = set()

    def breaks(self) -> Iterator[str]:
        for path, item in self._old["paths"].items():
            if path not in self._new["paths"]:
                yield f"{path}: the path is gone"
                continue
            for method in METHODS:
                if method in item:
                    yield from self._operation(f"{method.upper()} {path}", item[method], self._new["paths"][path].get(method))

    def _operation(self, where: str, old: Json, new: Json | None) -> Iterator[str]:
        if new is None:
            yield f"{where}: the method is gone"
            return
        if old.get("operationId") != new.get("operationId"):
            yield f"{where}: operationId was {old.get('operationId')}, is {new.get('operationId')}"
        yield from _permissions(where, old.get("x-permission", "public"), new.get("x-permission", "public"))
        yield from self._parameters(where, _by_place(old), _by_place(new))
        yield from self._request_body(where, old.get("requestBody"), new.get("requestBody"))
        for status, answer in old["responses"].items():
            yield from self._answer(f"{where} {status}", answer, new["responses"].get(status))

    def _parameters(self, where: str, old: dict[tuple[str, str], Json], new: dict[tuple[str, str], Json]) -> Iterator[str]:
        for place, parameter in old.items():
            name = f"{where} {place[0]} parameter {place[1]}"
            if place not in new:
                yield f"{name}: is gone"
                continue
            if new[place].get("required") and not parameter.get("required"):
                yield f"{name}: is required now"
            yield from self._accepts(name, parameter["schema"], new[place]["schema"])
        for place, parameter in new.items():
            if place not in old and parameter.get("required"):
                yield f"{where} {place[0]} parameter {place[1]}: is new and required"

    def _request_body(self, where: str, old: Json | None, new: Json | None) -> Iterator[str]:
        if new is not None and new.get("required") and not (old or {}).get("required"):
            yield f"{where} body: is required now"
        if old is None:
            return
        if new is None:
            yield f"{where} body: is gone"
            return
        for media_type, content in old["content"].items():
            if media_type not in new["content"]:
                yield f"{where} body: {media_type} is not taken any more"
            else:
                yield from self._accepts(f"{where} body", content["schema"], new["content"][media_type]["schema"])

    def _answer(self, where: str, old: Json, new: Json | None) -> Iterator[str]:
        if new is None:
            yield f"{where}: the answer is gone"
            return
        for name in old.get("headers", {}):
            if name not in new.get("headers", {}):
                yield f"{where} header {name}: is gone"
        for media_type, content in old.get("content", {}).items():
            if media_type not in new.get("content", {}):
                yield f"{where}: {media_type} is not answered any more"
                continue
            new_schema = new["content"][media_type]["schema"]
            for code in sorted(_codes(content["schema"]) - _codes(new_schema)):
                yield f"{where}: the problem code {code} is gone"
            yield from self._promises(where, content["schema"], new_schema)

    # Requests: everything that the old schema accepts, the new one accepts.

    def _accepts(self, where: str, old: Any, new: Any) -> Iterator[str]:
        pair = _reference(old), _reference(new)
        if pair in self._open and all(pair):
            return
        self._open.add(pair)
        try:
            yield from self._accepts_resolved(where, _resolve(self._old, old), _resolve(self._new, new))
        finally:
            self._open.discard(pair)

    def _accepts_resolved(self, where: str, old: Json, new: Json) -> Iterator[str]:
        if "anyOf" in old or "anyOf" in new:
            for branch in _branches(old):
                if all(list(self._accepts(where, branch, candidate)) for candidate in _branches(new)):
                    yield f"{where}: does not take {_named(branch)} any more"
            return
        if lost := _types(old) - _types(new):
            yield f"{where}: type was {_listed(_types(old))}, is {_listed(_types(new))}; not taken any more: {_listed(lost)}"
            return
        yield from _narrowed_values(where, old, new)
        yield from self._accepts_members(where, old, new)
        if "items" in new:
            yield from self._accepts(f"{where}[]", old.get("items", {}), new["items"])

    def _accepts_members(self, where: str, old: Json, new: Json) -> Iterator[str]:
        old_members, new_members = old.get("properties", {}), new.get("properties", {})
        for name in new.get("required", []):
            if name not in old.get("required", []):
                yield f"{where}.{name}: is required now"
        closed = new.get("additionalProperties", True) is False
        if closed and old.get("additionalProperties", True) is not False:
            yield f"{where}: unknown fields are not taken any more"
        for name, schema in old_members.items():
            if name in new_members:
                yield from self._accepts(f"{where}.{name}", schema, new_members[name])
            elif closed:
                yield f"{where}.{name}: the field is gone"
        extra = new.get("additionalProperties")
        if isinstance(extra, dict):
            old_extra = old.get("additionalProperties")
            if old_extra is not False:
                yield from self._accepts(f"{where}.*", old_extra if isinstance(old_extra, dict) else {}, extra)

    # Answers: everything that the old schema promised, the new one keeps.

    def _promises(self, where: str, old: Any, new: Any) -> Iterator[str]:
        pair = _reference(old), _reference(new)
        if pair in self._open and all(pair):
            return
        self._open.add(pair)
        try:
            yield from self._promises_resolved(where, _resolve(self._old, old), _resolve(self._new, new))
        finally:
            self._open.discard(pair)

    def _promises_resolved(self, where: str, old: Json, new: Json) -> Iterator[str]:
        if "anyOf" in old or "anyOf" in new:
            for branch in _branches(new):
                if all(list(self._promises(where, candidate, branch)) for candidate in _branches(old)):
                    yield f"{where}: may be {_named(branch)} now"
            return
        if gained := _types(new) - _types(old):
            yield f"{where}: type was {_listed(_types(old))}, is {_listed(_types(new))}; not known before: {_listed(gained)}"
            return
        yield from self._promises_members(where, old, new)
        if "items" in old:
            yield from self._promises(f"{where}[]", old["items"], new.get("items", {}))
        if isinstance(old.get("additionalProperties"), dict):
            new_extra = new.get("additionalProperties")
            yield from self._promises(f"{where}.*", old["additionalProperties"], new_extra if isinstance(new_extra, dict) else {})

    def _promises_members(self, where: str, old: Json, new: Json) -> Iterator[str]:
        new_members = new.get("properties", {})
        for name, schema in old.get("properties", {}).items():
            if name not in new_members:
                yield f"{where}.{name}: the field is gone"
                continue
            if name in old.get("required", []) and name not in new.get("required", []):
                yield f"{where}.{name}: may be missing now"
            yield from self._promises(f"{where}.{name}", schema, new_members[name])


def _permissions(where: str, old: Any, new: Any) -> Iterator[str]:
    had = set() if old == "public" else set(old)
    for permission in sorted((set() if new == "public" else set(new)) - had):
        yield f"{where}: needs the permission {permission} now"


def _by_place(operation: Json) -> dict[tuple[str, str], Json]:
    return {(parameter["in"], parameter["name"]): parameter for parameter in operation.get("parameters", [])}


def _codes(schema: Json) -> set[str]:
    """The codes that a problem answer may bear, as our documents say it: in one of the parts of allOf."""
    parts = [schema, *schema.get("allOf", [])]
    return {code for part in parts for code in part.get("properties", {}).get("error", {}).get("enum", [])}


def _reference(schema: Any) -> str:
    return str(schema.get("$ref", ""))


def _resolve(document: Json, schema: Json) -> Json:
    """Without `$ref` and `allOf`, whose parts are laid over each other; annotations beside a reference do not count."""
    while "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        beside = {name: value for name, value in schema.items() if name != "$ref"}
        schema = {**target, **beside}
    if "allOf" not in schema:
        return schema
    merged = {name: value for name, value in schema.items() if name != "allOf"}
    for part in schema["allOf"]:
        resolved = _resolve(document, part)
        properties = {**merged.get("properties", {}), **resolved.get("properties", {})}
        required = [*merged.get("required", []), *resolved.get("required", [])]
        merged = {**merged, **resolved, **({"properties": properties} if properties else {}), **({"required": required} if required else {})}
    return merged


def _branches(schema: Json) -> list[Json]:
    found: list[Json] = schema.get("anyOf", [schema])
    return found


def _types(schema: Json) -> frozenset[str]:
    """The JSON types that it takes; an integer is a number."""
    given = schema.get("type")
    if given is None:
        values = schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else None
        if values is None:
            return _ANY
        return frozenset(_type_of(value) for value in values)
    types = set([given] if isinstance(given, str) else given)
    return frozenset(types | ({"integer"} if "number" in types else set()))


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object", type(None): "null"}
    return names[type(value)]


def _narrowed_values(where: str, old: Json, new: Json) -> Iterator[str]:
    allowed = _values(new)
    if allowed is not None:
        before = _values(old)
        if before is None:
            yield f"{where}: takes only {_listed(allowed)} now"
        elif lost := [value for value in before if value not in allowed]:
            yield f"{where}: does not take {_listed(lost)} any more"
    for name in _MINIMA:
        if name in new and new[name] > old.get(name, 0 if name.startswith("min") and name != "minimum" else float("-inf")):
            yield f"{where}: {name} was {old.get(name, 'not there')}, is {new[name]}"
    for name in _MAXIMA:
        if name in new and new[name] < old.get(name, float("inf")):
            yield f"{where}: {name} was {old.get(name, 'not there')}, is {new[name]}"
    for name in _EXACT:
        if name in new and new[name] != old.get(name) and new[name] is not False:
            yield f"{where}: {name} was {old.get(name, 'not there')}, is {new[name]}"


def _values(schema: Json) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values: list[Any] | None = schema.get("enum")
    return values


def _named(branch: Json) -> str:
    return _reference(branch).rpartition("/")[2] or _listed(_types(branch))


def _listed(values: Any) -> str:
    return ", ".join(sorted(map(str, values)))
