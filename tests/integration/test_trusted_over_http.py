"""Tokens of a trusted issuer at the door of a running server: whose they are, what they may do, and what is recorded of it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest

from support.accounts import ADMIN, PASSWORD, SETTINGS, bearer
from support.audit_log import ALICE, rows_of
from support.cast import event
from support.installation import Installation
from support.provider import Provider, jwk, running_provider
from support.signing import rsa_key, signed
from xzepr import clock, ids
from xzepr.db.pool import Database
from xzepr.ids import EventReceiverId, UserId
from xzepr.receivers.manage import create_receiver
from xzepr.receivers.model import NewEventReceiver
from xzepr.receivers.payload import PayloadChecker

AUDIENCE, SUBJECT = "https://xzepr.example.com", "repo:acme/api:ref:refs/heads/main"


class Ci:
    """A running server, the issuer that it trusts, and two receivers of alice's: its jobs named `limited` may post to the first alone."""

    def __init__(self, running: Installation, provider: Provider, receivers: list[EventReceiverId]) -> None:
        self.running, self.provider = running, provider
        self.ours, self.other = receivers
        self.http = httpx2.AsyncClient(base_url=running.url, timeout=30)

    def token(self, **changed: Any) -> dict[str, str]:
        now = int(time.time())
        claims = {"iss": self.provider.issuer, "aud": AUDIENCE, "sub": SUBJECT, "exp": now + 300, "iat": now, "job": "limited", **changed}
        return {"Authorization": f"Bearer {signed(rsa_key(), {'kid': 'one'}, claims)}"}


@pytest.fixture
async def ci(database: Database, database_url: str) -> AsyncIterator[Ci]:
    checker = PayloadChecker()
    new = NewEventReceiver(name="tests", type="test.finished", version="1", schema=msgspec.Raw(b"{}"))
    receivers = [await create_receiver(database, checker, ALICE, new, clock.now()) for _ in range(2)]
    await checker.close()
    async with running_provider() as provider:
        provider.keys = [jwk(rsa_key(), "one")]
        rules = [
            {"claims": {"job": "limited"}, "roles": ["event_manager"], "event_receiver_ids": [receivers[0]]},
            {"claims": {"job": "any"}, "roles": ["event_manager"]},
        ]
        issuers = json.dumps([{"issuer": provider.issuer, "audience": AUDIENCE, "rules": rules}])
        environ = {"XZEPR__DATABASE__URL": database_url, "XZEPR__SERVER__WORKERS": "1", "XZEPR__AUTH__TRUSTED_ISSUERS": issuers, **SETTINGS}
        running = Installation(environ)
        await asyncio.to_thread(running.ready)
        made = Ci(running, provider, receivers)
        try:
            yield made
        finally:
            await made.http.aclose()
            await asyncio.to_thread(running.stop)


async def test_a_token_of_a_trusted_issuer_at_the_door(ci: Ci, database: Database) -> None:
    who = ids.derived(UserId, ci.provider.issuer, SUBJECT)
    me = (await ci.http.get("/api/v1/auth/me", headers=ci.token())).json()
    assert (me["id"], me["username"], me["how"], me["roles"], me["event_receiver_ids"]) == (
        who,
        SUBJECT,
        "trusted_issuer",
        ["event_manager"],
        [ci.ours],
    )
    # The issuer in the token says which keys are asked: one that nobody trusts, and our own, go other ways.
    assert (await ci.http.get("/api/v1/auth/me", headers=ci.token(iss="https://ci.example.com"))).status_code == 401
    assert (await ci.http.get("/api/v1/auth/me", headers=ci.token(iss="xzepr.io"))).status_code == 401
    pair = (await ci.http.post("/api/v1/auth/login", json={"username": ADMIN, "password": PASSWORD})).json()
    assert (await ci.http.get("/api/v1/auth/me", headers=bearer(pair))).json()["how"] == "password"
    refused = await ci.http.post("/api/v1/api-keys", json={"name": "x", "scopes": ["event:read"]}, headers=ci.token())
    assert (refused.status_code, refused.json()["error"]) == (403, "permission_denied")
    # The ordinary way first, then the short one.
    for _ in range(3):
        posted = await ci.http.post("/api/v1/events", json=event(ci.ours), headers=ci.token())
        assert posted.status_code == 201, posted.text
        shown = await ci.http.get(f"/api/v1/events/{posted.json()['data']}", headers=ci.token())
        assert shown.json()["owner_id"] == who
        for path, body in (("/api/v1/events", event(ci.other)), ("/api/v1/events/batch", [event(ci.ours), event(ci.other)])):
            answer = await ci.http.post(path, json=body, headers=ci.token())
            assert (answer.status_code, ci.other in answer.json()["detail"]) == (403, True)
    assert (await ci.http.post("/api/v1/events", json=event(ci.other), headers=ci.token(job="any"))).status_code == 201
    await require_restricted(ci)
    await asyncio.to_thread(ci.running.stop)
    rows = [
        (row["act"], row["outcome"], row["actor_id"], row["actor_kind"], row["object_id"])
        for row in await rows_of(database)
        if row["actor_id"] == who
    ]
    assert {row[3] for row in rows} == {"trusted_issuer"}
    assert {row[0] for row in rows} == {"receiver.create", "event.post_refused", "access.denied"}
    assert ("event.post_refused", "denied", who, "trusted_issuer", ci.other) in rows


async def require_restricted(ci: Ci) -> None:
    """A job is member of no group: of restricted receivers it may post to those that it made, and a rule that names one lets it in nowhere."""
    body = {"name": "scans", "type": "scan.finished", "version": "1", "schema": {}, "restricted": True}
    own = (await ci.http.post("/api/v1/receivers", json=body, headers=ci.token(job="any"))).json()["data"]
    assert (await ci.http.post("/api/v1/events", json=event(own), headers=ci.token(job="any"))).status_code == 201
    assert (await ci.http.post("/api/v1/events", json=event(own), headers=ci.token(job="any", sub="another"))).status_code == 403
    pair = (await ci.http.post("/api/v1/auth/login", json={"username": ADMIN, "password": PASSWORD})).json()
    assert (await ci.http.put(f"/api/v1/receivers/{ci.ours}", json={"restricted": True}, headers=bearer(pair))).status_code == 204
    for job in ("limited", "any"):
        answer = await ci.http.post("/api/v1/events", json=event(ci.ours), headers=ci.token(job=job))
        assert (answer.status_code, "restricted" in answer.json()["detail"]) == (403, True)
