"""JSON that will survive: a strict reading of a body, and the compact form of a text that changes nothing of its meaning.

What is refused here could not be stored and given back exactly, or would be read differently by the next reader: duplicate members, NUL, lone
surrogates, invalid UTF-8, numbers beyond a double's range written with an exponent, integers over 1,000 digits, depth over 128. Everything else in
a payload comes back as it was sent. Source: contract `rest.md`, "Rules for every route".

The straight way is one pass of the C decoder with cheap looks at the text before it. Whatever looks suspicious goes a slower way, which tells every
fault with its place.
"""

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec

from xzepr.errors import Fault, MalformedBody

DEPTH_MAX: Final = 128
INTEGER_DIGITS_MAX: Final = 1000
# Faults told at once; a hostile body could hold a million.
FAULTS_MAX: Final = 50

_ESCAPE_TO_CHECK: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_LONG_DIGITS: Final = re.compile(r"(?<!\d)\d{1001}")
_NESTING: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class _Suspicious(Exception):
    """The slower way must look."""


class _Pairs(list[tuple[str, Any]]):
    """An object with its members as written, for the slower way."""


class _Refused:
    """A number that cannot be kept."""

    def __init__(self, why: str) -> None:
        self.why = why


def parse_strict(body: bytes) -> Any:
    """The decoded tree: objects, lists, str, int (exact), float, bool, None. Raises MalformedBody with the place of every fault."""
    text = _text(body)
    _require_depth(text)
    if _ESCAPE_TO_CHECK.search(text) or _LONG_DIGITS.search(text):
        return _parse_slowly(text)
    try:
        return _FAST.decode(text)
    except json.JSONDecodeError as error:
        raise _malformed(error) from None
    except _Suspicious:
        return _parse_slowly(text)


def compact(raw: bytes | str) -> str:
    """The same JSON text less the white space outside strings. Key order, numbers and escapes stay as written."""
    formatted = msgspec.json.format(raw, indent=-1)
    return formatted.decode() if isinstance(formatted, bytes) else formatted


def _text(body: bytes) -> str:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8: byte {error.start}", faults=(Fault("", f"is not UTF-8: byte {error.start}"),)) from None
    if text.startswith("\ufeff"):
        raise MalformedBody("the body begins with a byte order mark", faults=(Fault("", "begins with a byte order mark"),))
    return text


def _require_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return
    depth = 0
    for match in _NESTING.finditer(text):
        token = match[0]
        if token in "[{":
            depth += 1
            if depth > DEPTH_MAX:
                message = f"is nested deeper than {DEPTH_MAX} levels, at character {match.start()}"
                raise MalformedBody(f"the body {message}", faults=(Fault("", message),))
        elif token in "]}":
            depth -= 1


def _malformed(error: json.JSONDecodeError) -> MalformedBody:
    message = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    return MalformedBody(f"the body {message}", faults=(Fault("", message),))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Suspicious
    return members


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _Suspicious
    return number


def _constant(_: str) -> Any:
    raise _Suspicious


_FAST: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)


def _slow_int(text: str) -> Any:
    if len(text.lstrip("-")) > INTEGER_DIGITS_MAX:
        return _Refused(f"is an integer of more than {INTEGER_DIGITS_MAX} digits")
    return int(text)


def _slow_float(text: str) -> Any:
    number = float(text)
    if not math.isinf(number):
        return number
    if "e" in text.lower():
        return _Refused("is a number beyond the range of a double")
    # Written out in full it is exact as text; for the check by a schema its whole part stands for it.
    return int(Decimal(text))


def _slow_constant(text: str) -> Any:
    return _Refused(f"{text} is not JSON")


_SLOW: Final = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=_slow_int, parse_float=_slow_float, parse_constant=_slow_constant)


def _parse_slowly(text: str) -> Any:
    """Like the straight way, with every fault and its pointer."""
    try:
        tree = _SLOW.decode(text)
    except json.JSONDecodeError as error:
        raise _malformed(error) from None
    faults: list[Fault] = []
    for fault in _faults(tree, ""):
        faults.append(fault)
        if len(faults) == FAULTS_MAX:
            break
    if faults:
        first = MalformedBody.of_faults(faults)
        raise MalformedBody(first.message, faults=tuple(faults))
    return _plain(tree)


def _faults(value: Any, pointer: str) -> Iterator[Fault]:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, member in value:
            place = f"{pointer}/{_shown(key)}"
            if key in seen:
                yield Fault(place, "stands there twice")
            seen.add(key)
            yield from _text_faults(key, place, "the name of the member ")
            yield from _faults(member, place)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, f"{pointer}/{index}")
    elif isinstance(value, str):
        yield from _text_faults(value, pointer, "")
    elif isinstance(value, _Refused):
        yield Fault(pointer, value.why)


def _text_faults(text: str, pointer: str, what: str) -> Iterator[Fault]:
    if "\x00" in text:
        yield Fault(pointer, f"{what}holds NUL (\\u0000)")
    if _SURROGATE.search(text):
        yield Fault(pointer, f"{what}holds a lone surrogate (\\ud800 to \\udfff)")


def _shown(key: str) -> str:
    """A member's name as a pointer's token that can be sent: short, and valid Unicode."""
    safe = _SURROGATE.sub("\ufffd", key[:80]).replace("\x00", "\ufffd")
    return safe.replace("~", "~0").replace("/", "~1")


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {key: _plain(member) for key, member in value}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
