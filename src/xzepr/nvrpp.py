"""NVRPP: the five fields that name an artifact.

Equal NVRPPs are the same artifact; they are compared exactly, without trimming or folding of case.
"""

from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

FIELD_MAX_CHARS = 255
# A length below 128 in four bytes, as characters.
_LENGTH = [f"\0\0\0{chr(length)}" for length in range(128)]
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
        return artifact_id_of(*self)


def artifact_id_of(name: str, version: str, release: str, platform_id: str, package: str) -> bytes:
    """Of the artifact with these fields."""
    # It is asked for with each event. In ASCII a character is a byte, and so is a length below 128; longer ones, and what no field may be, go below.
    try:
        told = (
            f"{_LENGTH[len(name)]}{name}{_LENGTH[len(version)]}{version}{_LENGTH[len(release)]}{release}"
            f"{_LENGTH[len(platform_id)]}{platform_id}{_LENGTH[len(package)]}{package}"
        )
        if told.isascii():
            return sha256(told.encode()).digest()[:16]
    except IndexError:
        pass
    encoded = [field.encode() for field in (name, version, release, platform_id, package)]
    return sha256(b"".join([len(field).to_bytes(4, "big") + field for field in encoded])).digest()[:16]
