"""JSON that will survive: a strict reading of a body, and the compact form of a text that changes nothing of its meaning.

What is refused here could not be stored and given back exactly, or would be read differently by the next reader: duplicate members, NUL, lone
surrogates, invalid UTF-8, a byte order mark, numbers beyond a double's range written with an exponent, integers over 1,000 digits, depth over 128.
Everything else in a payload comes back as it was sent. Source: contract `rest.md`, "Rules for every route".

The straight way is one pass of the C decoder with cheap looks at the text around it: 1 kB takes some 5 microseconds. Whatever looks suspicious
goes a slower way, which tells every fault with its place; both take time in proportion to the length of the text, whatever it holds.
"""

import json
import math
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

import msgspec

from xzepr.errors import Fault, MalformedBody

DEPTH_MAX: Final = 128
INTEGER_DIGITS_MAX: Final = 1000
# Faults told at once; a hostile body could hold a million.
FAULTS_MAX: Final = 50

_ESCAPE_TO_CHECK: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
# Every escape from the left, so that the second half of an escaped backslash begins none. Group 1: NUL or a surrogate without its partner.
_ESCAPE: Final = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]|u(0000|[dD][89a-fA-F])|.)", re.DOTALL)
_ALL_DIGITS_ZERO: Final = bytes(ord("0") if chr(byte) in "123456789" else byte for byte in range(256))
_TOO_MANY_DIGITS: Final = b"0" * (INTEGER_DIGITS_MAX + 1)
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if chr(byte) not in "[]{}")
# How each bracket changes the depth.
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
# A string that never ends is taken to the end of the text: trying again at each quote in it would take for ever.
_STRING_OR_BRACKET: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


_decode_any: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_decode_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Suspicious(Exception):
    """The slower way must look."""


class _Pairs(list[tuple[str, Any]]):
    """An object with its members as written, for the slower way."""


class _Refused:
    """A number that cannot be kept."""

    def __init__(self, why: str) -> None:
        self.why = why


def parse_strict(body: bytes) -> Any:
    """The decoded tree: objects, lists, str, int (exact), float, bool, None. Raises MalformedBody with the place of every fault.

    A number with a fraction becomes the nearest double, as nearly every reader of JSON has it; one beyond a double's range that is written out in
    full is legal, and becomes the integer that its digits before the point make.
    """
    plain = _plain_text_in_depth(body)
    return plain[1] if plain is not None else _parse(body)


def read_strict(body: bytes) -> tuple[bytes, Any]:
    """The compact text of a body and its tree, as compact() and parse_strict() make them. Raises MalformedBody."""
    plain = _plain_text_in_depth(body)
    if plain is not None:
        return plain
    tree = _parse(body)
    return compact(body).encode(), tree


def _parse(body: bytes) -> Any:
    """Of what is not plainly in order, and not too deep."""
    text = _text(body)
    if ("\\u" in text and _has_bad_escape(text)) or _has_long_digits(body):
        return _parse_slowly(text)
    try:
        return _FAST.decode(text)
    except json.JSONDecodeError as error:
        raise _malformed(error) from None
    except _Suspicious:
        return _parse_slowly(text)


def plain_texts(texts: list[bytes]) -> tuple[bytes, list[Any]] | None:
    """Several at once: the compact text of their array, and the tree of each. None when one is not plainly in order for itself."""
    if not all(_brackets(text) <= DEPTH_MAX for text in texts):
        return None
    array = b"[" + b",".join(texts) + b"]"
    found = _plain_text(array)
    # Two texts that are none could make one, and one two.
    return found if found is not None and [bytes(item) for item in _decode_items(array)] == texts else None


def _plain_text_in_depth(body: bytes) -> tuple[bytes, Any] | None:
    """Raises MalformedBody for one that is too deep."""
    if _brackets(body) > DEPTH_MAX:
        _require_depth(body, _text(body))
    return _plain_text(body)


def _plain_text(body: bytes) -> tuple[bytes, Any] | None:
    """The compact text of a body that is plainly in order, and its tree; None says nothing. Depth is not looked at here.

    In order is what the encoder would write just so: then no member stands there twice, since the tree would have lost it.
    """
    if (b"\\" in body and b"\\u" in body) or _has_long_digits(body):
        return None
    try:
        tree = _decode_any(body)
        text: bytes = msgspec.json.format(body, indent=-1)
        if _encode(tree) != text or not (body.isascii() or body.decode()):
            return None
    except (msgspec.DecodeError, msgspec.EncodeError, UnicodeError, OverflowError):
        # The last is for integers that the encoder does not write.
        return None
    return text, tree


def _brackets(body: bytes) -> int:
    """No text is nested deeper than it has opening brackets."""
    return body.count(b"[") + body.count(b"{")


def compact(raw: bytes | str) -> str:
    """The same JSON text less the white space outside strings. Key order, numbers and escapes stay as written.

    For text that parse_strict has passed; UTF-8 and depth are not looked at here. Raises msgspec.DecodeError for what is not JSON.
    """
    formatted = msgspec.json.format(raw, indent=-1)
    return formatted.decode() if isinstance(formatted, bytes) else formatted


def _text(body: bytes) -> str:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"is not UTF-8: byte {error.start}") from None
    if text.startswith("\ufeff"):
        raise _refused("begins with a byte order mark")
    return text


def _refused(message: str) -> MalformedBody:
    return MalformedBody(f"the body {message}", faults=(Fault("", message),))


def _malformed(error: json.JSONDecodeError) -> MalformedBody:
    return _refused(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}")


def _require_depth(body: bytes, text: str) -> None:
    """Before the decoder, which would run out of stack. Only brackets outside strings count."""
    outside = body
    if b"\\" in outside:
        outside = outside.replace(b"\\\\", b"").replace(b'\\"', b"")
    if b'"' in outside:
        outside = b"".join(outside.split(b'"')[::2])
    brackets = outside.translate(None, _NO_BRACKETS)
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > DEPTH_MAX:
        raise _refused(f"is nested deeper than {DEPTH_MAX} levels{_place_of_depth(text)}")


def _place_of_depth(text: str) -> str:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        depth += _STEP.get(ord(match[0][0]), 0)
        if depth > DEPTH_MAX:
            line = text.count("\n", 0, match.start()) + 1
            return f" at line {line}, column {match.start() - text.rfind(chr(10), 0, match.start())}"
    return ""


def _has_bad_escape(text: str) -> bool:
    """Whether an escape stands for NUL or for a surrogate that has no partner."""
    if _ESCAPE_TO_CHECK.search(text) is None:
        return False
    return any(match[1] is not None for match in _ESCAPE.finditer(text))


def _has_long_digits(body: bytes) -> bool:
    return len(body) > INTEGER_DIGITS_MAX and _TOO_MANY_DIGITS in body.translate(_ALL_DIGITS_ZERO)


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
    if "e" in text or "E" in text:
        return _Refused("is a number beyond the range of a double, written with an exponent")
    whole = text.partition(".")[0]
    if len(whole.lstrip("-")) > INTEGER_DIGITS_MAX:
        # Larger than every integer that is taken; converting a million digits would take seconds.
        whole = whole[: whole.startswith("-")] + "1" + "0" * INTEGER_DIGITS_MAX
    return int(whole)


_CONSTANTS: Final = {name: _Refused(f"{name} is not JSON") for name in ("NaN", "Infinity", "-Infinity")}
_SLOW: Final = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=_slow_int, parse_float=_slow_float, parse_constant=_CONSTANTS.__getitem__)


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
        raise MalformedBody.of_faults(faults)
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
