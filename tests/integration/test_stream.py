"""The live stream as server-sent events."""

import asyncio
import json

import httpx2

from support.cast import event, make_group, make_receiver, post_event
from support.installation import Installation
from support.model import replay
from support.rounds import rounds, seeded
from support.stream import follow, read_all

EVENT_KEYS = [
    "id",
    "name",
    "version",
    "release",
    "platform_id",
    "package",
    "description",
    "payload",
    "success",
    "created_at",
    "event_receiver_id",
    "EventReceiver",
]
RECEIVER_KEYS = ["id", "name", "type", "version", "description", "schema", "fingerprint", "created_at"]
GROUP_KEYS = ["id", "name", "type", "version", "description", "enabled", "event_receiver_ids", "created_at", "updated_at"]


async def test_envelopes_have_the_shape_that_watchers_decode(shared_installation: Installation, http: httpx2.Client) -> None:
    receiver = make_receiver(http, name="shape", type="shape.done", schema={"type": "object", "title": "Ordered"})
    group = make_group(http, [receiver], name="shapes", type="shapes.complete")
    event_id = post_event(http, receiver, payload={"b": 1, "a": 2})
    failed = post_event(http, receiver, success=False)
    messages = [json.loads(body) for body in await read_all(shared_installation.url)]
    mine = {(message["type"], message["id"]): message for message in messages if {receiver, group, event_id, failed} & {message["id"]}}

    made = mine["epr.event.receiver.created", receiver]
    assert (made["platform_id"], made["package"], made["success"]) == ("event-provenance-registry", "event.receiver", True)
    assert list(made["data"]["event_receivers"][0]) == RECEIVER_KEYS
    assert made["release"] == made["data"]["event_receivers"][0]["created_at"][:19] + "Z"
    assert made["data"]["events"] is None
    grouped = mine["epr.event.receiver.group.created", group]
    assert (grouped["package"], list(grouped["data"]["event_receiver_groups"][0])) == ("event.receiver.group", GROUP_KEYS)

    recorded = mine["shape.done", event_id]
    assert list(recorded)[:12] == [
        "success",
        "id",
        "specversion",
        "type",
        "source",
        "api_version",
        "name",
        "version",
        "release",
        "platform_id",
        "package",
        "data",
    ]
    assert list(recorded["data"]["events"][0]) == EVENT_KEYS
    assert recorded["data"]["events"][0]["payload"] == {"b": 1, "a": 2}
    assert list(recorded["data"]["events"][0]["EventReceiver"]) == RECEIVER_KEYS
    assert (recorded["source"], recorded["specversion"], recorded["event_receiver_version"]) == ("xzepr", "1.0", 1)

    complete = mine["shapes.complete", group]
    assert (complete["success"], complete["first"], complete["position"]) == (True, True, recorded["position"] + 1)
    assert (complete["data"]["events"][0]["id"], complete["data"]["event_receivers"]) == (event_id, None)
    broken = mine["xzepr.event.receiver.group.broken", group]
    assert (broken["success"], broken["data"]["events"][0]["id"], broken["seq"]) == (False, failed, mine["shape.done", failed]["seq"])


async def test_filters_leave_out_and_positions_still_advance(shared_installation: Installation, http: httpx2.Client) -> None:
    wanted, other = make_receiver(http, type="wanted.done"), make_receiver(http, type="other.done")
    async with httpx2.AsyncClient(base_url=shared_installation.url, timeout=30) as client:
        start = (await anext(aiter(follow(client, 0))))[0]
        assert start == 0
        ids = [post_event(http, wanted), post_event(http, other), post_event(http, wanted, success=False)]
        seen = []
        async for _, body in follow(client, 0, type="wanted.done", success="true"):
            if body is not None:
                seen.append(json.loads(body)["id"])
                break
        assert seen == ids[:1]
        async for _, body in follow(client, 0, event_receiver_id=wanted.lower(), success="false"):
            if body is not None:
                assert json.loads(body)["id"] == ids[2]
                break


def test_positions_that_cannot_be_read_are_refused(http: httpx2.Client) -> None:
    assert http.get("/api/v1/stream?after=999999999").status_code == 400
    assert http.get("/api/v1/stream?after=x").status_code == 400
    assert http.get("/api/v1/stream", headers={"Last-Event-ID": "x"}).status_code == 400
    assert http.get("/api/v1/stream?typ=x").status_code == 400
    assert http.head("/api/v1/stream").headers["content-type"].startswith("text/event-stream")


async def test_a_reader_from_now_sees_only_what_comes(shared_installation: Installation, http: httpx2.Client) -> None:
    receiver = make_receiver(http)
    post_event(http, receiver)
    await read_all(shared_installation.url)
    async with (
        httpx2.AsyncClient(base_url=shared_installation.url, timeout=30) as client,
        client.stream("GET", "/api/v1/stream") as answer,
    ):
        lines = aiter(answer.aiter_lines())
        newest = int((await anext(lines)).removeprefix("id:"))
        posted = post_event(http, receiver)
        async for line in lines:
            if line.startswith("data:"):
                message = json.loads(line[5:])
                assert (message["id"], message["position"]) == (posted, newest + 1)
                break


async def test_a_reader_that_is_cut_and_resumes_sees_every_message_once_in_order(shared_installation: Installation, http: httpx2.Client) -> None:
    cuts = rounds(50)
    chance = seeded("cut and resume")
    receivers = [make_receiver(http, name=f"cut-{number}") for number in range(2)]
    make_group(http, receivers)
    stop = asyncio.Event()
    posted: list[str] = []

    async def load(client: httpx2.AsyncClient, number: int) -> None:
        count = 0
        while not stop.is_set():
            body = event(receivers[count % 2], name=f"cut-{number}-{count // 10}", success=count % 5 != 0, payload={"n": count})
            answer = await client.post("/api/v1/events", json=body)
            assert answer.status_code == 201
            posted.append(answer.json()["data"])
            count += 1

    async with httpx2.AsyncClient(base_url=shared_installation.url, timeout=60) as client:
        writers = [asyncio.create_task(load(client, number)) for number in range(8)]
        seen: list[bytes] = []
        at = 0
        for _ in range(cuts):
            wanted = chance.randint(1, 60)
            async for position, body in follow(client, at):
                if body is not None:
                    seen.append(body)
                    wanted -= 1
                at = position
                if wanted <= 0:
                    break
        stop.set()
        await asyncio.gather(*writers)
    everything = await read_all(shared_installation.url)
    assert [json.loads(body)["position"] for body in seen] == list(range(1, len(seen) + 1))
    assert seen == everything[: len(seen)]
    counted = replay(everything)
    assert set(posted) <= counted["event_ids"]
