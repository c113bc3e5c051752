"""The live stream, read as server-sent events: every message once, in order, without holes, over any number of connections.

Each connection resumes by `Last-Event-ID` behind the last position that was heard of. States: connecting (the first connection must succeed, or
NoAnswer is raised), reading, pausing before the next connection (0.5 s, doubling to 10 s while nothing is heard).
Failures: a connection that breaks, ends or stays silent for 45 s, 408, 429, 5xx, also a proxy's own: the next connection. Any other refusal:
ProblemError (`position_expired`: what was asked for is no longer kept; `body["oldest"]` tells from where on it is). An answer that is no stream:
UnexpectedAnswer.
"""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any, Final

import httpx2
import msgspec

from xzepr_client.errors import ClientError, NoAnswer, UnexpectedAnswer
from xzepr_client.transport import Transport, may_recover

# The server is heard every 15 s.
SILENCE_MAX_S: Final = 45.0
PAUSE_MIN_S: Final = 0.5
PAUSE_MAX_S: Final = 10.0
# A payload and the schemas of a group's receivers; more is no message.
MESSAGE_BYTES_MAX: Final = 256 * 1024 * 1024


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. id: of the event, receiver or group; message_id: of the message, unique. data: `events`, `event_receivers`,
    `event_receiver_groups`, each a list of objects or None. first: only on *group complete*, whether it was the first for this artifact.
    truncated: true when the event was removed in the meantime, so that its payload and description are empty here.
    """

    success: bool
    id: str
    type: str
    name: str
    version: str
    release: str
    platform_id: str
    package: str
    data: dict[str, list[dict[str, Any]] | None]
    message_id: str
    time: str
    position: int
    seq: int
    first: bool | None = None
    event_receiver_version: int | None = None
    truncated: bool | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message. position: follow(after=position) goes on behind it; text: the envelope's JSON as sent."""

    position: int
    type: str
    text: str
    envelope: Envelope


def follow(
    transport: Transport,
    *,
    after: int | None,
    filters: Mapping[str, Any],
    on_interruption: Callable[[ClientError, float], None] | None = None,
) -> Generator[Message, None, None]:
    """Messages behind `after` (None: from now on), for ever; close() ends the connection.

    on_interruption: gets what happened and the pause in seconds before the next try.
    """
    position, pause_s, heard = after, PAUSE_MIN_S, False
    while True:
        error: ClientError = NoAnswer(transport.url, "the stream ended", connected=True)
        try:
            with closing(_connection(transport, position, filters)) as events:
                for reached, event in events:
                    position, heard, pause_s = reached, True, PAUSE_MIN_S
                    if event is not None:
                        yield event
        except ClientError as caught:
            if not (heard and may_recover(caught)):
                raise
            error = caught
        if on_interruption is not None:
            on_interruption(error, pause_s)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, PAUSE_MAX_S)


def _connection(transport: Transport, after: int | None, filters: Mapping[str, Any]) -> Generator[tuple[int, Message | None], None, None]:
    """Positions of one connection; without a message where the server only tells how far it is."""
    headers = {"Last-Event-ID": str(after)} if after is not None else {}
    with transport.stream("stream", params=filters, headers=headers, silence_max_s=SILENCE_MAX_S) as answer:
        for event in httpx2.EventSource(answer, MESSAGE_BYTES_MAX):
            yield _read(transport.url, event)


def _read(url: str, event: httpx2.ServerSentEvent) -> tuple[int, Message | None]:
    try:
        position = int(event.id)
        if not event.data:
            return position, None
        envelope = msgspec.json.decode(event.data, type=Envelope)
    except (ValueError, msgspec.MsgspecError) as error:
        raise UnexpectedAnswer(url, 200, f"a message of the stream cannot be read: {error}") from None
    return position, Message(position=position, type=event.event, text=event.data, envelope=envelope)
