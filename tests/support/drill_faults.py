"""What the fault drill does to an installation, one fault a round. Each method does it, undoes what must be undone, and says what it did."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator

import asyncpg
import psutil

from support.clock_shift import ShiftedClock
from support.drill_load import Load
from support.embedded import eventually
from support.installation import Installation
from support.own_postgres import OwnPostgres, stopped

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
# Partitions are made three months ahead; this is past the last of them on any day.
JUMP_S = 160 * DAY_S
# The children of a killed parent end by themselves, by force after five seconds.
ORPHANS_S = 10.0
SETTLE_S = 40.0


class Faults:
    """start: a new `xzepr serve` on the same port and database. load: set once it runs."""

    load: Load

    def __init__(self, postgres: OwnPostgres, clock: ShiftedClock, start: Callable[[], Installation], chance: random.Random) -> None:
        self.postgres, self.clock, self.chance = postgres, clock, chance
        self._start = start
        self.running = start()
        self.log: list[str] = []

    def kinds(self) -> list[Callable[[], str]]:
        """All but the jump of the clock with a restart, which comes once."""
        return [
            self.kill_web,
            self.kill_relay,
            self.kill_parent,
            self.stop_postgres_fast,
            self.stop_postgres_immediate,
            self.kill_postgres,
            self.kill_backend,
            self.kill_clients,
            self.pause_web,
            self.pause_relay,
            self.pause_backends,
            self.fill_the_queue,
            self.lock_the_table,
            self.clock_back_seconds,
            self.clock_forward_minutes,
            self.clock_back_hours,
            self.jump_without_restart,
        ]

    def kill_web(self) -> str:
        return self._kill("web")

    def kill_relay(self) -> str:
        return self._kill("relay")

    def kill_parent(self) -> str:
        everything = self.running.tree()
        self.running.process.kill()
        began = time.monotonic()
        eventually(lambda: not _alive(everything), ORPHANS_S, f"everything of the killed parent {self.running.process.pid} has ended")
        seconds = time.monotonic() - began
        self._restart()
        return f"its children were gone after {seconds:.1f} s"

    def stop_postgres_fast(self) -> str:
        return self._stop_postgres("fast")

    def stop_postgres_immediate(self) -> str:
        return self._stop_postgres("immediate")

    def kill_postgres(self) -> str:
        return self._stop_postgres("killed")

    def kill_backend(self) -> str:
        """PostgreSQL takes it for a crash and ends every session."""
        victim = self.chance.choice(self.postgres.backends())
        victim.kill()
        return f"backend {victim.pid} of PostgreSQL killed"

    def kill_clients(self) -> str:
        """Some between request and answer, some in the middle of their request."""
        gone = self.load.hang_up()
        for number in range(12):
            self.load.slam(whole=number % 3 > 0)
        return f"{gone} hung up, 12 reset their connections"

    def pause_web(self) -> str:
        return self._pause(self.chance.sample(self._children("web"), 1), "web worker")

    def pause_relay(self) -> str:
        return self._pause(self._children("relay"), "relay")

    def pause_backends(self) -> str:
        backends = self.postgres.backends()
        return self._pause(self.chance.sample(backends, min(2, len(backends))), "backends of PostgreSQL")

    def fill_the_queue(self) -> str:
        """The whole database stands still while more is asked than it ever answers at once."""
        with stopped(self.postgres.everything()):
            self.load.burst(200)
            seconds = self._meanwhile(1, 4)
        return f"PostgreSQL stood still for {seconds:.1f} s under 200 requests more"

    def lock_the_table(self) -> str:
        with self._locked("events"):
            self.load.burst(100)
            seconds = self._meanwhile(1, 7)
        return f"events locked for {seconds:.1f} s"

    def clock_back_seconds(self) -> str:
        return self._shift(-self.chance.randint(1, 90))

    def clock_forward_minutes(self) -> str:
        return self._shift(self.chance.randint(1, 90) * MINUTE_S)

    def clock_back_hours(self) -> str:
        return self._shift(-self.chance.randint(1, 10) * HOUR_S)

    def jump_of_the_clock(self) -> str:
        """Past the last partition; then a restart, which makes partitions for what is there and ahead.

        The load has its answers before the jump: a key is kept for 24 hours by the server's clock, so a retry across it may count as new.
        """
        line = len(self.running.lines)
        with self.load.settled(SETTLE_S):
            self.clock.shift(JUMP_S)
        self.load.wait_for_acknowledged(50, 30)
        astray = asyncio.run(_value(self.postgres.url, "select count(*) from events_default"))
        assert astray or "partition.made" in "\n".join(self.running.lines[line:]), "no event had the time of the jump"
        assert self.running.stop() == 0, "the server did not drain"
        self._restart()
        left = asyncio.run(_value(self.postgres.url, "select count(*) from events_default"))
        assert left == 0, f"{left} events are left in the default partition after the restart"
        return f"{JUMP_S // DAY_S} days forward; {astray} events were in the default partition before the restart, none after it"

    def jump_without_restart(self) -> str:
        """The relay makes the partitions within a minute, under load; one that is started anew makes them at once."""
        with self.load.settled(SETTLE_S):
            self.clock.shift(JUMP_S)
        self.load.wait_for_acknowledged(50, 30)
        self._kill("relay")
        query = "select count(*) from events_default"
        # A long reader holds the table now and then; then the next round of the relay does it, or the restart.
        with contextlib.suppress(AssertionError):
            eventually(lambda: asyncio.run(_value(self.postgres.url, query)) == 0, 8, "the default partition is empty")
        left = asyncio.run(_value(self.postgres.url, query))
        return f"{JUMP_S // DAY_S} days forward; {left} events are left in the default partition"

    def server_log(self, lines: int) -> list[str]:
        """The last lines of all servers so far."""
        return [*self.log, *self.running.lines][-lines:]

    def close(self) -> None:
        if self.running.process.poll() is None:
            self.running.kill()
        else:
            self.running.stop()

    def _restart(self) -> None:
        self.running.stop()
        self.log += self.running.lines
        self.running = self._start()

    def _children(self, role: str) -> list[psutil.Process]:
        """By the log alone a number that somebody else has by now could be taken for a child's."""
        own = {process.pid for process in self.running.tree()}
        deadline = time.monotonic() + 20
        while not (live := [process for process in self.running.children(role) if process.pid in own]):
            assert time.monotonic() < deadline, f"there is no {role} process"
            time.sleep(0.05)
            own = {process.pid for process in self.running.tree()}
        return live

    def _kill(self, role: str) -> str:
        victim = self.chance.choice(self._children(role))
        victim.kill()
        return f"{role} {victim.pid} killed"

    def _stop_postgres(self, how: str) -> str:
        self.postgres.stop(how)
        seconds = self._meanwhile(0, 3)
        self.postgres.start()
        return f"PostgreSQL {how}, away for {seconds:.1f} s"

    def _pause(self, processes: list[psutil.Process], what: str) -> str:
        with stopped(processes):
            seconds = self._meanwhile(1, 6)
        return f"{what} paused for {seconds:.1f} s"

    def _shift(self, seconds: int) -> str:
        self.clock.shift(seconds)
        time.sleep(0.3)
        return f"the clock moved by {seconds} s, to {self.clock.offset_s:+} s"

    def _meanwhile(self, least_s: float, most_s: float) -> float:
        """Wait; now and then a second misfortune comes while the first one lasts."""
        seconds = self.chance.uniform(least_s, most_s)
        time.sleep(seconds / 2)
        misfortune = self.chance.choice([None, None, None, "web", "relay", "clock", "clients"])
        with contextlib.suppress(psutil.NoSuchProcess):
            if misfortune in ("web", "relay") and (live := self._now(misfortune)):
                self.chance.choice(live).kill()
            elif misfortune == "clock":
                self.clock.shift(self.chance.randint(-30, 30))
            elif misfortune == "clients":
                self.load.hang_up()
        time.sleep(seconds / 2)
        return seconds

    def _now(self, role: str) -> list[psutil.Process]:
        own = {process.pid for process in self.running.tree()}
        return [process for process in self.running.children(role) if process.pid in own]

    @contextlib.contextmanager
    def _locked(self, table: str) -> Iterator[None]:
        """By another session, against everybody."""
        with asyncio.Runner() as runner:
            connection = runner.run(asyncpg.connect(self.postgres.url, timeout=10))
            transaction = connection.transaction()
            try:
                runner.run(transaction.start())
                runner.run(connection.execute(f"lock table {table} in access exclusive mode"))
                yield
                runner.run(transaction.rollback())
            finally:
                connection.terminate()
                # The transport closes in the loop's next turn.
                runner.run(asyncio.sleep(0))


async def _value(url: str, query: str) -> int:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
