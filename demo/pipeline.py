"""A year of releases as a company has them, on a running server: `make demo`.

Five services with forty versions each go through a pipeline: build, scan, test, sign, deploy to staging, approve. Two groups decide: *release* (the
first four) and *production* (all six). Some versions fail a step; most are repaired, some are given up, one is never signed. About a thousand
events in all. At the end the story is told: what happened to one artifact, why another may not be released, and what a pipeline gets as exit
codes.

XZEPR_URL: the server, by default http://127.0.0.1:8042. It logs in by XZEPR_USERNAME and XZEPR_PASSWORD, else by the first login that `make run`
wrote into its state directory, else it asks; it makes itself an API key for what it does, and revokes it at the end. The same seed makes the same
year; each run makes receivers and groups of its own, so it can be run again.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from getpass import getpass
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from xzepr.embedded import default_state_dir

SEED = 2026
VERSIONS = 40
SERVICES = ("checkout", "catalog", "mailer", "search", "billing")

CONTEXT = {
    "type": "object",
    "required": ["version", "id", "source", "type", "timestamp"],
    "properties": {
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "format": "uri-reference"},
        "type": {"type": "string", "pattern": r"^dev\.cdevents\.[a-z]+\.[a-z]+\.\d+\.\d+\.\d+$"},
        "timestamp": {"type": "string", "format": "date-time"},
    },
}


def cdevent_schema(content: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """A schema for the payload of one kind of act: the common context, and a subject with this content."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["context", "subject"],
        "properties": {
            "context": CONTEXT,
            "subject": {
                "type": "object",
                "required": ["id", "content"],
                "properties": {
                    "id": {"type": "string", "minLength": 1},
                    "content": {"type": "object", "required": required, "properties": content, "additionalProperties": False},
                },
            },
        },
    }


DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
COUNT = {"type": "integer", "minimum": 0}
# Name: type of the receiver, schema of its payloads. The types are those of CDEvents where it has one.
ACTS: dict[str, tuple[str, dict[str, Any]]] = {
    "build": ("dev.cdevents.artifact.packaged", cdevent_schema({"digest": DIGEST, "commit": {"type": "string"}}, ["digest"])),
    "scan": (
        "dev.cdevents.artifact.scanned",
        cdevent_schema({"scanner": {"type": "string"}, "critical": COUNT, "high": COUNT}, ["scanner", "critical", "high"]),
    ),
    "test": ("dev.cdevents.testsuiterun.finished", cdevent_schema({"passed": COUNT, "failed": COUNT}, ["passed", "failed"])),
    "sign": ("dev.cdevents.artifact.signed", cdevent_schema({"signature": {"type": "string"}, "key": {"type": "string"}}, ["signature"])),
    "stage": ("dev.cdevents.service.deployed", cdevent_schema({"environment": {"enum": ["staging", "production"]}}, ["environment"])),
    "approve": ("dev.cdevents.change.reviewed", cdevent_schema({"by": {"type": "string", "minLength": 1}}, ["by"])),
}
GROUPS = {"release": ["build", "scan", "test", "sign"], "production": ["build", "scan", "test", "sign", "stage", "approve"]}
CONTENT: dict[str, dict[str, Any]] = {
    "build": {"digest": "sha256:" + "9f" * 32, "commit": "4e1243b"},
    "scan": {"scanner": "trivy", "critical": 0, "high": 1},
    "test": {"passed": 812, "failed": 0},
    "sign": {"signature": "MEUCIQDk", "key": "release-2026"},
    "stage": {"environment": "staging"},
    "approve": {"by": "charlie"},
}
# What a failed step says.
FAILED: dict[str, dict[str, Any]] = {"scan": {"critical": 2}, "test": {"passed": 810, "failed": 2}}
SCOPES = ["event:create", "event:read", "receiver:create", "group:create", "group:read"]
# The artifacts that the story is about: one repaired and in production, one never signed.
REPAIRED, UNSIGNED = ("checkout", "1.17.0"), ("mailer", "1.39.0")


class Pipeline:
    """The company's pipeline against one server."""

    def __init__(self, http: httpx2.Client) -> None:
        self.http = http
        self.posted = 0
        self.receivers = {
            name: self._created("receivers", {"name": name, "type": kind, "version": "1.0.0", "schema": schema})
            for name, (kind, schema) in ACTS.items()
        }
        self.groups = {
            name: self._created(
                "groups",
                {
                    "name": name,
                    "type": f"com.example.{name}.approved",
                    "version": "1.0.0",
                    "event_receiver_ids": [self.receivers[act] for act in acts],
                },
            )
            for name, acts in GROUPS.items()
        }

    def act(self, name: str, service: str, version: str, *, success: bool = True) -> None:
        """Post one event."""
        content = CONTENT[name] if success else {**CONTENT[name], **FAILED.get(name, {})}
        payload = {
            "context": {
                "version": "0.4.1",
                "id": f"{service}-{version}-{name}-{time.time_ns()}",
                "source": f"/ci/{service}",
                "type": f"{ACTS[name][0]}.0.2.0",
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
            "subject": {"id": f"pkg:oci/{service}@{version}", "content": content},
        }
        self._created("events", {**artifact(service, version), "payload": payload, "success": success, "event_receiver_id": self.receivers[name]})
        self.posted += 1

    def status(self, group: str, service: str, version: str) -> dict[str, Any]:
        """What a group says of one artifact."""
        return dict(self.get(f"groups/{self.groups[group]}/status", artifact(service, version)))

    def get(self, path: str, params: dict[str, Any]) -> Any:
        answer = self.http.get(f"/xzepr/api/v1/{path}", params=params)
        answer.raise_for_status()
        return answer.json()

    def _created(self, what: str, body: dict[str, Any]) -> str:
        answer = self.http.post(f"/xzepr/api/v1/{what}", json=body)
        if answer.status_code != 201:
            raise SystemExit(f"POST {what}: {answer.status_code} {answer.text}")
        return str(answer.json()["data"])


def artifact(service: str, version: str) -> dict[str, str]:
    return {"name": service, "version": version, "release": "2026.11", "platform_id": "x86-64-oci-linux", "package": "oci"}


def live_through(pipeline: Pipeline, service: str, version: str, chance: random.Random) -> str:
    """All that happens to one version; what became of it."""
    outcome = ""
    for name in GROUPS["release"]:
        if (service, version, name) == (*UNSIGNED, "sign"):
            return "never signed"
        fails = name in FAILED and ((service, version, name) == (*REPAIRED, "scan") or chance.random() < 0.08)
        pipeline.act(name, service, version, success=not fails)
        if fails and (service, version) != REPAIRED and chance.random() < 0.25:
            return "given up"
        if fails:
            pipeline.act(name, service, version)
            outcome = "repaired, "
    if (service, version) != REPAIRED and chance.random() < 0.4:
        return f"{outcome}released"
    pipeline.act("stage", service, version)
    pipeline.act("approve", service, version)
    return f"{outcome}in production"


def live_a_year(pipeline: Pipeline, console: Console) -> dict[str, int]:
    """Every service, every version; how many met which end."""
    chance, ends = random.Random(SEED), dict[str, int]()
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for service in SERVICES:
            bar = progress.add_task(service, total=VERSIONS)
            for number in range(VERSIONS):
                end = live_through(pipeline, service, f"1.{number}.0", chance)
                ends[end] = ends.get(end, 0) + 1
                progress.advance(bar)
    return ends


def tell(pipeline: Pipeline, console: Console) -> None:
    """The story: a timeline, a reason, exit codes."""
    service, version = REPAIRED
    timeline = pipeline.get("artifacts/timeline", artifact(service, version))
    mine = set(pipeline.receivers.values())
    table = Table(title=f"What happened to {service} {version}")
    for column in ("when", "act", "outcome", "event"):
        table.add_column(column)
    for event in timeline["events"]:
        if event["event_receiver_id"] in mine:
            outcome = "[green]success[/]" if event["success"] else "[red]failure[/]"
            table.add_row(event["created_at"][:19].replace("T", " "), event["event_receiver_name"], outcome, event["id"])
    console.print(table)
    console.print(f"  {pipeline.status('production', service, version)['summary']}", soft_wrap=True)
    service, version = UNSIGNED
    console.print(f"\n[bold]Why is {service} {version} not released?[/]")
    console.print(f"  {pipeline.status('release', service, version)['summary']}\n", soft_wrap=True)
    console.print("[bold]What a pipeline gets[/] from `xzepr group status … --assert`:")
    for service, version in (REPAIRED, UNSIGNED):
        console.print(f"  {service} {version}: exit code {exit_code(pipeline.groups['release'], service, version, pipeline.http)}")


def exit_code(group_id: str, service: str, version: str, http: httpx2.Client) -> int:
    """Of the command line, asked as a pipeline asks it: with an API key in its environment."""
    command = [str(Path(sys.executable).with_name("xzepr")), "group", "status", group_id, "--assert"]
    for field, value in artifact(service, version).items():
        command += [f"--{field.replace('_', '-')}", value]
    environ = {**os.environ, "XZEPR_URL": str(http.base_url), "XZEPR_API_KEY": http.headers["X-API-Key"]}
    return subprocess.run(command, env=environ, capture_output=True, check=False).returncode


def find_login() -> tuple[str, str]:
    """Name and password: of the environment, of the first login, or of the person at the terminal."""
    username, password = os.environ.get("XZEPR_USERNAME"), os.environ.get("XZEPR_PASSWORD")
    if username and password:
        return username, password
    state_dir = os.environ.get("XZEPR__SERVER__STATE_DIR")
    file = (Path(state_dir) if state_dir else default_state_dir()) / "first-login.json"
    try:
        kept = json.loads(file.read_text("utf-8"))
        return kept["username"], kept["password"]
    except (OSError, ValueError, KeyError, TypeError):
        if not sys.stdin.isatty():
            raise SystemExit("Who are you? Set XZEPR_USERNAME and XZEPR_PASSWORD.") from None
    print("The first login was shown when the server started.")
    return input("Username [admin]: ") or "admin", getpass()


@contextmanager
def logged_in(http: httpx2.Client) -> Iterator[None]:
    """With an API key for what is done here, which is revoked at the end, as is the login."""
    username, password = find_login()
    pair = checked(http.post("/xzepr/api/v1/auth/login", json={"username": username, "password": password}), "log in")
    login = {"Authorization": f"Bearer {pair['access_token']}"}
    # Should nobody come to revoke it.
    ends_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    wanted = {"name": "make demo", "scopes": SCOPES, "expires_at": ends_at}
    key = checked(http.post("/xzepr/api/v1/api-keys", json=wanted, headers=login), "make an API key")
    http.headers["X-API-Key"] = key["key"]
    try:
        yield
    finally:
        del http.headers["X-API-Key"]
        http.delete(f"/xzepr/api/v1/api-keys/{key['id']}", headers=login).raise_for_status()
        http.post("/xzepr/api/v1/auth/logout", headers=login).raise_for_status()


def checked(answer: httpx2.Response, what: str) -> dict[str, Any]:
    """The answer's object; what the server says against it ends the demo."""
    if not answer.is_success:
        raise SystemExit(f"cannot {what}: {answer.status_code} {answer.text}")
    return dict(answer.json())


def main() -> int:
    """Exit code: 1 when nothing answers."""
    url = os.environ.get("XZEPR_URL", "http://127.0.0.1:8042")
    console = Console()
    console.print(f"A year of releases on {url}\n")
    try:
        with httpx2.Client(base_url=url, timeout=30) as http, logged_in(http):
            started_s = time.monotonic()
            pipeline = Pipeline(http)
            ends = live_a_year(pipeline, console)
            took_s = time.monotonic() - started_s
            console.print(
                f"\n{pipeline.posted} events in {took_s:.1f} s: " + ", ".join(f"{count} {end}" for end, count in sorted(ends.items())) + "\n",
                soft_wrap=True,
            )
            tell(pipeline, console)
    except httpx2.ConnectError:
        console.print(f"[red]Nothing answers at {url}.[/] Start the server with `make run` in another terminal, or set XZEPR_URL.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
