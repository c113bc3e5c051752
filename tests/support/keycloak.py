"""A real Keycloak, thrown away afterwards: fetched once from Maven Central by Maven, verified, kept outside the tree, started on loopback.

What is kept lies in $XZEPR_TEST_CACHE, else ~/.cache/xzepr-tests: the unpacked distribution, built once for its database and cache. A run has a home
of its own with links to that, so two runs do not meet. The realm comes from tests/data/keycloak-realm.json.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

VERSION = "26.5.6"
SHA256 = "490189d9dff05272432d51f71a069462eeca97f2920a694d539a1e6c26a5a347"
REALM_FILE = Path(__file__).parents[1] / "data" / "keycloak-realm.json"
REALM = "acme"
ADMIN, ADMIN_PASSWORD = "admin", "only-for-tests"
JAVA_MIN = 17
START_S = 300.0
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
_ARTIFACT = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
# What its own script gives, with less memory and a quicker start.
_JAVA_OPTIONS = """-Xms64m -Xmx512m -XX:MaxMetaspaceSize=256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djava.util.logging.manager=org.jboss.logmanager.LogManager
-Dpicocli.disable.closures=true -Dquarkus-log-max-startup-records=10000 --add-opens=java.base/java.util=ALL-UNNAMED
--add-opens=java.base/java.util.concurrent=ALL-UNNAMED --add-opens=java.base/java.security=ALL-UNNAMED
-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory""".split()


def missing() -> str | None:
    """In one line what this machine lacks; None: nothing."""
    lacks = [f"Java {JAVA_MIN} or newer"] if _java_major() < JAVA_MIN else []
    if shutil.which("mvn") is None and not _distribution().is_dir():
        lacks.append("Maven (mvn)")
    return f"tests against a real Keycloak need {' and '.join(lacks)}" if lacks else None


class Keycloak:
    """issuer: of the realm."""

    def __init__(self, issuer: str, url: str) -> None:
        self.issuer, self._url = issuer, url
        self._http = httpx2.Client(timeout=30)

    def close(self) -> None:
        self._http.close()

    def set_roles(self, username: str, roles: list[str]) -> None:
        """The person has these roles of ours at the realm, and no others."""
        [user] = self._admin("GET", f"users?exact=true&username={username}")
        mappings = f"users/{user['id']}/role-mappings/realm"
        ours = [role for role in self._admin("GET", "roles") if re.match(r"release-|xzepr-", role["name"])]
        self._admin("DELETE", mappings, [role for role in self._admin("GET", mappings) if role["id"] in {role["id"] for role in ours}])
        self._admin("POST", mappings, [role for role in ours if role["name"] in roles])

    def sessions(self, username: str) -> int:
        """How many the person has at the realm."""
        [user] = self._admin("GET", f"users?exact=true&username={username}")
        return len(self._admin("GET", f"users/{user['id']}/sessions"))

    def _admin(self, method: str, path: str, body: Any = None) -> Any:
        form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": ADMIN_PASSWORD}
        token = self._http.post(f"{self._url}/realms/master/protocol/openid-connect/token", data=form).raise_for_status().json()["access_token"]
        url = f"{self._url}/admin/realms/{REALM}/{path}"
        answer = self._http.request(method, url, json=body, headers={"Authorization": f"Bearer {token}"}).raise_for_status()
        return answer.json() if answer.content else None


@contextlib.contextmanager
def running_keycloak() -> Iterator[Keycloak]:
    """Started, with the realm, and stopped at the end."""
    distribution = _fetched()
    home = Path(tempfile.mkdtemp(prefix="xzepr-keycloak-"))
    try:
        for name in ("lib", "conf", "providers", "themes"):
            (home / name).symlink_to(distribution / name)
        (home / "data" / "import").mkdir(parents=True)
        shutil.copy(REALM_FILE, home / "data" / "import" / f"{REALM}-realm.json")
        with _process(distribution, home) as url:
            keycloak = Keycloak(f"{url}/realms/{REALM}", url)
            try:
                yield keycloak
            finally:
                keycloak.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _process(distribution: Path, home: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    arguments = f"start --optimized --http-enabled=true --hostname-strict=false --http-host=127.0.0.1 --http-port={port} --cache=local --import-realm"
    environ = {**os.environ, "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN, "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD}
    log_file = home / "keycloak.log"
    with log_file.open("wb") as log:
        command = _command(distribution, home, arguments)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, cwd=home, start_new_session=True)
    try:
        _wait(process, f"{url}/realms/{REALM}/.well-known/openid-configuration", log_file)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def _wait(process: subprocess.Popen[bytes], url: str, log_file: Path) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx2.HTTPError):
            if httpx2.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"Keycloak does not start: {log_file.read_text('utf-8', 'replace')[-3000:]}")


# --- fetching


def _cache() -> Path:
    given = os.environ.get("XZEPR_TEST_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "xzepr-tests"


def _distribution() -> Path:
    """Named after what was verified and how it was built: what differs in these is another directory."""
    return _cache() / f"keycloak-{VERSION}-{SHA256[:12]}-mem"


def _fetched() -> Path:
    """The distribution, unpacked and built. Whoever comes while another fetches it waits. Raises RuntimeError."""
    cache, wanted = _cache(), _distribution()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "keycloak.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if wanted.is_dir():
            return wanted
        with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as name:
            work = Path(name)
            _run(["mvn", "--batch-mode", "--quiet", _PLUGIN, f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={work}"])
            packed = work / f"keycloak-quarkus-dist-{VERSION}.zip"
            require_sha256(packed, SHA256)
            with zipfile.ZipFile(packed) as opened:
                opened.extractall(work)
            packed.unlink()
            unpacked = work / f"keycloak-{VERSION}"
            _run(_command(unpacked, unpacked, "build --db=dev-mem"))
            # It appears whole or not at all.
            unpacked.rename(wanted)
    return wanted


def require_sha256(file: Path, wanted: str) -> None:
    """Raises RuntimeError for a file that is another one."""
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != wanted:
        raise RuntimeError(f"{file.name} is not what was to be fetched: its SHA-256 is {found}, not {wanted}")


def _command(distribution: Path, home: Path, arguments: str) -> list[str]:
    """Java itself and not its script, which leaves a second process behind."""
    places = [f"-Dkc.home.dir={home}", f"-Djboss.server.config.dir={home / 'conf'}"]
    classes = ["-cp", str(distribution / "lib" / "quarkus-run.jar"), "io.quarkus.bootstrap.runner.QuarkusEntryPoint"]
    return [_java(), *_JAVA_OPTIONS, *places, *classes, *arguments.split()]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=480, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else shutil.which("java") or "java"


def _java_major() -> int:
    """0 where there is none."""
    try:
        said = subprocess.run([_java(), "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    except OSError:
        return 0
    match = re.search(r'version "(\d+)', said)
    return int(match[1]) if match else 0
