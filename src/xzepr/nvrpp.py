"""NVRPP: the five fields that name an artifact.

Equal NVRPPs are the same artifact; they are compared exactly, without trimming or folding of case.
"""

from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

FIELD_MAX_CHARS = 255
FIELDS = ("name", "version", "release", "platform_id", "package")


class Nvrpp(NamedTuple):
    """Name, version, release, platform_id, package: each 1 to 255 characters, not blank, without NUL."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str

    @property
    def key(self) -> str:
        """The five fields percent-encoded, joined by `/`: message key, CloudEvents subject, text form."""
        return "/".join(quote(field, safe="") for field in self)

    @property
    def artifact_id(self) -> bytes:
        """16 bytes: the first half of SHA-256 over the five fields, each in UTF-8 behind its length in four bytes."""
        encoded = [field.encode() for field in self]
        return sha256(b"".join([len(field).to_bytes(4, "big") + field for field in encoded])).digest()[:16]
