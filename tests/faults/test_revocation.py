"""What ends a credential reaches every process within a second, also one that cannot reach the database at that moment: it refuses, or it asks.

Four web processes, each an installation of its own on the same database; the way of one of them to the database can be cut.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from conftest import fresh_database
from support.accounts import SETTINGS, Person, bearer, log_in, make_key
from support.cast import event, make_receiver
from support.cut import Cut
from support.installation import Installation
from support.rounds import rounds, seeded

PROCESSES = 4
TRIALS = 100
HEARD_S = 1.0
# Longer than the promise, so that what is accepted too late is seen.
WATCHED_S = 2.0
CUT_S = 1.6


class Cluster:
    """The processes, one connection to each, and the way to the database of the last one."""

    def __init__(self, started: list[Installation], way: Cut) -> None:
        self.clients = [httpx2.Client(base_url=each.url, timeout=10) for each in started]
        self.way = way
        self.admin = bearer(log_in(self.clients[0]))
        with httpx2.Client(base_url=started[0].url, headers=self.admin) as http:
            self.receiver = make_receiver(http)

    def close(self) -> None:
        for client in self.clients:
            client.close()


@pytest.fixture(scope="module")
def cluster(first_server: str) -> Iterator[Cluster]:
    made = fresh_database(first_server)
    url = asyncio.run(made.__aenter__())
    settings = {**SETTINGS, "XZEPR__SERVER__WORKERS": "1", "XZEPR__DATABASE__CONNECTION_TIMEOUT_SECONDS": "2"}
    started: list[Installation] = []
    try:
        with Cut(url) as way:
            first = Installation({**settings, "XZEPR__DATABASE__URL": url}).ready()
            started.append(first)
            # The keys that sign are those of the first one: a cluster shares them.
            keys = f"{first.environ['XZEPR__SERVER__STATE_DIR']}/keys"
            shared = {"XZEPR__JWT__PRIVATE_KEY_PATH": f"{keys}/signing.pem", "XZEPR__JWT__PUBLIC_KEY_PATH": f"{keys}/public.pem"}
            for number in range(1, PROCESSES):
                database = way.url if number == PROCESSES - 1 else url
                started.append(Installation({**settings, **shared, "XZEPR__DATABASE__URL": database}, arguments=("serve", "--no-relay")).ready())
            running = Cluster(started, way)
            yield running
            running.close()
            for each in started:
                each.stop()
    finally:
        for each in started:
            if each.process.poll() is None:
                each.kill()
        asyncio.run(made.__aexit__())


class Trial:
    """One person with one credential, and what ends it."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self.http = chance.choice(cluster.clients[:-1])
        self.admin = cluster.admin
        self.person = Person(self.http, cluster.admin, "event_manager")
        self.key: dict[str, Any] | None = None
        acts: list[Callable[[], httpx2.Response]] = [self.disable, self.change_roles, self.change_password, self.delete, self.log_out]
        if chance.random() < 0.4:
            self.key = make_key(self.http, self.person.headers, "event:read", "event:create")
            # An owner's new password says nothing about its keys.
            acts = [self.disable, self.change_roles, self.delete, self.revoke]
        self.headers = self.person.headers if self.key is None else {"X-API-Key": self.key["key"]}
        self.end = chance.choice(acts)
        # A key goes on being known when its owner has other roles, and may do less.
        self.refusals = {401, 403} if self.end == self.change_roles else {401}

    def disable(self) -> httpx2.Response:
        return self.http.patch(f"/api/v1/admin/users/{self.person.id}", json={"enabled": False}, headers=self.admin)

    def change_roles(self) -> httpx2.Response:
        return self.http.put(f"/api/v1/admin/users/{self.person.id}/roles", json={"roles": []}, headers=self.admin)

    def change_password(self) -> httpx2.Response:
        return self.http.patch(f"/api/v1/admin/users/{self.person.id}", json={"password": "quite another one"}, headers=self.admin)

    def delete(self) -> httpx2.Response:
        return self.http.delete(f"/api/v1/admin/users/{self.person.id}", headers=self.admin)

    def log_out(self) -> httpx2.Response:
        return self.http.post("/api/v1/auth/logout", headers=self.person.headers)

    def revoke(self) -> httpx2.Response:
        assert self.key is not None
        return self.http.delete(f"/api/v1/api-keys/{self.key['id']}", headers=self.person.headers)


def watch(client: httpx2.Client, trial: Trial, receiver: str, ended_at_s: float) -> tuple[float, int]:
    """Until WATCHED_S after the end: when the credential was accepted for the last time, seconds after its end (requests by their beginning), and how
    often it was refused. By reading and by posting, which goes the short way."""
    accepted_s, refused = 0.0, 0
    asked = 0
    while (begun_s := time.monotonic() - ended_at_s) < WATCHED_S:
        asked += 1
        with contextlib.suppress(httpx2.TimeoutException):
            if asked % 2:
                answer = client.post("/api/v1/events", json=event(receiver), headers=trial.headers)
            else:
                answer = client.get("/api/v1/events?limit=1", headers=trial.headers)
            if answer.is_success:
                accepted_s = max(accepted_s, begun_s)
            elif answer.status_code in trial.refusals:
                refused += 1
            else:
                assert answer.status_code == 503, answer.text
        time.sleep(0.02)
    return accepted_s, refused


def test_what_ends_a_credential_reaches_every_process_within_a_second(cluster: Cluster) -> None:
    chance = seeded("revocation")
    trials = rounds(TRIALS)
    slowest_s, cut_trials = 0.0, 0
    with ThreadPoolExecutor(PROCESSES + 1) as pool:
        for number in range(trials):
            trial = Trial(cluster, chance)
            is_cut = number % 5 == 4
            for client in cluster.clients:
                for _ in range(2):
                    assert client.post("/api/v1/events", json=event(cluster.receiver), headers=trial.headers).status_code == 201
            if is_cut:
                cut_trials += 1
                cluster.way.cut()
            try:
                answer = trial.end()
                ended_at_s = time.monotonic()
                assert answer.is_success, answer.text
                if is_cut:
                    pool.submit(_mend_later, cluster.way)
                seen = list(pool.map(lambda client, trial=trial, at=ended_at_s: watch(client, trial, cluster.receiver, at), cluster.clients))
            finally:
                cluster.way.mend()
            late = max(accepted_s for accepted_s, _ in seen)
            slowest_s = max(slowest_s, late)
            assert late < HEARD_S, f"trial {number} ({trial.end.__name__}, cut: {is_cut}): accepted {late:.2f} s later"
            # Silence is no refusal: whoever could reach the database said no.
            assert all(refused for _, refused in seen[: PROCESSES - 1 if is_cut else PROCESSES]), seen
    print(f"{trials} of {trials} (with the database out of reach: {cut_trials}): last accepted {slowest_s:.2f} s after the end")


def _mend_later(way: Cut) -> None:
    time.sleep(CUT_S)
    way.mend()
