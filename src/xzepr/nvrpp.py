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
        digest = sha256()
        for field in self:
            encoded = field.encode()
            digest.update(len(encoded).to_bytes(4, "big"))
            digest.update(encoded)
        return digest.digest()[:16]
