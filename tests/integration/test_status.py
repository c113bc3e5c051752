"""May this artifact move on, and if not, why not? Right at the moment of the 201, under load, with the sequencer running."""

import asyncio
import random

import httpx2

from support.cast import artifact_of, event, make_group, make_receiver, post_event
from support.installation import Installation
from support.model import replay
from support.rounds import rounds, seeded
from support.stream import read_all


def status(http: httpx2.Client, group_id: str, body: dict[str, object]) -> dict[str, object]:
    answer = http.get(f"/api/v1/groups/{group_id}/status", params=artifact_of(body))
    assert answer.status_code == 200, answer.text
    shown: dict[str, object] = answer.json()
    return shown


def test_a_release_manager_is_told_why_not(http: httpx2.Client) -> None:
    scan, sign = make_receiver(http, name="scan", type="scan.done"), make_receiver(http, name="sign", type="sign.done")
    group = make_group(http, [scan, sign], name="production")
    body = event(scan, name="shop")
    missing = status(http, group, body)
    assert (missing["complete"], [gate["state"] for gate in missing["gates"]]) == (False, ["missing", "missing"])  # type: ignore[attr-defined]
    assert [receiver["name"] for receiver in missing["missing"]] == ["scan", "sign"]  # type: ignore[attr-defined]

    failed = post_event(http, scan, name="shop", success=False)
    closed = status(http, group, body)
    gate = closed["gates"][0]  # type: ignore[index]
    assert (gate["state"], gate["event_id"], gate["success"]) == ("closed", failed, False)
    assert gate["decided_at"] == http.get(f"/api/v1/events/{failed}").json()["created_at"]
    summary = str(closed["summary"])
    assert "scan" in summary
    assert "failed" in summary
    assert "sign" in summary
    assert "may not" in summary

    post_event(http, scan, name="shop")
    post_event(http, sign, name="shop")
    whole = status(http, group, body)
    assert (whole["complete"], whole["missing"]) == (True, [])
    assert "may move on" in str(whole["summary"])

    http.patch(f"/api/v1/groups/{group}", json={"enabled": False})
    off = status(http, group, body)
    assert (off["complete"], off["enabled"]) == (False, False)
    assert "disabled" in str(off["summary"])
    assert [gate["state"] for gate in off["gates"]] == ["open", "open"]  # type: ignore[attr-defined]


def test_one_field_makes_another_artifact(http: httpx2.Client) -> None:
    receiver = make_receiver(http)
    group = make_group(http, [receiver])
    post_event(http, receiver, name="exact")
    assert status(http, group, event(receiver, name="exact"))["complete"] is True
    for field in ("name", "version", "release", "platform_id", "package"):
        other = {**event(receiver, name="exact"), field: "EXACT "}
        assert status(http, group, other)["complete"] is False, field


def test_the_status_needs_all_five_fields(http: httpx2.Client) -> None:
    group = make_group(http, [make_receiver(http)])
    answer = http.get(f"/api/v1/groups/{group}/status", params={"name": "x", "version": ""})
    assert answer.status_code == 400
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {"?version", "?release", "?platform_id", "?package"}
    everything = artifact_of(event("x"))
    assert http.get("/api/v1/groups/01ARZ3NDEKTSV4RRFFQ69G5FAV/status", params=everything).status_code == 404


def test_a_group_made_later_shows_what_came_before(http: httpx2.Client) -> None:
    receiver = make_receiver(http)
    post_event(http, receiver, name="before")
    group = make_group(http, [receiver])
    assert status(http, group, event(receiver, name="before"))["complete"] is True


async def test_the_status_is_right_at_the_moment_of_the_201(shared_installation: Installation, http: httpx2.Client) -> None:
    reads = rounds(10_000)
    receiver = make_receiver(http)
    group = make_group(http, [receiver])
    chance = seeded("status after 201")

    async def read(client: httpx2.AsyncClient, artifacts: list[str], count: int, own: random.Random) -> int:
        wrong = 0
        for _ in range(count):
            body = event(receiver, name=own.choice(artifacts), success=own.random() < 0.5)
            posted = await client.post("/api/v1/events", json=body)
            assert posted.status_code == 201, posted.text
            shown = (await client.get(f"/api/v1/groups/{group}/status", params=artifact_of(body))).json()
            gate = shown["gates"][0]
            wrong += (gate["event_id"], shown["complete"]) != (posted.json()["data"], body["success"])
        return wrong

    async with httpx2.AsyncClient(base_url=shared_installation.url, timeout=60) as client:
        readers = 20
        # Each reader has artifacts of its own, so that what it posted last is the newest there.
        work = [
            read(client, [f"s{number}-{each}" for each in range(5)], reads // readers, random.Random(chance.random())) for number in range(readers)
        ]
        assert sum(await asyncio.gather(*work)) == 0


async def test_two_receivers_that_finish_at_the_same_moment_complete_once_first(shared_installation: Installation, http: httpx2.Client) -> None:
    trials = rounds(1_000)
    left, right = make_receiver(http, name="left"), make_receiver(http, name="right")
    group = make_group(http, [left, right], name="both")
    limits = httpx2.Limits(max_connections=40, max_keepalive_connections=40)
    async with (
        httpx2.AsyncClient(base_url=shared_installation.url, timeout=60, limits=limits) as one,
        httpx2.AsyncClient(base_url=shared_installation.url, timeout=60, limits=limits) as two,
    ):

        async def trial(number: int) -> None:
            answers = await asyncio.gather(
                one.post("/api/v1/events", json=event(left, name=f"pair-{number}")),
                two.post("/api/v1/events", json=event(right, name=f"pair-{number}")),
            )
            assert [answer.status_code for answer in answers] == [201, 201]

        for start in range(0, trials, 20):
            await asyncio.gather(*(trial(number) for number in range(start, min(start + 20, trials))))
    bodies = await read_all(shared_installation.url)
    replay(bodies)
    import json

    firsts = [message["name"] for message in map(json.loads, bodies) if message["id"] == group and message.get("first")]
    assert sorted(firsts) == sorted(f"pair-{number}" for number in range(trials))
