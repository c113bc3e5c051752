"""The Python client against a running server, and over connections that break."""

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec
import pytest
from xzepr_client import (
    Artifact,
    Client,
    ClientError,
    EventReceiverChanges,
    EventReceiverGroupChanges,
    NewEvent,
    NewEventReceiver,
    NewEventReceiverGroup,
    NoAnswer,
    ProblemError,
    UnexpectedAnswer,
    each,
)
from xzepr_client import client as client_module

from support.installation import Installation

_numbers = itertools.count(1)
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def client(shared_installation: Installation) -> Iterator[Client]:
    with Client(shared_installation.url) as opened:
        yield opened


@pytest.fixture
def artifact() -> Artifact:
    """A new one for each test."""
    return Artifact(name=f"api-{next(_numbers)}", version="1.4.2", release="2026.11", platform_id="x86-64-oci-linux", package="oci")


def receiver(client: Client, **fields: Any) -> str:
    named = {"name": f"tests {next(_numbers)}", "type": "test.finished", "version": "1.0.0", "schema": {}, **fields}
    return client.create_receiver(NewEventReceiver(**named))


def group(client: Client, *receiver_ids: str, **fields: Any) -> str:
    named = {"name": f"release {next(_numbers)}", "type": "release.approved", "version": "1.0.0", **fields}
    return client.create_group(NewEventReceiverGroup(**named, event_receiver_ids=list(receiver_ids)))


def post(client: Client, artifact: Artifact, receiver_id: str, *, success: bool = True, payload: Any = None) -> str:
    return client.post_event(NewEvent.about(artifact, receiver_id, success=success, payload={} if payload is None else payload))


class Proxy:
    """Between client and server. `lose_answers` more requests are passed on, and their answers thrown away; `cut` breaks every connection."""

    def __init__(self, url: str) -> None:
        self.target = (urlsplit(url).hostname, urlsplit(url).port)
        self.lose_answers = 0
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(self.target)
            self._open |= {near, far}
            for source, sink, is_answer in ((near, far, False), (far, near, True)):
                self._threads.append(threading.Thread(target=self._carry, args=(source, sink, is_answer)))
                self._threads[-1].start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_answer and self.lose_answers:
                    self.lose_answers -= 1
                    break
                sink.sendall(data)
        _end(source, sink)

    def cut(self) -> None:
        _end(*self._open)

    def close(self) -> None:
        # Only shutdown wakes a thread that accepts.
        _end(self._listening, *self._open)
        for thread in self._threads:
            thread.join(10)
        for each_socket in (self._listening, *self._open):
            each_socket.close()


def _end(*sockets: socket.socket) -> None:
    for each_socket in sockets:
        with contextlib.suppress(OSError):
            each_socket.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(shared_installation: Installation) -> Iterator[Proxy]:
    made = Proxy(shared_installation.url)
    yield made
    made.close()


def test_an_event_comes_back_as_it_was_sent(client: Client, artifact: Artifact) -> None:
    receiver_id = receiver(client)
    payload = b'{"z":1e3,"a":1.0,"n":18446744073709551617,"m":-0,"e":"\\u00e9\xf0\x9f\x9a\x80"}'
    event = client.get_event(post(client, artifact, receiver_id, payload=msgspec.Raw(payload)))
    assert bytes(event.payload) == payload
    assert event.payload_value["n"] == 18446744073709551617
    assert (event.name, event.success, event.event_receiver_id) == (artifact.name, True, receiver_id)
    assert [each.id for each in client.search_events(name=artifact.name).data] == [event.id]
    assert client.search_events(name=artifact.name, success=False).data == []
    assert client.search_events(name=artifact.name, created_to=event.created_at).data == []


def test_a_timeline_tells_events_and_groups(client: Client, artifact: Artifact) -> None:
    first, second = receiver(client, name="tests"), receiver(client, name="signature")
    group_id = group(client, first, second)
    posted = [post(client, artifact, first, success=False), post(client, artifact, first)]
    story = client.artifact_timeline(artifact)
    assert story.artifact == artifact
    assert [(each.id, each.event_receiver_name) for each in story.events] == [(posted[0], "tests"), (posted[1], "tests")]
    assert story.groups is not None
    (told,) = [each for each in story.groups if each.group.id == group_id]
    assert [gate.state for gate in told.gates] == ["open", "missing"]
    assert [each.last_event_id for each in client.search_artifacts(name_prefix=artifact.name).data] == [posted[1]]


def test_a_group_from_its_making_to_its_end(client: Client, artifact: Artifact) -> None:
    receiver_id = receiver(client)
    post(client, artifact, receiver_id)
    group_id = group(client, receiver_id, enabled=False)
    assert not client.group_status(group_id, artifact).complete
    assert client.set_group_enabled(group_id, True).enabled
    evaluation = client.evaluate_group(group_id, artifact)
    assert evaluation.complete
    assert evaluation.position is not None
    decided = client.group_artifacts(group_id, complete=True).data
    assert [(each.name, each.position) for each in decided] == [(artifact.name, evaluation.position)]
    held = client.get_group(group_id)
    client.change_group(group_id, EventReceiverGroupChanges(description="changed"), if_version=held.resource_version)
    assert client.get_group(group_id).description == "changed"
    with pytest.raises(ProblemError) as caught:
        client.change_group(group_id, EventReceiverGroupChanges(description="late"), if_version=held.resource_version)
    assert (caught.value.status, caught.value.code) == (412, "precondition_failed")
    client.delete_group(group_id)
    with pytest.raises(ProblemError) as caught:
        client.get_group(group_id)
    assert caught.value.status == 404


def test_a_receiver_is_changed_in_what_is_named_and_deleted_when_nothing_refers_to_it(client: Client, artifact: Artifact) -> None:
    receiver_id = receiver(client, name="before", schema={"type": "object"})
    client.change_receiver(receiver_id, EventReceiverChanges(name="after"), if_version=1)
    changed = client.get_receiver(receiver_id)
    assert (changed.name, changed.type, changed.schema_value, changed.resource_version) == ("after", "test.finished", {"type": "object"}, 2)
    post(client, artifact, receiver_id)
    with pytest.raises(ProblemError) as caught:
        client.delete_receiver(receiver_id)
    assert caught.value.status == 409
    unused = receiver(client)
    client.delete_receiver(unused)
    assert unused not in [each.id for each in each(client.search_receivers)]


def test_a_refusal_tells_every_fault(client: Client, artifact: Artifact) -> None:
    receiver_id = receiver(client, schema={"type": "object", "required": ["a"], "properties": {"b": {"type": "integer"}}})
    with pytest.raises(ProblemError) as caught:
        post(client, artifact, receiver_id, payload={"b": "x"})
    problem = caught.value
    assert (problem.status, problem.code) == (422, "payload_mismatch")
    assert {fault.pointer for fault in problem.faults} == {"/payload", "/payload/b"}
    assert problem.request_id
    assert problem.body["type"] == "/docs/problems#payload_mismatch"


def test_a_search_is_walked_page_by_page(client: Client, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE_LIMIT_MAX", 2)
    receiver_id = receiver(client)
    posted = [post(client, artifact, receiver_id) for _ in range(5)]
    assert [event.id for event in each(client.search_events, name=artifact.name)] == posted[::-1]


def test_an_answer_that_was_lost_is_asked_for_again_and_nothing_is_made_twice(proxy: Proxy, client: Client, artifact: Artifact) -> None:
    receiver_id = receiver(client)
    proxy.lose_answers = 2
    with Client(proxy.url) as lossy:
        event_id = post(lossy, artifact, receiver_id)
    assert proxy.connections == 3
    assert [event.id for event in client.search_events(name=artifact.name).data] == [event_id]


def test_what_might_be_done_twice_is_not_repeated(proxy: Proxy, client: Client) -> None:
    receiver_id = receiver(client)
    proxy.lose_answers = 1
    with Client(proxy.url) as lossy, pytest.raises(NoAnswer) as caught:
        lossy.change_receiver(receiver_id, EventReceiverChanges(description="once"))
    assert caught.value.connected
    assert proxy.connections == 1
    assert client.get_receiver(receiver_id).resource_version == 2


def test_the_same_key_gives_the_first_answer_also_to_another_run(client: Client, artifact: Artifact) -> None:
    receiver_id = receiver(client)
    new = NewEvent.about(artifact, receiver_id, success=True, payload={})
    key = client_module.new_key()
    assert client.post_event(new, idempotency_key=key) == client.post_event(new, idempotency_key=key)
    with pytest.raises(ProblemError) as caught:
        client.post_event(msgspec.structs.replace(new, success=False), idempotency_key=key)
    assert caught.value.status == 409


def test_nobody_answers() -> None:
    began_s = time.monotonic()
    with Client(NOWHERE) as client, pytest.raises(NoAnswer, match=r"no answer from http://127\.0\.0\.1:1: .*refused") as caught:
        client.stream_position()
    assert not caught.value.connected
    assert 1.0 < time.monotonic() - began_s < 5.0, "it is tried four times, for a server that just restarts"


@pytest.mark.parametrize("url", ["", "127.0.0.1:8042", "ftp://host", "http://", "http://[::1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"address|IPv6"):
        Client(url)


class _OtherServer(BaseHTTPRequestHandler):
    """Answers in turn what `answers` holds: status, headers, body; the last one for ever."""

    answers: ClassVar[list[tuple[int, dict[str, str], bytes]]] = []
    asked = 0

    def do_GET(self) -> None:
        kind = type(self)
        status, headers, body = kind.answers[min(kind.asked, len(kind.answers) - 1)]
        kind.asked += 1
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@contextlib.contextmanager
def other_server(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, type[_OtherServer]]]:
    handler = type("Handler", (_OtherServer,), {"answers": list(answers), "asked": 0})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler
        finally:
            server.shutdown()
            thread.join(10)


def problem_answer(status: int, code: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return status, headers, json.dumps({"error": code, "detail": "told"}).encode()


POSITION = (200, {}, b'{"oldest":1,"newest":2,"pending":0,"later":"addition"}')


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"<html>a login page</html>"),
        (404, {}, b"<html>no such page</html>"),
        (302, {"Location": "/login"}, b""),
        (200, {}, b'{"oldest":"text"}'),
        (500, {}, b'{"detail":"of somebody else"}'),
    ],
)
def test_another_server_is_told_from_ours(answer: tuple[int, dict[str, str], bytes]) -> None:
    with other_server(answer) as (url, handler), Client(url) as client:
        with pytest.raises(UnexpectedAnswer) as caught:
            client.stream_position()
        assert caught.value.status == answer[0]
        assert handler.asked == 1


def test_members_that_a_newer_server_adds_are_ignored() -> None:
    with other_server(POSITION) as (url, _), Client(url) as client:
        assert client.stream_position().newest == 2


def test_a_proxy_whose_server_is_away_is_asked_again() -> None:
    away = (502, {}, b"<html>bad gateway</html>")
    with other_server(away, away, POSITION) as (url, handler), Client(url) as client:
        assert client.stream_position().newest == 2
        assert handler.asked == 3
    with other_server(away) as (url, _), Client(url) as client, pytest.raises(UnexpectedAnswer, match=r"answered 502.*bad gateway"):
        client.stream_position()


@pytest.mark.parametrize(("status", "code"), [(503, "unavailable"), (429, "rate_limited"), (409, "in_flight")])
def test_what_passes_is_asked_again_when_the_server_says(status: int, code: str) -> None:
    with other_server(problem_answer(status, code, **{"Retry-After": "1"}), POSITION) as (url, handler), Client(url) as client:
        began_s = time.monotonic()
        assert client.stream_position().newest == 2
        assert time.monotonic() - began_s >= 1.0
        assert handler.asked == 2


def test_a_wait_longer_than_the_timeout_is_left_to_the_caller() -> None:
    with other_server(problem_answer(429, "rate_limited", **{"Retry-After": "60"})) as (url, handler), Client(url, timeout_s=2) as client:
        with pytest.raises(ProblemError) as caught:
            client.stream_position()
        assert caught.value.retry_after_s == 60.0
        assert handler.asked == 1


def test_the_stream_goes_on_over_broken_connections_without_holes(proxy: Proxy, client: Client, artifact: Artifact) -> None:
    receiver_id = receiver(client)
    told: list[tuple[ClientError, float]] = []
    posted, seen = [post(client, artifact, receiver_id)], []
    with Client(proxy.url) as lossy:
        messages = lossy.follow(after=0, name=artifact.name, on_interruption=lambda error, pause_s: told.append((error, pause_s)))
        seen.append(next(messages))
        for _ in range(2):
            proxy.cut()
            posted += [post(client, artifact, receiver_id) for _ in range(2)]
            seen += [next(messages) for _ in range(2)]
        messages.close()
    assert [message.envelope.id for message in seen] == posted
    assert [isinstance(error, NoAnswer) for error, _ in told] == [True, True]
    assert [message.position for message in seen] == sorted({message.position for message in seen})
    assert json.loads(seen[-1].text)["data"]["events"][0]["id"] == posted[-1]


def test_from_now_on_means_no_older_message(client: Client, artifact: Artifact, shared_installation: Installation) -> None:
    receiver_id = receiver(client)
    older = post(client, artifact, receiver_id)
    client.evaluate_group(group(client, receiver_id), artifact)  # returns when all before it is sequenced
    with Client(shared_installation.url) as other:
        found: list[str] = []
        listening = threading.Event()

        def listen() -> None:
            messages = other.follow(name=artifact.name, type="test.finished")
            listening.set()
            found.append(next(messages).envelope.id)
            messages.close()

        reader = threading.Thread(target=listen)
        reader.start()
        listening.wait(10)
        posted = []
        # Until it has connected nothing is promised, so events are posted until one is heard.
        while reader.is_alive() and len(posted) < 200:
            posted.append(post(client, artifact, receiver_id))
            reader.join(0.05)
        reader.join(10)
    assert found[0] in posted
    assert found[0] != older


def test_a_filter_that_is_refused_ends_the_stream_at_once(client: Client) -> None:
    with pytest.raises(ProblemError) as caught:
        next(client.follow(event_receiver_id="no id"))
    assert caught.value.code == "invalid_id"


def test_the_first_connection_must_succeed() -> None:
    with Client(NOWHERE) as client, pytest.raises(NoAnswer):
        next(client.follow())


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "text/html"}, b"<html>"),
        ({"Content-Type": "text/event-stream"}, b"id: 1\ndata: {}\n\n"),
        ({"Content-Type": "text/event-stream"}, b"id: one\ndata: x\n\n"),
    ],
)
def test_a_stream_that_is_none_of_ours_is_told(headers: dict[str, str], body: bytes) -> None:
    with other_server((200, headers, body)) as (url, _), Client(url) as client, pytest.raises(UnexpectedAnswer):
        next(client.follow())
