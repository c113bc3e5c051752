"""Load for the fault drill: clients that go on whatever happens to the server, and write down what they were answered.

Each writer has one connection, so one process answers it until the connection breaks, and sends one request after the other. Requests with an
Idempotency-Key are sent again, the same bytes, until the answer is definite.
"""

import asyncio
import contextlib
import json
import random
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2

from support.cast import artifact_of, event, make_group, make_receiver
from support.ledger import Ledger

WRITERS = 8
ANSWER_S = 20.0
# Between two requests of a writer, at most.
PAUSE_MAX_S = 0.05
EVENTS_PER_ARTIFACT = 40
# How long a keyed request may be tried when the load ends: longer than any restart.
GIVE_UP_S = 60.0
# "Try again" in the form of a 4xx: nothing was stored by this attempt.
TRY_AGAIN = (408, 409, 429)

SCHEMA = {"type": "object", "required": ["marker"], "properties": {"marker": {"type": "string"}, "count": {"type": "integer"}}}


@dataclass(frozen=True)
class World:
    """What the load posts to: receivers, groups that share them, and whether this server takes batches."""

    receivers: list[str]
    groups: list[str]
    batches: bool

    @classmethod
    def make(cls, http: httpx2.Client) -> "World":
        receivers = [make_receiver(http, name=f"drill {number}", type=f"drill.{number}", schema=SCHEMA) for number in range(4)]
        shared = [[0, 1], [1, 2], [0, 2, 3]]
        groups = [
            make_group(http, [receivers[member] for member in members], name=f"group {number}", type=f"group.{number}")
            for number, members in enumerate(shared)
        ]
        batches = http.post("/api/v1/events/batch", json=[event(receivers[0], name="", payload={})]).status_code not in (404, 405)
        return cls(receivers, groups, batches)


@dataclass(frozen=True)
class Answer:
    """status 0: none came; outcome: for the history."""

    status: int
    outcome: str
    body: Any = None
    connection: object = None


class Load:
    """A thread of writers. Everything public is called from the test's own thread."""

    def __init__(self, url: str, world: World, ledger: Ledger, chance: random.Random) -> None:
        self.url, self.world, self.ledger = url, world, ledger
        self.stopping = threading.Event()
        self.held = threading.Event()
        self.failure: BaseException | None = None
        self._writers = [Writer(self, number, random.Random(chance.random())) for number in range(WRITERS)]
        self._burst = random.Random(chance.random())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="drill-load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Each writer ends what it is at; keyed requests get their answer."""
        self.stopping.set()
        self.held.clear()
        self._thread.join(GIVE_UP_S + ANSWER_S + 10)
        assert not self._thread.is_alive(), "the load does not end"
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            asyncio.run(self._write())
        except BaseException as error:  # noqa: BLE001  told to the test when it stops the load
            self.failure = error

    async def _write(self) -> None:
        self._loop = asyncio.get_running_loop()
        await asyncio.gather(*(writer.run() for writer in self._writers))

    def wait_for_acknowledged(self, more: int, seconds: float) -> float:
        """Until that many more events are acknowledged; after how many seconds. Raises AssertionError."""
        began, goal = time.monotonic(), self.ledger.acknowledged + more
        while self.ledger.acknowledged < goal:
            assert self.failure is None, f"the load broke: {self.failure!r}"
            assert time.monotonic() - began < seconds, f"the server acknowledged nothing for {seconds} s"
            time.sleep(0.02)
        return time.monotonic() - began

    @contextlib.contextmanager
    def settled(self, seconds: float) -> Iterator[None]:
        """Nobody asks for anything, and everybody has their answer."""
        self.held.set()
        try:
            deadline = time.monotonic() + seconds
            while any(writer.busy for writer in self._writers):
                assert time.monotonic() < deadline, f"requests are not answered within {seconds} s"
                time.sleep(0.02)
            yield
        finally:
            self.held.clear()

    def hang_up(self) -> int:
        """Every other writer closes its connection in the middle of its request; how many did."""
        asked = [writer for writer in self._writers[::2] if writer.busy]
        assert self._loop is not None
        for writer in asked:
            self._loop.call_soon_threadsafe(writer.hang_up)
        return len(asked)

    def burst(self, count: int) -> None:
        """That many events at once, each on a connection of its own if need be; answered while the load goes on."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._burst_of(count), self._loop)

    async def _burst_of(self, count: int) -> None:
        limits = httpx2.Limits(max_connections=count)
        async with httpx2.AsyncClient(base_url=self.url, timeout=ANSWER_S, limits=limits) as client:
            extra = [Writer(self, WRITERS, random.Random(self._burst.random()), client) for _ in range(count)]
            self._writers += extra
            await asyncio.gather(*(writer.once() for writer in extra))
            del self._writers[WRITERS:]

    def slam(self, whole: bool) -> None:
        """A client that dies: it sends an event, whole or half of it, and resets the connection without reading."""
        marker = self.ledger.new("slammed" if whole else "half sent")
        body = json.dumps(event(self.world.receivers[0], name="slam", payload={"marker": marker})).encode()
        host, port = self.url.removeprefix("http://").split(":")
        head = f"POST /api/v1/events HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        if not whole:
            self.ledger.refuse(marker)
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(head + (body if whole else body[: len(body) // 2]))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.ledger.note(marker, "connection reset")


class Writer:
    """One client. busy: it waits for an answer, or for a definite one."""

    def __init__(self, load: Load, number: int, chance: random.Random, client: httpx2.AsyncClient | None = None) -> None:
        self.load, self.number, self.chance = load, number, chance
        self.ledger, self.world = load.ledger, load.world
        self.busy = False
        self._client = client
        self._asked: asyncio.Task[httpx2.Response] | None = None
        self._last: tuple[object, str] = (None, "")

    async def run(self) -> None:
        """Until the load stops."""
        acts = {self.single: 40, self.keyed: 34, self.invalid: 10, self.batch: 10 * self.world.batches, self.change_group: 3, self.evaluate: 2}
        limits = httpx2.Limits(max_connections=1)
        async with httpx2.AsyncClient(base_url=self.load.url, timeout=ANSWER_S, limits=limits) as self._client:
            while not self.load.stopping.is_set():
                if not self.load.held.is_set():
                    self.busy = True
                    (act,) = self.chance.choices(list(acts), list(acts.values()))
                    await act()
                    self.busy = False
                await asyncio.sleep(self.chance.uniform(0, PAUSE_MAX_S))

    async def once(self) -> None:
        """One event, on the client given."""
        self.busy = True
        await self.single()
        self.busy = False

    def hang_up(self) -> None:
        """In the loop's thread."""
        if self._asked is not None:
            self._asked.cancel()

    async def single(self) -> None:
        marker, body = self._event("single")
        answer = await self._post([marker], body)
        if answer.status == 201:
            event_id = answer.body["data"]
            self.ledger.acknowledge(marker, event_id)
            self.ledger.orders.setdefault(self.number, []).append(event_id) if self.number < WRITERS else None
            self._require_rising(answer.connection, event_id, marker)
        elif 400 <= answer.status < 500:
            self.ledger.refuse(marker)

    async def keyed(self) -> None:
        key = secrets.token_hex(8)
        marker, body = self._event(f"keyed {key}")
        if await self._until_definite([marker], body, key):
            self.ledger.orders.setdefault(self.number, []).append(str(self.ledger.entries[marker].event_id))
            if self.chance.random() < 0.2:
                # Again, though it was answered: the first answer again, no second event.
                await self._until_definite([marker], body, key)
            if self.chance.random() < 0.1:
                await self._other_body(key)

    async def invalid(self) -> None:
        marker, body = self._event("invalid")
        change: dict[str, Any] = self.chance.choice(
            [
                {"payload": {"marker": marker, "count": "many"}},
                {"name": ""},
                {"release": None},
                {"event_receiver_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV"},
                {"unknown": 1},
            ]
        )
        self.ledger.refuse(marker)
        key = secrets.token_hex(8) if self.chance.random() < 0.3 else None
        answer = await self._post([marker], {**body, **change}, key)
        if answer.status == 201:
            self.ledger.acknowledge(marker, answer.body["data"])

    async def batch(self) -> None:
        """All or nothing; one in five has an event that is not valid."""
        made = [self._event("batch") for _ in range(self.chance.randint(2, 30))]
        markers, bodies = [marker for marker, _ in made], [body for _, body in made]
        self.ledger.batches.append(markers)
        path = "/api/v1/events/batch"
        if self.chance.random() < 0.2:
            self.chance.choice(bodies)["payload"]["count"] = "many"
            for marker in markers:
                self.ledger.refuse(marker)
            answer = await self._post(markers, bodies, path=path)
        elif self.chance.random() < 0.5:
            if await self._until_definite(markers, bodies, secrets.token_hex(8), path):
                self.ledger.orders.setdefault(self.number, []).extend(str(self.ledger.entries[marker].event_id) for marker in markers)
            return
        else:
            answer = await self._post(markers, bodies, path=path)
        self._take(markers, answer)

    async def change_group(self) -> None:
        """Edited, enabled, disabled. Whatever becomes of it, the stream tells."""
        group_id = self.chance.choice(self.world.groups)
        path = f"/api/v1/groups/{group_id}"
        if self.chance.random() < 0.4:
            members = self.chance.sample(self.world.receivers, self.chance.randint(1, 3))
            answer = await self._ask("PUT", path, {"event_receiver_ids": members, "description": secrets.token_hex(4)})
        else:
            answer = await self._ask("PATCH", path, {"enabled": self.chance.random() < 0.7})
        # Enabling what is enabled makes no version, and nothing tells here whether it was: only an edit must have made one.
        if answer.status == 204:
            self.ledger.changes[group_id] += 1

    async def evaluate(self) -> None:
        _, body = self._body("none")
        answer = await self._ask("POST", f"/api/v1/groups/{self.chance.choice(self.world.groups)}/evaluations", artifact_of(body))
        if answer.status == 200 and answer.body["complete"]:
            self.ledger.evaluations.append((answer.body["position"], answer.body["message_id"]))

    def _event(self, what: str) -> tuple[str, dict[str, Any]]:
        return self._body(self.ledger.new(what))

    def _body(self, marker: str) -> tuple[str, dict[str, Any]]:
        """A success or failure somewhere on the artifacts that everybody is at now."""
        number = len(self.ledger.entries) // EVENTS_PER_ARTIFACT
        body = event(
            self.chance.choice(self.world.receivers),
            name=f"artifact {max(0, number - self.chance.randint(0, 3))}",
            payload={"marker": marker},
            success=self.chance.random() < 0.85,
        )
        return marker, body

    async def _until_definite(self, markers: list[str], body: Any, key: str, path: str = "/api/v1/events") -> bool:
        """Sent again with its key until it is answered with 201; whether it was."""
        give_up_at = None
        while give_up_at is None or time.monotonic() < give_up_at:
            answer = await self._post(markers, body, key, path)
            if answer.status == 201:
                self._take(markers, answer)
                return True
            if 400 <= answer.status < 500 and answer.status not in TRY_AGAIN:
                self.ledger.faults.append(f"refused, though it is valid: {self.ledger.entries[markers[0]].told()}")
                return False
            if give_up_at is None and self.load.stopping.is_set():
                give_up_at = time.monotonic() + GIVE_UP_S
            await asyncio.sleep(self.chance.uniform(0.02, 0.2))
        self.ledger.faults.append(f"never answered: {self.ledger.entries[markers[0]].told()}")
        return False

    def _take(self, markers: list[str], answer: Answer) -> None:
        if answer.status == 201:
            ids = answer.body["data"] if isinstance(answer.body["data"], list) else [answer.body["data"]]
            if len(ids) != len(markers):
                self.ledger.faults.append(f"{len(markers)} events were answered with {len(ids)} ids: {self.ledger.entries[markers[0]].told()}")
            for marker, event_id in zip(markers, ids, strict=False):
                self.ledger.acknowledge(marker, event_id)
        elif 400 <= answer.status < 500:
            for marker in markers:
                self.ledger.refuse(marker)

    async def _other_body(self, key: str) -> None:
        """Another body under a used key is a conflict, and is not stored."""
        marker, body = self._event(f"key {key} of another body")
        self.ledger.refuse(marker)
        answer = await self._post([marker], body, key)
        if answer.status == 201:
            self.ledger.acknowledge(marker, answer.body["data"])

    def _require_rising(self, connection: object, event_id: str, marker: str) -> None:
        """On one connection one process mints: its ids rise, whatever its clock does."""
        last_connection, last_id = self._last
        if connection is not None and connection is last_connection and event_id <= last_id:
            self.ledger.faults.append(f"{event_id} was minted after {last_id} by the same process: {self.ledger.entries[marker].told()}")
        self._last = (connection, event_id)

    async def _post(self, markers: list[str], body: Any, key: str | None = None, path: str = "/api/v1/events") -> Answer:
        answer = await self._ask("POST", path, body, {} if key is None else {"Idempotency-Key": key})
        for marker in markers:
            self.ledger.note(marker, answer.outcome)
        if answer.status == 500:
            self.ledger.faults.append(f"500, where a part that is down is 503: {self.ledger.entries[markers[0]].told()}")
        return answer

    async def _ask(self, method: str, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        assert self._client is not None
        self._asked = asyncio.ensure_future(self._client.request(method, path, json=body, headers=headers))
        await asyncio.wait({self._asked})
        answer = _answer_of(self._asked)
        self._asked = None
        self.ledger.answers[f"{method} {path.split('/')[3]}: {answer.outcome.split(' ')[0]}"] += 1
        if answer.status == 0:
            await asyncio.sleep(0.05)
        return answer


def _answer_of(asked: asyncio.Task[httpx2.Response]) -> Answer:
    if asked.cancelled():
        return Answer(0, "hung-up by the client")
    if (error := asked.exception()) is not None:
        if not isinstance(error, httpx2.HTTPError):
            raise error
        return Answer(0, type(error).__name__)
    response = asked.result()
    body = response.json() if response.content else None
    shown = json.dumps(body)[:200] if response.status_code != 201 else str(body["data"])[:200]
    return Answer(response.status_code, f"{response.status_code} {shown}", body, response.extensions.get("network_stream"))


class Watcher:
    """A client that follows the stream from its beginning through everything, resuming at its last position. seen: message ids by position."""

    def __init__(self, url: str) -> None:
        self.seen: list[str] = []
        self.faults: list[str] = []
        self.resumed = -1
        self._url = url
        self._goal: int | None = None
        self._thread = threading.Thread(target=self._run, name="drill-watcher", daemon=True)
        self._thread.start()

    def finish(self, newest: int, seconds: float) -> None:
        """Wait until it has seen this position."""
        self._goal = newest
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.faults.append(f"a watcher is at position {len(self.seen)} of {newest} after {seconds} s")

    def _run(self) -> None:
        from support.raw_stream import envelopes

        while self._goal is None or len(self.seen) < self._goal:
            self.resumed += 1
            # A follower whose worker is paused hears nothing: it asks again, as any watcher would.
            with contextlib.suppress(httpx2.HTTPError, AssertionError), httpx2.Client(base_url=self._url, timeout=3) as http:
                for body in envelopes(http, len(self.seen)):
                    message = json.loads(body)
                    self.seen.append(message["message_id"])
                    if message["position"] != len(self.seen):
                        self.faults.append(f"a watcher was given position {message['position']}, where {len(self.seen)} should stand")
                        return
                    if len(self.seen) == self._goal:
                        return
            time.sleep(0.05)
