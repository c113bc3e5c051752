"""`xzepr event import`: a file of events, in batches, resumable.

How far it is stands beside the file, in `FILE.progress`, written after each batch that was acknowledged and removed at the end. What was sent and not
acknowledged is sent again under the same idempotency key, which is made of the batch's own bytes and its place in the file: so a cut at any moment
records nothing twice, as long as the command is run again within 24 hours, with the same --batch. States: none, begun (a progress file), done.
Failures: a file that has changed since (its beginning, up to where it is, no longer has the same hash); a batch that is refused, told with the lines.
"""

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bars

from xzepr.cli.connection import Failure, failure_of
from xzepr.cli.text import shown

if TYPE_CHECKING:
    from xzepr_client import BatchItem, Client, ProblemError

# Of one batch, below what a server takes: its limit is 16 MiB unless set.
BATCH_BYTES_MAX: Final = 8 << 20


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """offset: bytes that are done; lines: as many; sha256: hex, of these bytes; batch: events sent at once, which the keys depend on."""

    offset: int = 0
    lines: int = 0
    recorded: int = 0
    refused: int = 0
    sha256: str
    batch: int


class _Batch(msgspec.Struct, frozen=True):
    """Consecutive lines. numbers: of the lines that hold an event, from 1; lines: how many there are."""

    text: bytes
    events: list[bytes]
    numbers: list[int]
    lines: int


def import_file(client: "Client", file: Path, *, batch_events: int, rejected: Path | None) -> None:
    """Sends what is not yet recorded, with a bar, and says what became of it. Raises Failure; then the same call goes on from there."""
    place = file.with_name(file.name + ".progress")
    with file.open("rb") as opened:
        done, digest = _begun(place, opened, batch_events)
        if done.offset:
            click.echo(f"going on behind line {done.lines}", err=True)
        size = file.stat().st_size
        with Bars(*Bars.get_default_columns(), console=Console(stderr=True)) as bars:
            bar = bars.add_task(f"importing {escape(shown(file.name))}", total=size, completed=done.offset)
            opened.seek(done.offset)
            for batch in _batches(opened, done.lines, batch_events):
                recorded, refused = _send(client, batch, done, rejected)
                digest.update(batch.text)
                done = Progress(
                    offset=done.offset + len(batch.text),
                    lines=done.lines + batch.lines,
                    recorded=done.recorded + recorded,
                    refused=done.refused + refused,
                    sha256=digest.hexdigest(),
                    batch=batch_events,
                )
                _keep(place, done)
                bars.update(bar, completed=done.offset)
    place.unlink(missing_ok=True)
    told = f"{done.recorded} events recorded"
    click.echo(told if not done.refused else f"{told}, {done.refused} refused: see {rejected}")
    if done.refused:
        raise click.exceptions.Exit(1)


def _begun(place: Path, opened: BinaryIO, batch_events: int) -> tuple[Progress, Any]:
    """How far it is, and the hash of what is done, to be gone on with."""
    digest = sha256()
    if not place.exists():
        return Progress(sha256=digest.hexdigest(), batch=batch_events), digest
    try:
        done = msgspec.json.decode(place.read_bytes(), type=Progress)
    except msgspec.MsgspecError as error:
        raise Failure(f"{place} is not one of ours: {error}", advice="remove it to begin anew") from None
    if done.batch != batch_events:
        raise Failure(f"the import was begun with --batch {done.batch}", advice=f"go on with it, or remove {place} to begin anew")
    left = done.offset
    while left and (piece := opened.read(min(left, 1 << 20))):
        digest.update(piece)
        left -= len(piece)
    if left or digest.hexdigest() != done.sha256:
        raise Failure(f"the file has changed since its first {done.lines} lines were imported", advice=f"remove {place} to begin anew")
    return done, digest


def _batches(opened: BinaryIO, lines_done: int, batch_events: int) -> Iterator[_Batch]:
    texts: list[bytes] = []
    events: list[bytes] = []
    numbers: list[int] = []
    size = 0
    for number, line in enumerate(opened, lines_done + 1):
        if events and (len(events) == batch_events or size + len(line) > BATCH_BYTES_MAX):
            yield _Batch(b"".join(texts), events, numbers, len(texts))
            texts, events, numbers, size = [], [], [], 0
        texts.append(line)
        size += len(line)
        if line.strip():
            events.append(line.rstrip(b"\r\n"))
            numbers.append(number)
    if texts:
        yield _Batch(b"".join(texts), events, numbers, len(texts))


def _send(client: "Client", batch: _Batch, done: Progress, rejected: Path | None) -> tuple[int, int]:
    """How many were recorded, and how many refused."""
    from xzepr_client import ProblemError

    if not batch.events:
        return 0, 0
    key = f"import-{done.offset}-{sha256(batch.text).hexdigest()}{'-partial' if rejected else ''}"
    try:
        answers = client.post_batch(b"\n".join(batch.events), partial=rejected is not None, idempotency_key=key)
    except ProblemError as error:
        raise _refused(error, batch) from error
    refused = [(number, event, answer) for number, event, answer in zip(batch.numbers, batch.events, answers, strict=True) if _is_refused(answer)]
    if refused:
        assert rejected is not None
        with rejected.open("ab") as opened:
            for number, event, answer in refused:
                opened.write(_report(number, event, answer))
    return len(answers) - len(refused), len(refused)


def _is_refused(answer: "str | BatchItem") -> bool:
    return not isinstance(answer, str) and answer.problem is not None


def _report(number: int, event: bytes, answer: "str | BatchItem") -> bytes:
    """One line: where it stood, what is wrong with it, and the event as text, for it may be no JSON."""
    problem = None if isinstance(answer, str) else answer.problem
    return msgspec.json.encode({"line": number, "problem": problem, "event": event.decode("utf-8", "replace")}) + b"\n"


def _refused(error: "ProblemError", batch: _Batch) -> Failure:
    """With the lines of the file in place of the places in the batch."""
    failure = failure_of(error)
    told = []
    for fault in error.faults:
        place, _, rest = fault.pointer.removeprefix("/").partition("/")
        if place.isdigit() and int(place) < len(batch.numbers):
            told.append(f"line {batch.numbers[int(place)]}{': /' + rest if rest else ''}: {fault.message}")
    if not told:
        return failure
    return Failure(
        f"a batch was refused, nothing of it is recorded ({error.status} {error.code})",
        *told,
        advice="mend these lines and run the same command again, or let --rejected FILE collect them",
    )


def _keep(place: Path, done: Progress) -> None:
    """Whole or not at all, also when the machine stops meanwhile."""
    unfinished = place.with_name(place.name + ".new")
    with unfinished.open("wb") as opened:
        opened.write(msgspec.json.encode(done))
        opened.flush()
        os.fsync(opened.fileno())
    unfinished.replace(place)
