"""A payload against its receiver's JSON Schema, without letting anybody's schema or payload hold up the others.

When a receiver is made, its schema is examined in a helper process: is it a schema of a draft that we know, does it refer to nothing outside, can
its patterns run in linear time, are its steps bounded (schema.py, schema_cost.py). After that a check happens right here when its estimated worst
case is some milliseconds (almost all are), and in a helper process that is killed after a second of work when it is not: recursion that branches,
a large payload, a heavy schema (costly.py, helpers.py). Compiled schemas are kept by receiver and version, the least recently used dropped first.
"""

import asyncio
from collections import OrderedDict
from typing import Any, Final

from xzepr.errors import Fault, InvalidInput, PayloadMismatch, ValidationTooCostly
from xzepr.receivers.costly import HelperOrder
from xzepr.receivers.helpers import Helpers, TooCostly
from xzepr.receivers.schema import CompiledSchema, compile_examined, compile_here, first_faults

KEPT_MAX: Final = 1_000
KEPT_BYTES_MAX: Final = 64 << 20
# What a compiled schema takes in memory, for each character of its text and for each byte of its patterns; roughly.
_BYTES_PER_CHAR: Final = 40
_BYTES_PER_PATTERN_BYTE: Final = 4
_EXAMINING: Final = "examining schemas"


class _Kept:
    """compiled: None when every check goes to a helper."""

    __slots__ = ("compiled", "size_bytes")

    def __init__(self, compiled: CompiledSchema | None, schema_text: str) -> None:
        self.compiled = compiled
        self.size_bytes = 1_000
        if compiled is not None:
            self.size_bytes += _BYTES_PER_CHAR * len(schema_text) + _BYTES_PER_PATTERN_BYTE * compiled.cost.pattern_bytes


class PayloadChecker:
    """One per process, of one event loop."""

    def __init__(self) -> None:
        self._helpers = Helpers()
        self._kept: OrderedDict[tuple[str, int], _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._compiling: dict[tuple[str, int], asyncio.Task[_Kept]] = {}

    async def check_schema(self, schema_text: str, default_draft: str) -> None:
        """Raises InvalidInput with every fault (pointers begin at `/schema`), Unavailable when too many wait for a helper."""
        try:
            answer = await self._helpers.ask(HelperOrder("schema", schema_text, default_draft), _EXAMINING)
        except TooCostly:
            raise InvalidInput.at("/schema", "takes too long to be examined; make it smaller") from None
        if not answer.valid:
            raise InvalidInput.of_faults(answer.faults)

    async def check(
        self, event_receiver_id: str, resource_version: int, schema_text: str, default_draft: str, payload: Any, payload_text: str
    ) -> None:
        """Raises PayloadMismatch with one JSON pointer per fault, ValidationTooCostly, Unavailable when too many wait for a helper.

        payload: the decoded tree of payload_text, by parse_strict. The schema must have passed check_schema.
        """
        key = (event_receiver_id, resource_version)
        kept = self._kept.get(key)
        if kept is None:
            kept = await self._compiled_once(key, schema_text, default_draft)
        else:
            self._kept.move_to_end(key)
        compiled = kept.compiled
        if compiled is not None and compiled.is_cheap(payload_text):
            if compiled.validator.is_valid(payload):
                return
            if compiled.is_cheap_to_explain(payload_text):
                errors = list(compiled.validator.iter_errors(payload))
                faults = first_faults(errors, "/payload")
                raise _mismatch(faults, len(errors) - len(faults))
        await self._check_elsewhere(event_receiver_id, HelperOrder("payload", schema_text, default_draft, payload_text))

    def is_plainly_valid(self, event_receiver_id: str, resource_version: int, payload: Any, payload_text: str) -> bool:
        """Whether it satisfies a schema that is in memory, by a check that is cheap. False says nothing."""
        kept = self._kept.get((event_receiver_id, resource_version))
        compiled = kept.compiled if kept is not None else None
        return compiled is not None and compiled.is_cheap(payload_text) and compiled.validator.is_valid(payload)

    async def close(self) -> None:
        """End the helpers. Nothing may be asked afterwards."""
        for task in self._compiling.values():
            task.cancel()
        await self._helpers.close()

    async def _check_elsewhere(self, event_receiver_id: str, order: HelperOrder) -> None:
        try:
            answer = await self._helpers.ask(order, event_receiver_id)
        except TooCostly as error:
            if not error.faults:
                raise ValidationTooCostly from None
            unlisted = Fault("/payload", "and maybe more: there are too many faults, or too large ones, to list them all in time")
            raise _mismatch([*error.faults, unlisted], 0) from None
        if not answer.valid:
            raise _mismatch(answer.faults, answer.more)

    async def _compiled_once(self, key: tuple[str, int], schema_text: str, default_draft: str) -> _Kept:
        """Who comes while it is being compiled waits for the same work."""
        task = self._compiling.get(key)
        if task is None:
            task = self._compiling[key] = asyncio.create_task(self._compile(key, schema_text, default_draft))
            task.add_done_callback(lambda done: self._compile_done(key, done))
        return await asyncio.shield(task)

    def _compile_done(self, key: tuple[str, int], task: "asyncio.Task[_Kept]") -> None:
        del self._compiling[key]
        if not task.cancelled():
            # Looked at here in case that everybody who waited has gone.
            task.exception()

    async def _compile(self, key: tuple[str, int], schema_text: str, default_draft: str) -> _Kept:
        try:
            compiled = compile_here(schema_text, default_draft=default_draft)
        except InvalidInput:
            # It passed when the receiver was made, by rules that have changed since; a helper can still try.
            compiled = None
        else:
            compiled = compiled or await self._examined(key[0], schema_text, default_draft)
        kept = _Kept(compiled, schema_text)
        self._kept[key] = kept
        self._kept_bytes += kept.size_bytes
        while len(self._kept) > KEPT_MAX or (self._kept_bytes > KEPT_BYTES_MAX and len(self._kept) > 1):
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= dropped.size_bytes
        return kept

    async def _examined(self, event_receiver_id: str, schema_text: str, default_draft: str) -> CompiledSchema | None:
        """Compiled here with what a helper found out about it; None when it may not run here."""
        try:
            answer = await self._helpers.ask(HelperOrder("schema", schema_text, default_draft), event_receiver_id)
        except TooCostly:
            return None
        if answer.cost is None:
            return None
        return compile_examined(schema_text, answer.draft, answer.cost, answer.compile_s)


def _mismatch(faults: list[Fault], more: int) -> PayloadMismatch:
    shown = [*faults, Fault("/payload", f"and {more} more faults")] if more else faults
    others = f" (and {len(faults) - 1 + more} more)" if len(faults) + more > 1 else ""
    told = f"the payload does not satisfy the receiver's schema: {faults[0].pointer} {faults[0].message}{others}"
    return PayloadMismatch(told, faults=tuple(shown))
