"""The chain over the audit log: each row sealed once, whatever the order of commits; and every change found."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from support.audit_log import ALICE, Key, act, faults, row_ids, rows_of, run, unsigned
from xzepr import clock, ids
from xzepr.audit import seal as sealing
from xzepr.audit.acts import Act
from xzepr.audit.chain import ROW_COLUMNS
from xzepr.audit.record import record
from xzepr.audit.seal import Sealer, keep_sealing, signer_of
from xzepr.audit.signing import KeyUnusable, public_keys
from xzepr.audit.verify import Checkpoint, Report, verify
from xzepr.db.pool import Database
from xzepr.settings import Settings
from xzepr.settings.model import Jwt
from xzepr.stream.lead import Lead


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("keys"))


# --- sealing


async def test_a_row_that_commits_late_is_sealed_once_and_the_chain_holds(database: Database, database_url: str) -> None:
    """Writers that commit in any order, some after rows with higher ids were sealed, beside two relays that seal."""
    ended = asyncio.Event()
    sealers = [unsigned(database), unsigned(database)]
    writers = await asyncpg.create_pool(database_url, min_size=1, max_size=8)

    async def write(number: int) -> None:
        async with writers.acquire() as connection, connection.transaction():
            await record(connection, ALICE, Act.GROUP_CREATE, str(number))
            await asyncio.sleep(0.02 * (number % 7))

    async def keep(sealer: Sealer) -> None:
        while not ended.is_set():
            await sealer.seal()
            await asyncio.sleep(0)

    relays = [asyncio.create_task(keep(sealer)) for sealer in sealers]
    await asyncio.gather(*(write(number) for number in range(200)))
    ended.set()
    await asyncio.gather(*relays)
    await writers.close()
    while await sealers[0].seal():
        pass
    async with database.connection() as connection:
        order = [row["row_id"] for row in await connection.fetch("select row_id from audit_sealed_rows order by seal, place")]
        seals = await connection.fetchval("select count(*) from audit_seals")
    assert sorted(order) == [row["id"] for row in await rows_of(database)]
    assert len(order) == len(set(order)) == 200
    assert order != sorted(order), "no row committed late: the test shows nothing"
    report = await verify(database, {})
    assert (report.faults, report.notes, report.rows, report.seals, report.waiting) == ([], [], 200, seals, 0)
    assert seals > 5


async def test_one_row_that_is_held_back_waits_for_its_commit(database: Database, database_url: str) -> None:
    other = await asyncpg.connect(database_url)
    transaction = other.transaction()
    await transaction.start()
    await record(other, ALICE, Act.GROUP_CREATE, "late")
    await act(database, 3)
    assert await unsigned(database).seal() == 3
    await transaction.commit()
    report = await verify(database, {})
    assert (report.faults, report.rows, report.waiting) == ([], 3, 1)
    assert await unsigned(database).seal() == 1
    assert (await verify(database, {})).rows == 4
    await other.close()


async def test_many_rows_become_several_seals(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "SEAL_ROWS_MAX", 10)
    await act(database, 25)
    assert await unsigned(database).seal() == 25
    for at_once in (1, 7, 10, 1000):
        report = await verify(database, {}, rows_at_once=at_once)
        assert (report.faults, report.rows, report.seals) == ([], 25, 3)


async def test_nothing_to_seal_makes_no_seal(database: Database) -> None:
    assert await unsigned(database).seal() == 0
    assert not await unsigned(database).checkpoint(clock.now())
    assert await verify(database, {}) == Report()


async def test_a_second_relay_goes_on_with_the_same_chain(database: Database) -> None:
    first, second = unsigned(database), unsigned(database)
    with capture_logs() as logs:
        for sealer in (first, second, first, second):
            await act(database, 2)
            assert await sealer.seal() == 2
    assert await faults(database) == []
    assert logs == []


async def test_the_sealer_tells_when_its_chain_was_changed(database: Database) -> None:
    sealer = unsigned(database)
    await act(database, 2)
    await sealer.seal()
    # Without a trace: seal, rows, list.
    await run(database, "delete from audit_seals", "delete from audit_log", "delete from audit_sealed_rows")
    assert await faults(database) == []
    await act(database)
    with capture_logs() as logs:
        await sealer.seal()
        await act(database)
        await sealer.seal()
    assert [(line["event"], line["log_level"], line["seal"]) for line in logs] == [("audit.chain_changed", "error", 1)]
    assert await faults(database) == ["seal 1 is gone"], "a number is not given again"


async def test_nothing_that_is_done_to_the_tables_stops_the_sealing(database: Database) -> None:
    await act(database, 3)
    await unsigned(database).seal()
    [first, *_] = await row_ids(database)
    await run(database, "delete from audit_seals", f"insert into audit_unsealed values ('{first}'), ('GONE')")
    await act(database)
    assert await unsigned(database).seal() == 1
    found = await faults(database)
    assert found[0] == "seal 1 is gone"
    assert f"row {first} waits to be sealed, and a seal holds it already" in found
    assert "row GONE was removed before it was sealed" in found


async def test_only_the_leader_seals_and_at_its_end_it_seals_and_signs(database: Database, key: Key) -> None:
    lead = Lead(database, "one")
    settings = Settings(jwt=Jwt(private_key_path=str(key.private)))
    await act(database)
    sealing_task = asyncio.create_task(keep_sealing(database, lead, settings, interval_s=0.01))
    await asyncio.sleep(0.1)
    assert (await verify(database, {})).seals == 0
    await lead._acquire()
    async with asyncio.timeout(10):
        while not (await verify(database, key.known)).checkpoints:
            await asyncio.sleep(0.01)
    # Within the hour: sealed and signed only because it ends.
    await act(database)
    with capture_logs() as logs:
        sealing_task.cancel()
        await asyncio.wait([sealing_task])
    assert sealing_task.cancelled()
    report = await verify(database, key.known)
    assert (report.faults, report.waiting, report.seals, report.checkpoints, report.signed) == ([], 0, 2, 2, 2)
    assert [(line["number"], line["seal"], line["kid"]) for line in logs if line["event"] == "audit.checkpoint"] == [(2, 2, key.kid)]


async def test_a_checkpoint_comes_each_hour_and_only_over_something_new(database: Database, key: Key) -> None:
    sealer, now = Sealer(database, key.signer), clock.now()
    await act(database)
    await sealer.seal()
    assert await sealer.checkpoint(now)
    assert not await sealer.checkpoint(now + timedelta(hours=2)), "there is nothing new"
    await act(database)
    await sealer.seal()
    assert not await sealer.checkpoint(now + timedelta(minutes=59))
    assert await sealer.checkpoint(now + timedelta(minutes=60))
    await act(database)
    await sealer.seal()
    assert await sealer.checkpoint(now - timedelta(days=400)), "a clock that was set back must not put it off for a year"
    report = await verify(database, key.known)
    assert (report.faults, report.checkpoints, report.signed) == ([], 3, 3)


async def test_without_a_key_checkpoints_bear_no_signature_and_that_is_told_once(database: Database) -> None:
    sealer, now = unsigned(database), clock.now()
    with capture_logs() as logs:
        for hour in range(2):
            await act(database)
            await sealer.seal()
            assert await sealer.checkpoint(now + timedelta(hours=hour))
    assert [line["event"] for line in logs] == ["audit.checkpoint_unsigned", "audit.checkpoint", "audit.checkpoint"]
    report = await verify(database, {})
    assert (report.faults, report.checkpoints, report.signed) == ([], 2, 0)
    assert report.notes == ["2 checkpoints bear no signature: there was no signing key then"]


async def test_a_key_that_cannot_be_read_makes_no_checkpoint_and_is_tried_again_in_a_minute(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "signing.pem"
    sealer, now = Sealer(database, signer_of(Settings(jwt=Jwt(private_key_path=str(file))))), clock.now()
    await act(database)
    await sealer.seal()
    with pytest.raises(KeyUnusable, match=r"signing\.pem: No such file"):
        await sealer.checkpoint(now)
    assert not await sealer.checkpoint(now + timedelta(seconds=59))
    file.write_bytes(b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n")
    with pytest.raises(KeyUnusable, match="is not a private key"):
        await sealer.checkpoint(now + timedelta(seconds=61))
    file.write_bytes(Key(tmp_path, "other").private.read_bytes())
    assert await sealer.checkpoint(now + timedelta(seconds=122))


# --- verification finds what was changed


TEXT_COLUMNS = ("actor_id", "actor_name", "actor_kind", "act", "object_id", "address", "request_id")


@pytest.fixture
async def sealed(database: Database, key: Key, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Twelve rows in four seals, a checkpoint behind the second and the last, and two rows that wait."""
    monkeypatch.setattr(sealing, "SEAL_ROWS_MAX", 3)
    sealer, now = Sealer(database, key.signer), clock.now()
    for hour in range(2):
        await act(database, 6)
        await sealer.seal()
        assert await sealer.checkpoint(now + timedelta(hours=hour))
    await act(database, 2)
    report = await verify(database, key.known)
    assert (report.faults, report.rows, report.seals, report.checkpoints, report.waiting) == ([], 12, 4, 2, 2)
    return database


@pytest.mark.parametrize("column", ROW_COLUMNS)
async def test_a_row_that_was_altered_is_named(sealed: Database, key: Key, column: str) -> None:
    victim = (await row_ids(sealed))[4]
    change = {
        "id": f"'{victim[:-1]}{'0' if victim[-1] != '0' else '1'}'",
        "at": "at + interval '1 microsecond'",
        "act": "'group.delete'",
        "outcome": "'denied'",
        "details": "(details::text || ' ')::json",
    }.get(column, f"{column} || 'x'")
    await run(sealed, f"update audit_log set {column} = {change} where id = '{victim}'")
    found = await faults(sealed, key.known)
    # A row under another id is one that is gone and one that was put in.
    assert len(found) == (2 if column == "id" else 1)
    assert f"row {victim} (place 2 of seal 2) was {'removed' if column == 'id' else 'altered'}" in found[0]


@pytest.mark.parametrize("column", ["actor_id", "object_id", "address", "request_id"])
async def test_null_is_not_the_empty_text(sealed: Database, key: Key, column: str) -> None:
    victim = (await row_ids(sealed))[0]
    for value in ("null", "''"):
        await run(sealed, f"update audit_log set {column} = {value} where id = '{victim}'")
        assert await faults(sealed, key.known) == [f"row {victim} (place 1 of seal 1) was altered"]


@pytest.mark.parametrize("at", ["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'294276-01-01'"])
async def test_a_time_that_python_cannot_hold_is_an_altered_row(sealed: Database, key: Key, at: str) -> None:
    victim = (await row_ids(sealed))[0]
    await run(sealed, f"update audit_log set at = {at} where id = '{victim}'")
    assert await faults(sealed, key.known) == [f"row {victim} (place 1 of seal 1) was altered"]


async def test_a_row_that_was_removed_is_named(sealed: Database, key: Key) -> None:
    victim = (await row_ids(sealed))[4]
    await run(sealed, f"delete from audit_log where id = '{victim}'")
    assert await faults(sealed, key.known) == [f"row {victim} (place 2 of seal 2) was removed"]


async def test_a_row_that_was_removed_together_with_its_place_is_missed(sealed: Database, key: Key) -> None:
    victim = (await row_ids(sealed))[4]
    await run(sealed, f"delete from audit_log where id = '{victim}'", f"delete from audit_sealed_rows where row_id = '{victim}'")
    [found] = await faults(sealed, key.known)
    assert found.startswith("seal 2 (3 rows, ")
    assert found.endswith("the list of its rows is not the one that was sealed; 2 are listed")


async def test_two_rows_that_were_swapped_are_named(sealed: Database, key: Key) -> None:
    ours = await row_ids(sealed)
    columns = [column for column in ROW_COLUMNS if column != "id"]
    swap = ", ".join(f"{column} = o.{column}" for column in columns)
    one, other = ours[1], ours[7]
    await run(
        sealed,
        f"update audit_log a set {swap} from audit_log o where (a.id, o.id) in (('{one}', '{other}'), ('{other}', '{one}'))",
    )
    found = await faults(sealed, key.known)
    assert found == [f"row {one} (place 2 of seal 1) was altered", f"row {other} (place 2 of seal 3) was altered"]


async def test_two_places_that_were_swapped_break_their_seals(sealed: Database, key: Key) -> None:
    one, other = (await row_ids(sealed))[1], (await row_ids(sealed))[7]
    await run(
        sealed,
        f"update audit_sealed_rows set seal = 9 where row_id = '{one}'",
        f"update audit_sealed_rows set seal = 1 where row_id = '{other}'",
        f"update audit_sealed_rows set seal = 3 where row_id = '{one}'",
    )
    assert [found.split()[:2] for found in await faults(sealed, key.known)] == [["seal", "1"], ["seal", "3"]]


async def test_a_row_that_was_put_in_is_named(sealed: Database, key: Key) -> None:
    copied = ", ".join(column for column in ROW_COLUMNS if column != "id")
    forged = ids.mint(ids.AuditId)
    await run(sealed, f"insert into audit_log (id, {copied}) select '{forged}', {copied} from audit_log limit 1")
    assert await faults(sealed, key.known) == [f"row {forged} is in no seal and does not wait for one: it was put in, or its seal was removed"]
    await run(sealed, f"insert into audit_sealed_rows select 2, 4, '{forged}', row_sha256 from audit_sealed_rows limit 1")
    found = await faults(sealed, key.known)
    assert found[0] == f"row {forged} (place 4 of seal 2) was altered"
    assert "the list of its rows is not the one that was sealed; 4 are listed" in found[1]


async def test_a_row_that_was_put_in_with_an_old_time_is_worth_a_look(database: Database) -> None:
    await act(database)
    await unsigned(database).seal()
    forged = ids.lowest_at(clock.now() - timedelta(hours=3))
    copied = ", ".join(column for column in ROW_COLUMNS if column not in ("id", "at"))
    await run(
        database,
        f"insert into audit_log (id, at, {copied}) select '{forged}', '{ids.time_of(forged)}', {copied} from audit_log",
        f"insert into audit_unsealed values ('{forged}')",
    )
    await unsigned(database).seal()
    report = await verify(database, {})
    assert (report.faults, len(report.notes)) == ([], 1)
    assert report.notes[0].startswith(f"row {forged} (place 1 of seal 2) says ")


async def test_a_row_that_was_removed_before_it_was_sealed_is_named(sealed: Database, key: Key) -> None:
    victim = (await row_ids(sealed))[-1]
    await run(sealed, f"delete from audit_log where id = '{victim}'")
    assert await faults(sealed, key.known) == [f"row {victim} was removed before it was sealed"]
    await Sealer(sealed, key.signer).seal()
    assert await faults(sealed, key.known) == [f"row {victim} was removed before it was sealed"], "sealing must not cover it up"


async def test_a_row_that_was_taken_out_of_the_queue_is_named(sealed: Database, key: Key) -> None:
    victim = (await row_ids(sealed))[-1]
    await run(sealed, f"delete from audit_unsealed where id = '{victim}'")
    [found] = await faults(sealed, key.known)
    assert found.startswith(f"row {victim} is in no seal")


@pytest.mark.parametrize(
    "change",
    [
        "first_row = last_row",
        "last_row = first_row",
        "row_count = row_count + 1",
        "rows_sha256 = sha256('x')",
        "previous_sha256 = sha256('x')",
        "sha256 = sha256('x')",
        "sealed_at = sealed_at - interval '1 microsecond'",
        "number = 17",
    ],
)
async def test_a_seal_that_was_altered_is_named(sealed: Database, key: Key, change: str) -> None:
    await run(sealed, f"update audit_seals set {change} where number = 3")
    found = await faults(sealed, key.known)
    assert any(text.startswith(("seal 3 ", "seal 3 is gone")) for text in found), found


async def test_a_seal_made_anew_over_altered_rows_breaks_the_chain(sealed: Database, key: Key) -> None:
    """Who alters a row and makes its seal right again needs to make all later ones, and cannot sign."""
    victim = (await row_ids(sealed))[0]
    await run(sealed, f"update audit_log set actor_name = 'mallory' where id = '{victim}'")
    copies = await rows_and_queue_again(sealed, first_seal=1)
    assert copies == 12
    found = await faults(sealed, key.known)
    assert [text.split(" of ")[0] for text in found] == ["checkpoint 1", "checkpoint 2"]
    assert all("is not of the seal" in text for text in found)


async def rows_and_queue_again(database: Database, first_seal: int) -> int:
    """All seals from one on are made anew over what is there, as somebody with the database and our code can do."""
    await run(
        database,
        "create table kept as select * from audit_checkpoints",
        "delete from audit_checkpoints",
        f"insert into audit_unsealed select row_id from audit_sealed_rows s join audit_log a on a.id = s.row_id where seal >= {first_seal}",
        f"delete from audit_sealed_rows where seal >= {first_seal}",
        f"delete from audit_seals where number >= {first_seal}",
    )
    # The rows that waited stay out of it, so that the seals hold the same ones as before.
    async with database.connection() as connection:
        waiting = (await row_ids(database))[12:]
        await connection.execute("delete from audit_unsealed where id = any($1::text[])", waiting)
    count = await unsigned(database).seal()
    while more := await unsigned(database).seal():
        count += more
    async with database.connection() as connection:
        await connection.execute("insert into audit_unsealed select unnest($1::text[])", waiting)
        await connection.execute("insert into audit_checkpoints select * from kept")
    return count


@pytest.mark.parametrize("first_gone", [1, 3, 4])
async def test_newest_seals_that_were_removed_are_missed(sealed: Database, key: Key, first_gone: int) -> None:
    await run(sealed, f"delete from audit_seals where number >= {first_gone}")
    found = await faults(sealed, key.known)
    assert {f"seal {number} is gone, its list of 3 rows" for number in range(first_gone, 5)} <= {text.split(" (")[0] for text in found}
    assert any(text.startswith("checkpoint 2 of ") and "is of seal 4, which is gone" in text for text in found)
    await run(sealed, f"delete from audit_sealed_rows where seal >= {first_gone}")
    found = await faults(sealed, key.known)
    assert sum("is in no seal" in text for text in found) == 3 * (5 - first_gone)


async def test_a_tail_that_was_cut_off_is_missed_by_the_checkpoint(sealed: Database, key: Key) -> None:
    last = (await row_ids(sealed))[9:]
    listed = ", ".join(f"'{each}'" for each in last)
    await run(
        sealed,
        "delete from audit_seals where number = 4",
        f"delete from audit_log where id in ({listed})",
        "delete from audit_sealed_rows where seal = 4",
        "delete from audit_unsealed",
    )
    [found] = await faults(sealed, key.known)
    assert found.startswith("checkpoint 2 of ")
    assert "is of seal 4, which is gone" in found


async def stored_checkpoints(database: Database) -> list[Checkpoint]:
    async with database.connection() as connection:
        rows = await connection.fetch("select number, seal, sha256, signed_at, kid, signature from audit_checkpoints order by number")
    return [Checkpoint(row["number"], row["seal"], row["sha256"], clock.rfc3339(row["signed_at"]), row["kid"], row["signature"]) for row in rows]


async def test_a_tail_cut_off_with_its_checkpoint_is_missed_by_the_copy_in_the_log(sealed: Database, key: Key) -> None:
    logged = await stored_checkpoints(sealed)
    report = await verify(sealed, key.known, logged)
    assert (report.faults, report.compared) == ([], 2)
    last = ", ".join(f"'{each}'" for each in (await row_ids(sealed))[9:])
    await run(
        sealed,
        "delete from audit_seals where number = 4",
        f"delete from audit_log where id in ({last})",
        "delete from audit_sealed_rows where seal = 4",
        "delete from audit_unsealed",
        "delete from audit_checkpoints where number = 2",
    )
    assert await faults(sealed, key.known) == [], "the database alone cannot show it"
    found = await faults(sealed, key.known, logged)
    assert [text.split(" of ")[0] for text in found] == ["checkpoint 2", "checkpoint 2"]
    assert "is of seal 4, which is gone" in found[0]
    assert found[1] == "checkpoint 2 of the log is not in the database"
    # Filled up again by the server since: another seal has the number.
    await act(sealed, 3)
    await unsigned(sealed).seal()
    assert "is not of the seal 4 that is there now" in (await faults(sealed, key.known, logged))[0]


@pytest.mark.parametrize("change", ["signed_at = signed_at + interval '1 microsecond'", "signature = sha256('x')", "kid = 'other'", "seal = 1"])
async def test_a_checkpoint_that_was_altered_is_named(sealed: Database, key: Key, change: str) -> None:
    await run(sealed, f"update audit_checkpoints set {change} where number = 2")
    found = await faults(sealed, key.known)
    assert found
    assert all(text.startswith("checkpoint 2") for text in found)


async def test_a_signature_cannot_be_left_out_and_a_checkpoint_cannot_be_removed(sealed: Database, key: Key) -> None:
    await run(sealed, "update audit_checkpoints set kid = null, signature = null where number = 2")
    assert await faults(sealed, key.known) == ["checkpoint 2 bears no signature, but one before it does"]
    await run(sealed, "delete from audit_checkpoints where number = 1")
    assert (await faults(sealed, key.known))[0] == "checkpoint 1 is gone"


async def test_another_key_does_not_count_and_a_retired_one_can_be_given(sealed: Database, key: Key, tmp_path: Path) -> None:
    other = Key(tmp_path)
    assert [f"signed with the key {key.kid}" in text for text in await faults(sealed, other.known)] == [True, True]
    both = tmp_path / "both.pem"
    both.write_bytes(other.public.read_bytes() + key.public.read_bytes())
    assert await faults(sealed, public_keys(private=None, public=[both])) == []


async def test_a_great_many_faults_are_counted_and_some_told(database: Database) -> None:
    await act(database, 300)
    await unsigned(database).seal()
    await run(database, "update audit_log set actor_name = 'mallory'")
    report = await verify(database, {})
    assert (report.fault_count, len(report.faults)) == (300, 200)


async def test_what_is_hashed_is_every_column(database: Database) -> None:
    async with database.connection() as connection:
        rows = await connection.fetch("select column_name::text as name from information_schema.columns where table_name = 'audit_log'")
    assert {row["name"] for row in rows} == set(ROW_COLUMNS)


async def test_verification_runs_beside_writers_and_a_sealer(database: Database) -> None:
    sealer, ended = unsigned(database), asyncio.Event()

    async def keep(what: Callable[[], Awaitable[object]]) -> None:
        while not ended.is_set():
            await what()

    tasks = [asyncio.create_task(keep(sealer.seal)), *(asyncio.create_task(keep(lambda: act(database, 5))) for _ in range(3))]
    reports = [await verify(database, {}, rows_at_once=7) for _ in range(8)]
    ended.set()
    await asyncio.gather(*tasks)
    assert [fault for report in reports for fault in report.faults] == []
    assert reports[-1].rows > reports[0].rows
