"""docs/how_to/gate_a_release_in_ci.md: each snippet is run as its CI system would run it, against a real server.

The emulations know only what the snippets use: the order of steps, what still runs after a failure, and the variables that the system sets.
"""

import json
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from support.installation import XZEPR

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "gate_a_release_in_ci.md").read_text("utf-8")
COMMIT = "4e1243bd22c66e76c2ba9eddc1f91394e57f9f83"
PLATFORM = {"platform_id": "x86-64-oci-linux", "package": "oci"}


def blocks(heading: str, language: str) -> list[str]:
    section = re.split(r"^## ", PAGE.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


@dataclass
class Workspace:
    """A checkout on a runner, with the two scripts that the page asks for."""

    path: Path
    environ: dict[str, str]
    api_key: str
    codes: list[int] = field(default_factory=list)
    on_waiting: Callable[[], None] | None = None

    def script(self, name: str, text: str) -> None:
        file = self.path / "ci" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        file.chmod(0o755)

    @property
    def promoted(self) -> bool:
        return (self.path / "promoted").exists()

    def run(self, script: str, *shell: str, **environ: str) -> bool:
        """One step; whether it ended with 0. The moment the command says that it waits is told to on_waiting."""
        process = subprocess.Popen(
            [*shell, "-c", script], cwd=self.path, env=self.environ | environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stderr is not None
        output = process.stdout
        reader = threading.Thread(target=output.read)
        reader.start()
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("waiting:") and self.on_waiting is not None:
                self.on_waiting()
                self.on_waiting = None
        self.codes.append(process.wait(60))
        reader.join()
        process.stderr.close()
        output.close()
        print("".join(said))
        return self.codes[-1] == 0


# --- the CI systems ---


def github(text: str, workspace: Workspace, variables: dict[str, str]) -> None:
    """Jobs in the order of `needs`; a step runs while all before it went well, or always."""
    workflow = yaml.safe_load(text)
    # `on` is a boolean to YAML 1.1.
    assert workflow[True]["push"]["tags"]
    # Variables of the repository reach a step only where the workflow asks for them.
    system_sets = {name: value for name, value in variables.items() if name.startswith("GITHUB_")}
    done: set[str] = set()
    for name, job in workflow["jobs"].items():
        outcomes: dict[str, str] = {}
        if job.get("needs") not in {None, *done}:
            continue

        def resolve(values: dict[str, str], outcomes: dict[str, str] = outcomes) -> dict[str, str]:
            known = {f"{kind}.{key}": value for kind in ("vars", "secrets") for key, value in variables.items()} | {
                f"steps.{key}.outcome": value for key, value in outcomes.items()
            }
            return {key: re.sub(r"\$\{\{ (\S+) \}\}", lambda match: known[match[1]], value) for key, value in values.items()}

        well = True
        for number, step in enumerate(job["steps"]):
            if "run" not in step or not (well or step.get("if") == "always()"):
                continue
            environ = system_sets | resolve(workflow["env"]) | resolve(step.get("env", {}))
            ended_well = workspace.run(step["run"], "bash", "--noprofile", "--norc", "-eo", "pipefail", **environ)
            outcomes[step.get("id", str(number))] = "success" if ended_well else "failure"
            well = well and ended_well
        if well:
            done.add(name)


def gitlab(text: str, workspace: Workspace, variables: dict[str, str]) -> None:
    """Jobs by stage; after_script in a shell of its own, whatever the job's status; what it returns counts for nothing."""
    pipeline = yaml.safe_load(text)
    for stage in pipeline["stages"]:
        jobs = [job for job in pipeline.values() if isinstance(job, dict) and job.get("stage") == stage]
        for job in jobs:
            assert job["rules"] == [{"if": "$CI_COMMIT_TAG"}]
            well = workspace.run("\n".join(job["script"]), "bash", "-eo", "pipefail", **variables)
            if "after_script" in job:
                status = "success" if well else "failed"
                workspace.run("\n".join(job["after_script"]), "bash", "-eo", "pipefail", **variables, CI_JOB_STATUS=status)
            if not well:
                return


def jenkins(text: str, workspace: Workspace, variables: dict[str, str]) -> None:
    """`sh` steps in their order; those under `post` also after a failure. In Groovy a backslash before a line break joins the lines."""
    assert text.count("{") == text.count("}")
    # A credential reaches the steps only where the pipeline asks for it.
    asked_for = dict(re.findall(r"^ +([A-Z_]+) = credentials\('([^']*)'\)$", text, re.MULTILINE))
    variables = {name: value for name, value in variables.items() if name != "XZEPR_API_KEY" or asked_for.get(name) == "xzepr-api-key"}
    fixed = dict(re.findall(r"^ +([A-Z_]+) = '([^']*)'$", text, re.MULTILINE))
    post = re.search(r"^( +)post \{$.*?^\1\}$", text, re.DOTALL | re.MULTILINE)
    assert post is not None
    result = "SUCCESS"
    for step in re.finditer(r"sh '''(.*?)'''|sh '([^']*)'", text, re.DOTALL):
        always = post.start() < step.start() < post.end()
        if result == "SUCCESS" or always:
            script = (step[1] or step[2]).replace("\\\n", "")
            environ = {**variables, **fixed, **({"TESTS": result} if always else {})}
            result = "SUCCESS" if workspace.run(script, "sh", "-e", **environ) and result == "SUCCESS" else "FAILURE"


@dataclass
class System:
    """One of them: its snippet, how it is run, the variables that it sets, and what the event must then say."""

    heading: str
    language: str
    emulate: Callable[[str, Workspace, dict[str, str]], None]
    environ: dict[str, str]
    artifact: dict[str, str]
    description: str


def system(name: str, tag: str) -> System:
    """For a build of this tag."""
    if name == "github":
        environ = {
            "GITHUB_REPOSITORY": "acme/checkout",
            "GITHUB_REF_NAME": tag,
            "GITHUB_SHA": COMMIT,
            "GITHUB_RUN_ID": f"58{tag}",
            "GITHUB_RUN_ATTEMPT": "1",
            "GITHUB_SERVER_URL": "https://github.example.com",
        }
        description = f"https://github.example.com/acme/checkout/actions/runs/58{tag}"
        heading, language, emulate = "GitHub Actions", "yaml", github
    elif name == "gitlab":
        description = f"https://gitlab.example.com/acme/checkout/-/jobs/7{tag}"
        environ = {"CI_PROJECT_NAME": "checkout", "CI_COMMIT_TAG": tag, "CI_COMMIT_SHA": COMMIT, "CI_JOB_ID": f"7{tag}", "CI_JOB_URL": description}
        heading, language, emulate = "GitLab CI", "yaml", gitlab
    else:
        description = f"https://jenkins.example.com/job/checkout/job/{tag}/1/"
        environ = {"TAG_NAME": tag, "GIT_COMMIT": COMMIT, "BUILD_URL": description, "BUILD_TAG": f"jenkins-checkout-{tag}-1"}
        heading, language, emulate = "Jenkins", "groovy", jenkins
    artifact = {"name": "checkout", "version": tag, "release": COMMIT, **PLATFORM}
    return System(heading, language, emulate, environ, artifact, description)


SYSTEMS = ("github", "gitlab", "jenkins")


# --- the server, with the page's gates ---


@pytest.fixture(scope="module")
def environ(reader: dict[str, str]) -> dict[str, str]:
    """Of a job: nobody has logged in there, and the key comes from the CI system."""
    inherited = {name: value for name, value in reader.items() if not name.startswith(("GITHUB_", "CI", "BUILD_", "GIT_"))}
    return {**inherited, "XDG_CONFIG_HOME": "/nonexistent"}


@pytest.fixture(scope="module")
def receivers(reader: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Made by the page's own block; ids by name."""
    applying = blocks("Before you start", "sh")
    assert len(applying) == 1
    for _ in range(2):
        subprocess.run(["bash", "-euc", applying[0]], cwd=tmp_path_factory.mktemp("gates"), env=reader, check=True, timeout=60)
    listing = subprocess.run([XZEPR, "receiver", "list", "--json"], env=reader, capture_output=True, check=True, timeout=60)
    found = json.loads(listing.stdout)
    assert sorted(each["name"] for each in found) == ["signature", "unit tests"], "the second time nothing is made"
    return {each["name"]: each["id"] for each in found}


@pytest.fixture(scope="module")
def api_key(reader: dict[str, str]) -> str:
    """With the scopes that the page asks for."""
    told = re.search(r"\[API key\]\(api_keys_for_ci\.md\) with the scopes (.*?), which", PAGE, re.DOTALL)
    assert told is not None
    scopes = [f"--scope={scope}" for scope in re.findall(r"`([a-z:]+)`", told[1])]
    assert len(scopes) == 4
    create = [XZEPR, "api-key", "create", "--name", "jobs", *scopes]
    return subprocess.run(create, env=reader, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.fixture
def workspace(tmp_path: Path, environ: dict[str, str], receivers: dict[str, str], api_key: str) -> Workspace:
    made = Workspace(tmp_path, environ, api_key)
    made.script("test.sh", """echo '{"passed": 812, "failed": 0}' > test-results.json""")
    made.script("promote.sh", "touch promoted")
    return made


def sign(http: httpx2.Client, receivers: dict[str, str], artifact: dict[str, str]) -> None:
    body = {**artifact, "event_receiver_id": receivers["signature"], "success": True, "payload": {"signature": "MEUCIQDk"}}
    assert http.post("/api/v1/events", json=body).status_code == 201


def carry_out(ci: System, workspace: Workspace, *, wait: str | None = None) -> None:
    """The page's snippet in that system; wait: instead of the page's ten minutes."""
    (text,) = blocks(ci.heading, ci.language)
    assert "--wait 10m --assert" in text
    settings = {"XZEPR_URL": workspace.environ["XZEPR_URL"], "XZEPR_API_KEY": workspace.api_key}
    ci.emulate(text if wait is None else text.replace("--wait 10m", f"--wait {wait}"), workspace, {**ci.environ, **settings})


def events_of(http: httpx2.Client, ci: System) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get("/api/v1/events", params=ci.artifact).json()["data"]
    return found


@pytest.mark.parametrize("name", SYSTEMS)
def test_it_waits_for_the_last_gate_and_then_releases(name: str, workspace: Workspace, http: httpx2.Client, receivers: dict[str, str]) -> None:
    ci = system(name, "v1.2.0-" + name)
    workspace.on_waiting = lambda: sign(http, receivers, ci.artifact)
    carry_out(ci, workspace)
    assert workspace.on_waiting is None, "it did not wait"
    assert (workspace.codes, workspace.promoted) == ([0] * len(workspace.codes), True)
    posted = [event for event in events_of(http, ci) if event["event_receiver_id"] == receivers["unit tests"]]
    assert [(event["success"], event["payload"], event["description"]) for event in posted] == [(True, {"passed": 812, "failed": 0}, ci.description)]


@pytest.mark.parametrize("name", SYSTEMS)
def test_failed_tests_are_told_and_nothing_is_released(name: str, workspace: Workspace, http: httpx2.Client, receivers: dict[str, str]) -> None:
    ci = system(name, "v1.2.1-" + name)
    workspace.script("test.sh", """echo '{"passed": 811, "failed": 1}' > test-results.json; exit 1""")
    sign(http, receivers, ci.artifact)
    carry_out(ci, workspace)
    assert not workspace.promoted
    told = [event for event in events_of(http, ci) if event["event_receiver_id"] == receivers["unit tests"]]
    assert [(event["success"], event["payload"]["failed"]) for event in told] == [(False, 1)]


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_gate_that_stays_shut_stops_the_release_with_4(name: str, workspace: Workspace) -> None:
    carry_out(system(name, "v1.2.2-" + name), workspace, wait="1s")
    assert (workspace.codes[-1], workspace.promoted) == (4, False)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_step_that_is_tried_again_posts_nothing_twice(name: str, workspace: Workspace, http: httpx2.Client, receivers: dict[str, str]) -> None:
    ci = system(name, "v1.2.3-" + name)
    sign(http, receivers, ci.artifact)
    for _ in range(2):
        carry_out(ci, workspace)
    assert len(events_of(http, ci)) == 2


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_server_that_is_away_stops_the_release(name: str, workspace: Workspace) -> None:
    ci = system(name, "v1.2.4-" + name)
    workspace.environ = {**workspace.environ, "XZEPR_URL": "http://127.0.0.1:1"}
    carry_out(ci, workspace, wait="1s")
    assert (workspace.codes[-1] in {1, 4}, workspace.promoted) == (True, False)


# --- the exit codes of the page, and curl alone ---


def exit_code(workspace: Workspace, script: str, **environ: str) -> int:
    workspace.run(script, "bash", "-u", **{"XZEPR_API_KEY": workspace.api_key, **environ})
    return workspace.codes[-1]


def test_the_exit_codes_are_those_of_the_page(workspace: Workspace) -> None:
    artifact = "--name nobody --version 1 --release 1 --platform-id x --package y"
    told = re.findall(r"^\| (\d) \|", PAGE, re.MULTILINE)
    assert told == ["0", "3", "4", "1", "2"]
    assert exit_code(workspace, f"xzepr group status release {artifact}") == 0
    assert exit_code(workspace, f"xzepr group status release --assert {artifact}") == 3
    assert exit_code(workspace, f"xzepr group status release --wait 1s --assert {artifact}") == 4
    assert exit_code(workspace, f"xzepr group status release --assert {artifact}", XZEPR_URL="http://127.0.0.1:1") == 1
    assert exit_code(workspace, f"xzepr group status nothing-of-that-name --assert {artifact}") == 1
    assert exit_code(workspace, "xzepr group status release --assert --name nobody") == 2


def test_the_functions_for_curl_return_the_same_codes(workspace: Workspace) -> None:
    key, ids, functions, in_a_job = blocks("With curl alone", "sh")
    known = f"set -eu\n{key}\n{ids}\n{functions}\nset +e\n"
    assert exit_code(workspace, f"{known}VERSION=curl-1\n{in_a_job}") == 0
    assert exit_code(workspace, f"{known}VERSION=curl-2\nxzepr_gate 0") == 3
    assert exit_code(workspace, f"{known}VERSION=curl-3\nxzepr_gate 1") == 4
    assert exit_code(workspace, f"{known}RELEASE_GROUP=none\nxzepr_gate 600") == 1
    assert exit_code(workspace, f"{known}XZEPR_URL=http://127.0.0.1:1\nxzepr_gate 600") == 1
    refused = f"""{known}xzepr_post "$TESTS_RECEIVER" true '{{"passed": "all"}}' curl-refused"""
    assert exit_code(workspace, refused) != 0
    twice = 'one=$(xzepr_post "$TESTS_RECEIVER" true \'{"passed": 1, "failed": 0}\' curl-key)\n'
    again = twice.replace("one=", "two=")
    assert exit_code(workspace, f'{known}VERSION=curl-4\n{twice}{again}[ "$one" = "$two" ]') == 0
