"""One value: from text or YAML to its key's type, and that type in words.

Text is what the environment and secret files hold: a list is comma-separated, a list of objects or a mapping is JSON. A value that does not fit
is a ValueError whose message says what the key takes; it shows what was given only where that is no secret.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from xzepr.settings.model import SECRETS, Knob

SHOWN_MAX = 60


def convert(knob: Knob, raw: Any, *, is_text: bool) -> Any:
    """As the key's type. is_text: from the environment or a secret file. Raises ValueError."""
    kind = _inner(inspect.type_info(knob.type))
    if is_text:
        raw = _from_text(kind, raw)
    elif knob.path == "kafka.brokers" and isinstance(raw, str):
        # Older deployments give one string here.
        raw = _split(raw)
    if raw == "" and _takes_null(kind):
        raw = None
    try:
        value = msgspec.convert(raw, knob.type, strict=not is_text)
    except msgspec.ValidationError as error:
        raise ValueError(_reason(knob, kind, raw, str(error))) from None
    _require_storable(value)
    return value


def in_words(hint: Any) -> str:
    """What a type takes: `a whole number from 0 to 65535`."""
    return _words(inspect.type_info(hint))


def texts(value: Any) -> Iterator[str]:
    """Every text within a value, the keys of mappings included."""
    match msgspec.to_builtins(value):
        case str() as text:
            yield text
        case list() as items:
            for item in items:
                yield from texts(item)
        case dict() as mapping:
            for key, item in mapping.items():
                yield from texts(key)
                yield from texts(item)


def _from_text(kind: inspect.Type, text: str) -> Any:
    if isinstance(kind, inspect.DictType):
        return _json(text) if text.strip() else {}
    if not isinstance(kind, inspect.ListType):
        return text
    if isinstance(_inner(kind.item_type), inspect.StructType):
        return _json(text) if text.strip() else []
    # An IPv6 address begins with a bracket too, so what is no JSON list is taken as comma-separated.
    if text.lstrip().startswith("["):
        try:
            return msgspec.json.decode(text, type=list)
        except (msgspec.DecodeError, UnicodeEncodeError):
            pass
    return _split(text)


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise ValueError("takes JSON here, and this is none") from None


def _split(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def _require_storable(value: Any) -> None:
    """A child process gets its settings as JSON, and a path or URL goes to the system: neither takes just any text."""
    for text in texts(value):
        if "\0" in text:
            raise ValueError("holds a NUL character")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("is not UTF-8 text") from None


def _reason(knob: Knob, kind: inspect.Type, raw: Any, fault: str) -> str:
    if knob.path in SECRETS:
        return f"takes {_words(kind)}, not {type(raw).__name__}"
    if isinstance(raw, list | dict):
        return f"takes {_words(kind)}: {fault.replace('`', '').replace(' - at $', ', at ')}"
    shown = repr(raw)
    return f"takes {_words(kind)}, not {shown if len(shown) <= SHOWN_MAX else shown[:SHOWN_MAX] + '…'}"


def _inner(kind: inspect.Type) -> inspect.Type:
    return _inner(kind.type) if isinstance(kind, inspect.Metadata) else kind


def _takes_null(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.UnionType) and kind.includes_none


def _words(kind: inspect.Type) -> str:
    match _inner(kind):
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() as number:
            return f"a whole number{_bounds(number)}"
        case inspect.FloatType() as number:
            return f"a number{_bounds(number)}"
        case inspect.LiteralType() as choice:
            return _one_of([str(value) for value in choice.values])
        case inspect.EnumType() as choice:
            return _one_of([str(member.value) for member in choice.cls])
        case inspect.UnionType() as union:
            return " or ".join(_words(member) for member in sorted(union.types, key=lambda member: isinstance(member, inspect.NoneType)))
        case inspect.ListType() as sequence:
            return f"a list, each {_words(sequence.item_type)}"
        case inspect.DictType() as mapping:
            return f"a mapping to {_words(mapping.value_type)}"
        case inspect.StructType() as struct:
            return "an object of " + ", ".join(field.name for field in struct.fields)
        case inspect.NoneType():
            return "null"
        case inspect.StrType() as text:
            return "a text that is not empty" if text.min_length else "a text"
        case other:
            raise TypeError(f"no words for {other}")


def _bounds(number: inspect.IntType | inspect.FloatType) -> str:
    least = f" from {_plain(number.ge)}" if number.ge is not None else f" over {_plain(number.gt)}" if number.gt is not None else ""
    return least + (f" to {_plain(number.le)}" if number.le is not None else "")


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _one_of(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
