"""A receiver's JSON Schema: is it one that can be used here, and the validator made of it.

Drafts 2020-12, 2019-09, 7, 6 and 4 by `$schema`. Nothing is ever fetched: what a schema refers to is in it or the schema is refused. `format` is
asserted, patterns run in linear time. compile_schema() may take long for a hostile schema (up to seconds) and is meant for a helper process;
compile_here() gives up at once when a schema is not plainly harmless.
"""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, Final

import jsonschema_rs

from xzepr.errors import Fault, InvalidInput
from xzepr.json_text import parse_strict
from xzepr.receivers.schema_cost import SchemaCost, examine, pattern_options, patterns_may_be_large
from xzepr.receivers.schema_graph import SchemaGraph, token

DRAFT_2020_12: Final = "2020-12"
FAULTS_MAX: Final = 50
MESSAGE_MAX_CHARS: Final = 300
POINTER_MAX_CHARS: Final = 1_000
# What a check may cost, at the very worst, in the process that serves requests: 20 ms of steps, and 20 ms of looking at bytes.
STEPS_HERE_MAX: Final = 1_000_000
BYTE_NS_HERE_MAX: Final = 20_000_000.0
# Listing faults costs more than finding out that there are some: each one takes a copy of the part of the payload that it is about.
FAULT_STEPS_HERE_MAX: Final = 5_000
FAULT_BYTES_HERE_MAX: Final = 2_000_000
# Examining this much takes some 5 ms. A larger schema is examined by a helper first, and compiled here if that takes no longer than:
SCHEMA_CHARS_HERE_MAX: Final = 8 * 1024
COMPILE_S_HERE_MAX: Final = 0.02
# What stands beside unevaluatedProperties is compiled again for each way that leads there: some 100 ns a step.
COMPILE_STEPS_HERE_MAX: Final = 20_000

_VALIDATORS: Final[dict[str, type[jsonschema_rs.Validator]]] = {
    DRAFT_2020_12: jsonschema_rs.Draft202012Validator,
    "2019-09": jsonschema_rs.Draft201909Validator,
    "7": jsonschema_rs.Draft7Validator,
    "6": jsonschema_rs.Draft6Validator,
    "4": jsonschema_rs.Draft4Validator,
}
_METASCHEMAS: Final = {
    DRAFT_2020_12: "https://json-schema.org/draft/2020-12/schema",
    "2019-09": "https://json-schema.org/draft/2019-09/schema",
    "7": "http://json-schema.org/draft-07/schema",
    "6": "http://json-schema.org/draft-06/schema",
    "4": "http://json-schema.org/draft-04/schema",
}
_DRAFT_OF: Final = {address.partition("://")[2]: draft for draft, address in _METASCHEMAS.items()}
# Runs of digits at which integers stop being exact as doubles, and whatever an exponent may make of a number.
_LARGE_NUMBER: Final = re.compile(r"\d{16}|\d[eE][+\d]")


@dataclass(frozen=True, slots=True)
class CompiledSchema:
    """A schema that passed. compile_s: processor time that reading and compiling it took, in seconds."""

    draft: str
    cost: SchemaCost
    validator: jsonschema_rs.Validator
    compile_s: float

    def is_cheap(self, payload_text: str) -> bool:
        """Whether the worst case of checking this payload is some milliseconds."""
        values = _values_in(payload_text)
        if self.cost.steps * values > STEPS_HERE_MAX or self.cost.byte_ns * len(payload_text) > BYTE_NS_HERE_MAX:
            return False
        # Equal items are found by hash, but for large numbers, whose hashes collide: each is then compared with each, at 15 steps.
        return not self.cost.unique or 15 * values * values <= STEPS_HERE_MAX or _LARGE_NUMBER.search(payload_text) is None

    def is_cheap_to_explain(self, payload_text: str) -> bool:
        """Whether its faults can be listed in some milliseconds."""
        steps = self.cost.steps * _values_in(payload_text)
        return steps <= FAULT_STEPS_HERE_MAX and self.cost.steps * len(payload_text) <= FAULT_BYTES_HERE_MAX


def compile_schema(text: str, *, default_draft: str = DRAFT_2020_12) -> CompiledSchema:
    """Examine and compile a schema. Raises InvalidInput with every fault; pointers begin at `/schema`."""
    schema = _object(text)
    draft = _draft_of(schema, default_draft)
    _require_metaschema(schema, draft)
    cost = _require_bounded(SchemaGraph(schema, draft))
    began_s = time.process_time()
    validator = compile_validator(text, draft)
    return CompiledSchema(draft, cost, validator, time.process_time() - began_s)


def compile_here(text: str, *, default_draft: str = DRAFT_2020_12) -> CompiledSchema | None:
    """For a schema that passed compile_schema() before: compiled in a few milliseconds, or None when that might take longer."""
    if len(text) > SCHEMA_CHARS_HERE_MAX:
        return None
    schema = _object(text)
    draft = _draft_of(schema, default_draft)
    graph = SchemaGraph(schema, draft)
    if not graph.plain or patterns_may_be_large(graph):
        return None
    cost = _require_bounded(graph)
    if cost.unsafe or cost.steps > COMPILE_STEPS_HERE_MAX:
        return None
    return CompiledSchema(draft, cost, _compile(schema, draft), 0.0)


def compile_examined(text: str, draft: str, cost: SchemaCost, compile_s: float) -> CompiledSchema | None:
    """From what compile_schema() found out about this text in another process; None when it should not run in this one."""
    if cost.unsafe or compile_s > COMPILE_S_HERE_MAX:
        return None
    return CompiledSchema(draft, cost, _compile(_object(text), draft), compile_s)


def compile_validator(text: str, default_draft: str) -> jsonschema_rs.Validator:
    """Without examining it: for a helper process, where nothing has to be bounded."""
    schema = _object(text)
    return _compile(schema, _draft_of(schema, default_draft))


def first_faults(errors: Iterable[jsonschema_rs.ValidationError], root: str) -> list[Fault]:
    """The first FAULTS_MAX of them, each cut to a length that can be shown."""
    return [fault_of(error, root) for error in islice(errors, FAULTS_MAX)]


def fault_of(error: jsonschema_rs.ValidationError, root: str) -> Fault:
    """root: the pointer of the whole value that was checked."""
    pointer = root + "".join(f"/{token(str(part))}" for part in error.instance_path)
    return Fault(pointer[:POINTER_MAX_CHARS], short(error.message))


def short(message: str) -> str:
    """A message may quote a whole payload: its beginning and its end."""
    if len(message) <= MESSAGE_MAX_CHARS:
        return message
    return f"{message[: MESSAGE_MAX_CHARS // 2]} … {message[-MESSAGE_MAX_CHARS // 2 :]}"


def _object(text: str) -> dict[str, Any]:
    schema = parse_strict(text.encode())
    if not isinstance(schema, dict):
        raise InvalidInput.at("/schema", "must be a JSON object")
    return schema


def _draft_of(schema: dict[str, Any], default_draft: str) -> str:
    named = schema.get("$schema")
    if named is None:
        return default_draft
    scheme, _, address = str(named).removesuffix("#").partition("://")
    draft = _DRAFT_OF.get(address) if scheme in ("http", "https") else None
    if draft is None:
        raise InvalidInput.at("/schema/$schema", f"names no draft that is known here: {', '.join(_METASCHEMAS.values())}")
    return draft


def _require_metaschema(schema: dict[str, Any], draft: str) -> None:
    if faults := first_faults(_metaschema(draft).iter_errors(schema), "/schema"):
        raise InvalidInput.of_faults(faults)


@cache
def _metaschema(draft: str) -> jsonschema_rs.Validator:
    return _VALIDATORS[draft]({"$ref": _METASCHEMAS[draft]}, offline=True)


def _require_bounded(graph: SchemaGraph) -> SchemaCost:
    cost, faults = examine(graph)
    if faults:
        raise InvalidInput.of_faults([Fault("/schema" + fault.pointer, fault.message) for fault in faults[:FAULTS_MAX]])
    return cost


def _compile(schema: dict[str, Any], draft: str) -> jsonschema_rs.Validator:
    try:
        return _VALIDATORS[draft](schema, offline=True, validate_formats=True, pattern_options=pattern_options())
    except jsonschema_rs.ValidationError as error:
        raise InvalidInput.of_faults([fault_of(error, "/schema")]) from None
    except ValueError as error:
        raise InvalidInput.at("/schema", short(str(error))) from None


def _values_in(text: str) -> int:
    """At least the number of values in a JSON text: each but the first stands behind a comma or a colon, or begins a list."""
    return 1 + text.count(",") + text.count(":") + text.count("[")
