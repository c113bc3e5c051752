"""What is hashed and signed, to the byte: of a row, of a seal, of a checkpoint. Pure.

A record is encoded as a sequence of fields: its kind, then each column in the order below. A field is its length in bytes as a decimal number, a
colon, and its bytes (texts in UTF-8, numbers as decimals, times as RFC 3339 in UTC with six digits of a second); null is `-`. So no two records have
the same encoding, and nobody needs this code to check a hash. Hashes are SHA-256.

row:        `xzepr audit row 1`, every column of audit_log.
rows:       `xzepr audit rows 1`, then id and hash of each row of a seal, in order.
seal:       `xzepr audit seal 1`, number, first_row, last_row, row_count, rows_sha256, previous_sha256, sealed_at.
checkpoint: `xzepr audit checkpoint 1`, number, seal, sha256, signed_at, kid. This encoding itself is what the key signs.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

# Every column of audit_log; a test compares.
ROW_COLUMNS: Final = (
    "id",
    "at",
    "actor_id",
    "actor_name",
    "actor_kind",
    "act",
    "object_id",
    "outcome",
    "address",
    "request_id",
    "details",
)

Field = str | bytes | int | None


def encoded(*fields: Field) -> bytes:
    """One record."""
    return b"".join(_field(field) for field in fields)


def row_hash(row: Mapping[str, Any]) -> bytes:
    """row: by column, `at` and `details` as text."""
    return sha256(encoded("xzepr audit row 1", *(row[column] for column in ROW_COLUMNS))).digest()


def rows_hash(rows: Iterable[tuple[str, bytes]]) -> bytes:
    """rows: id and hash of each, in order."""
    return sha256(encoded("xzepr audit rows 1", *(field for row in rows for field in row))).digest()


def seal_hash(*, number: int, first_row: str, last_row: str, row_count: int, rows_sha256: bytes, previous: bytes | None, sealed_at: str) -> bytes:
    """previous: hash of the seal before, None for the first; sealed_at: RFC 3339."""
    fields = (number, first_row, last_row, row_count, rows_sha256, previous, sealed_at)
    return sha256(encoded("xzepr audit seal 1", *fields)).digest()


def checkpoint_text(*, number: int, seal: int, seal_sha256: bytes, signed_at: str, kid: str | None) -> bytes:
    """What is signed."""
    return encoded("xzepr audit checkpoint 1", number, seal, seal_sha256, signed_at, kid)


def _field(field: Field) -> bytes:
    match field:
        case None:
            return b"-"
        case bytes():
            return b"%d:%b" % (len(field), field)
        case _:
            text = str(field).encode()
            return b"%d:%b" % (len(text), text)
