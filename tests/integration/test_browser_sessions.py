"""What a browser's session may do on ordinary routes, and what the audit log says of those who are refused before anybody is let in."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import msgspec
import pytest

from support.audit_log import rows_of
from support.cast import event
from support.oidc_app import LOGOUT, Site, log_in, oidc_settings
from support.oidc_provider import ScriptedProvider, scripted_provider
from xzepr.auth.permissions import Role

RECEIVERS, GROUPS = "/api/v1/receivers", "/api/v1/groups"
RECEIVER = {"name": "tests", "type": "test.finished", "version": "1", "schema": {}}


@pytest.fixture(scope="module")
def idp() -> Iterator[ScriptedProvider]:
    with scripted_provider() as running:
        running.person.roles = ["xzepr-admin"]
        yield running


@pytest.fixture
async def site(database_url: str, idp: ScriptedProvider) -> AsyncIterator[Site]:
    async with Site(oidc_settings(database_url, idp)).open() as running:
        yield running


@pytest.fixture
async def alice(site: Site, idp: ScriptedProvider) -> AsyncIterator[httpx2.AsyncClient]:
    """Her browser, logged in."""
    async with site.browser() as browser:
        assert (await log_in(browser, idp)).status_code == 303
        yield browser


async def own_page(browser: httpx2.AsyncClient) -> dict[str, str]:
    """What a page of ours sends along."""
    return {"X-CSRF-Token": (await browser.get("/api/v1/auth/me")).json()["csrf_token"]}


async def denials(site: Site) -> list[tuple[Any, ...]]:
    await site.house.denials.flush()
    rows = [row for row in await rows_of(site.house.database) if row["act"] == "access.denied"]
    return [(row["actor_name"], row["actor_kind"], row["address"], json.loads(row["details"])) for row in rows]


async def test_a_session_speaks_for_its_user(alice: httpx2.AsyncClient, idp: ScriptedProvider) -> None:
    me = (await alice.get("/api/v1/auth/me")).json()
    assert (me["username"], me["how"], me["roles"]) == (idp.person.username, "browser", ["admin"])
    assert "user:manage" in me["permissions"]
    assert len(me["csrf_token"]) == 43
    assert (await alice.get("/api/v1/admin/users")).status_code == 200


async def test_what_changes_something_needs_the_pages_own_token(alice: httpx2.AsyncClient) -> None:
    page = await own_page(alice)
    made = (await alice.post(RECEIVERS, json=RECEIVER, headers=page)).json()["data"]
    group = {"name": "release", "type": "released", "version": "1", "event_receiver_ids": [made]}
    ours = (await alice.post(GROUPS, json=group, headers=page)).json()["data"]
    changes = [
        ("POST", "/api/v1/events", event(made), 201),
        ("PUT", f"{RECEIVERS}/{made}", {"description": "x"}, 204),
        ("PATCH", f"{GROUPS}/{ours}", {"enabled": False}, 200),
        ("DELETE", f"{GROUPS}/{ours}", None, 204),
    ]
    for method, path, body, status in changes:
        for given in ({}, {"X-CSRF-Token": "x" * 43}):
            answer = await alice.request(method, path, json=body, headers=given)
            assert (answer.status_code, answer.json()["error"]) == (403, "permission_denied")
            assert "csrf_token of GET /api/v1/auth/me" in answer.json()["detail"]
        assert (await alice.request(method, path, json=body, headers=page)).status_code == status
    assert (await alice.get("/api/v1/events")).json()["data"][0]["event_receiver_id"] == made


async def test_roles_bound_a_session(site: Site, idp: ScriptedProvider) -> None:
    idp.sane()
    idp.person.roles = ["release-viewer"]
    async with site.browser() as browser:
        await log_in(browser, idp)
        assert (await browser.get("/api/v1/events")).status_code == 200
        assert (await browser.get("/api/v1/admin/users")).status_code == 403
        assert (await browser.post(RECEIVERS, json=RECEIVER, headers=await own_page(browser))).status_code == 403
    idp.sane()
    idp.person.roles = ["xzepr-admin"]


async def test_a_session_that_was_ended_is_dead_in_every_process_within_a_second(
    site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider, database_url: str
) -> None:
    cookie = {"Cookie": f"xzepr_session={alice.cookies['xzepr_session']}"}
    async with Site(oidc_settings(database_url, idp)).open() as other, other.browser() as browser:
        assert (await browser.get("/api/v1/auth/me", headers=cookie)).status_code == 200
        assert (await alice.post(LOGOUT, headers=await own_page(alice))).status_code == 200
        ended_at_s = time.monotonic()
        while (await browser.get("/api/v1/auth/me", headers=cookie)).status_code == 200:
            assert time.monotonic() - ended_at_s < 1.0
            await asyncio.sleep(0.02)
        for each in (browser, alice):
            answer = await each.get("/api/v1/auth/me", headers=cookie)
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
            # An unsafe method of a session that is over is no question of the page.
            assert (await each.post(RECEIVERS, json=RECEIVER, headers=cookie)).status_code == 401


async def test_a_page_that_is_refused_is_counted_for_the_user_whose_session_it_used(
    site: Site, alice: httpx2.AsyncClient, idp: ScriptedProvider
) -> None:
    for path in (RECEIVERS, RECEIVERS, "/api/v1/events"):
        assert (await alice.post(path, json={})).status_code == 403
    told = [(*who, details["route"], details["count"]) for *who, details in await denials(site)]
    alice_is = (idp.person.username, "browser", "127.0.0.1")
    assert told == [(*alice_is, RECEIVERS, 2), (*alice_is, "/api/v1/events", 1)]


async def test_a_credential_that_does_not_count_leaves_a_row_whatever_one_may_do_without(database_url: str, idp: ScriptedProvider) -> None:
    settings = oidc_settings(database_url, idp)
    settings = msgspec.structs.replace(settings, auth=msgspec.structs.replace(settings.auth, anonymous_roles=[Role.EVENT_MANAGER]))
    async with Site(settings).open() as site, site.browser() as browser:
        made = (await browser.post(RECEIVERS, json=RECEIVER)).json()["data"]
        assert (await browser.post("/api/v1/events", json=event(made))).status_code == 201
        assert (await browser.post("/api/v1/events", json=event(made), headers={"X-API-Key": "xzepr_unknown"})).status_code == 401
        [(name, how, address, details)] = await denials(site)
        assert (name, how, address) == ("anonymous", "anonymous", "127.0.0.1")
        assert (details["route"], details["method"], details["count"]) == ("/api/v1/events", "POST", 1)
