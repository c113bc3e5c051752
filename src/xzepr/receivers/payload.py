"""A payload against its receiver's JSON Schema, without letting anybody's schema or payload hold up the others.

When a receiver is made, its schema is examined once, in a helper process: is it a schema of a draft that we know, does it refer to nothing outside,
can its patterns run in linear time, is its weight bounded. After that a check happens right here when its estimated worst case is some milliseconds
(almost all are), and in a helper process that is killed after a second when it is not: recursion, a large payload, a heavy schema. Compiled schemas
are kept by receiver and version, the least recently used dropped first.
"""

from collections import OrderedDict
from typing import Any, Final

import jsonschema_rs

from xzepr.errors import Fault, InvalidInput, PayloadMismatch, ValidationTooCostly
from xzepr.json_text import parse_strict
from xzepr.receivers.costly import Helpers, TooCostly
from xzepr.receivers.schema_cost import PatternOptions, SchemaCost, examine

FAULTS_MAX: Final = 50
MESSAGE_MAX_CHARS: Final = 300
COMPILED_MAX: Final = 1_000
# One step of checking takes some 20 ns; what is estimated above this may hold the process up for more than 10 ms and goes to a helper.
STEPS_HERE_MAX: Final = 500_000
PATTERN_NS_HERE_MAX: Final = 20_000_000
# Listing faults costs more than finding out that there are some: each may quote a part of the payload.
FAULT_STEPS_HERE_MAX: Final = 5_000
FAULT_BYTES_HERE_MAX: Final = 2_000_000
# A schema this large is not even compiled here.
SCHEMA_BYTES_HERE_MAX: Final = 64 * 1024
PATTERNS_HERE_MAX: Final = 200

_VALIDATORS: Final[dict[str, Any]] = {
    "2020-12": jsonschema_rs.Draft202012Validator,
    "2019-09": jsonschema_rs.Draft201909Validator,
    "7": jsonschema_rs.Draft7Validator,
    "6": jsonschema_rs.Draft6Validator,
    "4": jsonschema_rs.Draft4Validator,
}
_METASCHEMAS: Final = {
    "2020-12": "https://json-schema.org/draft/2020-12/schema",
    "2019-09": "https://json-schema.org/draft/2019-09/schema",
    "7": "http://json-schema.org/draft-07/schema",
    "6": "http://json-schema.org/draft-06/schema",
    "4": "http://json-schema.org/draft-04/schema",
}
_DRAFT_OF: Final = {address.split("//")[1]: draft for draft, address in _METASCHEMAS.items()}


def draft_of(schema: dict[str, Any], default_draft: str) -> str | None:
    """ "2020-12", "2019-09", "7", "6" or "4" by `$schema`, the default when it is absent; None for one that we do not know."""
    named = schema.get("$schema")
    if named is None:
        return default_draft
    return _DRAFT_OF.get(str(named).rstrip("#").split("//")[-1])


def compile_validator(schema: dict[str, Any], draft: str) -> Any:
    """For checking payloads: formats asserted, nothing fetched, patterns in linear time. Raises ValueError."""
    return _VALIDATORS[draft](schema, offline=True, validate_formats=True, pattern_options=PatternOptions().build())


def schema_faults(schema: Any, default_draft: str) -> list[Fault]:
    """Why this cannot be a receiver's schema; pointers begin at `/schema`. May take long: meant for a helper."""
    if not isinstance(schema, dict):
        return [Fault("/schema", "must be a JSON object")]
    draft = draft_of(schema, default_draft)
    if draft is None:
        return [Fault("/schema/$schema", f"names no draft that is known here: {', '.join(_METASCHEMAS.values())}")]
    metaschema = _VALIDATORS[draft]({"$ref": _METASCHEMAS[draft]}, offline=True)
    errors = metaschema.iter_errors(schema)
    if faults := [_fault(error, "/schema") for error, _ in zip(errors, range(FAULTS_MAX), strict=False)]:
        return faults
    _, found = examine(schema, _METASCHEMAS[draft])
    if found:
        return [Fault("/schema" + fault.pointer, fault.message) for fault in found[:FAULTS_MAX]]
    try:
        compile_validator(schema, draft)
    except jsonschema_rs.ValidationError as error:
        return [_fault(error, "/schema")]
    except ValueError as error:
        return [Fault("/schema", _short(str(error)))]
    return []


def payload_faults(validator: Any, payload: Any) -> tuple[list[Fault], int]:
    """Up to FAULTS_MAX of them, and how many more there are."""
    errors = list(validator.iter_errors(payload))
    return [_fault(error, "/payload") for error in errors[:FAULTS_MAX]], max(len(errors) - FAULTS_MAX, 0)


class _Compiled:
    """A receiver version's schema, ready. validator: None when every check goes to a helper."""

    __slots__ = ("cost", "draft", "validator")

    def __init__(self, schema_text: str, default_draft: str) -> None:
        schema = parse_strict(schema_text.encode())
        self.draft = draft_of(schema, default_draft) or default_draft
        self.cost: SchemaCost | None = None
        self.validator: Any = None
        if len(schema_text) > SCHEMA_BYTES_HERE_MAX:
            return
        self.cost, _ = examine(schema, _METASCHEMAS[self.draft])
        if not self.cost.recursive and self.cost.patterns <= PATTERNS_HERE_MAX:
            self.validator = compile_validator(schema, self.draft)

    def is_cheap(self, payload_text: str) -> bool:
        """Whether the worst case of checking this payload is some milliseconds."""
        if self.validator is None or self.cost is None:
            return False
        return self.cost.weight * _items_in(payload_text) <= STEPS_HERE_MAX and self.cost.pattern_ns * len(payload_text) <= PATTERN_NS_HERE_MAX

    def is_cheap_to_explain(self, payload_text: str) -> bool:
        assert self.cost is not None
        steps = self.cost.weight * _items_in(payload_text)
        return steps <= FAULT_STEPS_HERE_MAX and self.cost.weight * len(payload_text) <= FAULT_BYTES_HERE_MAX


class PayloadChecker:
    """One per process."""

    def __init__(self) -> None:
        self._helpers = Helpers()
        self._compiled: OrderedDict[tuple[str, int], _Compiled] = OrderedDict()

    async def check_schema(self, schema_text: str, default_draft: str) -> None:
        """Raises InvalidInput with every fault (pointers begin at `/schema`), Unavailable when too many wait for a helper."""
        try:
            answer = await self._helpers.ask({"act": "schema", "schema": schema_text, "default_draft": default_draft})
        except TooCostly:
            raise InvalidInput.at("/schema", "takes too long to be examined; make it smaller") from None
        if answer.faults:
            raise InvalidInput.of_faults(answer.faults)

    async def check(
        self, event_receiver_id: str, resource_version: int, schema_text: str, default_draft: str, payload: Any, payload_text: str
    ) -> None:
        """Raises PayloadMismatch with one JSON pointer per fault, ValidationTooCostly, Unavailable when too many wait for a helper.

        payload: the decoded tree of payload_text. The schema must have passed check_schema.
        """
        compiled = self._get(event_receiver_id, resource_version, schema_text, default_draft)
        if compiled.is_cheap(payload_text):
            if compiled.validator.is_valid(payload):
                return
            if compiled.is_cheap_to_explain(payload_text):
                raise _mismatch(*payload_faults(compiled.validator, payload))
        order = {"act": "payload", "schema": schema_text, "default_draft": compiled.draft, "payload": payload_text}
        try:
            answer = await self._helpers.ask(order)
        except TooCostly:
            raise ValidationTooCostly from None
        if not answer.valid:
            raise _mismatch(answer.faults, answer.more)

    async def close(self) -> None:
        """End the helpers."""
        await self._helpers.close()

    def _get(self, event_receiver_id: str, resource_version: int, schema_text: str, default_draft: str) -> _Compiled:
        key = (event_receiver_id, resource_version)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = _Compiled(schema_text, default_draft)
            if len(self._compiled) > COMPILED_MAX:
                self._compiled.popitem(last=False)
        else:
            self._compiled.move_to_end(key)
        return compiled


def _mismatch(faults: list[Fault], more: int) -> PayloadMismatch:
    if not faults:
        faults = [Fault("/payload", "does not satisfy the schema; it has too many faults to be listed in time")]
    shown = [*faults, Fault("/payload", f"and {more} more")] if more else faults
    others = f" (and {len(faults) - 1 + more} more)" if len(faults) + more > 1 else ""
    return PayloadMismatch(
        f"the payload does not satisfy the receiver's schema: {faults[0].pointer} {faults[0].message}{others}", faults=tuple(shown)
    )


def _items_in(text: str) -> int:
    """At least the number of values in a JSON text: each but the first stands behind a comma or a colon, or begins a list."""
    return 1 + text.count(",") + text.count(":") + text.count("[")


def _fault(error: Any, root: str) -> Fault:
    pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.instance_path)
    return Fault((root + pointer)[:1_000], _short(error.message))


def _short(message: str) -> str:
    """A message may quote a whole payload."""
    line = " ".join(message.split()) if len(message) < 10_000 else message[:MESSAGE_MAX_CHARS]
    return line if len(line) <= MESSAGE_MAX_CHARS else line[: MESSAGE_MAX_CHARS // 2] + " … " + line[-MESSAGE_MAX_CHARS // 2 :]
