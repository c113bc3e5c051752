"""A retry with the same Idempotency-Key across a kill of the whole server gives one event."""

import contextlib
import secrets
import threading
import time

import httpx2
import pytest

from support.cast import event, make_receiver
from support.installation import Installation
from support.rounds import rounds, seeded


@pytest.mark.slow
def test_a_retry_across_a_kill_of_the_server_gives_one_event(database_url: str) -> None:
    trials = rounds(50)
    chance = seeded("idempotent retry across kill -9")
    environ = {"XZEPR__DATABASE__URL": database_url, "XZEPR__SERVER__WORKERS": "1"}
    running = Installation(environ).ready()
    with httpx2.Client(base_url=running.url) as http:
        receiver = make_receiver(http)
    keys: list[str] = []
    answered_before_the_kill = 0
    for number in range(trials):
        key = secrets.token_hex(8)
        keys.append(key)
        first: list[str] = []
        poster = threading.Thread(target=_post, args=(running.url, receiver, key, number, first))
        poster.start()
        # From "not even connected" to "answered long ago".
        time.sleep(chance.uniform(0, 0.15))
        running.kill()
        poster.join()
        answered_before_the_kill += len(first)
        running = Installation(environ).ready()
        second: list[str] = []
        _post(running.url, receiver, key, number, second)
        assert len(second) == 1, "the retry was not answered"
        assert not first or first == second, "the retry made another event"
    with httpx2.Client(base_url=running.url) as http:
        stored = http.get("/api/v1/events", params={"event_receiver_id": receiver, "limit": 1000}).json()["data"]
    assert sorted(row["version"] for row in stored) == sorted(str(number) for number in range(trials))
    print(f"{trials} of {trials}: one event each; {answered_before_the_kill} were answered before the kill")
    assert running.stop() == 0


def _post(url: str, receiver: str, key: str, number: int, answers: list[str]) -> None:
    with contextlib.suppress(httpx2.HTTPError):
        body = event(receiver, version=str(number))
        answer = httpx2.post(f"{url}/api/v1/events", json=body, headers={"Idempotency-Key": key}, timeout=20)
        if answer.status_code == 201:
            answers.append(answer.json()["data"])
