"""The REST contract as methods, each one request (and its repetitions, see transport.py).

Every method may raise ProblemError, NoAnswer and UnexpectedAnswer. Ids are texts of 26 characters. What creates takes an idempotency key, and makes
one up when none is given; so a connection that is lost on the way is tried again without anything being made twice. Give your own to be as safe over
several runs of your program: same key and same body within 24 h give the first answer again.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote
from uuid import uuid4

import msgspec

from xzepr_client.errors import ClientError
from xzepr_client.models import (
    Artifact,
    ArtifactSeen,
    BatchItem,
    Created,
    Evaluation,
    Event,
    EventReceiver,
    EventReceiverChanges,
    EventReceiverGroup,
    EventReceiverGroupChanges,
    GroupArtifact,
    GroupStatus,
    NewEvent,
    NewEventReceiver,
    NewEventReceiverGroup,
    Page,
    RecordedBatch,
    StreamPosition,
    Timeline,
)
from xzepr_client.stream import Message, follow
from xzepr_client.transport import DEFAULT_URL, Transport

PAGE_LIMIT_MAX: Final = 1000

Item = TypeVar("Item")


class EventFilters(TypedDict, total=False):
    """All compare exactly. created_from: inclusive, created_to: exclusive; aware, or RFC 3339 text."""

    name: str | None
    version: str | None
    release: str | None
    platform_id: str | None
    package: str | None
    success: bool | None
    event_receiver_id: str | None
    owner_id: str | None
    created_from: datetime | str | None
    created_to: datetime | str | None


class ReceiverFilters(TypedDict, total=False):
    """All compare exactly."""

    name: str | None
    type: str | None
    version: str | None
    fingerprint: str | None


class GroupFilters(TypedDict, total=False):
    """All compare exactly. event_receiver_id: groups that hold this receiver."""

    name: str | None
    type: str | None
    version: str | None
    enabled: bool | None
    event_receiver_id: str | None


class ArtifactFilters(TypedDict, total=False):
    """All but name_prefix compare exactly."""

    name: str | None
    version: str | None
    release: str | None
    platform_id: str | None
    package: str | None
    name_prefix: str | None


class StreamFilters(TypedDict, total=False):
    """All compare exactly."""

    type: str | None
    name: str | None
    version: str | None
    release: str | None
    platform_id: str | None
    package: str | None
    success: bool | None
    event_receiver_id: str | None


class Client:
    """One server. `with Client(url) as client:` closes its connections at the end."""

    def __init__(self, url: str = DEFAULT_URL, *, timeout_s: float = 30.0, headers: Mapping[str, str] | None = None) -> None:
        """url: of the server, with the path it is mounted under, if any. timeout_s: of one answer, its repetitions included. headers: sent with
        each request, for what a proxy asks for. Raises ValueError for a url that is none.
        """
        self._transport = Transport(url, timeout_s=timeout_s, headers=headers)

    @property
    def url(self) -> str:
        """Of the server."""
        return self._transport.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def post_batch(self, lines: bytes, *, partial: bool = False, idempotency_key: str | None = None) -> list[str | BatchItem]:
        """Events as NDJSON, one a line, at most 10,000: all of them or none (ProblemError, with pointers such as `/25/name`), in their order.

        partial: each that nothing is wrong with. Returns their ids; with partial, for each what became of it.
        """
        headers = {"Idempotency-Key": idempotency_key or new_key(), "Content-Type": "application/x-ndjson"}
        answer = self._transport.send("POST", "events/batch", params={"partial": partial or None}, body=lines, headers=headers, repeatable=True)
        return self._transport.decode(answer, RecordedBatch).data

    def post_event(self, event: NewEvent, *, idempotency_key: str | None = None) -> str:
        """The id, once the event is stored."""
        return self._create("events", event, idempotency_key)

    def get_event(self, event_id: str) -> Event:
        """One event."""
        return self._transport.get(_path("events", event_id), Event)

    def search_events(self, *, limit: int = 50, after: str | None = None, **filters: Unpack[EventFilters]) -> Page[Event]:
        """Newest first."""
        params: dict[str, Any] = {**filters}
        params["from"], params["to"] = _time(params.pop("created_from", None)), _time(params.pop("created_to", None))
        return self._transport.get("events", Page[Event], {**params, "limit": limit, "after": after})

    def search_artifacts(self, *, limit: int = 50, after: str | None = None, **filters: Unpack[ArtifactFilters]) -> Page[ArtifactSeen]:
        """The most recently touched first."""
        return self._transport.get("artifacts", Page[ArtifactSeen], {**filters, "limit": limit, "after": after})

    def artifact_timeline(self, artifact: Artifact, *, limit: int = 50, after: str | None = None) -> Timeline:
        """A page of what happened to it, oldest first, with what each group says of it."""
        return self._transport.get("artifacts/timeline", Timeline, {**msgspec.structs.asdict(artifact), "limit": limit, "after": after})

    def create_receiver(self, receiver: NewEventReceiver, *, idempotency_key: str | None = None) -> str:
        """The id."""
        return self._create("receivers", receiver, idempotency_key)

    def get_receiver(self, receiver_id: str) -> EventReceiver:
        """One receiver."""
        return self._transport.get(_path("receivers", receiver_id), EventReceiver)

    def search_receivers(self, *, limit: int = 50, after: str | None = None, **filters: Unpack[ReceiverFilters]) -> Page[EventReceiver]:
        """Newest first."""
        return self._transport.get("receivers", Page[EventReceiver], {**filters, "limit": limit, "after": after})

    def change_receiver(self, receiver_id: str, changes: EventReceiverChanges, *, if_version: int | None = None) -> None:
        """if_version: only if this is still its resource_version; else ProblemError `precondition_failed`."""
        self._transport.send("PUT", _path("receivers", receiver_id), body=changes, headers=_if_match(if_version))

    def delete_receiver(self, receiver_id: str, *, if_version: int | None = None) -> None:
        """ProblemError `conflict` while events or groups refer to it."""
        self._transport.send("DELETE", _path("receivers", receiver_id), headers=_if_match(if_version))

    def create_group(self, group: NewEventReceiverGroup, *, idempotency_key: str | None = None) -> str:
        """The id."""
        return self._create("groups", group, idempotency_key)

    def get_group(self, group_id: str) -> EventReceiverGroup:
        """One group."""
        return self._transport.get(_path("groups", group_id), EventReceiverGroup)

    def search_groups(self, *, limit: int = 50, after: str | None = None, **filters: Unpack[GroupFilters]) -> Page[EventReceiverGroup]:
        """Newest first."""
        return self._transport.get("groups", Page[EventReceiverGroup], {**filters, "limit": limit, "after": after})

    def change_group(self, group_id: str, changes: EventReceiverGroupChanges, *, if_version: int | None = None) -> None:
        """if_version: only if this is still its resource_version; else ProblemError `precondition_failed`."""
        self._transport.send("PUT", _path("groups", group_id), body=changes, headers=_if_match(if_version))

    def set_group_enabled(self, group_id: str, enabled: bool) -> EventReceiverGroup:
        """A group that is not enabled decides nothing. Returns it as it then is."""
        answer = self._transport.send("PATCH", _path("groups", group_id), body={"enabled": enabled}, repeatable=True)
        return self._transport.decode(answer, EventReceiverGroup)

    def delete_group(self, group_id: str, *, if_version: int | None = None) -> None:
        """It decides nothing any more."""
        self._transport.send("DELETE", _path("groups", group_id), headers=_if_match(if_version))

    def group_status(self, group_id: str, artifact: Artifact) -> GroupStatus:
        """May the artifact move on by this group, and if not, why not: right as soon as an event's id has been returned."""
        return self._transport.get(f"{_path('groups', group_id)}/status", GroupStatus, msgspec.structs.asdict(artifact))

    def group_artifacts(self, group_id: str, *, complete: bool | None = None, limit: int = 50, after: str | None = None) -> Page[GroupArtifact]:
        """Artifacts by decision, newest first. complete=True: only those that the group, as it now stands, still holds complete."""
        params = {"complete": complete, "limit": limit, "after": after}
        return self._transport.get(f"{_path('groups', group_id)}/artifacts", Page[GroupArtifact], params)

    def evaluate_group(self, group_id: str, artifact: Artifact) -> Evaluation:
        """For a group made or enabled late: have the sequencer decide now, and say *group complete* on the stream if it is.

        Not repeated when its answer is lost: each evaluation may say *group complete* again.
        """
        answer = self._transport.send("POST", f"{_path('groups', group_id)}/evaluations", body=artifact)
        return self._transport.decode(answer, Evaluation)

    def stream_position(self) -> StreamPosition:
        """What the stream holds."""
        return self._transport.get("stream/position", StreamPosition)

    def follow(
        self,
        *,
        after: int | None = None,
        on_interruption: Callable[[ClientError, float], None] | None = None,
        **filters: Unpack[StreamFilters],
    ) -> Generator[Message, None, None]:
        """Messages behind a position (None: from now on), for ever; close() ends the connection.

        See stream.py for what is resumed and what is raised.
        """
        return follow(self._transport, after=after, filters={**filters}, on_interruption=on_interruption)

    def _create(self, path: str, body: msgspec.Struct, idempotency_key: str | None) -> str:
        headers = {"Idempotency-Key": idempotency_key or new_key()}
        answer = self._transport.send("POST", path, body=body, headers=headers, repeatable=True)
        return self._transport.decode(answer, Created).data


def each(search: Callable[..., Page[Item]], *arguments: Any, **filters: Any) -> Iterator[Item]:
    """Everything that a search finds, page by page: `each(client.search_events, name="api")`. Filters are those of the search."""
    after: str | None = None
    while True:
        page = search(*arguments, limit=PAGE_LIMIT_MAX, after=after, **filters)
        yield from page.data
        if not page.pagination.has_more or page.pagination.next is None:
            return
        after = page.pagination.next


def new_key() -> str:
    """An idempotency key that nobody has used."""
    return str(uuid4())


def _path(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def _if_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}


def _time(moment: datetime | str | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if isinstance(moment, datetime) else moment
