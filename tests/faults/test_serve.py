"""`xzepr serve` as a process: what starts, what is replaced, what is left behind."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest

from support.cast import event, make_receiver, post_event
from support.installation import XZEPR, Installation, installation
from support.processes import arguments, is_living
from xzepr.db.migrate import known_migrations

MEMORY_MAX_BYTES = 250 << 20


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """Reachable for the account that PostgreSQL runs under, which pytest's own directories are not."""
    made = Path(tempfile.mkdtemp(prefix="xzepr-state-"))
    made.chmod(0o755)
    yield made / "state"
    shutil.rmtree(made, ignore_errors=True)


def wait_until(what: str, seconds: float, done) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(is_living(process) for process in processes)


def test_it_serves_with_nothing_configured_and_keeps_its_data(state_dir: Path) -> None:
    with installation(XZEPR__SERVER__STATE_DIR=str(state_dir)) as first:
        assert httpx2.get(f"{first.url}/health").json()["status"] == "healthy"
        assert any("for production, use your own PostgreSQL" in line for line in first.lines)
        assert any("OPEN" in line and "admin" in line for line in first.lines)
        with httpx2.Client(base_url=first.url) as http:
            posted = post_event(http, make_receiver(http))
    started = time.monotonic()
    with installation(XZEPR__SERVER__STATE_DIR=str(state_dir)) as second:
        assert time.monotonic() - started < 10
        assert httpx2.get(f"{second.url}/api/v1/events/{posted}").status_code == 200


def test_data_survives_a_kill_of_the_whole_process_tree(state_dir: Path) -> None:
    running = Installation({"XZEPR__SERVER__STATE_DIR": str(state_dir)}).ready()
    with httpx2.Client(base_url=running.url) as http:
        receiver = make_receiver(http)
        posted = [post_event(http, receiver, version=str(number)) for number in range(50)]
    running.kill()
    started = time.monotonic()
    with installation(XZEPR__SERVER__STATE_DIR=str(state_dir)) as again:
        assert time.monotonic() - started < 10
        for event_id in posted:
            assert httpx2.get(f"{again.url}/api/v1/events/{event_id}").status_code == 200


def test_a_killed_parent_leaves_nothing_behind(state_dir: Path) -> None:
    running = Installation({"XZEPR__SERVER__STATE_DIR": str(state_dir)}).ready()
    everything = running.tree()
    assert any("postgres" in process.name() for process in everything)
    running.process.kill()
    wait_until("processes are left behind", 10, lambda: gone(everything))
    running.stop()


def test_a_killed_worker_and_a_killed_relay_are_replaced(shared_installation: Installation) -> None:
    for role in ("web", "relay"):
        before = {process.pid for process in shared_installation.children(role)}
        victim = shared_installation.children(role)[0]
        victim.kill()
        wait_until(f"no new {role}", 10, lambda role=role, before=before: {process.pid for process in shared_installation.children(role)} - before)
    wait_until("not healthy again", 10, lambda: httpx2.get(f"{shared_installation.url}/health").json()["status"] == "healthy")


def test_the_connections_of_a_client_are_shared_out_among_the_workers(shared_installation: Installation) -> None:
    address = urlsplit(shared_installation.url)
    assert address.hostname is not None
    assert address.port is not None
    workers = shared_installation.children("web")
    with contextlib.ExitStack() as held:
        for _ in range(64):
            held.enter_context(socket.create_connection((address.hostname, address.port)))

        def counts() -> list[int]:
            return [
                sum(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == address.port for each in worker.net_connections("tcp"))
                for worker in workers
            ]

        wait_until("not all are taken", 10, lambda: sum(counts()) >= 64)
        assert min(counts()) >= 16, counts()


def test_the_lease_of_a_killed_relay_is_freed_at_once(shared_installation: Installation) -> None:
    line = len(shared_installation.lines)
    started = time.monotonic()
    shared_installation.children("relay")[-1].kill()
    shared_installation.wait_for(r"lead\.acquired", 10, after=line)
    # The lease itself would run for three seconds.
    assert time.monotonic() - started < 2.5


def test_sigterm_answers_what_was_asked_and_ends(first_server: str, database_url: str) -> None:
    running = Installation({"XZEPR__DATABASE__URL": database_url, "XZEPR__SERVER__WORKERS": "1"}).ready()
    with httpx2.Client(base_url=running.url) as http:
        receiver = make_receiver(http)
    host, port = running.url.removeprefix("http://").split(":")
    body = json.dumps(event(receiver)).encode()
    with socket.create_connection((host, int(port)), timeout=20) as half_sent:
        head = f"POST /api/v1/events HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        half_sent.sendall(head.encode() + body[:10])
        with httpx2.stream("GET", f"{running.url}/api/v1/stream", timeout=20) as follower:
            lines = follower.iter_lines()
            next(lines)
            running.process.send_signal(signal.SIGTERM)
            running.wait_for("serve.draining")
            half_sent.sendall(body[10:])
            assert half_sent.recv(64).startswith(b"HTTP/1.1 201")
            assert not any(line.startswith("data:") and "marker" in line for line in lines)
    assert running.process.wait(20) == 0
    running.stop()


def test_ctrl_c_at_the_terminal_stops_everything(state_dir: Path) -> None:
    running = Installation({"XZEPR__SERVER__STATE_DIR": str(state_dir)}).ready()
    everything = running.tree()
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.process.wait(30) == 0
    assert gone(everything)
    running.stop()


def test_a_port_in_use_is_one_clear_line(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = Installation({"XZEPR__DATABASE__URL": database_url, "XZEPR__SERVER__PORT": str(port)})
        assert running.process.wait(30) == 1
        assert running.wait_for(rf"error: server.host, server.port: 127.0.0.1:{port}: Address already in use")
        running.stop()


def test_a_database_that_is_not_there_is_one_clear_line_without_its_password() -> None:
    running = Installation(
        {"XZEPR__DATABASE__URL": "postgresql://xzepr:hunter2@127.0.0.1:1/xzepr", "XZEPR__DATABASE__CONNECTION_TIMEOUT_SECONDS": "2"}
    )
    assert running.process.wait(40) == 1
    assert running.wait_for("error: database.url: ")
    assert not any("hunter2" in line or "Traceback" in line for line in running.lines)
    running.stop()


def test_too_few_connections_for_the_workers_are_told(database_url: str) -> None:
    running = Installation({"XZEPR__DATABASE__URL": database_url, "XZEPR__DATABASE__MAX_CONNECTIONS": "8", "XZEPR__SERVER__WORKERS": "9"})
    assert running.process.wait(30) == 1
    assert running.wait_for("error: database.max_connections: 8 is too few for 9 workers")
    running.stop()


def test_a_second_process_joins_the_running_database_and_takes_over(state_dir: Path) -> None:
    first = Installation({"XZEPR__SERVER__STATE_DIR": str(state_dir), "XZEPR__SERVER__WORKERS": "1"}).ready()
    second = Installation({"XZEPR__SERVER__STATE_DIR": str(state_dir), "XZEPR__SERVER__WORKERS": "1"}).ready()
    try:
        assert second.wait_for(r"embedded\.joined")
        with httpx2.Client(base_url=first.url) as http:
            posted = post_event(http, make_receiver(http))
        first.kill()
        started = time.monotonic()

        def answers() -> bool:
            with contextlib.suppress(httpx2.HTTPError):
                return httpx2.get(f"{second.url}/api/v1/events/{posted}", timeout=2).status_code == 200
            return False

        second.wait_for(r"embedded\.restarted", 10)
        wait_until("the second does not answer", 10, answers)
        assert time.monotonic() - started < 10
    finally:
        assert second.stop() == 0
        first.stop()


def test_migrate_works_on_its_own_and_serve_refuses_an_older_schema(empty_url: str) -> None:
    refused = Installation({"XZEPR__DATABASE__URL": empty_url}, arguments=("serve", "--no-migrate"))
    assert refused.process.wait(30) == 1
    assert refused.wait_for("error: .*xzepr migrate")
    refused.stop()
    environ = {**os.environ, "XZEPR__DATABASE__URL": empty_url}
    done = subprocess.run([XZEPR, "migrate"], env=environ, cwd="/", capture_output=True, text=True, timeout=60, check=True)
    newest = known_migrations()[-1]
    assert f"the database has the schema of {newest.number:04}_{newest.name}" in done.stdout


def test_an_idle_server_with_one_worker_fits_in_a_quarter_gigabyte(database_url: str) -> None:
    with installation(XZEPR__DATABASE__URL=database_url, XZEPR__SERVER__WORKERS="1") as running:
        with httpx2.Client(base_url=running.url) as http:
            post_event(http, make_receiver(http))
        own = [process for process in running.tree() if "xzepr.receivers.costly" not in arguments(process)]
        assert len(own) == 3
        used = sum(process.memory_full_info().pss for process in own)
        print(f"proportional set size of parent, worker and relay: {used / (1 << 20):.0f} MiB")
        assert used < MEMORY_MAX_BYTES
