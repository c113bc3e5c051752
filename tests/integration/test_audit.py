"""The audit log: who did what, in the act's own transaction; refusals counted; the list; a whole server with its commands."""

import asyncio
import json
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from conftest import fresh_database, make_migrated
from support import old
from support.audit_log import ALICE, BOB, Key, act, acts_of, row_ids, rows_of, run
from support.installation import XZEPR, installation
from xzepr import clock, ids
from xzepr.audit.acts import Act
from xzepr.audit.denials import Denials
from xzepr.audit.model import AuditPage
from xzepr.audit.record import Outcome, record
from xzepr.audit.search import search_acts
from xzepr.audit.start import record_start
from xzepr.audit.verify import checkpoints_in, verify
from xzepr.auth.principal import SYSTEM, How, Principal
from xzepr.db.pool import Database
from xzepr.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from xzepr.events.model import NewEvent
from xzepr.events.posted import Posted
from xzepr.events.record import Recorder, record_event, record_events
from xzepr.groups.evaluate import evaluate
from xzepr.groups.manage import change_group, create_group, delete_group
from xzepr.groups.model import EventReceiverGroupChange, NewEventReceiverGroup
from xzepr.preconditions import IfMatch
from xzepr.receivers.manage import Receivers, change_receiver, create_receiver, delete_receiver
from xzepr.receivers.model import EventReceiverChange, NewEventReceiver
from xzepr.receivers.payload import PayloadChecker
from xzepr.retention.apply import apply_rules
from xzepr.retention.holds import add_hold, remove_hold
from xzepr.settings import Settings
from xzepr.settings.model import RetentionRule
from xzepr.stream.outbox import Bell

ANYBODY = IfMatch.of(None)


@pytest.fixture
async def checker() -> Any:
    made = PayloadChecker()
    yield made
    await made.close()


# --- each act leaves one row, in its own transaction


def new_receiver(**fields: Any) -> NewEventReceiver:
    return NewEventReceiver(**{"name": "tests", "type": "test.finished", "version": "1", "schema": msgspec.Raw(b"{}"), **fields})


def new_group(*receiver_ids: str, **fields: Any) -> NewEventReceiverGroup:
    return NewEventReceiverGroup(**{"name": "release", "type": "released", "version": "1", "event_receiver_ids": list(receiver_ids), **fields})


async def test_each_act_on_a_definition_leaves_exactly_one_row(database: Database, checker: PayloadChecker) -> None:
    now = clock.now()
    receiver = await create_receiver(database, checker, ALICE, new_receiver(), now)
    await change_receiver(database, checker, ALICE, receiver, EventReceiverChange(name="all tests", restricted=True), ANYBODY, now)
    group = await create_group(database, ALICE, new_group(receiver), now)
    await change_group(database, ALICE, group, EventReceiverGroupChange(enabled=False), ANYBODY, now)
    await change_group(database, ALICE, group, EventReceiverGroupChange(enabled=True), ANYBODY, now)
    await change_group(database, ALICE, group, EventReceiverGroupChange(enabled=False, description="x"), ANYBODY, now)
    await delete_group(database, BOB, group, ANYBODY, now)
    other = await create_receiver(database, checker, ALICE, new_receiver(), now)
    await delete_receiver(database, BOB, other, ANYBODY, now)
    rows = await rows_of(database)
    assert [(row["act"], row["object_id"], row["actor_name"]) for row in rows] == [
        ("receiver.create", receiver, "alice"),
        ("receiver.update", receiver, "alice"),
        ("group.create", group, "alice"),
        ("group.disable", group, "alice"),
        ("group.enable", group, "alice"),
        ("group.update", group, "alice"),
        ("group.delete", group, "bob"),
        ("receiver.create", other, "alice"),
        ("receiver.delete", other, "bob"),
    ]
    first, changed, *_ = rows
    assert (first["actor_id"], first["actor_kind"], first["outcome"]) == (ALICE.id, "password", "success")
    assert (first["address"], first["request_id"], first["at"]) == ("192.0.2.1", "r-1", ids.time_of(first["id"]))
    told = json.loads(changed["details"])
    assert (told["resource_version"], set(told["changed"]), told["restricted"]) == (2, {"name", "restricted"}, True)
    assert json.loads(rows[5]["details"]) == {"resource_version": 4, "changed": ["description", "enabled"], "enabled": False}


async def test_an_act_that_does_not_happen_leaves_no_row(database: Database, checker: PayloadChecker) -> None:
    now = clock.now()
    receiver = await create_receiver(database, checker, ALICE, new_receiver(), now)
    group = await create_group(database, ALICE, new_group(receiver), now)
    before = await acts_of(database)
    # Nothing differs.
    await change_receiver(database, checker, ALICE, receiver, EventReceiverChange(name="tests"), ANYBODY, now)
    await change_group(database, ALICE, group, EventReceiverGroupChange(enabled=True), ANYBODY, now)
    with pytest.raises(PermissionDenied):
        await change_group(database, BOB, group, EventReceiverGroupChange(enabled=False), ANYBODY, now)
    with pytest.raises(InvalidInput):
        await create_group(database, ALICE, new_group("01ARZ3NDEKTSV4RRFFQ69G5FAV"), now)
    with pytest.raises(Conflict):
        await delete_receiver(database, ALICE, receiver, ANYBODY, now)
    with pytest.raises(NotFound):
        await remove_hold(database, ids.mint(ids.HoldId), actor="alice@host")
    with pytest.raises(RuntimeError):
        async with database.transaction() as connection:
            await record(connection, ALICE, Act.GROUP_CREATE, "x")
            raise RuntimeError
    assert await acts_of(database) == before
    async with database.connection() as connection:
        assert await connection.fetchval("select count(*) from audit_unsealed") == len(before)


async def test_an_evaluation_on_request_is_recorded(database: Database, checker: PayloadChecker) -> None:
    receiver = await create_receiver(database, checker, ALICE, new_receiver(), clock.now())
    group = await create_group(database, ALICE, new_group(receiver), clock.now())
    asked = asyncio.create_task(evaluate(database, ALICE, group, old.artifact("api"), Bell(database), 20))
    while "group.evaluate" not in await acts_of(database):
        await asyncio.sleep(0.01)
    await old.sequence(database)
    assert not (await asked).complete
    row = (await rows_of(database))[-1]
    assert (row["act"], row["object_id"], json.loads(row["details"])["artifact"]) == ("group.evaluate", group, old.artifact("api")._asdict())


async def test_a_disposition_is_in_the_log_with_all_its_facts(database: Database) -> None:
    receiver = await old.make_receiver(database, "build.finished")
    await old.store(database, receiver, 400, count=3)
    rule = RetentionRule(event_receiver_type="*", older_than_days=100)
    made = [each async for each in apply_rules(database, [rule], stream_days=30, now=old.NOW, actor="carol@host")]
    rows = await rows_of(database)
    assert [(row["act"], row["object_id"], row["actor_name"], row["actor_kind"]) for row in rows] == [
        ("retention.apply", each.id, "system", "system") for each in made
    ]
    told = json.loads(rows[0]["details"])
    async with database.connection() as connection:
        stored = await connection.fetchrow("select * from retention_dispositions")
    assert stored is not None
    facts = {name: clock.rfc3339(value) if hasattr(value, "year") else value for name, value in dict(stored).items()}
    rule_told = {"event_receiver_type": facts.pop("rule_type"), "older_than_days": facts.pop("rule_days")}
    assert told == {**{name: value for name, value in facts.items() if name != "id"}, "rule": rule_told}


async def test_holds_are_recorded_with_the_account_that_asked(database: Database) -> None:
    hold = await add_hold(database, old.artifact("held"), reason="a lawsuit", actor="carol@host")
    await remove_hold(database, hold, actor="dave@host")
    added, removed = await rows_of(database)
    assert (added["act"], added["object_id"], json.loads(added["details"])) == (
        "retention.hold_add",
        hold,
        {"artifact": old.artifact("held")._asdict(), "reason": "a lawsuit", "actor": "carol@host"},
    )
    assert (removed["act"], removed["object_id"], json.loads(removed["details"])) == ("retention.hold_remove", hold, {"actor": "dave@host"})


async def test_a_name_that_the_database_would_not_take_fails_no_act(database: Database) -> None:
    stranger = Principal(name="a\0b\ud800" + "x" * 5000, how=How.TRUSTED_ISSUER)
    async with database.transaction() as connection:
        await record(connection, stranger, Act.GROUP_CREATE)
    [row] = await rows_of(database)
    assert (row["actor_name"][:4], len(row["actor_name"])) == ("a\ufffdb?", 1000)


# --- refusals


async def test_refusals_are_counted_by_principal_route_and_minute(database: Database) -> None:
    denials, now = Denials(database), clock.now().replace(second=10)
    for second in range(20):
        denials.note(ALICE, Act.ACCESS_DENIED, None, {"route": "/api/v1/events", "method": "GET"}, now=now + timedelta(seconds=second))
    denials.note(BOB, Act.ACCESS_DENIED, None, {"route": "/api/v1/events", "method": "GET"}, now=now)
    denials.note(BOB, Act.ACCESS_DENIED, None, {"route": "/api/v1/events", "method": "POST"}, now=now)
    await denials.flush(now=now)
    rows = await rows_of(database)
    told = [(row["actor_name"], row["act"], row["outcome"], row["address"], json.loads(row["details"])) for row in rows]
    first, last = clock.rfc3339(now), clock.rfc3339(now + timedelta(seconds=19))
    assert told == [
        (
            "alice",
            "access.denied",
            "denied",
            "192.0.2.1",
            {"route": "/api/v1/events", "method": "GET", "count": 20, "first_at": first, "last_at": last},
        ),
        (
            "bob",
            "access.denied",
            "denied",
            "192.0.2.2",
            {"route": "/api/v1/events", "method": "GET", "count": 1, "first_at": first, "last_at": first},
        ),
        (
            "bob",
            "access.denied",
            "denied",
            "192.0.2.2",
            {"route": "/api/v1/events", "method": "POST", "count": 1, "first_at": first, "last_at": first},
        ),
    ]
    # The rest of the minute is one row at its end.
    for second in range(30, 40):
        denials.note(ALICE, Act.ACCESS_DENIED, None, {"route": "/api/v1/events", "method": "GET"}, now=now + timedelta(seconds=second))
        await denials.flush(now=now + timedelta(seconds=second))
    assert len(await rows_of(database)) == 3
    await denials.flush(now=now + timedelta(seconds=60))
    assert [json.loads(row["details"])["count"] for row in (await rows_of(database))[3:]] == [10]
    await denials.flush(now=now + timedelta(seconds=120))
    await denials.close()
    assert len(await rows_of(database)) == 4


async def test_a_flood_of_refusals_stays_bounded_and_every_one_is_counted(database: Database) -> None:
    denials, now = Denials(database, known_max=20, strangers_max=10), clock.now().replace(second=0)
    for number in range(5_000):
        stranger = Principal(address=f"2001:db8::{number:x}")
        denials.note(stranger, Act.ACCESS_DENIED, None, {"route": "/api/v1/events", "method": "GET"}, now=now)
    # Strangers cannot hide what somebody with an account tries meanwhile.
    denials.note(ALICE, Act.ACCESS_DENIED, None, {"route": "/api/v1/admin/audit", "method": "GET"}, now=now)
    assert len(denials._counts) == 12
    for second in (5, 10, 15):
        await denials.flush(now=now + timedelta(seconds=second))
    rows = await rows_of(database)
    assert len(rows) == 12
    assert sum(json.loads(row["details"])["count"] for row in rows) == 5_001
    assert [row["actor_name"] for row in rows if row["actor_name"] != "anonymous"] == ["others without credentials", "alice"]
    # The next minute has room again.
    later = now + timedelta(minutes=1)
    await denials.flush(now=later)
    denials.note(Principal(address="192.0.2.9"), Act.ACCESS_DENIED, None, {"route": "/api/v1/events", "method": "GET"}, now=later)
    await denials.close()
    assert (await rows_of(database))[-1]["address"] == "192.0.2.9"


async def test_one_caller_hides_nothing_that_others_tried(database: Database) -> None:
    denials, now = Denials(database, each_max=20, known_max=50, known_callers_max=3), clock.now().replace(second=0)
    loud = [Principal(id=ids.mint(ids.UserId), name=f"loud {number}") for number in range(3)]
    for number in range(1_000):
        denials.note(loud[0], Act.EVENT_POST_REFUSED, f"made up {number}", now=now)
    denials.note(ALICE, Act.EVENT_POST_REFUSED, "R", now=now)
    assert len(denials._counts) == 22
    # Nor do several together; only when there are too many of them what is beyond is nobody's.
    for principal in loud[1:]:
        for number in range(30):
            denials.note(principal, Act.EVENT_POST_REFUSED, f"made up {number}", now=now)
    denials.note(BOB, Act.EVENT_POST_REFUSED, "R", now=now)
    denials.note(BOB, Act.EVENT_POST_REFUSED, "S", now=now)
    for number in range(2):
        denials.note(Principal(id=ids.mint(ids.UserId), name=f"late {number}"), Act.EVENT_POST_REFUSED, "R", now=now)
    await denials.flush(now=now + timedelta(minutes=1))
    rows = [(row["actor_name"], row["act"], row["object_id"], json.loads(row["details"])) for row in await rows_of(database)]
    assert sum(details["count"] for *_, details in rows) == 1_065
    apart = Counter(who for who, *_, details in rows if "others" not in details)
    assert apart == {"loud 0": 20, "alice": 1, "loud 1": 20, "loud 2": 7, "others": 1}
    beyond = [(who, act, object_id, details["count"]) for who, act, object_id, details in rows if details.get("others") or who == "others"]
    assert beyond == [
        ("loud 0", "access.denied", None, 980),
        ("loud 1", "access.denied", None, 10),
        ("loud 2", "access.denied", None, 23),
        ("bob", "access.denied", None, 2),
        ("late 0", "access.denied", None, 1),
        ("others", "access.denied", None, 1),
    ]
    # Nothing is left of it.
    assert (denials._counts, denials._callers, denials._sizes) == ({}, {}, {False: 0, True: 0})
    await denials.close()


async def test_a_database_that_is_away_keeps_the_counts(database: Database, database_url: str) -> None:
    away = Database(database_url, connections_min=1, connections_max=1, connect_timeout_s=5)
    denials, now = Denials(away), clock.now().replace(second=0)
    denials.note(ALICE, Act.EVENT_POST_REFUSED, "R", now=now)
    with pytest.raises(Exception, match="not connected"):
        await denials.flush(now=now)
    denials.note(ALICE, Act.EVENT_POST_REFUSED, "R", now=now)
    await away.open()
    await denials.flush(now=now + timedelta(minutes=1))
    await denials.close()
    await away.close()
    [row] = await rows_of(database)
    assert (row["object_id"], json.loads(row["details"])["count"]) == ("R", 2)


async def test_a_refused_post_to_a_restricted_receiver_is_recorded(database: Database, checker: PayloadChecker) -> None:
    denials = Denials(database)
    recorder = Recorder(database, Receivers(database), checker, Bell(database), denials)
    receiver = await create_receiver(database, checker, ALICE, new_receiver(restricted=True), clock.now())
    new = NewEvent(
        name="n", version="v", release="r", platform_id="p", package="k", payload=msgspec.Raw(b"{}"), success=True, event_receiver_id=receiver
    )
    posted = Posted(new, {}, "{}")
    await record_event(recorder, ALICE, posted)
    with pytest.raises(PermissionDenied):
        await record_event(recorder, BOB, posted)
    assert all(isinstance(each, PermissionDenied) for each in await record_events(recorder, BOB, [posted, posted], partial=True))
    await recorder.close()
    await denials.close()
    refused = [row for row in await rows_of(database) if row["act"] == "event.post_refused"]
    assert [(row["actor_name"], row["object_id"], row["outcome"], json.loads(row["details"])["count"]) for row in refused] == [
        ("bob", receiver, "denied", 3)
    ]


# --- the list


async def listed(database: Database, **filters: Any) -> list[str]:
    return [str(row.object_id) for row in (await search_acts(database, AuditPage(**filters))).data]


async def test_rows_are_found_by_actor_act_outcome_and_time(database: Database) -> None:
    async with database.transaction() as connection:
        await record(connection, ALICE, "group.create", "1")
        await record(connection, ALICE, "group.delete", "2")
        await record(connection, BOB, "receiver.create", "3", outcome=Outcome.FAILURE, details={"b": 1.50, "a": None})
        await record(connection, SYSTEM, "server.start", "4")
    assert await listed(database) == ["4", "3", "2", "1"]
    assert ALICE.id is not None
    assert await listed(database, actor=ALICE.id.lower()) == ["2", "1"]
    assert await listed(database, actor=ALICE.id, act="group.delete") == ["2"]
    assert await listed(database, actor="alice") == ["2", "1"]
    assert await listed(database, actor="system", act="server.start") == ["4"]
    assert await listed(database, act="group.create") == ["1"]
    assert await listed(database, act="group.*") == ["2", "1"]
    assert await listed(database, act="*") == ["4", "3", "2", "1"]
    assert await listed(database, act="group") == []
    assert await listed(database, outcome="failure") == ["3"]
    [row] = (await search_acts(database, AuditPage(act="receiver.*"))).data
    assert (row.actor.id, row.actor.name, row.actor.how, row.address, bytes(row.details)) == (
        BOB.id,
        "bob",
        "api_key",
        "192.0.2.2",
        b'{"b":1.5,"a":null}',
    )
    moment = ids.time_of(row.id)
    assert row.at == clock.rfc3339(moment)
    assert "3" in await listed(database, from_=moment)
    assert "3" not in await listed(database, to=moment)
    assert "3" in await listed(database, to=moment + timedelta(milliseconds=1))
    assert await listed(database, from_=moment + timedelta(minutes=1)) == []


async def test_pages_together_hold_every_row_once(database: Database) -> None:
    await act(database, 25)
    seen, after = [], None
    while True:
        page = await search_acts(database, AuditPage(limit=4, after=after, act="receiver.*"))
        seen += [row.id for row in page.data]
        if not page.pagination.has_more:
            break
        after = ids.AuditId(str(page.pagination.next))
    assert seen == sorted(await row_ids(database), reverse=True)


# --- a whole installation


async def test_a_server_records_its_start_seals_and_signs_and_the_commands_read_it(first_server: str, tmp_path: Path) -> None:
    key = Key(tmp_path)
    key.private.chmod(0o600)
    async with fresh_database(first_server) as url:
        environ = {
            "XZEPR__DATABASE__URL": url,
            "XZEPR__SERVER__WORKERS": "1",
            "XZEPR__JWT__PRIVATE_KEY_PATH": str(key.private),
            "XZEPR__JWT__PUBLIC_KEY_PATH": str(key.public),
            "XZEPR__AUTH__KEYCLOAK__CLIENT_SECRET": "not-for-the-log",
            "XZEPR__AUTH__ANONYMOUS_ROLES": "event_viewer",
        }
        await make_migrated(url)
        with installation(**environ) as running:
            async with httpx2.AsyncClient(base_url=running.url, timeout=30) as http:
                refused = [await http.delete("/api/v1/receivers/01ARZ3NDEKTSV4RRFFQ69G5FAV") for _ in range(3)]
                assert [answer.status_code for answer in refused] == [403] * 3
                assert (await http.post("/api/v1/receivers", json={}, headers={"Origin": "https://evil.example"})).json()["error"] == "foreign_origin"
                assert (await http.get("/api/v1/admin/audit")).status_code == 403
            lines = running.lines
        database = await Database(url, connections_min=1, connections_max=2, connect_timeout_s=10).open()
        rows = await rows_of(database)
        assert (rows[0]["act"], rows[0]["actor_kind"]) == ("user.create", "system")
        # The first administrator, who is made before the server starts.
        del rows[0]
        assert [row["act"] for row in rows] == ["server.start", "access.denied", "access.denied"]
        assert json.loads(rows[1]["details"])["count"] == 3
        assert (rows[1]["actor_name"], rows[1]["actor_kind"], json.loads(rows[1]["details"])["route"]) == (
            "anonymous",
            "anonymous",
            "/api/v1/receivers/{id}",
        )
        told = json.loads(rows[0]["details"])
        assert told["settings"]["auth.keycloak.client_secret"] == "********"
        assert told["settings"]["auth.anonymous_roles"] == ["event_viewer"]
        assert "server.port" in told["settings"]
        assert all("not-for-the-log" not in row["details"] for row in rows)
        # A clean end seals and signs everything.
        logged = list(checkpoints_in(lines))
        report = await verify(database, key.known, logged)
        assert (report.faults, report.rows, report.waiting) == ([], 4, 0)
        assert report.compared == report.checkpoints == report.signed == len(logged) >= 1
        async with database.connection() as connection:
            assert await connection.fetchval("select max(c.seal) = (select max(number) from audit_seals) from audit_checkpoints c")
        (tmp_path / "server.log").write_text("\n".join(lines))
        code, output, errors = await command(running.environ, "audit", "verify", "--checkpoint", str(tmp_path / "server.log"))
        counts = f"4 rows in {report.seals} seals, {len(logged)} checkpoints ({len(logged)} signed), 0 rows waiting"
        assert code == 0, errors
        assert output.splitlines()[-1] == f"the audit log is whole: {counts}, {len(logged)} checkpoints of the log compared"
        await run(database, "delete from audit_log where act = 'server.start'")
        code, output, errors = await command(running.environ, "audit", "verify")
        assert code == 1
        assert f"fault: row {rows[0]['id']} (place 2 of seal 1) was removed" in errors
        assert "the audit log is NOT whole, 1 faults" in output
        code, output, errors = await command(running.environ, "audit", "verify", "--json")
        assert (code, json.loads(output)["fault_count"]) == (1, 1)
        (tmp_path / "empty.log").write_text("nothing here\n")
        code, output, errors = await command(running.environ, "audit", "verify", "--checkpoint", str(tmp_path / "empty.log"))
        assert (code, "there is no audit.checkpoint in it" in errors) == (1, True)
        await database.close()


async def command(environ: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(XZEPR, *arguments, env=environ, cwd="/", stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_the_list_is_served_and_shown(shared_installation: Any, http: httpx2.Client) -> None:
    from support.cast import make_receiver

    receiver = make_receiver(http, name="in the log")
    answer = http.get("/api/v1/admin/audit", params={"act": "receiver.*", "limit": 1})
    [row] = answer.json()["data"]
    assert (row["act"], row["object_id"], row["outcome"], row["address"]) == ("receiver.create", receiver, "success", row["address"])
    assert row["actor"] == {"id": None, "name": "anonymous", "how": "anonymous"}
    assert row["details"]["name"] == "in the log"
    refused = http.get("/api/v1/admin/audit", params={"outcome": "maybe", "from": "yesterday"})
    assert {fault["pointer"] for fault in refused.json()["errors"]} == {"?outcome", "?from"}
    environ = {**shared_installation.environ, "XZEPR_URL": shared_installation.url}
    code, output, _ = await command(environ, "audit", "list", "--act", "receiver.create", "--limit", "1")
    assert (code, receiver in output, "in the log" in output) == (0, True, True)
    code, output, _ = await command(environ, "audit", "list", "--actor", "nobody", "--json")
    assert (code, output.strip()) == (0, "[]")


async def test_the_start_is_recorded_without_secrets(database: Database) -> None:
    async with database.transaction() as connection:
        await record_start(connection, Settings(), "serve")
    [row] = await rows_of(database)
    assert (row["act"], row["actor_kind"]) == ("server.start", "system")
    assert json.loads(row["details"])["settings"] == {}
