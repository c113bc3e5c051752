"""What it may cost to check with a schema, read off the schema alone.

A schema is a graph: subschemas, and the references between them. Three things are read off it: its *weight*, the number of subschemas that one
document of one item a list may have to pass when every reference is followed (28 doublings of `allOf` by `$ref` weigh 2^28); whether it is
*recursive*, so that the cost depends on how deep the payload is; and what its patterns may cost for each byte. References that lead out of the
document, and circles that never come to another part of the payload, are faults.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

import jsonschema_rs

from xzepr.errors import Fault

WEIGHT_MAX: Final = 100_000
PATTERN_BYTES_MAX: Final = 256 * 1024
DFA_BYTES_MAX: Final = 1 << 20
# Sizes at which a compiled pattern is tried; the worst case of the linear engine is some 40 ns a byte of text for each kilobyte of it.
_PATTERN_CLASSES: Final = (4_096, 16_384, 65_536, PATTERN_BYTES_MAX)
_NS_PER_PATTERN_BYTE: Final = 0.04

# Keywords whose subschemas see the same part of the payload, and those whose subschemas see a part of it.
_IN_PLACE_ONE: Final = ("not", "if", "then", "else")
_IN_PLACE_LIST: Final = ("allOf", "anyOf", "oneOf")
_IN_PLACE_MAP: Final = ("dependentSchemas", "dependencies")
_DESCENT_ONE: Final = (
    "additionalProperties",
    "propertyNames",
    "items",
    "additionalItems",
    "contains",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_DESCENT_LIST: Final = ("items", "prefixItems")
_DESCENT_MAP: Final = ("properties", "patternProperties")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_NAMED_BY_AUTHOR: Final = frozenset({*_IN_PLACE_MAP, *_DESCENT_MAP, "$defs", "definitions"})
_OPAQUE: Final = frozenset({"enum", "const", "default", "examples", "example"})


class PatternOptions(NamedTuple):
    """What patterns are compiled with, everywhere."""

    size_limit: int = PATTERN_BYTES_MAX
    dfa_size_limit: int = DFA_BYTES_MAX

    def build(self) -> jsonschema_rs.RegexOptions:
        """In the engine's form."""
        return jsonschema_rs.RegexOptions(size_limit=self.size_limit, dfa_size_limit=self.dfa_size_limit)


@dataclass(frozen=True, slots=True)
class SchemaCost:
    """weight: subschemas with references followed; pattern_ns: for each byte of payload, at the worst, all patterns together."""

    weight: int
    recursive: bool
    patterns: int
    pattern_ns: float


@dataclass(slots=True, eq=False)
class _Node:
    """One subschema. in_place, descents: where checking goes from here, on the same part of the payload or on a part of it."""

    schema: dict[str, Any]
    pointer: str
    base: str
    in_place: list["_Node"] = field(default_factory=list)
    descents: list["_Node"] = field(default_factory=list)

    @property
    def next(self) -> list["_Node"]:
        return self.in_place + self.descents


class _Document:
    """All objects of a schema document with their base address, and what names lead to them."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.nodes: dict[int, _Node] = {}
        self.resources: dict[str, _Node] = {}
        self.anchors: dict[tuple[str, str], _Node] = {}
        self.dynamic_anchors: list[_Node] = []
        self.root = self._add(schema, "", "")
        self.resources.setdefault("", self.root)
        self.resources.setdefault(self.root.base, self.root)

    def _add(self, schema: dict[str, Any], pointer: str, base: str) -> _Node:
        """Every object below, the root first. Where members are named by the author (properties, $defs) no name is a keyword."""
        root = self._name(schema, pointer, base)
        stack = self._members(root)
        while stack:
            value, place, address, named_by_author = stack.pop()
            if isinstance(value, list):
                stack += [(item, f"{place}/{index}", address, False) for index, item in enumerate(value)]
            elif isinstance(value, dict) and named_by_author:
                stack += [(member, f"{place}/{_token(key)}", address, False) for key, member in value.items()]
            elif isinstance(value, dict):
                stack += self._members(self._name(value, place, address))
        return root

    def _members(self, node: _Node) -> list[tuple[Any, str, str, bool]]:
        return [
            (member, f"{node.pointer}/{_token(key)}", node.base, key in _NAMED_BY_AUTHOR) for key, member in node.schema.items() if key not in _OPAQUE
        ]

    def _name(self, schema: dict[str, Any], pointer: str, base: str) -> _Node:
        own = schema.get("$id", schema.get("id"))
        if isinstance(own, str) and not own.startswith("#"):
            base = urldefrag(urljoin(base, own)).url
        node = self.nodes[id(schema)] = _Node(schema, pointer, base)
        if isinstance(own, str):
            if own.startswith("#"):
                self.anchors[base, own[1:]] = node
            else:
                self.resources[base] = node
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := schema.get(keyword), str):
                self.anchors[base, name] = node
                if keyword == "$dynamicAnchor":
                    self.dynamic_anchors.append(node)
        return node

    def resolve(self, reference: str, base: str) -> _Node | None:
        """What a reference leads to within the document; None: out of it, or nowhere."""
        address, fragment = urldefrag(urljoin(base, reference) if not reference.startswith("#") else base + reference)
        resource = self.resources.get(address)
        if resource is None:
            return None
        if fragment and not fragment.startswith("/"):
            return self.anchors.get((address, unquote(fragment)))
        value: Any = resource.schema
        for token in unquote(fragment).split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                return None
        if isinstance(value, bool):
            return _Node({}, "", address)
        return self.nodes.get(id(value)) if isinstance(value, dict) else None


def examine(schema: dict[str, Any], own_metaschema: str) -> tuple[SchemaCost, list[Fault]]:
    """Cost and faults; pointers begin at the schema's root. own_metaschema: the one address outside the document that may be referred to."""
    document = _Document(schema)
    faults: list[Fault] = []
    outside = _link(document, own_metaschema, faults)
    order = _components(document.root)
    circles = (_circle_in_place(component) for component in order)
    faults += [Fault(circle.pointer, "refers to itself without coming to another part of the payload") for circle in circles if circle]
    reachable = [node for component in order for node in component]
    weight = _weight(order) + 2_000 * outside
    if weight > WEIGHT_MAX:
        faults.append(Fault("", f"costs too much to check with: {weight:,} subschemas with references followed, at most {WEIGHT_MAX:,}"))
    patterns, pattern_ns = _patterns(reachable, document, faults)
    recursive = outside > 0 or bool(document.dynamic_anchors) or any(_is_circle(component) for component in order)
    return SchemaCost(weight, recursive, patterns, pattern_ns), faults


def _link(document: _Document, own_metaschema: str, faults: list[Fault]) -> int:
    """Draw the ways of checking between the nodes; how many references lead to the metaschema."""
    outside = 0
    for node in list(document.nodes.values()):
        schema = node.schema
        node.in_place += _subschemas(document, [schema.get(key) for key in _IN_PLACE_ONE])
        node.in_place += _subschemas(document, [item for key in _IN_PLACE_LIST for item in _items(schema.get(key))])
        node.in_place += _subschemas(document, [item for key in _IN_PLACE_MAP for item in _values(schema.get(key))])
        node.descents += _subschemas(document, [schema.get(key) for key in _DESCENT_ONE])
        node.descents += _subschemas(document, [item for key in _DESCENT_LIST for item in _items(schema.get(key))])
        node.descents += _subschemas(document, [item for key in _DESCENT_MAP for item in _values(schema.get(key))])
        for keyword in _REFERENCES:
            reference = schema.get(keyword)
            if not isinstance(reference, str):
                continue
            target = document.resolve(reference, node.base)
            if target is not None:
                node.in_place.append(target)
            elif urldefrag(reference).url.rstrip("#") == own_metaschema:
                outside += 1
            else:
                message = f"{reference[:200]!r} is not in this document, and nothing is fetched: embed it under $defs with its $id"
                faults.append(Fault(f"{node.pointer}/{keyword}", message))
            if keyword == "$dynamicRef":
                node.in_place += [anchored for anchored in document.dynamic_anchors if anchored is not target]
    return outside


def _subschemas(document: _Document, values: list[Any]) -> list[_Node]:
    return [document.nodes[id(value)] for value in values if isinstance(value, dict) and id(value) in document.nodes]


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []


def _components(root: _Node) -> list[list[_Node]]:
    """Strongly connected components of what can be reached, each behind those that it leads to (Tarjan, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    waiting: list[_Node] = []
    on_stack: set[int] = set()
    found: list[list[_Node]] = []
    work: list[tuple[_Node, Iterator[_Node]]] = []

    def enter(node: _Node) -> None:
        index[id(node)] = low[id(node)] = len(index)
        waiting.append(node)
        on_stack.add(id(node))
        work.append((node, iter(node.next)))

    enter(root)
    while work:
        node, following = work[-1]
        for other in following:
            if id(other) not in index:
                enter(other)
                break
            if id(other) in on_stack:
                low[id(node)] = min(low[id(node)], index[id(other)])
        else:
            work.pop()
            if work:
                low[id(work[-1][0])] = min(low[id(work[-1][0])], low[id(node)])
            if low[id(node)] == index[id(node)]:
                found.append(_pop_component(node, waiting, on_stack))
    return found


def _pop_component(first: _Node, waiting: list[_Node], on_stack: set[int]) -> list[_Node]:
    component = []
    while True:
        node = waiting.pop()
        on_stack.discard(id(node))
        component.append(node)
        if node is first:
            return component


def _is_circle(component: list[_Node]) -> bool:
    return len(component) > 1 or any(other is component[0] for other in component[0].next)


def _circle_in_place(component: list[_Node]) -> _Node | None:
    """A node of the component that leads back to itself without a descent: checking would never end."""
    if not _is_circle(component):
        return None
    members = {id(node) for node in component}
    state: dict[int, int] = {}
    for start in component:
        if id(start) in state:
            continue
        work = [(start, iter(start.in_place))]
        state[id(start)] = 1
        while work:
            node, following = work[-1]
            for other in following:
                if id(other) not in members:
                    continue
                if state.get(id(other)) == 1:
                    return other
                if id(other) not in state:
                    state[id(other)] = 1
                    work.append((other, iter(other.in_place)))
                    break
            else:
                state[id(node)] = 2
                work.pop()
    return None


def _weight(components: list[list[_Node]]) -> int:
    """Of the last component, the root's; within a circle each node counts once."""
    weights: dict[int, int] = {}
    total = 0
    for component in components:
        members = {id(node) for node in component}
        total = sum(1 + sum(weights[id(other)] for other in node.next if id(other) not in members) for node in component)
        for node in component:
            weights[id(node)] = total
    return total


def _patterns(reachable: list[_Node], document: _Document, faults: list[Fault]) -> tuple[int, float]:
    """How many patterns are in use and what they cost together; a fault for each one in the document that cannot be used."""
    count, cost_ns = 0, 0.0
    in_use = {id(node) for node in reachable}
    classes: dict[str, int | None] = {}
    for node in document.nodes.values():
        for pattern, place in _patterns_of(node):
            if pattern not in classes:
                classes[pattern] = _size_class(pattern)
            size = classes[pattern]
            if size is None:
                faults.append(Fault(place, _why_refused(pattern)))
            elif id(node) in in_use:
                count += 1
                cost_ns += size * _NS_PER_PATTERN_BYTE
    return count, cost_ns


def _patterns_of(node: _Node) -> Iterator[tuple[str, str]]:
    if isinstance(pattern := node.schema.get("pattern"), str):
        yield pattern, f"{node.pointer}/pattern"
    if isinstance(patterns := node.schema.get("patternProperties"), dict):
        for pattern in patterns:
            yield pattern, f"{node.pointer}/patternProperties/{_token(pattern)}"


def _size_class(pattern: str) -> int | None:
    """The least of the sizes at which it compiles; None: it is too large, or the linear-time engine cannot run it."""
    for size in _PATTERN_CLASSES:
        if _compiles(pattern, size):
            return size
    return None


def _compiles(pattern: str, size_limit: int) -> bool:
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, offline=True, pattern_options=PatternOptions(size_limit).build())
    except ValueError:
        return False
    return True


def _why_refused(pattern: str) -> str:
    if _compiles(pattern, 1 << 26):
        return f"is too large when compiled (over {PATTERN_BYTES_MAX} bytes): shorten its counted repetitions; maxLength bounds a length for free"
    return "is not a regular expression that can be run in linear time (look-around and back-references cannot)"


def _token(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
