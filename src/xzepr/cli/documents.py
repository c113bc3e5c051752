"""Receivers and groups as YAML documents: what `xzepr apply` reads.

Scalars are read as JSON has them: `true` and `false` are booleans, `on` and `2026-11-25` are text, `1.0` is a number (so a version needs quotes).
All documents are read and checked before anything is done, and every fault is told with its file and place. What a document does not
name is not touched.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from msgspec import UNSET, UnsetType

from xzepr.cli.refs import RefError, bundle

KINDS: Final = ("EventReceiver", "EventReceiverGroup")
_SUFFIXES: Final = (".yaml", ".yml")


class DocumentFaults(Exception):
    """What is wrong with the documents, a line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(faults[0])
        self.faults = faults


class ReceiverName(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A receiver as a group names it: by id, or by name and, where several bear it, type."""

    id: str | None = None
    name: str | None = None
    type: str | None = None

    def __str__(self) -> str:
        if self.id is not None:
            return self.id
        return f"{self.name!r}" if self.type is None else f"{self.name!r} of type {self.type!r}"


class ReceiverDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag=KINDS[0]):
    """schema: written out, or schema_file: a JSON or YAML file beside this one; refs: URI to file, as `--ref`."""

    id: str | None = None
    name: str
    type: str
    version: str
    description: str | UnsetType = UNSET
    schema: dict[str, Any] | UnsetType = UNSET
    schema_file: str | UnsetType = UNSET
    refs: dict[str, str] = {}
    restricted: bool | UnsetType = UNSET


class GroupDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag=KINDS[1]):
    """event_receivers: each a name, or {name, type}, or {id}; the order is kept."""

    id: str | None = None
    name: str
    type: str
    version: str
    description: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    event_receivers: list[str | ReceiverName]

    @property
    def receivers(self) -> list[ReceiverName]:
        """All in the long form."""
        return [ReceiverName(name=each) if isinstance(each, str) else each for each in self.event_receivers]


class Placed(msgspec.Struct, frozen=True):
    """A document, where it stands, and its schema's text (None: a group, or no schema named)."""

    place: str
    document: ReceiverDocument | GroupDocument
    schema: bytes | None = None


def read_documents(path: Path) -> list[Placed]:
    """Every document of a file, or of all `*.yaml` and `*.yml` below a directory, in the order of their names. Raises DocumentFaults."""
    faults: list[str] = []
    found: list[Placed] = []
    for file in _files(path):
        for place, tree in _trees(file, faults):
            try:
                found.append(_placed(place, file, tree))
            except (msgspec.ValidationError, RefError, _Refused) as error:
                faults.append(f"{place}: {_explained(str(error))}")
    faults += _repeated(found)
    if faults:
        raise DocumentFaults(faults)
    return found


class _Refused(Exception):
    """Something about a document."""


class _Loader(yaml.SafeLoader):
    """YAML as JSON has it; a key given twice is a fault."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key.start_mark)
            if key.value in names:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} stands there twice", key.start_mark)
            names.add(key.value)
            if key.tag != "tag:yaml.org,2002:merge":
                # Numbers and booleans as names of members: JSON has only text there.
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep=deep)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Which plain scalars are no text."""
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    kinds = (
        ("bool", r"true|false", "tf"),
        ("null", r"null|~|", ("n", "~", "")),
        ("int", r"-?(?:0|[1-9]\d*)", "-0123456789"),
        ("float", r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", "-0123456789"),
        ("merge", r"<<", "<"),
    )
    for kind, pattern, first_characters in kinds:
        for first in first_characters:
            table.setdefault(first, []).append((f"tag:yaml.org,2002:{kind}", re.compile(rf"(?:{pattern})\Z", re.ASCII)))
    return table


_Loader.yaml_implicit_resolvers = _resolvers()


def _float(_: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(node.value)


_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
        if not found:
            raise DocumentFaults([f"{path}: holds no *.yaml and no *.yml"])
        return found
    return [path]


def _trees(file: Path, faults: list[str]) -> Iterator[tuple[str, Any]]:
    """Place and content of each document that is not empty; a file that cannot be read, or only up to a point, adds a fault."""
    try:
        text = file.read_text("utf-8")
        for number, tree in enumerate(yaml.load_all(text, _Loader), 1):
            if tree is not None:
                yield f"{file}, document {number}", tree
    except OSError as error:
        faults.append(f"{file}: {error.strerror}")
    except UnicodeDecodeError:
        faults.append(f"{file}: is not UTF-8 text")
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        faults.append(f"{file}{line}: is not YAML: {error.problem}")
    except (yaml.YAMLError, ValueError) as error:
        faults.append(f"{file}: is not YAML: {error}")
    except RecursionError:
        faults.append(f"{file}: is nested too deeply")


def _placed(place: str, file: Path, tree: Any) -> Placed:
    if not isinstance(tree, dict):
        raise _Refused(f"is not a mapping with a kind: {' or '.join(KINDS)}")
    document = msgspec.convert(tree, ReceiverDocument | GroupDocument)
    if isinstance(document, GroupDocument):
        _require_receivers(document)
        return Placed(place, document)
    return Placed(place, document, _schema_of(document, file.parent))


def _require_receivers(document: GroupDocument) -> None:
    if not document.event_receivers:
        raise _Refused("event_receivers: names no receiver")
    for each in document.receivers:
        if (each.id is None) == (each.name is None):
            raise _Refused("event_receivers: each is a name, {name, type} or {id}")


def _schema_of(document: ReceiverDocument, directory: Path) -> bytes | None:
    if document.schema is not UNSET and document.schema_file is not UNSET:
        raise _Refused("schema and schema_file exclude each other")
    if document.schema_file is not UNSET:
        schema = _read_schema(directory / document.schema_file)
    elif document.schema is not UNSET:
        schema = _as_json(document.schema)
    elif document.refs:
        raise _Refused("refs go with a schema")
    else:
        return None
    return bundle(schema, {uri: _read_schema(directory / name) for uri, name in document.refs.items()})


def _read_schema(path: Path) -> bytes:
    """A YAML file as JSON; anything else as it is."""
    try:
        text = path.read_bytes()
        if path.suffix not in _SUFFIXES:
            return text
        return _as_json(yaml.load(text, _Loader))  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise _Refused(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _Refused(f"{path}: is not YAML: {error}") from None


def _as_json(tree: Any) -> bytes:
    try:
        return json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _Refused(f"schema: cannot be written as JSON: {error}") from None


def _explained(message: str) -> str:
    """msgspec's words, with what to do about the commonest fault."""
    match = re.search(r" - at `\$\.?(.*)`$", message)
    where = f"{match[1]}: " if match and match[1] else ""
    text = message[: match.start()] if match else message
    hint = "; put it in quotes" if re.search(r"Expected `str`, got `(?:int|float|bool)`", text) else ""
    return f"{where}{text}{hint}"


def _repeated(found: list[Placed]) -> list[str]:
    """Two documents for one thing would undo each other at each run."""
    faults, first = [], dict[tuple[str, ...], str]()
    for each in found:
        document = each.document
        kind = type(document).__name__
        keys = [(kind, document.id)] if document.id is not None else [(kind, document.name, document.type)]
        for key in keys:
            if key in first:
                faults.append(f"{each.place}: describes the same as {first[key]}; if two are meant, give each its id")
            first.setdefault(key, each.place)
    return faults
