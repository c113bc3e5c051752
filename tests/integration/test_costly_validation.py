"""Hostile schemas and payloads cost their sender an answer of 422, and nobody else anything."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.processes import arguments, is_living
from xzepr.errors import InvalidInput, PayloadMismatch, Unavailable, ValidationTooCostly
from xzepr.json_text import parse_strict
from xzepr.receivers import helpers as pool
from xzepr.receivers.payload import PayloadChecker

# Most of these measure how long the others wait.
pytestmark = pytest.mark.alone

Schema = dict[str, Any]

# Each list is looked at by two alternatives: 2^100 ways on a payload of depth 100.
BRANCHING = json.dumps(
    {
        "$ref": "#/$defs/n",
        "$defs": {
            "n": {
                "type": "array",
                "anyOf": [{"items": {"$ref": "#/$defs/n"}, "minItems": 1}, {"items": {"$ref": "#/$defs/n"}, "maxItems": 1, "minItems": 1}],
            }
        },
    }
)
DEEP = "[" * 100 + "]" * 100
CHEAP = '{"type":"object","properties":{"a":{"type":"integer"}}}'


def component(number: int) -> Schema:
    return {
        "type": "library",
        "name": f"library-{number}",
        "version": f"1.{number}.0",
        "purl": f"pkg:pypi/library-{number}@1.{number}.0",
        "hashes": [{"alg": "SHA-256", "content": "ab" * 32}],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "components": [{"type": "file", "name": f"part-{number}", "version": "1"}],
    }


# The shape of a bill of materials: recursive by two ways, with another schema embedded under its own address.
BILL = json.dumps(
    {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "http://example.com/bill.schema.json",
        "type": "object",
        "required": ["components"],
        "properties": {"components": {"type": "array", "items": {"$ref": "#/definitions/component"}, "uniqueItems": True}},
        "definitions": {
            "component": {
                "type": "object",
                "required": ["type", "name"],
                "properties": {
                    "type": {"enum": ["library", "file", "application"]},
                    "name": {"type": "string"},
                    "purl": {"pattern": "^pkg:[A-Za-z.+-]+/[^@]+@.+$"},
                    "hashes": {"type": "array", "items": {"properties": {"content": {"pattern": "^([a-f0-9]{32}|[a-f0-9]{64})$"}}}},
                    "licenses": {"items": {"properties": {"license": {"properties": {"id": {"$ref": "licenses.schema.json"}}}}}},
                    "components": {"type": "array", "items": {"$ref": "#/definitions/component"}, "uniqueItems": True},
                    "pedigree": {"properties": {"ancestors": {"type": "array", "items": {"$ref": "#/definitions/component"}}}},
                },
                "additionalProperties": {"type": "string"},
            },
            "licenses": {"$id": "http://example.com/licenses.schema.json", "type": "string", "enum": ["Apache-2.0", "MIT"]},
        },
    }
)


@pytest.fixture
async def checker() -> AsyncIterator[PayloadChecker]:
    made = PayloadChecker()
    yield made
    await made.close()
    assert helpers() == []


def helpers(parent: psutil.Process | None = None) -> list[psutil.Process]:
    """The living helpers of a process."""
    return [child for child in (parent or psutil.Process()).children() if is_living(child) and "xzepr.receivers.costly" in arguments(child)]


async def check(checker: PayloadChecker, receiver: str, schema: str, payload_text: str) -> None:
    await checker.check(receiver, 1, schema, "2020-12", parse_strict(payload_text.encode()), payload_text)


async def test_a_check_without_end_is_answered_as_too_costly_and_its_helper_replaced(checker: PayloadChecker) -> None:
    await checker.check_schema(BRANCHING, "2020-12")
    began = time.monotonic()
    with pytest.raises(ValidationTooCostly) as caught:
        await check(checker, "hostile", BRANCHING, DEEP)
    assert caught.value.status == 422
    assert time.monotonic() - began < 2 * pool.ORDER_WALL_S
    assert helpers() == []
    with pytest.raises(PayloadMismatch):
        await check(checker, "hostile", BRANCHING, "[[1]]")


async def test_the_loop_and_cheap_checks_go_on_while_four_hostile_checks_are_at_work(checker: PayloadChecker) -> None:
    hostile = [asyncio.create_task(check(checker, f"hostile {number}", BRANCHING, DEEP)) for number in range(4)]
    gaps: list[float] = []
    passed = 0
    while not all(task.done() for task in hostile):
        began = time.monotonic()
        await asyncio.sleep(0.001)
        gaps.append(time.monotonic() - began)
        if len(helpers()) == 4:
            await check(checker, "ordinary", CHEAP, '{"a":1}')
            passed += 1
    assert [type(result) for result in await asyncio.gather(*hostile, return_exceptions=True)] == [ValidationTooCostly] * 4
    assert passed > 20
    # Milliseconds on a quiet machine; a check that ran here would hold the loop up for good.
    assert max(gaps) < 0.5
    assert sorted(gaps)[len(gaps) * 99 // 100] < 0.05


async def test_who_waits_for_a_helper_when_the_server_stops_is_not_told_that_the_payload_is_at_fault(checker: PayloadChecker) -> None:
    waiting = asyncio.create_task(check(checker, "hostile", BRANCHING, DEEP))
    while not helpers():
        await asyncio.sleep(0.01)
    # Started and given its order.
    await asyncio.sleep(0.5)
    await checker.close()
    with pytest.raises(Unavailable, match="stopping"):
        await waiting


async def test_an_honest_costly_check_gets_its_turn_while_one_receiver_is_flooded(checker: PayloadChecker) -> None:
    flood = [asyncio.create_task(check(checker, "hostile", BRANCHING, DEEP)) for _ in range(20)]
    while len(helpers()) < pool.SHARE_MAX:
        await asyncio.sleep(0.01)
    bill = json.dumps({"components": [component(number) for number in range(500)]})
    await check(checker, "honest", BILL, bill)
    assert not any(task.done() and task.exception() is None for task in flood)
    assert sum(not task.done() for task in flood) > 10
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_a_bill_of_materials_of_500_components_passes_and_its_faults_are_told(checker: PayloadChecker) -> None:
    await checker.check_schema(BILL, "2020-12")
    bill = {"components": [component(number) for number in range(500)]}
    await check(checker, "sbom", BILL, json.dumps(bill))
    bill["components"][7]["hashes"][0]["content"] = "zz"
    bill["components"][499]["licenses"][0]["license"]["id"] = "none"
    with pytest.raises(PayloadMismatch) as caught:
        await check(checker, "sbom", BILL, json.dumps(bill))
    places = {fault.pointer for fault in caught.value.faults}
    assert places == {"/payload/components/7/hashes/0/content", "/payload/components/499/licenses/0/license/id"}


async def test_when_too_many_wait_the_next_is_told_to_try_again(checker: PayloadChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WAITING_MAX", 2)
    waiting = [asyncio.create_task(check(checker, "hostile", BRANCHING, DEEP)) for _ in range(pool.SHARE_MAX + 2)]
    while len(helpers()) < pool.SHARE_MAX:
        await asyncio.sleep(0.01)
    with pytest.raises(Unavailable):
        await check(checker, "hostile", BRANCHING, DEEP)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_waits_too_long_is_told_to_try_again(checker: PayloadChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WAIT_S", 0.2)
    results = await asyncio.gather(*(check(checker, "hostile", BRANCHING, DEEP) for _ in range(pool.SHARE_MAX + 1)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Unavailable", "ValidationTooCostly", "ValidationTooCostly"]


async def test_a_helper_ends_when_the_one_who_asked_is_gone(checker: PayloadChecker) -> None:
    with pytest.raises(PayloadMismatch):
        await check(checker, "hostile", BRANCHING, "[[1]]")
    [helper] = helpers()
    used_s = helper.cpu_times().user
    asked = asyncio.create_task(check(checker, "hostile", BRANCHING, DEEP))
    while helper.cpu_times().user < used_s + 0.1:
        await asyncio.sleep(0.005)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await asyncio.gather(*checker._helpers._ending)
    assert helpers() == []


async def test_an_idle_helper_ends(checker: PayloadChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_S", 0.05)
    await checker.check_schema(CHEAP, "2020-12")
    while helpers():
        await asyncio.sleep(0.01)
    await checker.check_schema(CHEAP, "2020-12")


async def test_a_helper_is_kept_for_the_next_check(checker: PayloadChecker) -> None:
    await checker.check_schema(CHEAP, "2020-12")
    first = helpers()
    await checker.check_schema(BILL, "2020-12")
    assert [helper.pid for helper in first] == [helper.pid for helper in helpers()]


async def test_a_helper_that_died_while_idle_is_replaced(checker: PayloadChecker) -> None:
    await checker.check_schema(CHEAP, "2020-12")
    [helper] = helpers()
    helper.kill()
    while checker._helpers._free[0].is_alive:  # when asyncio has been told
        await asyncio.sleep(0.01)
    await checker.check_schema(CHEAP, "2020-12")


async def test_a_helper_sees_no_secrets(checker: PayloadChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XZEPR__DATABASE__URL", "postgresql://alice:secret@localhost/x")
    await checker.check_schema(CHEAP, "2020-12")
    [helper] = helpers()
    assert not [name for name in helper.environ() if name.startswith("XZEPR")]


PARENT = f"""
import asyncio
from xzepr.json_text import parse_strict
from xzepr.receivers.payload import PayloadChecker
asyncio.run(PayloadChecker().check("r", 1, {BRANCHING!r}, "2020-12", parse_strict({DEEP!r}.encode()), {DEEP!r}))
"""


def test_a_helper_at_work_dies_with_its_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT])
    watched = psutil.Process(parent.pid)
    while not (found := [helper for helper in helpers(watched) if helper.cpu_times().user > 0.3]):
        assert parent.poll() is None
        time.sleep(0.005)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    killed_at = time.monotonic()
    # The one who inherits orphans may leave them as zombies.
    while any(is_living(helper) for helper in found):
        assert time.monotonic() < killed_at + 0.5
        time.sleep(0.005)


async def test_a_payload_that_uses_up_the_stack_ends_the_helper_only(checker: PayloadChecker) -> None:
    links = {f"d{number}": {"anyOf": [{"$ref": f"#/$defs/d{number + 1}"}, False]} for number in range(6_000)}
    schema = json.dumps({"$ref": "#/$defs/d0", "$defs": {**links, "d6000": {"items": {"$ref": "#/$defs/d0"}}}})
    await checker.check_schema(schema, "2020-12")
    with pytest.raises(ValidationTooCostly):
        await check(checker, "deep", schema, "[" * 127 + "]" * 127)


async def test_when_listing_all_faults_takes_too_long_the_first_one_is_told(checker: PayloadChecker) -> None:
    schema = json.dumps({"required": [f"k{number}" for number in range(5_000)]})
    with pytest.raises(PayloadMismatch) as caught:
        await check(checker, "large", schema, json.dumps({"a": list(range(150_000))}))
    assert [fault.pointer for fault in caught.value.faults] == ["/payload", "/payload"]
    assert "is a required property" in caught.value.faults[0].message
    assert "maybe more" in caught.value.faults[1].message


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        ({"uniqueItems": True}, [2**70 + number for number in range(20_000)]),
        ({"pattern": "(a{100}){100}b"}, "a" * 200_000),
        ({"items": {"enum": [{"a": list(range(500)), "b": number} for number in range(200)]}}, [{"a": list(range(500)), "b": 199}] * 500),
    ],
    ids=["equal items", "pattern", "enum"],
)
async def test_what_only_the_payload_makes_costly_goes_to_a_helper_too(checker: PayloadChecker, schema: Schema, payload: Any) -> None:
    text = json.dumps(schema)
    await checker.check_schema(text, "2020-12")
    slowest = 0.0
    asked = asyncio.create_task(check(checker, "costly", text, json.dumps(payload)))
    await asyncio.sleep(0.05)
    while not asked.done():
        began = time.monotonic()
        await asyncio.sleep(0.005)
        slowest = max(slowest, time.monotonic() - began)
    with pytest.raises(ValidationTooCostly):
        await asked
    assert slowest < 0.5


async def test_a_schema_is_refused_with_all_its_faults(checker: PayloadChecker) -> None:
    with pytest.raises(InvalidInput) as caught:
        await checker.check_schema(
            '{"$ref":"http://example.com/x","properties":{"a":{"pattern":"(a{200}){200}b"},"b":{"pattern":"(?=a)"}}}', "2020-12"
        )
    assert {fault.pointer for fault in caught.value.faults} == {"/schema/$ref", "/schema/properties/a/pattern", "/schema/properties/b/pattern"}


async def test_a_schema_that_takes_too_long_to_examine_is_refused_and_the_loop_goes_on(checker: PayloadChecker) -> None:
    schema = json.dumps({"anyOf": [{"pattern": f"^.{{1,200}}{number}$"} for number in range(20_000)]})
    asked = asyncio.create_task(checker.check_schema(schema, "2020-12"))
    slowest = 0.0
    while not asked.done():
        began = time.monotonic()
        await asyncio.sleep(0.005)
        slowest = max(slowest, time.monotonic() - began)
    with pytest.raises(InvalidInput) as caught:
        await asked
    assert [(fault.pointer, "takes too long" in fault.message) for fault in caught.value.faults] == [("/schema", True)]
    assert slowest < 0.5


async def test_many_events_of_a_new_receiver_compile_its_schema_once(checker: PayloadChecker) -> None:
    await asyncio.gather(*(check(checker, "r", json.dumps({"pattern": "^.{1,9}$"}), json.dumps(f"x{number}")) for number in range(100)))
    assert len(helpers()) == 1
    assert not checker._compiling


async def test_a_schema_stored_under_wider_rules_refuses_its_payloads_and_says_why(checker: PayloadChecker) -> None:
    with pytest.raises(PayloadMismatch) as caught:
        await check(checker, "old", '{"pattern":"(a{200}){200}b"}', '"a"')
    assert [fault.pointer for fault in caught.value.faults] == ["/schema/pattern"]


async def test_a_module_in_the_current_directory_is_not_taken_for_ours(
    checker: PayloadChecker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xzepr.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    await checker.check_schema(CHEAP, "2020-12")
