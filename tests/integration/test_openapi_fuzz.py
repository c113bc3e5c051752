"""Requests made from the server's own OpenAPI document, against a whole installation.

`make test` sends 2,000, `make fuzz` 20,000 (XZEPR_FUZZ_REQUESTS). No answer is 5xx, every answer is one that the document promises, sound requests are
not refused for what the document allows, broken ones are refused. The seed is printed; SEED= repeats the requests. Of the live stream the head
and the first piece are read, since it never ends; afterwards every envelope that it holds is checked against the document.

Our own generator and not schemathesis: that one needs a version of jsonschema-rs below the one that the server runs on.
"""

import asyncio
import itertools
import json
import os
import secrets
import time
from typing import Any

import httpx2
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded_by

from support.cast import created, make_group, make_receiver, post_event
from support.installation import Installation
from support.openapi_answers import Answers
from support.openapi_cases import KNOWN, KNOWN_MAX, Case, Requests
from support.raw_stream import envelopes
from support.rounds import seeded
from support.users import make_users

REQUESTS = int(os.environ.get("XZEPR_FUZZ_REQUESTS", "2000"))
# hypothesis remembers what it tried within a block.
BLOCK = 500
# Without a provider these only say that there is none; tests/integration/test_oidc.py asks them everything.
ALL, FEW = 20_000, 3
# Nobody guesses a password or a token here, and keys are made by somebody who logged in.
NEVER_DONE = ("post_auth_login", "post_auth_refresh", "post_api_keys", "get_api_keys", "delete_api_keys_id")
WITHOUT = ("/api/v1/auth/oidc/", "/api/v1/auth/cli/")
QUIET = settings(
    max_examples=BLOCK,
    database=None,
    deadline=None,
    # The server's state goes on from request to request, so there is nothing to shrink.
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


class Sender:
    """Sends cases, with the ids of what is there in the place of their tokens."""

    def __init__(self, http: httpx2.Client, document: dict[str, Any], users: list[str]) -> None:
        self.http = http
        self.answers = Answers(document)
        self.sent = 0
        receivers = [make_receiver(http, name=f"fuzzed {place}", schema={"type": "object"} if place == 0 else {}) for place in range(KNOWN_MAX)]
        self._receivers, self._users = receivers, users
        self.known = {
            "receiver": receivers,
            "spare": [make_receiver(http) for _ in range(KNOWN_MAX)],
            "group": [self._make_group(receivers[place : place + 2]) for place in range(KNOWN_MAX)],
            "user": users,
            "account": [self._make_account() for _ in range(KNOWN_MAX)],
            "event": [post_event(http, receiver) for receiver in receivers],
        }

    def send(self, case: Case) -> None:
        """Raises AssertionError when the answer is not what it should be."""
        path, query = self._filled(case.path), self._filled(case.query)
        body = None if case.body is None else self._filled(case.body.decode("latin-1")).encode("latin-1")
        request = self.http.build_request(case.method, path + ("?" + query if query else ""), content=body, headers=list(case.headers))
        answer = self.http.send(request, stream=True)
        try:
            is_stream = answer.headers.get("content-type", "").startswith("text/event-stream") and case.method == "GET"
            received = next(answer.iter_raw()) if is_stream else answer.read()
        finally:
            answer.close()
        self.sent += 1
        self.answers.check(case, answer, received)
        if is_stream:
            assert received.startswith(b"id: "), f"{received[:100]!r} of {case}"
        if case.method == "DELETE" and answer.status_code == 204 and "/members/" not in path:
            self._replace(path)

    def _filled(self, text: str) -> str:
        return KNOWN.sub(lambda match: self.known[match[1]][int(match[2]) % len(self.known[match[1]])], text)

    def _replace(self, path: str) -> None:
        """Something new in the place of what was deleted."""
        gone = path.rstrip("/").rpartition("/")[2].upper()
        for kind, ids in self.known.items():
            if gone in ids:
                makers = {"spare": lambda: make_receiver(self.http), "account": self._make_account}
                ids[ids.index(gone)] = makers.get(kind, lambda: self._make_group(self._receivers[:2]))()

    def _make_account(self) -> str:
        body = {"username": f"fuzzed {secrets.token_hex(6)}", "password": "correct horse battery staple"}
        return created(self.http.post("/api/v1/admin/users", json=body))

    def _make_group(self, receiver_ids: list[str]) -> str:
        """With half of the users as members: the others can be added, these can be removed."""
        made = make_group(self.http, receiver_ids)
        for user_id in self._users[::2]:
            assert self.http.post(f"/api/v1/groups/{made}/members", json={"user_id": user_id}).status_code == 201
        return made


def test_every_answer_is_one_that_the_document_promises(shared_installation: Installation, http: httpx2.Client) -> None:
    document = http.get("/openapi.json").json()
    users = asyncio.run(make_users(shared_installation.environ["XZEPR__DATABASE__URL"], [f"fuzzed-{place}" for place in range(KNOWN_MAX)]))
    requests, sender = Requests(document, without=WITHOUT), Sender(http, document, list(users.values()))
    cases, chance = requests.cases(), seeded("openapi fuzz")
    while sender.sent < REQUESTS:

        @seeded_by(chance.getrandbits(64))
        @QUIET
        @given(cases)
        def block(case: Case) -> None:
            sender.send(case)

        block()

    assert sender.sent >= REQUESTS
    print(f"{sender.sent} requests: {dict(sender.answers.sorts)}\n{dict(sorted(sender.answers.seen.items()))}")
    require_breadth(requests, sender.answers)
    health = http.get("/health").json()
    assert health["status"] == "healthy", health
    assert not [line for line in shared_installation.lines if "request.failed" in line or "Traceback" in line]
    require_sound_stream(http, sender.answers)


def require_breadth(requests: Requests, answers: Answers) -> None:
    """Each operation did its work at least once, and refused at least once: otherwise the run has shown little. In a short run chance may leave out
    a few of the sixty."""
    missing = []
    for operation in requests.operations:
        name = operation.about["operationId"]
        success = int(next(iter(operation.about["responses"])))
        wanted = [400] if name in NEVER_DONE else [success, 400]
        missing += [f"{name} never answered {status}" for status in wanted if not answers.seen[name, status]]
    assert len(missing) <= (FEW if REQUESTS < ALL else 0), missing


def require_sound_stream(http: httpx2.Client, answers: Answers) -> None:
    """All that the fuzz left in the stream satisfies the document's envelope, position by position."""
    give_up_at_s = time.monotonic() + 60
    while (reach := http.get("/api/v1/stream/position").json())["pending"]:
        assert time.monotonic() < give_up_at_s, reach
        time.sleep(0.05)
    positions = []
    for body in itertools.islice(envelopes(http), reach["newest"]):
        answers.envelope(body)
        positions.append(json.loads(body)["position"])
    assert positions == list(range(1, reach["newest"] + 1))


def test_address_without_anything_is_the_documented_404(http: httpx2.Client) -> None:
    document = http.get("/openapi.json").json()
    promise = document["components"]["responses"]["NoSuchAddress"]["content"]["application/problem+json"]["schema"]
    answers = Answers(document)
    for path in (
        "/nothing",
        "/api/v1",
        "/api/v1/",
        "/api/v1/event",
        "/api/v2/events",
        "/xzepr/health",
        "/api/v1/events/x/y",
        "/static/nothing",
    ):
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            if path.startswith("/static") and method != "GET":
                continue
            answer = http.request(method, path)
            assert answer.status_code == 404, (method, path, answer.text)
            assert answers.fault_of(promise, answer.json()) is None
