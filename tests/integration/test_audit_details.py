"""What the rows of each act say besides: no key that docs/reference/audit.md does not name, and none there that no row has."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from test_audit import ANYBODY, new_group, new_receiver
from test_logins import CALLER, FIRST, Desk
from test_oidc import CLI_TOKEN, VERIFIER, _command_code

from support import old
from support.audit_log import ALICE, BOB, rows_of
from support.oidc_app import Site, log_in, oidc_settings
from support.oidc_provider import scripted_provider
from support.users import make_users
from xzepr import clock
from xzepr.audit.acts import Act
from xzepr.audit.start import record_start
from xzepr.auth import throttle
from xzepr.auth.api_keys import create_api_key, revoke_api_key
from xzepr.auth.model import NewApiKey
from xzepr.auth.permissions import Permission, Role
from xzepr.auth.principal import SYSTEM, How, Principal
from xzepr.auth.users import delete_user, set_roles
from xzepr.db.pool import Database
from xzepr.errors import XzeprError
from xzepr.events.redact import NewRedaction, redact_event
from xzepr.groups.evaluate import evaluate
from xzepr.groups.manage import change_group, create_group, delete_group
from xzepr.groups.members import NewGroupMember, add_member, remove_member
from xzepr.groups.model import EventReceiverGroupChange
from xzepr.ids import EventId
from xzepr.receivers.manage import change_receiver, create_receiver, delete_receiver
from xzepr.receivers.model import EventReceiverChange
from xzepr.receivers.payload import PayloadChecker
from xzepr.retention.apply import apply_rules
from xzepr.retention.holds import add_hold, remove_hold
from xzepr.settings import Settings
from xzepr.settings.model import RetentionRule
from xzepr.stream.outbox import Bell

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "audit.md"


@pytest.fixture
async def desk(database: Database, tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(database, tmp_path)
    yield made
    made.passwords.close()


def documented() -> dict[str, set[str]]:
    """By act: what stands in backticks in the last column."""
    table = PAGE.read_text("utf-8").partition("\n## Acts\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" |")] for line in table.splitlines() if line.startswith("| `")]
    assert all(len(row) == 4 for row in rows), "a row of the table has four columns"
    return {row[0].strip("`"): set(re.findall(r"`([a-z0-9_]+)`", row[3])) for row in rows}


async def on_definitions(database: Database, url: str) -> None:
    checker, now = PayloadChecker(), clock.now()
    receiver = await create_receiver(database, checker, ALICE, new_receiver(), now)
    other = await create_receiver(database, checker, ALICE, new_receiver(), now)
    await change_receiver(database, checker, ALICE, receiver, EventReceiverChange(name="all tests", restricted=True), ANYBODY, now)
    group = await create_group(database, ALICE, new_group(receiver), now)
    for change in ({"enabled": False}, {"enabled": True}, {"enabled": False, "event_receiver_ids": [other], "name": "x"}):
        await change_group(database, ALICE, group, EventReceiverGroupChange(**change), ANYBODY, now)
    member = (await make_users(url, ["member"]))["member"]
    await add_member(database, ALICE, group, NewGroupMember(user_id=member), now)
    await remove_member(database, ALICE, group, member)
    asked = asyncio.create_task(evaluate(database, ALICE, group, old.artifact("api"), Bell(database), 20))
    while "group.evaluate" not in [row["act"] for row in await rows_of(database)]:
        await asyncio.sleep(0.01)
    await old.sequence(database)
    await asked
    await delete_group(database, ALICE, group, ANYBODY, now)
    await delete_receiver(database, ALICE, receiver, ANYBODY, now)
    await checker.close()


async def on_events(database: Database) -> None:
    receiver = await old.make_receiver(database, "build.finished")
    await old.store(database, receiver, 400, count=3)
    event_id = EventId(min(await old.events_left(database)))
    await redact_event(database, ALICE, event_id, NewRedaction(reason="a password"), clock.now())
    rule = RetentionRule(event_receiver_type="*", older_than_days=100)
    assert [each async for each in apply_rules(database, [rule], stream_days=30, now=old.NOW, actor="carol@host")]
    for subject in (old.artifact("held"), receiver):
        await remove_hold(database, await add_hold(database, subject, reason="a lawsuit", actor="carol@host"), actor="carol@host")
    async with database.transaction() as connection:
        await record_start(connection, Settings(), "serve")


async def on_accounts(desk: Desk) -> None:
    database, now = desk.database, clock.now()
    user = await desk.add("erin")
    pair = await desk.log_in("erin")
    for _ in range(throttle.FREE_BY_ACCOUNT + 1):
        with pytest.raises(XzeprError):
            await desk.log_in("erin", "wrong", now)
    await desk.logins.refresh(CALLER, pair.refresh_token, now)
    with pytest.raises(XzeprError):
        await desk.logins.refresh(CALLER, pair.refresh_token, now + timedelta(seconds=20))
    family = await old.value(database, "select id from login_families")
    erin = Principal(id=user, name="erin", roles=frozenset({Role.USER}), how=How.PASSWORD, family_id=family)  # type: ignore[arg-type]
    await desk.logins.log_out(erin, now)
    key = await create_api_key(database, erin, NewApiKey(name="ci", scopes=[Permission.EVENT_READ], expires_at=now + timedelta(days=1)), now)
    await revoke_api_key(database, erin, key.id, now)
    for change in ({"email": "e@example.com"}, {"password": FIRST + "!"}, {"enabled": False}, {"enabled": True}):
        await desk.change(user, **change)
    await set_roles(database, SYSTEM, user, [Role.USER], now)
    await delete_user(database, SYSTEM, user, now)
    for number in range(30):
        desk.denials.note(ALICE, Act.ACCESS_DENIED, None, {"route": f"/api/v1/{number}", "method": "GET"})
        desk.denials.note(BOB, Act.EVENT_POST_REFUSED, str(number))
    await desk.denials.close()


async def on_logins_at_a_provider(url: str) -> None:
    with scripted_provider() as idp:
        async with Site(oidc_settings(url, idp)).open() as site, site.browser() as browser:
            await log_in(browser, idp)
            given = await _command_code(browser, idp)
            for verifier in (VERIFIER, VERIFIER):
                await browser.post(CLI_TOKEN, json={"code": given["code"], "code_verifier": verifier})
            given = await _command_code(browser, idp)
            assert (await browser.post(CLI_TOKEN, json={"code": given["code"], "code_verifier": "w" * 43})).status_code == 401
            idp.person.roles = ["release-viewer"]
            await log_in(browser, idp)
            idp.script.claims = {"nonce": "of another login"}
            assert (await log_in(browser, idp)).status_code == 401


async def test_the_details_of_each_act_are_those_of_the_reference(desk: Desk, database_url: str) -> None:
    await on_definitions(desk.database, database_url)
    await on_events(desk.database)
    await on_accounts(desk)
    await on_logins_at_a_provider(database_url)
    seen: dict[str, set[str]] = defaultdict(set)
    hows = set()
    for row in await rows_of(desk.database):
        details = json.loads(row["details"])
        seen[row["act"]] |= set(details)
        if row["act"] == "auth.login":
            hows.add((row["outcome"], details["how"]))
    assert dict(seen) == documented()
    assert hows == {("success", "password"), ("failure", "password"), ("success", "browser"), ("success", "oidc"), ("failure", "oidc")}


async def test_a_change_of_roles_has_one_form_whoever_made_it(desk: Desk, database_url: str) -> None:
    await set_roles(desk.database, SYSTEM, await desk.add("erin"), [Role.USER], clock.now())
    await on_logins_at_a_provider(database_url)
    told = [json.loads(row["details"]) for row in await rows_of(desk.database) if row["act"] == "user.change_roles"]
    assert told == [{"before": [], "after": ["user"]}, {"before": ["event_manager"], "after": ["event_viewer"]}]


async def test_a_keys_limits_and_its_owner_are_in_the_log(desk: Desk) -> None:
    checker = PayloadChecker()
    receiver = await create_receiver(desk.database, checker, ALICE, new_receiver(), clock.now())
    await checker.close()
    user = await desk.add("erin")
    erin = Principal(id=user, name="erin", roles=frozenset({Role.USER}), how=How.PASSWORD)
    wanted = NewApiKey(name="ci", scopes=[Permission.EVENT_READ], event_receiver_ids=[receiver], expires_at=clock.now() + timedelta(days=1))
    key = await create_api_key(desk.database, erin, wanted, clock.now())
    await revoke_api_key(desk.database, Principal(id=ALICE.id, name="root", roles=frozenset({Role.ADMIN}), how=How.PASSWORD), key.id, clock.now())
    made, revoked = [json.loads(row["details"]) for row in await rows_of(desk.database) if row["object_id"] == key.id]
    assert made == {"name": "ci", "scopes": ["event:read"], "event_receiver_ids": [receiver], "expires_at": key.expires_at}
    assert revoked == {"user_id": user}
