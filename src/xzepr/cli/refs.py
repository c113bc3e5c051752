"""Putting what a JSON Schema refers to into it, because the server fetches nothing.

`--ref URI=FILE`: URI as a `$ref` of the schema has it, without the fragment, or what it resolves to. The file's content is embedded among the
schema's definitions (`$defs`; `definitions` in drafts 4, 6 and 7, where validators look for nothing in `$defs`) with the `$id` that the reference
resolves to, so every reference stays as it is written. References of embedded files are followed in the same way. All else of both texts stays as
it is: key order, numbers, white space.
Failures, all RefError: a file that cannot be read or is no JSON object, a URI that nothing refers to, definitions that are no object.
Source: contract `epr.md` §1; JSON Schema 2020-12 core §9.3 and draft 7 §8.2.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urldefrag, urljoin

import msgspec
from msgspec import Raw

_OLD_DRAFTS: Final = {"draft-04": "4", "draft-06": "6", "draft-07": "7"}
_REFERENCES: Final = ("$ref", "$dynamicRef")
_OPAQUE: Final = frozenset({"enum", "const", "default", "examples"})
# Members of these are named by the author, so none of them is a keyword.
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"})
# What counts beside a `$ref` in an old draft.
_BESIDE_REF: Final = frozenset({"$schema", "definitions", "title", "description"})


class RefError(Exception):
    """What is wrong with a --ref; one line."""


def read_refs(given: Sequence[str]) -> dict[str, bytes]:
    """From `URI=FILE`: the file's text by URI. The last `=` counts: URIs may hold some."""
    refs: dict[str, bytes] = {}
    for text in given:
        uri, equals, name = text.rpartition("=")
        if not (uri and equals and name):
            raise RefError(f"{text!r} is not URI=FILE")
        try:
            refs[uri.removesuffix("#")] = Path(name).read_bytes()
        except (OSError, ValueError) as error:
            raise RefError(f"{name!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return refs


def bundle(schema: bytes, refs: Mapping[str, bytes]) -> bytes:
    """The schema's text with everything in it that `refs` (text by URI) holds and that it refers to. Raises RefError."""
    bundling = _Bundling(_Document.of(schema, "the schema"), refs)
    return bundling.result()


class _Document:
    """A schema's text, read twice: raw members, to be written again as they are, and a tree, to be searched."""

    def __init__(self, members: dict[str, Raw], tree: dict[str, Any], draft: str) -> None:
        self.members = members
        self.tree = tree
        self.draft = draft
        self.id_keyword = "id" if draft == "4" else "$id"
        # In the old drafts everything beside a $ref is ignored, the $id too.
        self.is_bare_reference = draft != "" and "$ref" in tree

    @classmethod
    def of(cls, text: bytes, name: str, default_draft: str = "") -> "_Document":
        try:
            tree = json.loads(text, object_pairs_hook=_object)
            members = msgspec.json.decode(text, type=dict[str, Raw])
        except RefError as error:
            raise RefError(f"{name}: {error}") from None
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise RefError(f"{name} is not a JSON object: {error}") from None
        named = tree.get("$schema")
        draft = next((draft for mark, draft in _OLD_DRAFTS.items() if mark in named), "") if isinstance(named, str) else default_draft
        return cls(members, tree, draft)

    @property
    def own_address(self) -> str:
        own = self.tree.get(self.id_keyword)
        return own if isinstance(own, str) and not own.startswith("#") and not self.is_bare_reference else ""

    def at(self, address: str) -> Raw:
        """Its text with this address as its id."""
        members = dict(self.members)
        if self.is_bare_reference:
            # Beside its $ref the address would not count.
            reference = members["$ref"]
            members = {key: value for key, value in members.items() if key in _BESIDE_REF}
            members["allOf"] = Raw(msgspec.json.encode([{"$ref": reference}]))
        for keyword in ("$id", "id"):
            if isinstance(self.tree.get(keyword), str):
                members.pop(keyword, None)
        return Raw(msgspec.json.encode({self.id_keyword: address, **members}))


class _Bundling:
    """Embeds until nothing that is given is referred to any more from outside."""

    def __init__(self, root: _Document, refs: Mapping[str, bytes]) -> None:
        self._root = root
        self._refs = refs
        self._given = {uri: _Document.of(text, f"the file for {uri}", root.draft) for uri, text in refs.items()}
        self._used: set[str] = set()
        self._embedded: dict[str, Raw] = {}
        self._present: set[str] = set()

    def result(self) -> bytes:
        outside = self._follow(self._root, self._root.own_address)
        unused = [uri for uri in self._given if uri not in self._used]
        if unused:
            there = ", ".join(sorted(outside)) or "nothing outside itself"
            raise RefError(f"nothing refers to {unused[0]}; the schema refers to {there}")
        return self._written()

    def _follow(self, document: _Document, base: str) -> set[str]:
        """Embeds what is needed, and what that needs; gives back what was referred to, as written."""
        references = list(_walk(document, base))
        self._present.update(address for kind, address, _ in references if kind == "id")
        self._present.add(base)
        outside = set()
        for kind, address, written in references:
            if kind == "id" or address in self._present:
                continue
            outside.add(written)
            uri = next((uri for uri in (written, address) if uri in self._given), None)
            if uri is not None:
                self._used.add(uri)
                self._present.add(address)
                self._embedded[address] = self._given[uri].at(address)
                outside |= self._follow(self._given[uri], address)
        return outside

    def _written(self) -> bytes:
        keyword = "definitions" if self._root.draft else "$defs"
        kept = self._root.members.get(keyword)
        try:
            definitions = msgspec.json.decode(kept, type=dict[str, Raw]) if kept is not None else {}
        except msgspec.MsgspecError:
            raise RefError(f"{keyword} of the schema is not an object") from None
        for address, text in self._embedded.items():
            name = address
            while name in definitions:
                name += "_"
            definitions[name] = text
        return msgspec.json.encode({**self._root.members, keyword: definitions})


def _walk(document: _Document, base: str) -> Iterator[tuple[str, str, str]]:
    """("id", address, as written) of every embedded resource, ("ref", address without fragment, the same as written) of every reference."""
    open_values: list[tuple[Any, str, bool]] = [(document.tree, base, False)]
    while open_values:
        value, base, named_by_author = open_values.pop()
        if isinstance(value, list):
            open_values += [(item, base, False) for item in reversed(value)]
        if not isinstance(value, dict):
            continue
        if not named_by_author:
            own = value.get(document.id_keyword)
            alone = document.draft != "" and "$ref" in value
            if value is not document.tree and isinstance(own, str) and not own.startswith("#") and not alone:
                base = urldefrag(urljoin(base, own)).url
                yield "id", base, own
            for keyword in _REFERENCES:
                reference = value.get(keyword)
                if isinstance(reference, str) and not reference.startswith("#"):
                    yield "ref", urldefrag(urljoin(base, reference)).url, urldefrag(reference).url
        open_values += [
            (member, base, not named_by_author and key in _MAPS) for key, member in reversed(value.items()) if named_by_author or key not in _OPAQUE
        ]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise RefError("a member of an object stands there twice")
    return members
