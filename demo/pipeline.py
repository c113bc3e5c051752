"""A release pipeline as a company runs it, on a running server: `make demo`.

Five receivers with schemas in the shape of CDEvents (build, scan, test, sign, deploy), a release group of the first four, three services with
several versions. One version fails its scan, is repaired and released; one is never signed. At the end: one artifact's events, and why one named
artifact may not move on. XZEPR_URL: the server, by default http://127.0.0.1:8042. Every run makes receivers and a group of its own, so it can be
run again.
"""

import os
import sys
import time
from typing import Any

import httpx2
from rich.console import Console
from rich.table import Table

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
# Name: type of the receiver, schema of its payloads.
ACTS: dict[str, tuple[str, dict[str, Any]]] = {
    "build": ("dev.cdevents.artifact.packaged", cdevent_schema({"digest": DIGEST, "commit": {"type": "string"}}, ["digest"])),
    "scan": (
        "dev.cdevents.artifact.scanned",
        cdevent_schema({"scanner": {"type": "string"}, "critical": COUNT, "high": COUNT}, ["scanner", "critical", "high"]),
    ),
    "test": ("dev.cdevents.testsuiterun.finished", cdevent_schema({"passed": COUNT, "failed": COUNT}, ["passed", "failed"])),
    "sign": ("dev.cdevents.artifact.signed", cdevent_schema({"signature": {"type": "string"}, "key": {"type": "string"}}, ["signature"])),
    "deploy": ("dev.cdevents.service.deployed", cdevent_schema({"environment": {"enum": ["staging", "production"]}}, ["environment"])),
}
GATES = ["build", "scan", "test", "sign"]
CONTENT: dict[str, dict[str, Any]] = {
    "build": {"digest": "sha256:" + "9f" * 32, "commit": "4e1243b"},
    "scan": {"scanner": "trivy", "critical": 0, "high": 1},
    "test": {"passed": 812, "failed": 0},
    "sign": {"signature": "MEUCIQDk", "key": "release-2026"},
    "deploy": {"environment": "production"},
}
SERVICES = {"checkout": ["1.0.0", "1.1.0", "1.2.0"], "catalog": ["2.3.0", "2.4.0"], "mailer": ["0.9.0", "0.9.1"]}


class Pipeline:
    """The company's pipeline against one server."""

    def __init__(self, http: httpx2.Client) -> None:
        self.http = http
        self.receivers = {
            name: self._created("receivers", {"name": name, "type": kind, "version": "1.0.0", "schema": schema})
            for name, (kind, schema) in ACTS.items()
        }
        gates = [self.receivers[name] for name in GATES]
        self.group = self._created(
            "groups", {"name": "release", "type": "com.example.release.approved", "version": "1.0.0", "event_receiver_ids": gates}
        )

    def act(self, name: str, service: str, version: str, *, success: bool = True, **content: Any) -> str:
        """Post one event; its id."""
        payload = {
            "context": {
                "version": "0.4.1",
                "id": f"{service}-{version}-{name}-{time.time_ns()}",
                "source": f"/ci/{service}",
                "type": f"{ACTS[name][0]}.0.2.0",
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
            "subject": {"id": f"pkg:oci/{service}@{version}", "content": {**CONTENT[name], **content}},
        }
        body = {**artifact(service, version), "payload": payload, "success": success, "event_receiver_id": self.receivers[name]}
        return self._created("events", body)

    def status(self, service: str, version: str) -> dict[str, Any]:
        """What the release group says of one artifact."""
        return dict(self.get(f"groups/{self.group}/status", artifact(service, version)))

    def get(self, path: str, params: dict[str, Any]) -> Any:
        answer = self.http.get(f"/api/v1/{path}", params=params)
        answer.raise_for_status()
        return answer.json()

    def _created(self, what: str, body: dict[str, Any]) -> str:
        answer = self.http.post(f"/api/v1/{what}", json=body)
        if answer.status_code != 201:
            raise SystemExit(f"POST {what}: {answer.status_code} {answer.text}")
        return str(answer.json()["data"])


def artifact(service: str, version: str) -> dict[str, str]:
    return {"name": service, "version": version, "release": "2026.11", "platform_id": "x86-64-oci-linux", "package": "oci"}


def run(pipeline: Pipeline, console: Console) -> None:
    """Everything that happens, and what comes of it."""
    posted = 0
    for service, versions in SERVICES.items():
        for version in versions:
            steps = ["build", "scan", "test", "sign"]
            if (service, version) == ("mailer", "0.9.1"):
                steps.remove("sign")
            for name in steps:
                bad = (service, version, name) == ("checkout", "1.2.0", "scan")
                pipeline.act(name, service, version, success=not bad, **({"critical": 2} if bad else {}))
                posted += 1
            released = pipeline.status(service, version)["complete"]
            if released:
                pipeline.act("deploy", service, version)
                posted += 1
            console.print(f"  {service} {version}: {'[green]released[/]' if released else '[red]held back[/]'}")
    console.print(f"\n[bold]checkout 1.2.0[/] is held back: {pipeline.status('checkout', '1.2.0')['summary']}")
    console.print("its image is repaired, and scanned again …")
    pipeline.act("scan", "checkout", "1.2.0", high=0)
    console.print(f"  {pipeline.status('checkout', '1.2.0')['summary']}")
    pipeline.act("deploy", "checkout", "1.2.0")
    console.print(f"{posted + 2} events were posted.\n")
    _show_events(pipeline, console)
    console.print(f"\n[bold]Why is mailer 0.9.1 not released?[/]\n  {pipeline.status('mailer', '0.9.1')['summary']}")


def _show_events(pipeline: Pipeline, console: Console) -> None:
    names = {receiver_id: name for name, receiver_id in pipeline.receivers.items()}
    mine = [event for event in pipeline.get("events", {**artifact("checkout", "1.2.0"), "limit": 100})["data"] if event["event_receiver_id"] in names]
    table = Table(title="What happened to checkout 1.2.0")
    for column in ("when", "act", "outcome", "event"):
        table.add_column(column)
    for event in reversed(mine):
        outcome = "[green]success[/]" if event["success"] else "[red]failure[/]"
        table.add_row(event["created_at"][:19].replace("T", " "), names[event["event_receiver_id"]], outcome, event["id"])
    console.print(table)


def main() -> int:
    url = os.environ.get("XZEPR_URL", "http://127.0.0.1:8042")
    console = Console()
    console.print(f"A release pipeline on {url}\n")
    try:
        with httpx2.Client(base_url=url, timeout=30) as http:
            run(Pipeline(http), console)
    except httpx2.ConnectError:
        console.print(f"[red]Nothing answers at {url}.[/] Start the server with `make run` in another terminal, or set XZEPR_URL.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
