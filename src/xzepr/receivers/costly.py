"""The helper process for costly checks: `python -m xzepr.receivers.costly`, started by helpers.py.

Orders come in on standard input, answers go out on standard output, each as JSON behind four bytes of length; before the first order it says that
it is ready. The process ends at the end of standard input. It dies when one order has used ORDER_CPU_S of processor time (a timer of the kernel,
whose signal needs no interpreter), when it wants more than MEMORY_MAX_BYTES, and when its parent is gone.

A payload that is not valid is answered twice: at once with its first fault, then with all of them, which may take so long that it dies.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from typing import BinaryIO, Final, Literal

import jsonschema_rs
import msgspec

from xzepr.errors import Fault, InvalidInput
from xzepr.json_text import parse_strict
from xzepr.receivers.schema import FAULTS_MAX, compile_schema, compile_validator, fault_of, first_faults
from xzepr.receivers.schema_cost import SchemaCost

ORDER_CPU_S: Final = 1.0
# Of address space: a list of faults may quote the payload a thousand times.
MEMORY_MAX_BYTES: Final = 1 << 30
COMPILED_MAX: Final = 8
EXIT_BROKEN: Final = 1
EXIT_NO_MEMORY: Final = 71
LENGTH: Final = struct.Struct("!I")
READY: Final = b"+"
_PR_SET_PDEATHSIG: Final = 1


class HelperOrder(msgspec.Struct):
    """schema: examine and compile schema_text; payload: check payload_text with it. draft: in a schema, what `$schema` absent stands for."""

    act: Literal["schema", "payload"]
    schema_text: str
    draft: str
    payload_text: str = ""


class HelperAnswer(msgspec.Struct):
    """valid: of schema or payload; faults: up to a bound, more: how many are not listed; final: no other answer follows.

    draft, cost, compile_s: of a schema that is valid.
    """

    valid: bool
    faults: list[Fault] = []
    more: int = 0
    final: bool = True
    draft: str = ""
    cost: SchemaCost | None = None
    compile_s: float = 0.0


def framed(message: msgspec.Struct) -> bytes:
    """As it goes over the pipe."""
    body = msgspec.json.encode(message)
    return LENGTH.pack(len(body)) + body


def serve(orders: BinaryIO, answers: BinaryIO) -> None:
    """Until the end of orders."""
    compiled: dict[tuple[str, str], jsonschema_rs.Validator] = {}
    while head := orders.read(LENGTH.size):
        (length,) = LENGTH.unpack(head)
        order = msgspec.json.decode(orders.read(length), type=HelperOrder)
        signal.setitimer(signal.ITIMER_PROF, ORDER_CPU_S)
        answer = _examined(order) if order.act == "schema" else _checked(order, compiled, answers)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(framed(answer))
        answers.flush()


def _examined(order: HelperOrder) -> HelperAnswer:
    try:
        schema = compile_schema(order.schema_text, default_draft=order.draft)
    except InvalidInput as error:
        return HelperAnswer(False, list(error.faults))
    return HelperAnswer(True, draft=schema.draft, cost=schema.cost, compile_s=schema.compile_s)


def _checked(order: HelperOrder, compiled: dict[tuple[str, str], jsonschema_rs.Validator], answers: BinaryIO) -> HelperAnswer:
    key = (order.draft, order.schema_text)
    validator = compiled.get(key)
    if validator is None:
        if len(compiled) >= COMPILED_MAX:
            del compiled[next(iter(compiled))]
        try:
            validator = compiled[key] = compile_validator(order.schema_text, order.draft)
        except InvalidInput as error:
            # A schema that passed by rules that have changed since: no payload satisfies it, and this is why.
            return HelperAnswer(False, list(error.faults))
    payload = parse_strict(order.payload_text.encode())
    if validator.is_valid(payload):
        return HelperAnswer(True)
    try:
        validator.validate(payload)
    except jsonschema_rs.ValidationError as error:
        answers.write(framed(HelperAnswer(False, [fault_of(error, "/payload")], final=False)))
        answers.flush()
    errors = validator.iter_errors(payload)
    faults = first_faults(errors, "/payload")
    return HelperAnswer(False, faults, more=sum(1 for _ in errors) if len(faults) == FAULTS_MAX else 0)


def _die_with_parent() -> None:
    """The signal comes when the thread that started this process ends: a main thread. Only Linux has it; elsewhere the end of input ends this."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit()


def _bound_oneself() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C in a terminal reaches the whole group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main() -> None:
    """Serve until the parent has no more orders."""
    _die_with_parent()
    _bound_oneself()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # A stray print must not end up among the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    answers.write(READY)
    answers.flush()
    try:
        serve(sys.stdin.buffer, answers)
    except MemoryError:
        os._exit(EXIT_NO_MEMORY)


if __name__ == "__main__":
    main()
