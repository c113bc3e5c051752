"""What it may cost to check with a schema, read off the schema alone.

Counted in *steps* (some 20 ns each) for one value of the payload, with every reference followed, and in nanoseconds for each byte of the payload.
Steps times values, and nanoseconds times bytes, are upper bounds: no subschema that is counted once meets one value twice, except where the schema
is recursive and *branches* (two ways lead to the same value, so the cost doubles at each level of the payload). 28 doublings of `allOf` by `$ref`
make 2^28 steps. `unevaluatedProperties` and `unevaluatedItems` run what stands beside them once more, so nesting them multiplies (by 2.6 a level).

The factors were measured with jsonschema-rs 0.61 on hostile cases; tests hold them against the clock.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import jsonschema_rs

from xzepr.errors import Fault
from xzepr.receivers.schema_graph import Node, SchemaGraph, circle_in_place, components, is_circle, token

STEPS_MAX: Final = 1_000_000
PATTERN_BYTES_MAX: Final = 512 * 1024
DFA_BYTES_MAX: Final = 1 << 20
# More than this is only ever compared with a limit.
_ENDLESS: Final = 10**15
# A recursive circle of more subschemas could, on a payload of full depth, use up the stack of the process.
_CIRCLE_NODES_MAX: Final = 24
# Sizes at which a compiled pattern is tried. At the worst (many states at once, no automaton that fits) a byte of text costs a third of a
# nanosecond for each byte of the pattern.
_PATTERN_CLASSES: Final = (512, 1_024, 2_048, 4_096, 8_192, 16_384, 65_536, PATTERN_BYTES_MAX)
_NS_PER_PATTERN_BYTE: Final = 0.35
_NS_ONE_WAY: Final = 3.0
# From the start, one item after the other, each a fixed number of times, the last one as often as it likes: there is only one way to match.
_ONE_WAY: Final = re.compile(r"\^(?:(?:[\w ,:;/@#%=~\"'<>&!.-]|\\[dwsDWS./+*?()\[\]{}|^$-]|\[[^\]\\\[]+\])(?:\{\d+\})?)*+[+*]?\$?", re.ASCII)
_MAY_BE_LARGE: Final = re.compile(r"\{\d|\\[pP]")
# A larger integer loses digits as a double, by which the engine hashes it: a list of them is compared each with each.
_EXACT_MAX: Final = 2**53
_FORMAT_NS: Final = {"idn-hostname": 100.0, "idn-email": 100.0, "regex": 80.0}
_FORMAT_OTHER_NS: Final = 10.0
_LIMITS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})


@dataclass(frozen=True, slots=True)
class SchemaCost:
    """What examine() read off a schema.

    steps: for each value of the payload; byte_ns: for each byte of it; unsafe: no bound holds (recursion that branches or is too large for the
    stack, or references that the engine may follow in another way); unique: lists are looked through for equal items; pattern_bytes: the size of all
    patterns when compiled.
    """

    steps: int
    byte_ns: float
    unsafe: bool
    unique: bool
    pattern_bytes: int


@dataclass(slots=True)
class _Own:
    """What one subschema costs by itself."""

    steps: int = 1
    byte_ns: float = 0.0


@dataclass(slots=True)
class _Sums:
    """For each node, with all that it leads to: a check, and a look for what was evaluated (see the module, unevaluated…)."""

    check: dict[int, _Own] = field(default_factory=dict)
    look: dict[int, _Own] = field(default_factory=dict)


def pattern_options(size_limit: int = PATTERN_BYTES_MAX) -> jsonschema_rs.RegexOptions:
    """What patterns are compiled with, everywhere: the linear-time engine, bounded."""
    return jsonschema_rs.RegexOptions(size_limit=size_limit, dfa_size_limit=DFA_BYTES_MAX)


def patterns_may_be_large(graph: SchemaGraph) -> bool:
    """Whether to compile the patterns might take long; the look itself does not."""
    texts = [pattern for node in graph.nodes for pattern, _ in _patterns_of(node)]
    return sum(map(len, texts)) > 2_000 or any(_MAY_BE_LARGE.search(text) for text in texts)


def examine(graph: SchemaGraph) -> tuple[SchemaCost, list[Fault]]:
    """Cost and faults; pointers begin at the schema's root. The schema must satisfy its metaschema."""
    faults = list(graph.faults)
    order = components(graph.root)
    circles = [component for component in order if is_circle(component)]
    faults += [
        Fault(node.pointer, "refers to itself without coming to another part of the payload")
        for component in circles
        if (node := circle_in_place(component)) is not None
    ]
    reachable = [node for component in order for node in component]
    sizes = _pattern_sizes(graph, faults)
    total = _sum_up(order, {id(node): _own_cost(node, sizes) for node in reachable})
    if total.steps > STEPS_MAX:
        told = f"{total.steps:,}" if total.steps < _ENDLESS else "more than can be counted"
        faults.append(Fault("", f"costs too much to check with: {told} steps for each value with references followed, at most {STEPS_MAX:,}"))
    used = [pattern for node in reachable for pattern, _ in _patterns_of(node)]
    cost = SchemaCost(
        steps=total.steps,
        byte_ns=total.byte_ns,
        unsafe=not graph.plain or _is_unsafe(circles),
        unique=any(node.schema.get("uniqueItems") is True for node in reachable),
        pattern_bytes=sum(sizes[pattern] or 0 for pattern in used),
    )
    return cost, faults


def _sum_up(order: list[list[Node]], own: dict[int, _Own]) -> _Own:
    """The check of the last component's, the root's. Components come behind those that they lead to."""
    sums = _Sums()
    total = _Own()
    for component in order:
        members = {id(node) for node in component}
        check, look = _Own(0), _Own(0)
        for node in component:
            node_check, node_look = _node_sums(node, own[id(node)], members, sums)
            _add(check, node_check)
            _add(look, node_look)
        for node in component:
            sums.check[id(node)], sums.look[id(node)] = check, look
        total = check
    return total


def _node_sums(node: Node, own: _Own, members: set[int], sums: _Sums) -> tuple[_Own, _Own]:
    check, look = _Own(own.steps, own.byte_ns), _Own(own.steps, own.byte_ns)
    for other in node.next:
        if id(other) not in members:
            _add(check, sums.check[id(other)])
            _add(look, sums.check[id(other)])
    for other in node.in_place:
        if id(other) not in members:
            _add(look, sums.look[id(other)])
    if "unevaluatedProperties" in node.schema or "unevaluatedItems" in node.schema:
        _add(check, look)
    return check, look


def _add(total: _Own, part: _Own) -> None:
    total.steps = min(total.steps + part.steps, _ENDLESS)
    total.byte_ns = min(total.byte_ns + part.byte_ns, float(_ENDLESS))


def _is_unsafe(circles: list[list[Node]]) -> bool:
    """One small circle in which only one way leads to each value is bounded as if it were not recursive; a circle behind a circle is not."""
    return len(circles) > 1 or any(len(component) > _CIRCLE_NODES_MAX or _branches(component) for component in circles)


def _branches(component: list[Node]) -> bool:
    members = {id(node) for node in component}
    for node in component:
        in_place = sum(id(other) in members for other in node.in_place)
        apart = any(id(other) in members for other in node.apart)
        overlapping = sum(id(other) in members for other in node.overlapping)
        if in_place + apart + overlapping > 1 or _compares_below(node.schema):
            return True
    return False


def _compares_below(schema: dict[str, Any]) -> bool:
    """Keywords that look at all that lies below a value, so that at each level everything is looked at again."""
    return bool({"uniqueItems", "const", "enum", "unevaluatedProperties", "unevaluatedItems"} & schema.keys())


def _own_cost(node: Node, sizes: dict[str, int | None]) -> _Own:
    schema = node.schema
    own = _Own(1 + sum(len(value) for key, value in schema.items() if key not in ("enum", "const") and isinstance(value, list | dict)))
    for key in ("dependentRequired", "dependencies"):
        if isinstance(schema.get(key), dict):
            own.steps += sum(len(names) for names in schema[key].values() if isinstance(names, list))
    if "enum" in schema:
        own.steps += _comparing_steps(schema["enum"])
    if "const" in schema:
        own.steps += _comparing_steps([schema["const"]])
    if "uniqueItems" in schema:
        own.steps += 5
        own.byte_ns += 10
    if schema.keys() & {"minLength", "maxLength", "enum", "const"}:
        own.byte_ns += 1
    _add(own, _arithmetic(schema))
    if schema.keys() & {"contentMediaType", "contentEncoding"}:
        own.byte_ns += 40
    if isinstance(name := schema.get("format"), str):
        own.byte_ns += _FORMAT_NS.get(name, _FORMAT_OTHER_NS)
    own.byte_ns += sum(_pattern_ns(pattern, sizes[pattern] or 0) for pattern, _ in _patterns_of(node))
    return own


def _arithmetic(schema: dict[str, Any]) -> _Own:
    """Exact arithmetic: what is not a small integer, in the schema or in the payload, becomes a fraction of large integers."""
    own = _Own(0)
    if "multipleOf" in schema:
        divisor = schema["multipleOf"]
        own.steps += 70 if isinstance(divisor, int) and not _is_large(divisor) else 2_000
        own.byte_ns += 60
    if limits := schema.keys() & _LIMITS:
        own.steps += sum(200 for keyword in limits if _is_large(schema[keyword]))
        own.byte_ns += 30
    return own


def _comparing_steps(values: Any) -> int:
    """Plain values are hashed; as soon as there is one that is not, each is compared with each."""
    if not isinstance(values, list):
        return 1
    if all(not isinstance(value, list | dict) and not _is_large(value) for value in values):
        return 1 + len(values) // 100
    count, stack = 0, list(values)
    while stack:
        value = stack.pop()
        count += 4 if _is_large(value) else 1
        if isinstance(value, list):
            stack += value
        elif isinstance(value, dict):
            stack += value.values()
    return 8 * count


def _is_large(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) > _EXACT_MAX


def _pattern_ns(pattern: str, size: int) -> float:
    return _NS_ONE_WAY if _ONE_WAY.fullmatch(pattern) else size * _NS_PER_PATTERN_BYTE


def _pattern_sizes(graph: SchemaGraph, faults: list[Fault]) -> dict[str, int | None]:
    """The size class of each pattern of the document; a fault for each place of one that cannot be used."""
    sizes: dict[str, int | None] = {}
    for node in graph.nodes:
        for pattern, place in _patterns_of(node):
            if pattern not in sizes:
                sizes[pattern] = _size_class(pattern)
            if sizes[pattern] is None:
                faults.append(Fault(place, _why_refused(pattern)))
    return sizes


def _patterns_of(node: Node) -> Iterator[tuple[str, str]]:
    if isinstance(pattern := node.schema.get("pattern"), str):
        yield pattern, f"{node.pointer}/pattern"
    if isinstance(patterns := node.schema.get("patternProperties"), dict):
        for pattern in patterns:
            yield pattern, f"{node.pointer}/patternProperties/{token(pattern)}"


def _size_class(pattern: str) -> int | None:
    """The least of the sizes at which it compiles; None: it is too large, or the linear-time engine cannot run it."""
    return next((size for size in _PATTERN_CLASSES if _compiles(pattern, size)), None)


def _compiles(pattern: str, size_limit: int) -> bool:
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, offline=True, pattern_options=pattern_options(size_limit))
    except ValueError:
        return False
    return True


def _why_refused(pattern: str) -> str:
    if _compiles(pattern, 32 * PATTERN_BYTES_MAX):
        return f"is too large when compiled (over {PATTERN_BYTES_MAX} bytes): shorten its counted repetitions; maxLength bounds a length for free"
    return "is not a regular expression that can be run in linear time (look-around and back-references cannot), or far too large"
