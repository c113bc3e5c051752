"""Bodies and query parameters to typed structs; all faults at once, each with its place.

The straight way is one msgspec decode. Only when that refuses, the decoded tree is walked along the type, and every fault is told (up to
FAULTS_MAX): a missing field, an unknown one (with the nearest known name), a wrong type, a bound. Pointers are RFC 6901 from the root of the
body; a query parameter's is `?name`. The query is told before the body is read, so a request with faults in both takes two rounds.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from difflib import get_close_matches
from enum import Enum
from functools import cache
from itertools import islice
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NewType, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

import msgspec

from xzepr import ids
from xzepr.errors import Fault, InvalidId, InvalidInput, MalformedBody
from xzepr.json_text import FAULTS_MAX, parse_strict

S = TypeVar("S", bound=msgspec.Struct)
# Name on the wire to the field and its type with bounds.
Fields = dict[str, tuple[msgspec.structs.FieldInfo, Any]]

PARAMETERS_MAX: Final = 100
# Of a name that is not ours, as it is shown.
NAME_SHOWN_CHARS: Final = 80

_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
_INTEGER: Final = re.compile(r"-?(?:0|[1-9]\d{0,30})", re.ASCII)
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_PLACE: Final = re.compile(r" - at `[^`]*`$")
_BOUND: Final = re.compile(r"Expected `\w+` (>=|>|<=|<) (\S+)")
_LENGTH: Final = re.compile(r"Expected `(\w+)` of length (>=|<=) (\d+)")
_TYPE: Final = re.compile(r"Expected `([^`]+)`(?:, got `([^`]+)`)?")
_COMPARED: Final = {">=": "at least", ">": "greater than", "<=": "at most", "<": "less than"}
_KINDS: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "datetime": "an RFC 3339 time",
}


class _Refused(Exception):
    """A text that a parameter's type does not take; the argument says why."""


def decode_body(body: bytes, wanted: type[S]) -> tuple[S, Any]:
    """The struct, and the whole body as Python objects. Raises MalformedBody or InvalidInput."""
    if not body:
        raise MalformedBody("the body is empty; it must be a JSON object", faults=(Fault("", "is empty; must be a JSON object"),))
    tree = parse_strict(body)
    refusal = None
    try:
        decoded = msgspec.json.decode(body, type=wanted)
    except msgspec.ValidationError as error:
        refusal = str(error)
    except msgspec.DecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error}", faults=(Fault("", f"is not JSON: {error}"),)) from None
    if refusal is None and not _says_more_than_the_decoder(wanted):
        return decoded, tree
    faults = list(islice(faults_of(tree, wanted, ""), FAULTS_MAX))
    if refusal is None and not faults:
        return decoded, tree
    # The walk knows all that the decoder knows; should they ever differ, the decoder's word stands.
    raise InvalidInput.of_faults(faults or [Fault("", str(refusal))])


def faults_of(value: Any, hint: Any, pointer: str) -> Iterator[Fault]:
    """Every fault of a decoded JSON value against a type, in the order of the type."""
    kinds = _alternatives(hint)
    struct = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)), None)
    if struct is not None and isinstance(value, dict):
        yield from _struct_faults(value, struct, pointer)
        return
    inner = _inner_of(value, kinds)
    if inner is None:
        if (message := _refusal(value, hint)) is not None:
            yield Fault(pointer, message)
        return
    if (message := _length_refusal(value, hint)) is not None:
        yield Fault(pointer, message)
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield from faults_of(each, inner, f"{pointer}/{escape(str(key))}")


def decode_query(query_string: bytes, wanted: type[S], *, others: bool = False) -> S:
    """From the raw query. Raises InvalidInput (InvalidId when only ids are wrong) with every parameter that is unknown, given twice, or no good.

    A field whose type is an id of ours is parsed as one. null cannot be written here: a parameter that has no value is left out.
    others: parameters that are not ours are passed over.
    """
    fields = _fields(wanted)
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    only_ids = True
    for name, text in _pairs(query_string):
        if others and name not in fields:
            continue
        try:
            field, hint = _field_named(name, fields, values)
            values[field.name] = None
            values[field.name] = _from_text(text, hint, name)
        except InvalidId as error:
            faults += error.faults
        except _Refused as refused:
            only_ids = False
            faults.append(Fault(f"?{name[:NAME_SHOWN_CHARS]}", str(refused)))
    missing = [Fault(f"?{name}", "is missing") for name, (field, _) in fields.items() if field.required and field.name not in values]
    if faults or missing:
        kind = InvalidId if only_ids and not missing else InvalidInput
        raise kind.of_faults([*faults, *missing][:FAULTS_MAX])
    return wanted(**values)


def escape(part: str) -> str:
    """One reference token of a JSON pointer, cut to a length that can be shown."""
    return part[:NAME_SHOWN_CHARS].replace("~", "~0").replace("/", "~1")


@cache
def _fields(struct: type[msgspec.Struct]) -> Fields:
    hints = get_type_hints(struct, include_extras=True)
    return {field.encode_name: (field, hints[field.name]) for field in msgspec.structs.fields(struct)}


@cache
def _says_more_than_the_decoder(struct: type[msgspec.Struct]) -> bool:
    """Whether a raw text must be an object: the decoder takes any raw text."""
    return any(_wants_object(hint) for _, hint in _fields(struct).values())


def _wants_object(hint: Any) -> bool:
    return msgspec.Raw in _alternatives(hint) and any((meta.extra_json_schema or {}).get("type") == "object" for meta in _metas(hint))


def _struct_faults(value: dict[str, Any], struct: type[msgspec.Struct], pointer: str) -> Iterator[Fault]:
    fields = _fields(struct)
    for name, (field, hint) in fields.items():
        if name in value:
            yield from faults_of(value[name], hint, f"{pointer}/{escape(name)}")
        elif field.required:
            yield Fault(f"{pointer}/{escape(name)}", "is missing")
    if not struct.__struct_config__.forbid_unknown_fields:
        return
    for name in value:
        if name not in fields:
            yield Fault(f"{pointer}/{escape(name)}", f"is not a field here{_nearest(name, fields)}")


def _inner_of(value: Any, kinds: list[Any]) -> Any:
    """The type of the members of this list or object, when the type says it; else None."""
    for kind in kinds:
        if isinstance(value, list) and get_origin(kind) is list:
            return get_args(kind)[0]
        if isinstance(value, dict) and get_origin(kind) is dict:
            return get_args(kind)[1]
    return None


def _length_refusal(value: Any, hint: Any) -> str | None:
    """Why a list or object has not the length that the type asks for."""
    what = "items" if isinstance(value, list) else "members"
    for meta in _metas(hint):
        if meta.min_length is not None and len(value) < meta.min_length:
            return "must not be empty" if meta.min_length == 1 else f"must have at least {meta.min_length} {what}"
        if meta.max_length is not None and len(value) > meta.max_length:
            return f"must have at most {meta.max_length} {what}, not {len(value)}"
    return None


def _refusal(value: Any, hint: Any) -> str | None:
    """Why the type does not take the value, None when it does."""
    if msgspec.Raw in _alternatives(hint):
        return f"must be an object, not {_kind_of(value)}" if _wants_object(hint) and not isinstance(value, dict) else None
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        return _in_words(_PLACE.sub("", str(error)), hint)
    return None


def _in_words(message: str, hint: Any) -> str:
    """The decoder's message as a person would say it."""
    if message.endswith(r"matching regex '\\S'"):
        return "must not be blank"
    if match := _LENGTH.fullmatch(message):
        if match[2] == ">=" and match[3] == "1":
            return "must not be blank" if match[1] == "str" else "must not be empty"
        return f"must have {_COMPARED[match[2]]} {match[3]} characters"
    if match := _BOUND.fullmatch(message):
        return f"must be {_COMPARED[match[1]]} {match[2]}"
    if message.startswith("Invalid enum value") and (choices := _choices(hint)):
        return f"must be one of {', '.join(choices)}"
    if match := _TYPE.fullmatch(message):
        return f"must be {_named(match[1])}" + (f", not {_named(match[2])}" if match[2] else "")
    return message[:1].lower() + message[1:]


def _named(types: str) -> str:
    """`str | null` as "a string or null"."""
    return " or ".join(_KINDS.get(name, name) for name in types.split(" | "))


def _kind_of(value: Any) -> str:
    names = {dict: "object", list: "array", NoneType: "null"}
    return _named(names.get(type(value), type(value).__name__))


def _choices(hint: Any) -> list[str]:
    found: list[str] = []
    for kind in _alternatives(hint):
        if get_origin(kind) is Literal:
            found += map(str, get_args(kind))
        elif isinstance(kind, type) and issubclass(kind, Enum):
            found += [str(member.value) for member in kind]
    return found


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except UnicodeDecodeError:
        raise InvalidInput.at("?", "is not UTF-8") from None
    except ValueError:
        raise InvalidInput.at("?", f"has more than {PARAMETERS_MAX} parameters") from None


def _field_named(name: str, fields: Fields, given: dict[str, Any]) -> tuple[msgspec.structs.FieldInfo, Any]:
    if name not in fields:
        raise _Refused(f"is not a parameter here{_nearest(name, fields)}")
    if fields[name][0].name in given:
        raise _Refused("is given twice")
    return fields[name]


def _from_text(text: str, hint: Any, name: str) -> Any:
    """A parameter's value. Raises _Refused, or InvalidId where an id is wanted."""
    kinds = _alternatives(hint)
    if "\x00" in text:
        raise _Refused("must not hold NUL")
    for kind in kinds:
        if isinstance(kind, NewType):
            return ids.parse(kind, text, f"?{name}")
    value: Any = text
    if bool in kinds:
        value = _BOOLEANS.get(text.lower())
        if value is None:
            raise _Refused("must be true or false")
    elif int in kinds:
        if _INTEGER.fullmatch(text) is None:
            raise _Refused("must be an integer")
        value = int(text)
    elif datetime in kinds and _RFC3339.fullmatch(text) is None:
        raise _Refused("must be an RFC 3339 time with its zone, such as 2026-11-25T06:00:00Z (a + is written %2B)")
    if (message := _refusal(value, hint)) is not None:
        raise _Refused(message)
    return msgspec.convert(value, hint)


def _alternatives(hint: Any) -> list[Any]:
    """The types that it may be, without null, bounds and notes."""
    if get_origin(hint) is Annotated:
        return _alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return [inner for each in get_args(hint) if each is not NoneType for inner in _alternatives(each)]
    return [hint]


def _metas(hint: Any) -> Iterator[msgspec.Meta]:
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        yield from (extra for extra in extras if isinstance(extra, msgspec.Meta))
        yield from _metas(inner)
    elif get_origin(hint) in (Union, UnionType):
        for each in get_args(hint):
            yield from _metas(each)


def _nearest(name: str, known: Fields) -> str:
    near = get_close_matches(name[:NAME_SHOWN_CHARS], known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
