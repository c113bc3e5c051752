"""A schema as a graph: its subschemas, and where checking goes from each of them.

Going *in place* means to look at the same part of the payload again (allOf, $ref, …), *descending* to look at a part of it (properties, items, …).
References are followed within the document only; one that leads out of it, or nowhere, is a fault. What the engine may resolve in another way than
this module (embedded resources, dynamic references, a draft of its own for a part) makes the document *not plain*: then nothing may rely on the
graph for safety.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urldefrag, urljoin

from xzepr.errors import Fault

_IN_PLACE_ONE: Final = ("not", "if", "then", "else")
_IN_PLACE_LIST: Final = ("allOf", "anyOf", "oneOf")
_IN_PLACE_MAP: Final = ("dependentSchemas", "dependencies")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_NAMED_BY_AUTHOR: Final = frozenset({*_IN_PLACE_MAP, "properties", "patternProperties", "$defs", "definitions"})
_OPAQUE: Final = frozenset({"enum", "const", "default", "examples", "example"})
# Keywords by the parts of the payload that their subschemas see: of those called apart, no two ever see the same part.
_APART_ONE: Final = ("additionalProperties", "items", "additionalItems")
_APART_LIST: Final = ("items", "prefixItems")
_APART_MAP: Final = ("properties",)
_OVERLAPPING_ONE: Final = ("propertyNames", "contains", "unevaluatedItems", "unevaluatedProperties", "contentSchema")
_OVERLAPPING_MAP: Final = ("patternProperties",)


@dataclass(slots=True, eq=False)
class Node:
    """One subschema. apart: descents of which no two meet the same part of the payload; overlapping: descents that may meet it too."""

    schema: dict[str, Any]
    pointer: str
    base: str
    in_place: list["Node"] = field(default_factory=list)
    apart: list["Node"] = field(default_factory=list)
    overlapping: list["Node"] = field(default_factory=list)

    @property
    def next(self) -> list["Node"]:
        """All that is checked from here."""
        return self.in_place + self.apart + self.overlapping


class SchemaGraph:
    """root: where checking begins; nodes: every object of the document; plain: see the module; faults: references that lead nowhere here."""

    def __init__(self, schema: dict[str, Any], draft: str) -> None:
        self._id_keyword = "id" if draft == "4" else "$id"
        self._ref_stands_alone = draft in ("4", "6", "7")
        self._by_identity: dict[int, Node] = {}
        self._resources: dict[str, Node] = {}
        self._anchors: dict[tuple[str, str], Node] = {}
        self._dynamic_anchors: list[Node] = []
        self.plain = True
        self.faults: list[Fault] = []
        self.root = self._name(schema, "", "")
        self._resources.setdefault("", self.root)
        self._add_below(self.root)
        self._link()

    @property
    def nodes(self) -> list[Node]:
        """Every object of the document that may be a subschema, reached or not."""
        return list(self._by_identity.values())

    def _add_below(self, root: Node) -> None:
        """Every object. Where members are named by the author (properties, $defs) no name is a keyword."""
        stack = self._members(root)
        while stack:
            value, place, address, named_by_author = stack.pop()
            if isinstance(value, list):
                stack += [(item, f"{place}/{index}", address, False) for index, item in enumerate(value)]
            elif isinstance(value, dict) and named_by_author:
                stack += [(member, f"{place}/{token(key)}", address, False) for key, member in value.items()]
            elif isinstance(value, dict):
                stack += self._members(self._name(value, place, address))

    def _members(self, node: Node) -> list[tuple[Any, str, str, bool]]:
        return [
            (member, f"{node.pointer}/{token(key)}", node.base, key in _NAMED_BY_AUTHOR)
            for key, member in node.schema.items()
            if key not in _OPAQUE and isinstance(member, dict | list)
        ]

    def _name(self, schema: dict[str, Any], pointer: str, base: str) -> Node:
        own = schema.get(self._id_keyword)
        if not isinstance(own, str) or (self._ref_stands_alone and "$ref" in schema):
            own = None
        if pointer and ("$id" in schema or "id" in schema or "$schema" in schema):
            self.plain = False
        if own is not None and not own.startswith("#"):
            base = urldefrag(urljoin(base, own)).url
        node = self._by_identity[id(schema)] = Node(schema, pointer, base)
        if own is not None and own.startswith("#"):
            self._anchors[base, own[1:]] = node
        elif own is not None:
            self._resources[base] = node
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := schema.get(keyword), str):
                self._anchors[base, name] = node
        if "$dynamicAnchor" in schema or "$recursiveAnchor" in schema:
            self._dynamic_anchors.append(node)
        return node

    def _link(self) -> None:
        for node in self.nodes:
            schema = node.schema
            node.in_place += self._subschemas(_members_of(schema, _IN_PLACE_ONE, _IN_PLACE_LIST, _IN_PLACE_MAP))
            node.apart += self._subschemas(_members_of(schema, _APART_ONE, _APART_LIST, _APART_MAP))
            node.overlapping += self._subschemas(_members_of(schema, _OVERLAPPING_ONE, (), _OVERLAPPING_MAP))
            for keyword in _REFERENCES:
                if isinstance(reference := schema.get(keyword), str):
                    self._follow(node, keyword, reference)

    def _follow(self, node: Node, keyword: str, reference: str) -> None:
        target = self._resolve(reference, node.base)
        if target is None:
            message = f"{reference[:200]!r} is not in this document, and nothing is fetched: embed it under $defs with its $id"
            self.faults.append(Fault(f"{node.pointer}/{keyword}", message))
            return
        node.in_place.append(target)
        if not reference.startswith("#"):
            self.plain = False
        if keyword != "$ref" and self._dynamic_anchors:
            self.plain = False
            node.in_place += [anchored for anchored in self._dynamic_anchors if anchored is not target]

    def _resolve(self, reference: str, base: str) -> Node | None:
        """What a reference leads to within the document; None: out of it, or nowhere."""
        if reference.startswith("#"):
            address, fragment = base, reference[1:]
        else:
            address, fragment = urldefrag(urljoin(base, reference))
        resource = self._resources.get(address)
        if resource is None:
            return None
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self._anchors.get((address, fragment))
        value: Any = resource.schema
        for part in fragment.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isascii() and key.isdigit() and len(key) < 10 and int(key) < len(value):
                value = value[int(key)]
            else:
                return None
        if isinstance(value, bool):
            return Node({}, "", address)
        return self._by_identity.get(id(value)) if isinstance(value, dict) else None

    def _subschemas(self, values: Iterator[Any]) -> list[Node]:
        return [self._by_identity[id(value)] for value in values if isinstance(value, dict) and id(value) in self._by_identity]


def components(root: Node) -> list[list[Node]]:
    """Strongly connected components of what can be reached, each behind those that it leads to (Tarjan's way, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    waiting: list[Node] = []
    on_stack: set[int] = set()
    found: list[list[Node]] = []
    work: list[tuple[Node, Iterator[Node]]] = []

    def enter(node: Node) -> None:
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


def is_circle(component: list[Node]) -> bool:
    """Whether its nodes lead back to themselves."""
    return len(component) > 1 or any(other is component[0] for other in component[0].next)


def circle_in_place(component: list[Node]) -> Node | None:
    """A node that leads back to itself without a descent, so that checking would never end; None: there is none."""
    members = {id(node) for node in component}
    on_path: dict[int, bool] = {}
    for start in component:
        if id(start) in on_path:
            continue
        work = [(start, iter(start.in_place))]
        on_path[id(start)] = True
        while work:
            node, following = work[-1]
            for other in following:
                if on_path.get(id(other)):
                    return other
                if id(other) in members and id(other) not in on_path:
                    on_path[id(other)] = True
                    work.append((other, iter(other.in_place)))
                    break
            else:
                on_path[id(node)] = False
                work.pop()
    return None


def token(key: str) -> str:
    """One reference token of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def _pop_component(first: Node, waiting: list[Node], on_stack: set[int]) -> list[Node]:
    component = []
    while True:
        node = waiting.pop()
        on_stack.discard(id(node))
        component.append(node)
        if node is first:
            return component


def _members_of(schema: dict[str, Any], one: tuple[str, ...], lists: tuple[str, ...], maps: tuple[str, ...]) -> Iterator[Any]:
    for key in one:
        yield schema.get(key)
    for key in lists:
        if isinstance(value := schema.get(key), list):
            yield from value
    for key in maps:
        if isinstance(value := schema.get(key), dict):
            yield from value.values()
