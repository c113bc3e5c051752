"""The real `xzepr` against a running server: what it prints, what it changes, how it exits."""

import itertools
import json
import os
import pty
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.cast import event, make_group, make_receiver, post_event
from support.cli import Cli
from support.installation import XZEPR, Installation

_numbers = itertools.count(1)
ULID_CHARS = 26


@pytest.fixture
def cli(shared_installation: Installation) -> Cli:
    return Cli(shared_installation.url)


def fresh(what: str) -> str:
    return f"{what}-{next(_numbers)}"


@pytest.fixture
def artifact() -> list[str]:
    """Options for a new artifact."""
    return [f"--name={fresh('api')}", "--version=1.4.2", "--release=2026.11", "--platform-id=x86-64-oci-linux", "--package=oci"]


def name_of(artifact: list[str]) -> str:
    return artifact[0].removeprefix("--name=")


def test_the_way_of_a_release(cli: Cli, artifact: list[str]) -> None:
    tests, signature, release = fresh("unit tests"), fresh("signature"), fresh("release")
    schema = '{"type":"object","required":["passed"]}'
    tests_id = cli.ok("receiver", "create", "--name", tests, "--type", "test.finished", "--version", "1.0.0", "--schema", schema)
    cli.ok("receiver", "create", "--name", signature, "--type", "artifact.signed", "--version", "1.0.0")
    group_id = cli.ok(
        "group", "create", "--name", release, "--type", "release.approved", "--version", "1", "--receiver", tests_id, "--receiver", signature
    )
    assert len(tests_id) == len(group_id) == ULID_CHARS
    event_id = cli.ok("event", "post", "--receiver", tests, *artifact, "--success", "--payload", '{"passed": 812}', "--description", "build 812")
    undecided = cli.ok("group", "status", release, *artifact)
    assert signature in undecided
    assert "missing" in undecided
    assert cli.json("group", "status", group_id, *artifact)["complete"] is False
    cli.ok("event", "post", "--receiver", signature, *artifact, "--success")
    assert cli.json("group", "status", release, *artifact)["complete"] is True
    assert cli.json("event", "show", event_id)["payload"] == {"passed": 812}
    assert '"passed": 812' in cli.ok("event", "show", event_id)
    assert [event["success"] for event in cli.json("event", "list", "--name", name_of(artifact))] == [True, True]
    assert len(cli.json("event", "list", "--receiver", tests, "--limit", "1")) == 1
    timeline = cli.ok("event", "timeline", *artifact)
    assert timeline.index(tests) < timeline.index(signature)
    assert release in timeline
    assert [event["id"] for event in cli.json("event", "timeline", *artifact, "--limit", "1")["events"]] == [event_id]
    assert release in cli.ok("artifact", "show", *artifact)
    assert cli.json("artifact", "list", "--name-prefix", name_of(artifact))[0]["name"] == name_of(artifact)


def test_status_exits_as_a_ci_job_needs_it(cli: Cli, http: httpx2.Client, artifact: list[str]) -> None:
    receiver_id = make_receiver(http, name=fresh("scan"))
    group_id = make_group(http, [receiver_id])
    status = ("group", "status", group_id, *artifact)
    cli.ok(*status)
    assert "not complete: " in cli.fails(3, *status, "--assert")
    began_s = time.monotonic()
    refused = cli.run(*status, "--wait", "1s", "--assert", "--json")
    assert refused.returncode == 4
    assert time.monotonic() - began_s >= 1.0
    assert json.loads(refused.stdout)["gates"][0]["state"] == "missing"
    assert "scan" in refused.stderr
    cli.fails(4, *status, "--wait", "0s")
    cli.ok("event", "post", "--receiver", receiver_id, *artifact, "--success")
    cli.ok(*status, "--assert")
    cli.ok(*status, "--wait", "10m", "--assert")
    cli.ok("event", "post", "--receiver", receiver_id, *artifact, "--failure")
    assert "closed" in cli.run(*status, "--assert").stdout
    cli.fails(1, "group", "status", "01M88Q7AG504QSGMQWKDMNZ1V5", *artifact, "--wait", "10m", "--assert")
    cli.fails(2, *status, "--wait", "soon")
    cli.fails(2, "group", "status", group_id, *artifact[:4])


def test_wait_ends_when_the_last_gate_opens(cli: Cli, http: httpx2.Client, artifact: list[str]) -> None:
    receiver_id = make_receiver(http)
    group_id = make_group(http, [receiver_id])
    waiting = subprocess.Popen(
        [XZEPR, "group", "status", group_id, *artifact, "--wait", "60s", "--assert", "--json"],
        env=cli.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    first = waiting.stderr.readline()

    def post() -> None:
        cli.ok("event", "post", "--receiver", receiver_id, *artifact, "--success")

    poster = threading.Thread(target=post)
    poster.start()
    out, _ = waiting.communicate(timeout=50)
    poster.join()
    assert first.startswith("waiting: ")
    assert (waiting.returncode, json.loads(out)["complete"]) == (0, True)


def test_wait_outlasts_a_server_that_is_away(cli: Cli, artifact: list[str]) -> None:
    away = Cli("http://127.0.0.1:1")
    told = away.fails(1, "group", "status", "01M88Q7AG504QSGMQWKDMNZ1V5", *artifact, "--wait", "3s", "--timeout", "1")
    assert told.startswith("waiting: no answer from")
    assert "advice: is the server running?" in told


def test_a_group_is_managed_from_the_command_line(cli: Cli, http: httpx2.Client, artifact: list[str]) -> None:
    first, second = make_receiver(http, name=fresh("first")), make_receiver(http, name=fresh("second"))
    name = fresh("nightly")
    group_id = cli.ok("group", "create", "--name", name, "--type", "nightly", "--version", "1", "--receiver", first, "--disabled")
    assert cli.json("group", "show", name)["enabled"] is False
    cli.ok("group", "edit", name, "--receiver", second, "--receiver", first, "--description", "both", "--if-version", "1")
    assert cli.json("group", "show", group_id)["event_receiver_ids"] == [second, first]
    assert "412 precondition_failed" in cli.fails(1, "group", "edit", name, "--description", "late", "--if-version", "1")
    cli.ok("group", "enable", name)
    assert [group["id"] for group in cli.json("group", "list", "--name", name, "--enabled", "--receiver", first)] == [group_id]
    for receiver_id in (first, second):
        cli.ok("event", "post", "--receiver", receiver_id, *artifact, "--success")
    evaluated = cli.json("group", "evaluate", name, *artifact)
    assert evaluated["complete"] is True
    assert f"at position {evaluated['position'] + 1}" in cli.ok("group", "evaluate", name, *artifact)
    assert [each["name"] for each in cli.json("group", "artifacts", name, "--complete")] == [name_of(artifact)]
    assert name_of(artifact) in cli.ok("group", "artifacts", name)
    cli.ok("group", "disable", name)
    assert cli.json("group", "artifacts", name, "--complete") == []
    assert cli.run("group", "list", "--name", name, "--enabled").stderr == "no such groups\n"
    cli.ok("group", "delete", name)
    assert f"there is no group named '{name}'" in cli.fails(1, "group", "show", name)
    cli.fails(2, "group", "edit", group_id)
    cli.fails(2, "group", "create", "--name", name, "--type", "nightly", "--version", "1")


def test_a_receiver_is_managed_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    name, schema = fresh("sbom"), tmp_path / "schema.json"
    schema.write_text('{"type": "object", "maximum": 1e3}')
    create = ("receiver", "create", "--name", name, "--type", "sbom", "--version", "1.0.0")
    receiver_id = cli.ok(*create, "--schema", str(schema), "--restricted")
    assert '"maximum": 1e3' in cli.ok("receiver", "show", name)
    cli.ok("receiver", "edit", receiver_id, "--schema", f"@{schema}", "--name", f"{name} new", "--unrestricted")
    cli.ok("receiver", "edit", receiver_id, "--schema", "-", stdin='{"type": "array"}')
    shown = cli.json("receiver", "show", f"{name} new")
    assert (shown["schema"], shown["restricted"], shown["resource_version"]) == ({"type": "array"}, False, 3)
    assert [each["id"] for each in cli.json("receiver", "list", "--fingerprint", shown["fingerprint"])] == [receiver_id]
    cli.ok("receiver", "delete", receiver_id)
    assert "404 not_found" in cli.fails(1, "receiver", "show", receiver_id)
    assert "is not JSON" in cli.fails(2, *create, "--schema", "{")
    assert "there is no file 'absent.json'" in cli.fails(2, *create, "--schema", "absent.json")
    assert "/schema/type" in cli.fails(1, *create, "--schema", '{"type": 5}')


def test_references_of_a_schema_are_bundled(cli: Cli, tmp_path: Path, artifact: list[str]) -> None:
    draft, base = "http://json-schema.org/draft-07/schema#", "http://cyclonedx.org/schema/"
    files = {
        "bom.json": {
            "$schema": draft,
            "$id": f"{base}bom-1.5.schema.json",
            "properties": {"license": {"$ref": "spdx.schema.json"}, "signature": {"$ref": "jsf-0.82.schema.json#/definitions/signature"}},
        },
        "spdx.json": {"$schema": draft, "$id": f"{base}spdx.schema.json", "enum": ["MIT"]},
        "jsf.json": {"$schema": draft, "$id": f"{base}jsf-0.82.schema.json", "definitions": {"signature": {"required": ["value"]}}},
    }
    for file, content in files.items():
        (tmp_path / file).write_text(json.dumps(content))
    name = fresh("cyclonedx")
    create = ("receiver", "create", "--name", name, "--type", "sbom", "--version", "1.5", "--schema", str(tmp_path / "bom.json"))
    told = cli.fails(1, *create)
    assert "/$ref" in told
    assert "advice: nothing is fetched: put what the schema refers to into it with --ref URI=FILE" in told
    refs = ("--ref", f"spdx.schema.json={tmp_path / 'spdx.json'}", "--ref", f"jsf-0.82.schema.json={tmp_path / 'jsf.json'}")
    assert "nothing refers to spdx.json" in cli.fails(2, *create, "--ref", f"spdx.json={tmp_path / 'spdx.json'}")
    cli.ok(*create, *refs)
    post = ("event", "post", "--receiver", name, *artifact, "--success", "--payload")
    cli.ok(*post, '{"license": "MIT", "signature": {"value": 1}}')
    refused = cli.fails(1, *post, '{"license": "none", "signature": {}}')
    assert "/payload/license: " in refused
    assert "/payload/signature: " in refused


def test_payloads_come_from_a_file_from_standard_input_or_written_out(cli: Cli, http: httpx2.Client, tmp_path: Path, artifact: list[str]) -> None:
    receiver_id = make_receiver(http)
    file = tmp_path / "payload.json"
    file.write_text('{"n": 1.0}')
    post = ("event", "post", "--receiver", receiver_id, *artifact, "--failure", "--payload")
    for given, stdin, stored in (
        (str(file), "", '{"n":1.0}'),
        (f"@{file}", "", '{"n":1.0}'),
        ("-", " [1e3] ", "[1e3]"),
        ("null", "", "null"),
        ("-0.50", "", "-0.50"),
        ('"é"', "", '"é"'),
    ):
        event_id = cli.ok(*post, given, stdin=stdin)
        assert f'"payload":{stored}' in http.get(f"/api/v1/events/{event_id}").text
    for wrong in ("{'a': 1}", "truth", '{"a": 1}}', str(tmp_path)):
        assert "Invalid value for '--payload'" in cli.fails(2, *post, wrong)
    assert "Missing option '--success' or '--failure'" in cli.fails(2, *post[:-2], "--payload", "{}")


def test_the_same_key_makes_nothing_twice(cli: Cli, http: httpx2.Client, artifact: list[str]) -> None:
    receiver_id, key = make_receiver(http), fresh("build-812-tests-of-the-cli")
    post = ("event", "post", "--receiver", receiver_id, *artifact, "--success", "--idempotency-key", key)
    assert cli.ok(*post) == cli.ok(*post)
    assert len(cli.json("event", "list", "--name", name_of(artifact))) == 1
    assert "409" in cli.fails(1, *post, "--description", "another")
    for wrong in ("", "é", "k" * 256):
        assert "must be 1 to 255 printable ASCII characters" in cli.fails(2, *post[:-1], wrong)


def test_arguments_that_are_no_text_are_wrong_usage(cli: Cli, http: httpx2.Client, artifact: list[str]) -> None:
    post = ("event", "post", "--receiver", make_receiver(http), *artifact, "--success", "--description", "\udcff")
    assert "an argument is not UTF-8 text" in cli.fails(2, *post)
    assert "an argument is not UTF-8 text" in cli.fails(2, "event", "list", "--name", "\udcff")


def test_watch_ends_quietly_when_nobody_reads_it_any_more(cli: Cli, http: httpx2.Client, watched: Any) -> None:
    receiver_id, name = make_receiver(http), fresh("piped")
    watching = watched("--after", "0", "--name", name, "--json")
    post_event(http, receiver_id, name=name)
    assert json.loads(watching.line())["name"] == name
    watching.process.stdout.close()
    deadline_s = time.monotonic() + 30
    # Like any writer it learns of it when it writes.
    while watching.process.poll() is None:
        assert time.monotonic() < deadline_s
        post_event(http, receiver_id, name=name)
        time.sleep(0.05)
    assert watching.process.stderr.read() == ""
    watching.process.stderr.close()


def test_a_name_that_two_bear_is_refused_with_the_ids(cli: Cli, http: httpx2.Client, artifact: list[str]) -> None:
    name = fresh("twins")
    made = [make_receiver(http, name=name, type=kind) for kind in ("test.unit", "test.load")]
    told = cli.fails(1, "event", "post", "--receiver", name, *artifact, "--success")
    assert f"2 receivers are named '{name}'" in told
    assert all(f"{receiver_id}  type" in told for receiver_id in made)
    absent = cli.fails(1, "event", "post", "--receiver", "nobody bears this name", *artifact, "--success")
    assert "advice: `xzepr receiver list` shows what there is" in absent


def test_every_fault_is_listed_with_its_pointer(cli: Cli, http: httpx2.Client, artifact: list[str]) -> None:
    receiver_id = make_receiver(http, schema={"required": ["a"], "properties": {"b": {"type": "integer"}}})
    told = cli.fails(1, "event", "post", "--receiver", receiver_id, *artifact, "--success", "--payload", '{"b": "x"}')
    assert "(422 payload_mismatch)" in told
    assert "  /payload: " in told
    assert "  /payload/b: " in told


def test_advice_when_nothing_answers(cli: Cli) -> None:
    told = cli.fails(1, "event", "list", "--url", "http://127.0.0.1:1")
    assert told.startswith("error: no answer from http://127.0.0.1:1: ")
    assert "advice: is the server running? `make run`" in told
    assert "Traceback" not in told
    assert "is no address of a server" in cli.fails(2, "event", "list", "--url", "127.0.0.1:8042")


def test_what_others_wrote_cannot_steer_the_terminal(cli: Cli, http: httpx2.Client) -> None:
    name = f"{fresh('evil')} \x1b[31m[bold]\x9b2J\n:smile:"
    make_receiver(http, name=name)
    for output in (cli.ok("receiver", "list"), cli.ok("receiver", "show", name), cli.fails(1, "group", "show", name)):
        assert "\x1b" not in output
        assert "\x9b" not in output
        assert "\\x1b[31m[bold]\\x9b2J\\n:smile:" in output
    assert name in [receiver["name"] for receiver in cli.json("receiver", "list")]
    output = cli.ok("receiver", "list", "--json")
    assert "\x9b" not in output
    assert "\\u009b2J" in output


def test_nothing_is_cut_in_a_pipe(cli: Cli, http: httpx2.Client) -> None:
    name = fresh("n" * 240)
    receiver_id = make_receiver(http, name=name, type="t" * 255)
    (line,) = [line for line in cli.ok("receiver", "list").splitlines() if name in line]
    assert "t" * 255 in line
    assert receiver_id in line


def test_lists_go_over_pages(cli: Cli, http: httpx2.Client) -> None:
    receiver_id, name = make_receiver(http), fresh("paged")
    for _ in range(7):
        post_event(http, receiver_id, name=name)
    assert len(cli.json("event", "list", "--name", name, "--limit", "3")) == 3
    assert len(cli.json("event", "list", "--name", name, "--limit", "5000")) == 7


def _hear_interruptions() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Watching:
    """`xzepr watch --json` whose lines are waited for."""

    def __init__(self, cli: Cli, *arguments: str) -> None:
        command = [XZEPR, "watch", *arguments]
        # A shell that starts this run in the background has it ignore the signal that a terminal would send.
        self.process = subprocess.Popen(
            command,
            env=cli.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hear_interruptions,  # noqa: PLW1509 - it takes no lock
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], 30)
        assert readable, "nothing was printed in 30 s"
        return self.process.stdout.readline()

    def end(self) -> tuple[int, str]:
        """By Ctrl-C: exit code and standard error."""
        self.process.send_signal(signal.SIGINT)
        _, told = self.process.communicate(timeout=20)
        return self.process.returncode, told


@pytest.fixture
def watched(cli: Cli) -> Iterator[Any]:
    started: list[Watching] = []

    def start(*arguments: str) -> Watching:
        started.append(Watching(cli, *arguments))
        return started[-1]

    yield start
    for watching in started:
        if watching.process.poll() is None:
            watching.process.kill()
            watching.process.communicate()


def test_watch_prints_each_message_as_it_comes_and_tells_where_to_go_on(cli: Cli, http: httpx2.Client, watched: Any) -> None:
    receiver_id, name = make_receiver(http), fresh("watched")
    watching = watched("--after", "0", "--name", name, "--json")
    seen = []
    for _ in range(2):
        event_id = post_event(http, receiver_id, name=name)
        seen.append(json.loads(watching.line()))
        assert seen[-1]["id"] == event_id
    code, told = watching.end()
    # An interruption between a line and the noting of its position repeats that line, and loses none.
    assert code == 130
    assert told in {f"to go on from here: --after {each['position']}\n" for each in seen}
    later = post_event(http, receiver_id, name=name, success=False)
    resumed = cli.ok("watch", "--after", str(seen[-1]["position"]), "--name", name, "--count", "1", "--json")
    assert json.loads(resumed)["id"] == later
    text = cli.ok("watch", "--after", "0", "--name", name, "--receiver", receiver_id, "--failure", "--count", "1")
    assert "✗ test.finished" in text
    assert name in text
    assert "there is no receiver named" in cli.fails(1, "watch", "--receiver", "nobody bears this name")
    assert "404 not_found" in cli.fails(1, "receiver", "show", "7" * ULID_CHARS)


def test_watch_goes_on_when_the_server_comes_back(first_server: str, watched: Any) -> None:
    import asyncio

    from conftest import fresh_database  # type: ignore[import-not-found]
    from support.installation import installation

    made = fresh_database(first_server)
    url = asyncio.run(made.__aenter__())
    try:
        with installation(XZEPR__DATABASE__URL=url, XZEPR__SERVER__WORKERS="1") as first:
            port = first.url.rpartition(":")[2]
            with httpx2.Client(base_url=first.url, timeout=30) as http:
                receiver_id = make_receiver(http)
                ids = [post_event(http, receiver_id)]
                watching = Watching(Cli(first.url), "--after", "0", "--type", "test.finished", "--json")
                try:
                    assert json.loads(watching.line())["id"] == ids[0]
                    assert first.stop() == 0
                    with installation(XZEPR__DATABASE__URL=url, XZEPR__SERVER__WORKERS="1", XZEPR__SERVER__PORT=port):
                        ids.append(post_event(http, receiver_id))
                        assert json.loads(watching.line())["id"] == ids[1]
                    assert "trying again in" in watching.end()[1]
                finally:
                    watching.process.kill()
                    watching.process.communicate()
    finally:
        asyncio.run(made.__aexit__())


APPLIED = """\
kind: EventReceiverGroup
name: {0}-release
type: release.approved
version: "1.0.0"
event_receivers:
  - {0}-tests
  - {{name: {0}-scan, type: artifact.scanned}}
---
kind: EventReceiver
name: {0}-tests
type: test.finished
version: "1.0.0"
description: what the build runs
schema:
  type: object
  required: [passed, on]
  properties:
    passed: {{type: integer, minimum: 0}}
    on: {{const: 2026-11-25}}
    1: {{const: true}}
---
kind: EventReceiver
name: {0}-scan
type: artifact.scanned
version: "1.0.0"
schema_file: schemas/scan.json
refs: {{spdx.schema.json: schemas/spdx.json}}
restricted: true
"""


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """A directory to apply, and the prefix of its names."""
    prefix = fresh("repo")
    (tmp_path / "gates.yaml").write_text(APPLIED.format(prefix))
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "scan.json").write_text('{"properties": {"license": {"$ref": "spdx.schema.json"}}}')
    (tmp_path / "schemas" / "spdx.json").write_text('{"enum": ["MIT"]}')
    return tmp_path, prefix


def actions(told: list[dict[str, Any]]) -> list[str]:
    return [each["action"] for each in told]


def test_apply_makes_what_files_describe_and_a_second_run_changes_nothing(cli: Cli, http: httpx2.Client, repository: tuple[Path, str]) -> None:
    directory, prefix = repository
    apply = ("apply", "-f", str(directory))
    dry = cli.ok(*apply, "--dry-run")
    assert [line.split()[:3] for line in dry.splitlines()] == [["would", "create", each] for each in ("receiver", "receiver", "group")]
    assert cli.json("receiver", "list", "--name", f"{prefix}-tests") == []
    assert actions(cli.json(*apply)) == ["created"] * 3
    before = [http.get(f"/api/v1/{what}").text for what in ("receivers", "groups")]
    again = cli.json(*apply)
    assert actions(again) == ["unchanged"] * 3
    assert actions(cli.json(*apply, "--dry-run")) == ["unchanged"] * 3
    assert [http.get(f"/api/v1/{what}").text for what in ("receivers", "groups")] == before
    tests, scan, group = (each["id"] for each in again)
    assert cli.json("group", "show", group)["event_receiver_ids"] == [tests, scan]
    stored = cli.json("receiver", "show", tests)
    assert stored["schema"]["required"] == ["passed", "on"]
    assert stored["schema"]["properties"] == {"passed": {"type": "integer", "minimum": 0}, "on": {"const": "2026-11-25"}, "1": {"const": True}}
    assert cli.json("receiver", "show", scan)["schema"]["$defs"] == {"spdx.schema.json": {"$id": "spdx.schema.json", "enum": ["MIT"]}}


def test_apply_changes_only_what_differs(cli: Cli, repository: tuple[Path, str]) -> None:
    directory, prefix = repository
    apply = ("apply", "-f", str(directory / "gates.yaml"))
    cli.ok(*apply)
    # What the document does not name is somebody else's: it stays.
    cli.ok("group", "disable", f"{prefix}-release")
    text = (directory / "gates.yaml").read_text()
    changed = text.replace("minimum: 0", "minimum: 1").replace(f"  - {prefix}-tests\n", "").replace("restricted: true", "restricted: false")
    (directory / "gates.yaml").write_text(changed)
    dry = cli.json(*apply, "--dry-run")
    assert [each["fields"] for each in dry] == [["schema"], ["restricted"], ["event_receiver_ids"]]
    told = cli.ok(*apply)
    assert [line.rpartition(": ")[2] for line in told.splitlines()] == ["schema", "restricted", "event_receiver_ids"]
    assert actions(cli.json(*apply)) == ["unchanged"] * 3
    group = cli.json("group", "show", f"{prefix}-release")
    assert (group["enabled"], len(group["event_receiver_ids"])) == (False, 1)
    true_for_one = changed.replace("const: true", "const: 1")
    (directory / "gates.yaml").write_text(true_for_one)
    assert [each["fields"] for each in cli.json(*apply)] == [["schema"], [], []]


def test_apply_asks_which_is_meant_and_takes_the_id(cli: Cli, http: httpx2.Client, tmp_path: Path) -> None:
    name = fresh("double")
    first, second = (make_receiver(http, name=name, type="one") for _ in range(2))
    third = make_receiver(http, name=name, type="two")
    file = tmp_path / "a.yml"
    document = f"kind: EventReceiver\nname: {name}\ntype: one\nversion: '2'\n"
    group = f"---\nkind: EventReceiverGroup\nname: {name}\ntype: g\nversion: '1'\nevent_receivers: [{name}]\n"
    file.write_text(document + group)
    told = cli.fails(1, "apply", "-f", str(file))
    assert "nothing was changed" in told
    assert f"{file}, document 1: 2 bear this name and type; say by id which is meant: " in told
    assert first in told
    assert second in told
    assert f"{file}, document 2: several receivers are '{name}'; name the type too, or the id: " in told
    assert third in told
    file.write_text(f"id: {first}\n" + document + group.replace(f"[{name}]", f"[{{name: {name}, type: two}}, {{id: {second}}}]"))
    assert [each["fields"] for each in cli.json("apply", "-f", str(file))] == [["version"], []]
    assert cli.json("receiver", "show", first)["version"] == "2"
    assert cli.json("group", "show", name)["event_receiver_ids"] == [third, second]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: Receiver\n", "kind: Invalid value 'Receiver'"),
        ("name: x\n", "Object missing required field `kind`"),
        ("kind: EventReceiver\nname: x\ntype: t\nversion: 1.0\n", "version: Expected `str`, got `float`; put it in quotes"),
        ("kind: EventReceiver\nname: x\ntype: t\nversion: '1'\nowner: me\n", "unknown field `owner`"),
        ("kind: EventReceiver\nname: x\nname: y\n", "a.yaml:3: is not YAML: the key name stands there twice"),
        ("kind: [\n", "a.yaml:2: is not YAML"),
        ("- a list\n", "document 1: is not a mapping with a kind: EventReceiver or EventReceiverGroup"),
        ("kind: EventReceiverGroup\nname: x\ntype: t\nversion: '1'\nevent_receivers: []\n", "event_receivers: names no receiver"),
        ("kind: EventReceiverGroup\nname: x\ntype: t\nversion: '1'\nevent_receivers: [{type: t}]\n", "each is a name, {name, type} or {id}"),
        ("kind: EventReceiverGroup\nname: x\ntype: t\nversion: '1'\nevent_receivers: [nobody at all]\n", "there is no receiver 'nobody at all'"),
        ("kind: EventReceiver\nid: 01M88Q7AG504QSGMQWKDMNZ1V5\nname: x\ntype: t\nversion: '1'\n", "the server chooses its id"),
        ("kind: EventReceiver\nname: x\ntype: t\nversion: '1'\nschema_file: absent.json\n", "absent.json: No such file"),
        ("kind: EventReceiver\nname: x\ntype: t\nversion: '1'\nschema: {a: .inf, b: &c [*c]}\n", "schema: cannot be written as JSON"),
        ("kind: EventReceiver\nname: x\ntype: t\nversion: '1'\nschema: {}\nrefs: {a: a.yaml}\n", "nothing refers to a"),
        ("kind: EventReceiver\nname: x\ntype: t\nversion: '1'\n---\nkind: EventReceiver\nname: x\ntype: t\nversion: '2'\n", "describes the same as"),
    ],
)
def test_apply_refuses_what_is_wrong_and_changes_nothing(cli: Cli, http: httpx2.Client, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    name = fresh("innocent")
    (tmp_path / "b.yaml").write_text(f"kind: EventReceiver\nname: {name}\ntype: t\nversion: '1'\n")
    error = cli.fails(1, "apply", "-f", str(tmp_path))
    assert told in error
    assert "nothing was changed" in error
    assert http.get("/api/v1/receivers", params={"name": name}).json()["data"] == []


def test_apply_says_which_document_the_server_refused_and_goes_on_the_next_time(cli: Cli, tmp_path: Path) -> None:
    name = fresh("halfway")
    (tmp_path / "a.yaml").write_text(f"kind: EventReceiver\nname: {name}\ntype: t\nversion: '1'\n")
    (tmp_path / "b.yaml").write_text(f"kind: EventReceiver\nname: {name} b\ntype: t\nversion: '1'\nschema: {{type: 5}}\n")
    stopped = cli.run("apply", "-f", str(tmp_path))
    assert stopped.returncode == 1
    assert stopped.stdout.startswith(f"created receiver {name} (t) ")
    assert f"error: {tmp_path / 'b.yaml'}, document 1: " in stopped.stderr
    assert "/schema/type" in stopped.stderr
    (tmp_path / "b.yaml").write_text(f"kind: EventReceiver\nname: {name} b\ntype: t\nversion: '1'\n")
    assert actions(cli.json("apply", "-f", str(tmp_path))) == ["unchanged", "created"]
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "b.yaml").unlink()
    assert "holds no *.yaml" in cli.fails(1, "apply", "-f", str(tmp_path))
    cli.fails(2, "apply", "-f", str(tmp_path / "absent"))


def test_a_person_at_a_terminal_is_asked_before_something_is_deleted(cli: Cli, http: httpx2.Client) -> None:
    receiver_id = make_receiver(http)
    for answer, kept in ((b"n\n", True), (b"y\n", False)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen([XZEPR, "receiver", "delete", receiver_id], env=cli.environ, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        os.write(ours, answer)
        assert process.wait(30) == (1 if kept else 0)
        os.close(ours)
        assert (http.get(f"/api/v1/receivers/{receiver_id}").status_code == 200) is kept


def lines_of(receiver_id: str, name: str, count: int, **changes: Any) -> list[str]:
    return [json.dumps(event(receiver_id, name=name, version=str(number), **changes)) for number in range(count)]


def test_a_file_is_imported_and_a_cut_import_goes_on(cli: Cli, http: httpx2.Client, tmp_path: Path) -> None:
    receiver_id, name = make_receiver(http), fresh("imported")
    file = tmp_path / "events.ndjson"
    lines = lines_of(receiver_id, name, 25)
    file.write_text("\n".join([*lines[:14], "", "{", *lines[14:]]) + "\n")
    failed = cli.run("event", "import", str(file), "--batch", "5")
    assert failed.returncode == 1
    assert "line 16: is not JSON" in failed.stderr
    assert len(cli.json("event", "list", "--name", name)) == 10
    assert (tmp_path / "events.ndjson.progress").exists()
    assert "begun with --batch 5" in cli.fails(1, "event", "import", str(file))
    file.write_text("\n".join([*lines[:14], "", *lines[14:]]) + "\n")
    assert "25 events recorded" in cli.ok("event", "import", str(file), "--batch", "5")
    assert sorted(int(each["version"]) for each in cli.json("event", "list", "--name", name)) == list(range(25))
    assert not (tmp_path / "events.ndjson.progress").exists()
    # A cut right behind the last acknowledgement, before it was noted: the same batches are sent again.
    assert "25 events recorded" in cli.ok("event", "import", str(file), "--batch", "5")
    assert len(cli.json("event", "list", "--name", name)) == 25


def test_a_file_that_changed_in_what_is_done_is_refused(cli: Cli, http: httpx2.Client, tmp_path: Path) -> None:
    receiver_id, name = make_receiver(http), fresh("changed")
    file = tmp_path / "events.ndjson"
    lines = lines_of(receiver_id, name, 10)
    file.write_text("\n".join([*lines, "{"]))
    cli.fails(1, "event", "import", str(file), "--batch", "5")
    file.write_text("\n".join(lines[::-1]))
    assert "has changed" in cli.fails(1, "event", "import", str(file), "--batch", "5")
    assert len(cli.json("event", "list", "--name", name)) == 10


def test_refused_events_are_collected_and_the_rest_is_imported(cli: Cli, http: httpx2.Client, tmp_path: Path) -> None:
    receiver_id, name = make_receiver(http, schema={"required": ["n"]}), fresh("partly")
    file, rejected = tmp_path / "events.ndjson", tmp_path / "rejected.ndjson"
    good, bad = lines_of(receiver_id, name, 7, payload={"n": 1}), lines_of(receiver_id, name, 2)
    file.write_text("\n".join([*good[:3], *bad, *good[3:]]))
    done = cli.run("event", "import", str(file), "--batch", "4", "--rejected", str(rejected))
    assert (done.returncode, done.stdout) == (1, f"7 events recorded, 2 refused: see {rejected}\n")
    told = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert [(each["line"], each["problem"]["error"], json.loads(each["event"])["version"]) for each in told] == [
        (4, "payload_mismatch", "0"),
        (5, "payload_mismatch", "1"),
    ]
    assert len(cli.json("event", "list", "--name", name)) == 7
