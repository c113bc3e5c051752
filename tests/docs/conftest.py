"""The pages are for a server as a reader has it: callers need credentials, and there is one administrator, who is logged in."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from conftest import fresh_database
from support.accounts import ADMIN, PASSWORD, SETTINGS, bearer, log_in
from support.installation import XZEPR, Installation, installation


@pytest.fixture(scope="module")
def shared_installation(first_server: str) -> Iterator[Installation]:
    """One for all tests of a file."""
    made = fresh_database(first_server)
    url = asyncio.run(made.__aenter__())
    try:
        with installation(XZEPR__DATABASE__URL=url, XZEPR__SERVER__WORKERS="2", **SETTINGS) as running:
            yield running
    finally:
        asyncio.run(made.__aexit__())


@pytest.fixture(scope="module")
def reader(shared_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody who has done `xzepr login`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("XZEPR")}
    config = tmp_path_factory.mktemp("config")
    path = f"{Path(XZEPR).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**inherited, "PATH": path, "XZEPR_URL": shared_installation.url, "XDG_CONFIG_HOME": str(config), "COLUMNS": "150"}
    subprocess.run([XZEPR, "login", "--username", ADMIN, "--password-stdin"], env=environ, input=PASSWORD, text=True, check=True, timeout=60)
    return environ


@pytest.fixture
def http(shared_installation: Installation) -> Iterator[httpx2.Client]:
    """The administrator's."""
    with httpx2.Client(base_url=shared_installation.url, timeout=30) as client:
        client.headers.update(bearer(log_in(client)))
        yield client
