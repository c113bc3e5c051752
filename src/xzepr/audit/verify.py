"""Recompute everything that was sealed and signed, and say what is not as it was.

Works while the server runs: what is sealed never changes, so it can be read piece by piece; what one statement reads is of one moment. Rows that wait
for their seal are counted, they are no fault. Memory does not grow with the log.

What the database alone cannot show: that its end was cut off, seals, rows, checkpoints and all, or that everything was written anew by somebody who
holds the signing key. Checkpoints that were copied from the server's log show both.
"""

import json
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import asyncpg
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from xzepr import ids
from xzepr.audit.chain import checkpoint_text, row_hash, rows_hash, seal_hash
from xzepr.audit.signing import is_signed
from xzepr.clock import rfc3339
from xzepr.db.pool import Database
from xzepr.db.queries import Queries

queries = Queries("xzepr.audit")

SEALS_AT_ONCE: Final = 1_000
ROWS_AT_ONCE: Final = 2_000
# More are counted and not told one by one.
FAULTS_TOLD_MAX: Final = 200
# A row is sealed within seconds of its commit, and the longest transactions take minutes.
LATE: Final = timedelta(minutes=10)

_EVENT: Final = "audit.checkpoint"
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_PAIR: Final = re.compile(r"(\w+)=(\S+)")
_NUMBER: Final = re.compile(r"[1-9]\d{0,17}", re.ASCII)


class Checkpoint(NamedTuple):
    """As it stands in the table or in a line of the log. signature: None with kid None."""

    number: int
    seal: int
    sha256: bytes
    signed_at: str
    kid: str | None
    signature: bytes | None

    @property
    def text(self) -> bytes:
        """What was signed."""
        return checkpoint_text(number=self.number, seal=self.seal, seal_sha256=self.sha256, signed_at=self.signed_at, kid=self.kid)


@dataclass
class Report:
    """What was looked at and what is wrong. waiting: rows without a seal yet; compared: checkpoints of the log; notes: no faults, worth a look."""

    rows: int = 0
    seals: int = 0
    checkpoints: int = 0
    signed: int = 0
    waiting: int = 0
    compared: int = 0
    fault_count: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """One more."""
        self.fault_count += 1
        if len(self.faults) < FAULTS_TOLD_MAX:
            self.faults.append(text)

    def note(self, text: str) -> None:
        """One more, as far as they are told."""
        if len(self.notes) < FAULTS_TOLD_MAX:
            self.notes.append(text)


def checkpoints_in(lines: Iterable[str]) -> Iterator[Checkpoint]:
    """Those in the lines of a log, JSON or not; lines about anything else are passed over. Raises ValueError for a line that is cut or mangled."""
    for line in lines:
        if _EVENT not in line:
            continue
        fields = _fields(_COLOUR.sub("", line))
        if fields is None:
            continue
        try:
            yield Checkpoint(
                number=_number(fields["number"]),
                seal=_number(fields["seal"]),
                sha256=bytes.fromhex(fields["sha256"]),
                signed_at=fields["signed_at"],
                kid=None if fields["kid"] == "-" else fields["kid"],
                signature=None if fields["signature"] == "-" else b64decode(fields["signature"], validate=True),
            )
        except (KeyError, ValueError, Base64Error):
            raise ValueError(f"a line about {_EVENT} is not whole: {line.strip()[:200]}") from None


async def verify(
    database: Database, keys: Mapping[str, RSAPublicKey], logged: Iterable[Checkpoint] = (), *, rows_at_once: int = ROWS_AT_ONCE
) -> Report:
    """keys: by kid, whose signatures count; logged: checkpoints from the log. Raises Unavailable."""
    report = Report()
    async with database.connection() as connection:
        newest = await connection.fetchrow(queries["last_seal"])
    last = newest["number"] if newest is not None else 0
    await _verify_seals(database, report, last, rows_at_once)
    await _verify_outside(database, report, rows_at_once)
    stored = await _verify_checkpoints(database, report, keys)
    await _compare(database, report, keys, stored, logged)
    return report


async def _verify_seals(database: Database, report: Report, last: int, rows_at_once: int) -> None:
    """Each seal with its rows, in order, up to one: both lists are walked side by side."""
    sealed = _sealed_rows(database, last, rows_at_once)
    following: asyncpg.Record | None = await anext(sealed, None)
    before: asyncpg.Record | None = None
    expected = 1
    async for seal in _seals(database, last):
        number: int = seal["number"]
        if number != expected:
            report.fault(f"{_numbers(expected, number - 1)} gone")
        # Rows of seals that are gone are told by _verify_outside.
        while following is not None and following["seal"] < number:
            following = await anext(sealed, None)
        listed: list[tuple[str, bytes]] = []
        places_right = True
        while following is not None and following["seal"] == number:
            listed.append((following["row_id"], following["row_sha256"]))
            places_right = places_right and following["place"] == len(listed)
            _verify_row(report, following, before)
            following = await anext(sealed, None)
        _verify_seal(report, seal, listed, before if before is not None and before["number"] == number - 1 else None, places_right=places_right)
        report.seals += 1
        before, expected = seal, number + 1


def _verify_row(report: Report, row: asyncpg.Record, before: asyncpg.Record | None) -> None:
    """before: the seal before the row's own."""
    report.rows += 1
    where = f"row {row['row_id']} (place {row['place']} of seal {row['seal']})"
    if row["id"] is None:
        report.fault(f"{where} was removed")
    elif row_hash(dict(row)) != row["row_sha256"]:
        report.fault(f"{where} was altered")
    elif before is not None and row["at"] < rfc3339(_moment(before["sealed_at"]) - LATE):
        report.note(f"{where} says {row['at']}, but was not there yet at {before['sealed_at']}: a clock was wrong, or somebody put it in later")


def _verify_seal(report: Report, seal: asyncpg.Record, listed: list[tuple[str, bytes]], before: asyncpg.Record | None, *, places_right: bool) -> None:
    """listed: id and hash of its rows as they are listed now."""
    number = seal["number"]
    where = f"seal {number} ({seal['row_count']} rows, {seal['first_row']} to {seal['last_row']})"
    if len(listed) != seal["row_count"] or not places_right or rows_hash(listed) != seal["rows_sha256"]:
        report.fault(f"{where}: the list of its rows is not the one that was sealed; {len(listed)} are listed")
    made = seal_hash(
        number=number,
        first_row=seal["first_row"],
        last_row=seal["last_row"],
        row_count=seal["row_count"],
        rows_sha256=seal["rows_sha256"],
        previous=seal["previous_sha256"],
        sealed_at=seal["sealed_at"],
    )
    if made != seal["sha256"]:
        report.fault(f"{where} was altered")
    if before is not None and before["sha256"] != seal["previous_sha256"]:
        report.fault(f"{where} does not follow from seal {number - 1}")


async def _verify_outside(database: Database, report: Report, rows_at_once: int) -> None:
    """Rows and lists that no seal holds."""
    async with database.connection() as connection:
        for row in await connection.fetch(queries["sealed_without_seal"], FAULTS_TOLD_MAX):
            report.fault(f"seal {row['seal']} is gone, its list of {row['row_count']} rows ({row['first_row']} to {row['last_row']}) is there")
        # Not further than now: whoever writes faster than this reads would keep it busy for ever.
        after, last = "", await connection.fetchval(queries["last_row"])
        while True:
            found = await connection.fetchrow(queries["rows_outside"], after, last, rows_at_once)
            if found is None or found["last"] is None:
                break
            for row_id in found["outside"] or ():
                report.fault(f"row {row_id} is in no seal and does not wait for one: it was put in, or its seal was removed")
            after = found["last"]
        waiting = await connection.fetchrow(queries["waiting"])
    assert waiting is not None
    report.waiting = waiting["waiting"]
    for row_id in waiting["gone"] or ():
        report.fault(f"row {row_id} was removed before it was sealed")
    for row_id in waiting["sealed"] or ():
        report.fault(f"row {row_id} waits to be sealed, and a seal holds it already")
    if report.waiting:
        report.note(f"{report.waiting} rows wait to be sealed, the oldest since {rfc3339(ids.time_of(waiting['oldest']))}")


async def _verify_checkpoints(database: Database, report: Report, keys: Mapping[str, RSAPublicKey]) -> dict[int, Checkpoint]:
    """Those of the table, by number: one an hour, so they are few."""
    found: dict[int, Checkpoint] = {}
    expected, seen_signed = 1, False
    async with database.connection() as connection:
        while rows := await connection.fetch(queries["checkpoints_behind"], max(found, default=0), SEALS_AT_ONCE):
            for row in rows:
                made = Checkpoint(row["number"], row["seal"], row["sha256"], row["signed_at"], row["kid"], row["signature"])
                found[made.number] = made
                if made.number != expected:
                    report.fault(f"{_numbers(expected, made.number - 1, 'checkpoint')} gone")
                expected = made.number + 1
                where = f"checkpoint {made.number}"
                _verify_reached(report, where, made, row["seal_sha256"])
                _verify_signature(report, where, made, keys)
                if made.kid is None and seen_signed:
                    report.fault(f"{where} bears no signature, but one before it does")
                seen_signed = seen_signed or made.kid is not None
                report.signed += made.kid is not None
    report.checkpoints = len(found)
    if unsigned := report.checkpoints - report.signed:
        report.note(f"{unsigned} checkpoints bear no signature: there was no signing key then")
    return found


async def _compare(
    database: Database, report: Report, keys: Mapping[str, RSAPublicKey], stored: Mapping[int, Checkpoint], logged: Iterable[Checkpoint]
) -> None:
    async with database.connection() as connection:
        for made in logged:
            report.compared += 1
            where = f"checkpoint {made.number} of the log"
            _verify_reached(report, where, made, await connection.fetchval(queries["seal_sha256"], made.seal))
            _verify_signature(report, where, made, keys)
            if made.number not in stored:
                report.fault(f"{where} is not in the database")
            elif stored[made.number] != made:
                report.fault(f"{where} is not the one in the database")


def _verify_reached(report: Report, where: str, made: Checkpoint, seal_sha256: bytes | None) -> None:
    if seal_sha256 is None:
        report.fault(f"{where} of {made.signed_at} is of seal {made.seal}, which is gone: what was sealed since then cannot be trusted")
    elif seal_sha256 != made.sha256:
        report.fault(f"{where} of {made.signed_at} is not of the seal {made.seal} that is there now")


def _verify_signature(report: Report, where: str, made: Checkpoint, keys: Mapping[str, RSAPublicKey]) -> None:
    if made.kid is None or made.signature is None:
        return
    key = keys.get(made.kid)
    if key is None:
        report.fault(f"{where} is signed with the key {made.kid}, which is not known here: give it with --public-key")
    elif not is_signed(key, made.text, made.signature):
        report.fault(f"{where}: the signature is not right")


async def _seals(database: Database, last: int) -> AsyncIterator[asyncpg.Record]:
    after = 0
    while True:
        async with database.connection() as connection:
            rows = await connection.fetch(queries["seals_behind"], after, last, SEALS_AT_ONCE)
        for row in rows:
            yield row
        if len(rows) < SEALS_AT_ONCE:
            return
        after = rows[-1]["number"]


async def _sealed_rows(database: Database, last: int, rows_at_once: int) -> AsyncIterator[asyncpg.Record]:
    after = (0, 0)
    while True:
        async with database.connection() as connection:
            rows = await connection.fetch(queries["sealed_rows_behind"], *after, last, rows_at_once)
        for row in rows:
            yield row
        if len(rows) < rows_at_once:
            return
        after = (rows[-1]["seal"], rows[-1]["place"])


def _fields(line: str) -> dict[str, str] | None:
    """Of a line that tells of a checkpoint; None: it only mentions one."""
    begin = line.find("{")
    if begin >= 0:
        try:
            decoded: dict[str, Any] = json.loads(line[begin:])
        except ValueError:
            decoded = {}
        if decoded:
            return {name: str(value) for name, value in decoded.items()} if decoded.get("event") == _EVENT else None
    head, _, tail = line.partition(_EVENT)
    # `audit.checkpoint_unsigned` is another line.
    if not tail[:1].isspace() or "=" in head:
        return None
    # A value with a sign in it that means something to the log stands in quotes.
    return {name: value.strip("'\"") for name, value in _PAIR.findall(tail)}


def _number(text: str) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(text)
    return int(text)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _numbers(first: int, last: int, what: str = "seal") -> str:
    return f"{what} {first} is" if first == last else f"{what}s {first} to {last} are"
