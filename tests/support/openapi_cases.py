"""Requests made from an OpenAPI document, for hypothesis.

Three sorts. Sound: the document allows it, so a refusal must be for a reason that no schema can say. Broken: one thing is wrong, so it must be refused
with 400 or 415. Beside: HEAD, OPTIONS and methods that the address does not take. Ids of what is there are written as tokens (`known`); whoever sends
puts the ids in.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import jsonschema_rs
from hypothesis import strategies as st

Json = dict[str, Any]

KNOWN: Final = re.compile(r"KNOWN([a-z]+)(\d+)NWONK")
# How many of each the sender keeps.
KNOWN_MAX: Final = 12
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_ULID: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_NO_IDS: Final = ["x", "", " ", "0" * 25, "0" * 27, "8" + "0" * 25, "I" * 26, "nul\u0661", "0" * 25 + "/", "%", "..", "é"]
_CHARACTERS: Final = st.characters(exclude_categories=("Cs",), exclude_characters="\x00")
_WORDS: Final = ["api", "web", "1.4.2", "2026.11", "x86-64-oci-linux", "oci", "é😀", "a b", "%2F", "'; --", "null", "\u2028", "\x7f", '"\\']
# Of the wrong type or beyond some bound for nearly everything; what a field takes is sorted out by its schema.
_ODD_VALUES: Final[list[Any]] = [None, True, False, 0, 1, -1, 1.5, 1 << 70, "", " ", "x", "\t", "v" * 256, "😀" * 5001, [], [1], [None], {}, {"a": 1}]


@dataclass(frozen=True)
class Operation:
    """One method of one address, as the document has it."""

    method: str
    path: str
    about: Json = field(repr=False, hash=False, compare=False)

    @property
    def body_schema(self) -> Json | None:
        """Of its JSON body; None: it takes none."""
        schema: Json | None = self.about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        return schema

    def parameters(self, place: str) -> list[Json]:
        """Those in `path`, `query` or `header`."""
        return [parameter for parameter in self.about.get("parameters", []) if parameter["in"] == place]


@dataclass(frozen=True)
class Case:
    """One request. sort: sound, broken, or beside. what: in a few words, for the report of a failure."""

    operation: Operation
    sort: str
    what: str
    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None

    def __str__(self) -> str:
        shown = f"{self.sort} ({self.what}): {self.method} {self.path}{'?' if self.query else ''}{self.query} {dict(self.headers)}"
        return f"{shown}\n{self.body!r}"


def operations_of(document: Json) -> list[Operation]:
    """Every operation, in the document's order."""
    methods = {method.lower() for method in METHODS}
    return [Operation(method.upper(), path, about) for path, item in document["paths"].items() for method, about in item.items() if method in methods]


def known(kind: str) -> st.SearchStrategy[str]:
    """A token for something of this kind that is there."""
    return st.integers(0, KNOWN_MAX - 1).map(lambda place: f"KNOWN{kind}{place}NWONK")


def any_id(kind: str) -> st.SearchStrategy[str]:
    """Mostly of something that is there."""
    stranger = st.tuples(st.sampled_from("01234567"), st.text(_ULID, min_size=25, max_size=25)).map("".join)
    return st.one_of(known(kind), known(kind), known(kind), known(kind), stranger, stranger.map(str.lower))


def texts(min_length: int = 0, max_length: int | None = None, *, not_blank: bool = False) -> st.SearchStrategy[str]:
    """Without NUL, which is refused everywhere; at most 300 characters where nothing bounds them."""
    most = 300 if max_length is None else max_length
    longest = st.sampled_from(["v", "😀", "é"]).map(lambda character: character * most)
    some = st.one_of(st.sampled_from(_WORDS), st.sampled_from(_WORDS), st.text(_CHARACTERS, max_size=min(most, 12)), longest)
    least = max(min_length, 1 if not_blank else 0)

    def fitted(text: str) -> str:
        text = text if not not_blank or re.search(r"\w", text) else "x" + text
        return text[:most].ljust(least, "x")

    return some.map(fitted)


def any_json() -> st.SearchStrategy[Any]:
    """Legal JSON of moderate size, without NUL."""
    leaves = st.one_of(st.none(), st.booleans(), st.integers(-(1 << 80), 1 << 80), st.floats(allow_nan=False, allow_infinity=False), texts(0, 20))
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(0, 8), inner, max_size=3), max_leaves=5)


def json_schemas() -> st.SearchStrategy[Any]:
    """Objects where a JSON Schema is asked for: most are one, some are not."""
    sound = [{}, {"type": "object"}, {"required": []}, {"properties": {"a": {"type": ["integer", "string", "null"]}}}, {"$defs": {"x": {}}}]
    wrong = [{"type": "nonsense"}, {"$ref": "#/nowhere"}, {"pattern": "("}, {"$schema": "https://example.com/"}, {"minimum": "1"}]
    return st.one_of(st.sampled_from(sound), st.sampled_from(sound), st.sampled_from(wrong), st.dictionaries(texts(0, 8), any_json(), max_size=3))


def moments() -> st.SearchStrategy[str]:
    """RFC 3339 from one end of the calendar to the other."""
    zones = st.sampled_from(["Z", "+00:00", "-00:00", "+14:00", "-12:00", "+05:30", "z"])
    ends = st.sampled_from(["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "1969-12-31T23:59:59", "2026-11-25t06:00:00.1"])
    return st.tuples(st.one_of(st.datetimes().map(lambda moment: moment.isoformat()), ends), zones).map("".join)


class Requests:
    """Strategies for one document. without: beginnings of paths that are left out."""

    def __init__(self, document: Json, *, without: tuple[str, ...] = ()) -> None:
        self.document = document
        self.operations = [operation for operation in operations_of(document) if not operation.path.startswith(without)]
        self._strategies: dict[str, st.SearchStrategy[Any]] = {}

    def cases(self) -> st.SearchStrategy[Case]:
        """Half sound, three in eight broken, the rest beside; every operation as often as any other."""
        # Made once: making a strategy takes longer than drawing from it.
        ways = {
            (operation, sort): strategy
            for operation in self.operations
            for sort, strategy in (("sound", self.sound(operation)), ("broken", self.broken(operation)), ("beside", self.beside(operation)))
        }
        sorts = ["sound"] * 4 + ["broken"] * 3 + ["beside"]
        return st.tuples(st.sampled_from(self.operations), st.sampled_from(sorts)).flatmap(lambda way: ways[way])

    def sound(self, operation: Operation) -> st.SearchStrategy[Case]:
        """Everything as the document says."""
        return st.builds(
            lambda path, query, headers, body: Case(operation, "sound", "as documented", operation.method, path, encoded(query), headers, body),
            self._path(operation),
            self._query(operation),
            self._headers(operation),
            self._body(operation),
        )

    def broken(self, operation: Operation) -> st.SearchStrategy[Case]:
        """One thing is wrong."""
        ways = [self._unknown_parameter(operation)]
        if operation.parameters("query"):
            ways += [self._wrong_parameter(operation), self._repeated_parameter(operation)]
        if operation.parameters("path"):
            ways.append(self._wrong_path(operation))
        if operation.body_schema is not None:
            ways += [self._wrong_text(operation), self._wrong_media_type(operation)]
            if "properties" in self.resolved(operation.body_schema):
                ways.append(self._wrong_field(operation))
        # Not one_of, which would take a way that has many ways of its own for many.
        return st.sampled_from(range(len(ways))).flatmap(lambda place: ways[place])

    def beside(self, operation: Operation) -> st.SearchStrategy[Case]:
        """A method that is not listed at this address."""
        taken = {each.method for each in self.operations if each.path == operation.path}
        methods = ["OPTIONS", *(method for method in METHODS if method not in taken), *(["HEAD"] if operation.method == "GET" else [])]
        # A body would be cut off at the wrong place where none is read.
        return st.builds(
            lambda method, case: Case(operation, "beside", method, method, case.path, case.query, case.headers),
            st.sampled_from(methods),
            self.sound(operation),
        )

    # The parts of a sound request.

    def _path(self, operation: Operation) -> st.SearchStrategy[str]:
        names = [parameter["name"] for parameter in operation.parameters("path")]
        given = st.fixed_dictionaries({name: any_id("user" if name == "user_id" else _kind_of(operation)) for name in names})
        slashes = st.sampled_from(["", "", "", "/"])
        # The contract has a second name; a service address has not.
        bases = st.sampled_from(["", "", "/xzepr"] if operation.path.startswith("/api/v1/") else [""])
        return st.builds(lambda values, slash, base: base + operation.path.format(**values) + slash, given, slashes, bases)

    def _query(self, operation: Operation) -> st.SearchStrategy[list[tuple[str, str]]]:
        """Mostly no more than two parameters besides the required ones: with all filters at once nothing is ever found."""
        pairs = {
            parameter["name"]: self._of(parameter["schema"], parameter["name"]).map(lambda value, name=parameter["name"]: (name, _as_text(value)))
            for parameter in operation.parameters("query")
        }
        required = [pairs.pop(parameter["name"]) for parameter in operation.parameters("query") if parameter["required"]]
        if not pairs:
            return st.tuples(*required).map(list)
        some = st.lists(st.one_of(list(pairs.values())), max_size=2, unique_by=lambda pair: pair[0])
        every = st.tuples(*pairs.values()).map(list)
        return st.tuples(st.tuples(*required).map(list), st.one_of(some, some, some, every)).map(lambda parts: parts[0] + parts[1])

    def _headers(self, operation: Operation) -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
        own = {
            "Idempotency-Key": st.one_of(st.integers(0, 40).map(lambda number: f"key {number}"), st.text("abc !~", min_size=1, max_size=255)).filter(
                lambda key: key.strip() == key
            ),
            "If-Match": st.sampled_from(["*", "1", '"1"', '"1", "2"', "2", "999999999"]),
            "Last-Event-ID": st.sampled_from(["0", "1", "999999999999", "9223372036854775807"]),
        }
        optional = {parameter["name"]: own[parameter["name"]] for parameter in operation.parameters("header")}
        optional["X-Request-ID"] = st.sampled_from(["r-1", "!" * 128])
        optional["Accept"] = st.sampled_from(["*/*", "application/json", "text/html", "application/xml;q=0.1", "nonsense"])
        optional["traceparent"] = st.sampled_from(["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "nonsense"])
        fixed = {"Content-Type": st.sampled_from(["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"])}
        required = fixed if operation.body_schema is not None else {}
        return st.fixed_dictionaries(required, optional=optional).map(lambda values: tuple(values.items()))

    def _body(self, operation: Operation) -> st.SearchStrategy[bytes | None]:
        if operation.body_schema is None:
            return st.none()
        return st.builds(_dumped, self._of(operation.body_schema, ""), st.booleans())

    def _of(self, schema: Json, name: str) -> st.SearchStrategy[Any]:
        """Values that a schema takes; ids mostly of what is there."""
        key = f"{name} {json.dumps(schema, sort_keys=True)}"
        if key not in self._strategies:
            self._strategies[key] = self._made(self.resolved(schema), name)
        return self._strategies[key]

    def _made(self, schema: Json, name: str) -> st.SearchStrategy[Any]:
        if name in ("event_receiver_id", "owner_id"):
            return any_id("receiver")
        if name == "user_id":
            return any_id("user")
        if name == "event_receiver_ids":
            return st.lists(known("receiver"), min_size=1, max_size=4, unique=True)
        if name == "after" and schema.get("type") == "string":
            return any_id("event")
        if name == "schema":
            return json_schemas()
        if name == "password":
            return st.sampled_from(["correct horse battery staple", "the rain in november", "short"])
        if name in ("username", "email") and "pattern" in schema:
            return st.from_regex(r"[a-z]{1,12}@[a-z]{1,12}" if name == "email" else r"[a-z0-9.-]{1,30}", fullmatch=True)
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        if "anyOf" in schema:
            return st.one_of([self._of(branch, name if name == "email" else "") for branch in schema["anyOf"]])
        match schema.get("type"):
            case "string" if schema.get("format") == "date-time":
                return moments()
            case "string":
                return texts(schema.get("minLength", 0), schema.get("maxLength"), not_blank=schema.get("pattern") == r"\S")
            case "integer":
                return _integers(schema.get("minimum", -(1 << 31)), schema.get("maximum", 1 << 31))
            case "boolean":
                return st.booleans()
            case "null":
                return st.none()
            case "array":
                return st.lists(self._of(schema["items"], ""), min_size=schema.get("minItems", 0), max_size=max(schema.get("minItems", 0), 4))
            case "object" if "properties" in schema:
                members = {member: self._of(each, member) for member, each in schema["properties"].items()}
                needed = {member: members.pop(member) for member in schema.get("required", [])}
                return st.fixed_dictionaries(needed, optional=members)
            case "object":
                return st.dictionaries(texts(0, 8), any_json(), max_size=3)
            case None if not set(schema) - {"description", "default", "examples", "title"}:
                return any_json()
        raise AssertionError(f"no values for {schema}: teach this file the keyword")

    def resolved(self, schema: Json) -> Json:
        """Without `$ref`."""
        while "$ref" in schema:
            target: Any = self.document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            schema = target
        return schema

    # One thing that is wrong.

    def _broken_query(self, operation: Operation, what: str, extra: st.SearchStrategy[list[tuple[str, str]]]) -> st.SearchStrategy[Case]:
        """What is wrong takes the place of the parameters of the same names."""

        def built(case: Case, query: list[tuple[str, str]], wrong: list[tuple[str, str]]) -> Case:
            names = {name for name, _ in wrong}
            kept = [(name, value) for name, value in query if name not in names]
            return Case(operation, "broken", what, case.method, case.path, encoded(kept + wrong), case.headers, case.body)

        return st.builds(built, self.sound(operation), self._query(operation), extra)

    def _unknown_parameter(self, operation: Operation) -> st.SearchStrategy[Case]:
        taken = {parameter["name"] for parameter in operation.parameters("query")}
        names = st.sampled_from(["x", "Name", "nam", "limit ", "", "$filter", "offset", "after", "é"]).filter(lambda name: name not in taken)
        return self._broken_query(operation, "unknown parameter", names.map(lambda name: [(name, "1")]))

    def _repeated_parameter(self, operation: Operation) -> st.SearchStrategy[Case]:
        def twice(parameter: Json) -> st.SearchStrategy[list[tuple[str, str]]]:
            value = self._of(parameter["schema"], parameter["name"]).map(_as_text)
            return value.map(lambda text: [(parameter["name"], text)] * 2)

        return self._broken_query(operation, "parameter given twice", st.one_of([twice(parameter) for parameter in operation.parameters("query")]))

    def _wrong_parameter(self, operation: Operation) -> st.SearchStrategy[Case]:
        wrong = [(parameter["name"], text) for parameter in operation.parameters("query") for text in self._wrong_texts(parameter["schema"])]
        return self._broken_query(operation, "wrong value of a parameter", st.sampled_from(wrong).map(lambda pair: [pair]))

    def _wrong_texts(self, schema: Json) -> list[str]:
        schema = self.resolved(schema)
        nul = ["\x00", "a\x00b"]
        match schema.get("type"):
            case "integer":
                bounds = [str(schema[name] + step) for name, step in (("minimum", -1), ("maximum", 1)) if name in schema]
                return [*nul, *bounds, "", "x", "1.0", "1e1", " 1", "+1", "0x1", "\u0661", "9" * 400]
            case "boolean":
                return [*nul, "", "maybe", "2", "yes", "null"]
            case "string" if schema.get("format") == "date-time":
                return [*nul, "", "yesterday", "2026-01-01", "2026-01-01T00:00:00", "2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "1e9"]
            case "string" if str(schema.get("pattern", "")).endswith("{25}$"):
                return [*nul, *_NO_IDS]
            case "string":
                too_long = ["v" * (schema["maxLength"] + 1), "😀" * (schema["maxLength"] + 1)] if "maxLength" in schema else []
                return [*nul, *too_long, *(["", " ", "\t\n"] if schema.get("pattern") == r"\S" else [])]
        return nul

    def _wrong_path(self, operation: Operation) -> st.SearchStrategy[Case]:
        # A slash makes another address, and dots are taken out by clients.
        wrong = st.sampled_from([text for text in _NO_IDS if text.strip("/. ") == text != ""])
        return st.builds(
            lambda case, text: Case(operation, "broken", "wrong id", case.method, _with_id(operation, text), case.query, case.headers, case.body),
            self.sound(operation),
            wrong,
        )

    def _wrong_field(self, operation: Operation) -> st.SearchStrategy[Case]:
        schema = self.resolved(operation.body_schema or {})
        members = schema["properties"]
        wrong = [(name, value) for name, each in members.items() for value in self._not_taken(each)]
        changes = [st.sampled_from(wrong).map(lambda pair: {pair[0]: pair[1]}), st.sampled_from(["x", "id", "", "Name"]).map(lambda name: {name: 1})]
        if schema.get("required"):
            changes.append(st.sampled_from(schema["required"]).map(lambda name: {name: ...}))

        def changed(body: Json, change: Json) -> bytes:
            return _dumped({name: value for name, value in {**body, **change}.items() if value is not ...}, False)

        return self._broken_body(operation, "wrong field", st.builds(changed, self._of(operation.body_schema or {}, ""), st.one_of(changes)))

    def _not_taken(self, schema: Json) -> list[Any]:
        validator = jsonschema_rs.validator_for({"components": self.document["components"], "allOf": [schema]})
        return [value for value in _ODD_VALUES if not validator.is_valid(value)]

    def _wrong_text(self, operation: Operation) -> st.SearchStrategy[Case]:
        bodies = self._body(operation).filter(bool)
        cut = st.tuples(bodies, st.floats(0, 0.999)).map(lambda pair: (pair[0] or b"")[: int(len(pair[0] or b"") * pair[1])])
        spoilt = st.tuples(bodies, st.sampled_from([b"\xff", b"\x00", b"x", b"}", b",", b"\xed\xa0\x80"])).map(
            lambda pair: (pair[0] or b"") + pair[1]
        )
        whole = st.sampled_from(
            [b"null", b"[]", b"[{}]", b"1", b'"x"', b"NaN", b"[" * 20_000, b'{"a":' * 200, b'{"a":1e999}', b'{"a":1,"a":1}', b"\xef\xbb\xbf{}"]
        )
        return self._broken_body(operation, "wrong text", st.one_of(cut, spoilt, whole))

    def _broken_body(self, operation: Operation, what: str, bodies: st.SearchStrategy[bytes]) -> st.SearchStrategy[Case]:
        return st.builds(
            lambda case, body: Case(operation, "broken", what, case.method, case.path, case.query, case.headers, body), self.sound(operation), bodies
        )

    def _wrong_media_type(self, operation: Operation) -> st.SearchStrategy[Case]:
        wrong = st.sampled_from([None, "", "text/plain", "application/xml", "application/x-www-form-urlencoded", "application/jsonx", "json"])

        def built(case: Case, media_type: str | None) -> Case:
            headers = tuple((name, value) for name, value in case.headers if name != "Content-Type")
            headers += () if media_type is None else (("Content-Type", media_type),)
            return Case(operation, "broken", "wrong media type", case.method, case.path, case.query, headers, case.body)

        return st.builds(built, self.sound(operation), wrong)


def encoded(pairs: list[tuple[str, str]]) -> str:
    """A query string."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)


def _kind_of(operation: Operation) -> str:
    """Whose id stands in the path. What is changed or deleted is kept apart from the receivers that events are posted to, and from members."""
    if "/receivers/" in operation.path:
        return "receiver" if operation.method == "GET" else "spare"
    if "/users/" in operation.path:
        return "account"
    return "group" if "/groups/" in operation.path else "event"


def _with_id(operation: Operation, text: str) -> str:
    return re.sub(r"\{\w+\}", lambda _: quote(text, safe=""), operation.path)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _dumped(value: Any, ascii_only: bool) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only).encode()


def _integers(least: int, most: int) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(least, most), st.sampled_from([least, min(least + 1, most), most]))
