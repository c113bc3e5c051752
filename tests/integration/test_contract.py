"""The rest of the REST contract: changes and deletions, preconditions, keys, artifacts, timelines, evaluations, positions, offsets."""

import asyncio
import hashlib
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest
from test_rest import problem

from support.cast import artifact_of, created, event, make_group, make_receiver, post_event
from support.installation import Installation
from support.model import replay
from support.stream import read_all


def sql(running: Installation, statement: str, *values: Any) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(running.environ["XZEPR__DATABASE__URL"])
        try:
            return await connection.fetchval(statement, *values)
        finally:
            await connection.close()

    return asyncio.run(run())


def test_a_changed_receiver_judges_what_is_posted_after_the_answer(shared_installation: Installation, http: httpx2.Client) -> None:
    receiver = make_receiver(http, schema={"required": ["old"]})
    old = post_event(http, receiver, payload={"old": 1})
    changed = http.put(f"/api/v1/receivers/{receiver}", json={"schema": {"required": ["new"]}, "description": "changed"})
    assert (changed.status_code, changed.content) == (204, b"")
    # On fresh connections, so that both workers are asked.
    for _ in range(10):
        with httpx2.Client(base_url=shared_installation.url) as fresh:
            assert fresh.post("/api/v1/events", json=event(receiver, payload={"old": 1})).status_code == 422
            assert fresh.post("/api/v1/events", json=event(receiver, payload={"new": 1})).status_code == 201
    shown = http.get(f"/api/v1/receivers/{receiver}").json()
    assert (shown["resource_version"], shown["description"], shown["schema"]) == (2, "changed", {"required": ["new"]})
    assert shown["fingerprint"] == hashlib.sha256(b"v1 test.finished changed unit tests 1.0.0").hexdigest()
    assert shown["updated_at"] > shown["created_at"]
    assert http.get(f"/api/v1/events/{old}").json()["event_receiver_version"] == 1


def test_a_change_of_nothing_makes_no_version(http: httpx2.Client) -> None:
    receiver = make_receiver(http)
    for body in ({}, {"name": "unit tests"}, {"schema": {}}):
        assert http.put(f"/api/v1/receivers/{receiver}", json=body).status_code == 204
    assert http.get(f"/api/v1/receivers/{receiver}").headers["etag"] == '"1"'
    group = make_group(http, [receiver])
    assert http.put(f"/api/v1/groups/{group}", json={"event_receiver_ids": [receiver.lower()]}).status_code == 204
    assert http.get(f"/api/v1/groups/{group}").headers["etag"] == '"1"'


def test_a_change_names_its_faults(http: httpx2.Client) -> None:
    receiver = make_receiver(http)
    faults = problem(http.put(f"/api/v1/receivers/{receiver}", json={"name": "", "restricted": 1, "owner_id": "x"}), 400, "invalid_input")
    assert set(faults) == {"/name", "/restricted", "/owner_id"}
    assert set(problem(http.put(f"/api/v1/receivers/{receiver}", json={"schema": {"type": 1}}), 400, "invalid_input")) == {"/schema/type"}
    group = make_group(http, [receiver])
    faults = problem(http.put(f"/api/v1/groups/{group}", json={"event_receiver_ids": ["01ARZ3NDEKTSV4RRFFQ69G5FAV"]}), 400, "invalid_input")
    assert set(faults) == {"/event_receiver_ids/0"}
    for what in ("receivers", "groups"):
        problem(http.put(f"/api/v1/{what}/01ARZ3NDEKTSV4RRFFQ69G5FAV", json={"name": "x"}), 404, "not_found")


@pytest.mark.parametrize("what", ["receivers", "groups"])
def test_if_match_lets_only_the_seen_version_change(http: httpx2.Client, what: str) -> None:
    receiver = make_receiver(http)
    target = receiver if what == "receivers" else make_group(http, [receiver])
    path = f"/api/v1/{what}/{target}"
    assert http.put(path, json={"description": "a"}, headers={"If-Match": '"1"'}).status_code == 204
    assert http.put(path, json={"description": "b"}, headers={"If-Match": "2"}).status_code == 204
    problem(http.put(path, json={"description": "c"}, headers={"If-Match": '"2"'}), 412, "precondition_failed")
    problem(http.delete(path, headers={"If-Match": "1"}), 412, "precondition_failed")
    assert set(problem(http.put(path, json={"description": "c"}, headers={"If-Match": "two"}), 400, "invalid_input")) == {"If-Match"}
    assert http.put(path, json={"description": "d"}, headers={"If-Match": "*"}).status_code == 204
    assert http.delete(path, headers={"If-Match": '"1", "4"'}).status_code == (204 if what == "groups" or target == receiver else 409)


def test_a_receiver_that_is_referred_to_is_not_deleted(http: httpx2.Client) -> None:
    receiver = make_receiver(http)
    group = make_group(http, [receiver])
    assert "groups" in str(http.delete(f"/api/v1/receivers/{receiver}").json()["detail"])
    assert http.delete(f"/api/v1/groups/{group}").status_code == 204
    problem(http.get(f"/api/v1/groups/{group}"), 404, "not_found")
    problem(http.delete(f"/api/v1/groups/{group}"), 404, "not_found")
    assert http.delete(f"/api/v1/receivers/{receiver}").status_code == 204
    problem(http.get(f"/api/v1/receivers/{receiver}"), 404, "not_found")
    assert set(problem(http.post("/api/v1/events", json=event(receiver)), 400, "invalid_input")) == {"/event_receiver_id"}
    used = make_receiver(http)
    post_event(http, used)
    problem(http.delete(f"/api/v1/receivers/{used}"), 409, "conflict")


def test_the_same_key_and_body_give_the_first_answer_again(http: httpx2.Client) -> None:
    receiver = make_receiver(http)
    bodies = {
        "events": event(receiver),
        "receivers": {"name": "n", "type": "t", "version": "1", "schema": {}},
        "groups": {"name": "n", "type": "t", "version": "1", "event_receiver_ids": [receiver]},
    }
    for what, body in bodies.items():
        key = {"Idempotency-Key": "the same for all routes"} if what != "events" else {"Idempotency-Key": secrets.token_hex(8)}
        first = http.post(f"/api/v1/{what}", json=body, headers=key)
        again = http.post(f"/api/v1/{what}", json=body, headers=key)
        assert created(first) == created(again), what
        assert first.headers["location"] == again.headers["location"]
        assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
        problem(http.post(f"/api/v1/{what}", json={**body, "name": "other"}, headers=key), 409, "conflict")


def test_a_key_is_of_1_to_255_printable_characters(http: httpx2.Client) -> None:
    for key in ("", "k" * 256, "tab\there"):
        answer = http.post("/api/v1/events", json=event("x"), headers={"Idempotency-Key": key})
        assert set(problem(answer, 400, "invalid_input")) == {"Idempotency-Key"}


def test_what_was_refused_is_not_remembered(http: httpx2.Client) -> None:
    receiver = make_receiver(http, schema={"required": ["a"]})
    key = {"Idempotency-Key": secrets.token_hex(8)}
    assert http.post("/api/v1/events", json=event(receiver), headers=key).status_code == 422
    http.put(f"/api/v1/receivers/{receiver}", json={"schema": {}})
    first = created(http.post("/api/v1/events", json=event(receiver), headers=key))
    # The first answer stands even when the same input would be refused by now.
    http.put(f"/api/v1/receivers/{receiver}", json={"schema": {"required": ["b"]}})
    assert created(http.post("/api/v1/events", json=event(receiver), headers=key)) == first


def test_a_key_older_than_a_day_counts_as_new(shared_installation: Installation, http: httpx2.Client) -> None:
    receiver = make_receiver(http)
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first = created(http.post("/api/v1/events", json=event(receiver), headers=key))
    old = datetime.now(UTC) - timedelta(hours=24, seconds=1)
    sql(shared_installation, "update idempotency_keys set created_at = $1 where answer_id = $2", old, first)
    second = created(http.post("/api/v1/events", json=event(receiver, name="another body"), headers=key))
    assert second != first
    assert created(http.post("/api/v1/events", json=event(receiver, name="another body"), headers=key)) == second


def test_many_at_once_with_one_key_make_one_event(shared_installation: Installation, http: httpx2.Client) -> None:
    receiver = make_receiver(http)

    def post(key: str) -> str:
        return created(httpx2.post(f"{shared_installation.url}/api/v1/events", json=event(receiver), headers={"Idempotency-Key": key}, timeout=30))

    with ThreadPoolExecutor(16) as pool:
        for _ in range(5):
            assert len(set(pool.map(post, [secrets.token_hex(8)] * 16))) == 1
    assert len(http.get("/api/v1/events", params={"event_receiver_id": receiver}).json()["data"]) == 5


async def test_a_request_whose_first_is_still_at_work_waits_and_is_told(first_server: str, database_url: str) -> None:
    from support.installation import installation

    environ = {"XZEPR__DATABASE__URL": database_url, "XZEPR__SERVER__WORKERS": "1", "XZEPR__SERVER__REQUEST_TIMEOUT_SECONDS": "1"}
    with installation(**environ) as running, httpx2.Client(base_url=running.url, timeout=30) as http:
        receiver = make_receiver(http)
        holder = await asyncpg.connect(database_url)
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute(
            "insert into idempotency_keys (principal_id, route, key, body_sha256, answer_id, created_at) values ('', 'POST /api/v1/events', 'held', $1, 'X', now())",
            bytes(32),
        )
        held = http.post("/api/v1/events", json=event(receiver), headers={"Idempotency-Key": "held"})
        problem(held, 409, "in_flight")
        await transaction.rollback()
        await holder.close()
        assert http.post("/api/v1/events", json=event(receiver), headers={"Idempotency-Key": "held"}).status_code == 201


def test_artifacts_are_listed_by_their_newest_event(http: httpx2.Client) -> None:
    receiver = make_receiver(http)
    prefix = f"listed-{secrets.token_hex(4)}"
    for name in ("a", "b", "c", "a"):
        last = post_event(http, receiver, name=f"{prefix}-{name}")
    page = http.get("/api/v1/artifacts", params={"name_prefix": prefix}).json()
    assert [item["name"].removeprefix(prefix) for item in page["data"]] == ["-a", "-c", "-b"]
    assert page["data"][0]["last_event_id"] == last
    assert page["data"][0]["last_event_at"] == http.get(f"/api/v1/events/{last}").json()["created_at"]
    walked: list[str] = []
    after: dict[str, str] = {}
    for _ in range(3):
        one = http.get("/api/v1/artifacts", params={"name_prefix": prefix, "limit": 1, **after}).json()
        walked += [item["name"] for item in one["data"]]
        after = {"after": one["pagination"]["next"] or ""}
    assert walked == [f"{prefix}-a", f"{prefix}-c", f"{prefix}-b"]
    post_event(http, receiver, name=f"{prefix}-b", version="9")
    assert len(http.get("/api/v1/artifacts", params={"name": f"{prefix}-b"}).json()["data"]) == 2
    assert len(http.get("/api/v1/artifacts", params={"name": f"{prefix}-b", "version": "9"}).json()["data"]) == 1


@pytest.mark.parametrize("prefix", ["50%_of\\", "\U0010ffff", "a\ud7ff", "é"])
def test_a_prefix_is_text_and_no_pattern(http: httpx2.Client, prefix: str) -> None:
    receiver = make_receiver(http)
    post_event(http, receiver, name=f"{prefix}x")
    post_event(http, receiver, name="50x")
    names = {item["name"] for item in http.get("/api/v1/artifacts", params={"name_prefix": prefix}).json()["data"]}
    assert names == {f"{prefix}x"}


def test_a_timeline_tells_what_happened_and_where_it_stands(http: httpx2.Client) -> None:
    build, sign = make_receiver(http, name="build", type="build.done"), make_receiver(http, name="sign", type="sign.done")
    group = make_group(http, [build, sign], name="release")
    name = f"timeline-{secrets.token_hex(4)}"
    posted = [post_event(http, build, name=name, success=success) for success in (False, True)]
    timeline = http.get("/api/v1/artifacts/timeline", params=artifact_of(event(build, name=name))).json()
    assert list(timeline) == ["artifact", "events", "groups", "pagination"]
    assert timeline["artifact"] == artifact_of(event(build, name=name))
    assert [one["id"] for one in timeline["events"]] == posted
    assert (timeline["events"][0]["event_receiver_name"], timeline["events"][0]["event_receiver_type"]) == ("build", "build.done")
    mine = next(one for one in timeline["groups"] if one["group"]["id"] == group)
    assert (mine["group"]["name"], mine["complete"], [gate["state"] for gate in mine["gates"]]) == ("release", False, ["open", "missing"])
    first = http.get("/api/v1/artifacts/timeline", params={**artifact_of(event(build, name=name)), "limit": 1}).json()
    rest = http.get("/api/v1/artifacts/timeline", params={**artifact_of(event(build, name=name)), "after": first["pagination"]["next"]}).json()
    assert [one["id"] for one in first["events"] + rest["events"]] == posted
    nobody = http.get("/api/v1/artifacts/timeline", params=artifact_of(event(build, name=f"{name}-other"))).json()
    assert (nobody["events"], nobody["groups"]) == ([], [])
    assert http.get("/api/v1/artifacts/timeline", params={"name": name}).status_code == 400


async def test_an_evaluation_decides_for_a_group_made_late(shared_installation: Installation, http: httpx2.Client) -> None:
    receiver = make_receiver(http)
    name = f"late-{secrets.token_hex(4)}"
    trigger = post_event(http, receiver, name=name)
    group = make_group(http, [receiver], name="late")
    body = artifact_of(event(receiver, name=name))
    answer = http.post(f"/api/v1/groups/{group}/evaluations", json=body)
    assert answer.status_code == 200
    told = answer.json()
    assert told["complete"] is True
    bodies = await read_all(shared_installation.url)
    message = json.loads(bodies[told["position"] - 1])
    assert (message["message_id"], message["first"], message["data"]["events"][0]["id"]) == (told["message_id"], True, trigger)
    replay(bodies)
    http.patch(f"/api/v1/groups/{group}", json={"enabled": False})
    off = http.post(f"/api/v1/groups/{group}/evaluations", json=body).json()
    assert off == {"complete": False, "message_id": None, "position": None}
    assert set(problem(http.post(f"/api/v1/groups/{group}/evaluations", json={**body, "package": ""}), 400, "invalid_input")) == {"/package"}
    problem(http.post("/api/v1/groups/01ARZ3NDEKTSV4RRFFQ69G5FAV/evaluations", json=body), 404, "not_found")


def test_a_group_lists_what_it_holds_now(http: httpx2.Client) -> None:
    one, two = make_receiver(http), make_receiver(http)
    group = make_group(http, [one])
    names = [f"held-{secrets.token_hex(4)}" for _ in range(3)]
    for name in names:
        post_event(http, one, name=name)

    def listed(**params: Any) -> list[str]:
        answer = http.get(f"/api/v1/groups/{group}/artifacts", params=params)
        assert answer.status_code == 200, answer.text
        return [item["name"] for item in answer.json()["data"]]

    def settled() -> None:
        while http.get("/api/v1/stream/position").json()["pending"]:
            pass

    settled()
    assert listed(complete="true") == names[::-1]
    # The failure counts at once, sequenced or not: somebody will release on this list.
    post_event(http, one, name=names[1], success=False)
    assert listed(complete="true") == [names[2], names[0]]
    settled()
    assert listed(complete="false") == [names[1]]
    assert listed() == [names[1], names[2], names[0]]
    # Another definition: none of them has an event of the second receiver.
    http.put(f"/api/v1/groups/{group}", json={"event_receiver_ids": [one, two]})
    assert listed(complete="true") == []
    http.put(f"/api/v1/groups/{group}", json={"event_receiver_ids": [one]})
    assert listed(complete="true", limit=1) == [names[2]]
    http.patch(f"/api/v1/groups/{group}", json={"enabled": False})
    assert listed(complete="true") == []
    problem(http.get("/api/v1/groups/01ARZ3NDEKTSV4RRFFQ69G5FAV/artifacts"), 404, "not_found")


def test_positions_tell_how_far_the_stream_reaches(http: httpx2.Client) -> None:
    make_receiver(http)
    while (position := http.get("/api/v1/stream/position").json())["pending"]:
        pass
    assert position["oldest"] == 1
    assert position["newest"] >= 1


def test_receivers_and_groups_are_also_paged_by_offset(http: httpx2.Client) -> None:
    name = f"offset-{secrets.token_hex(4)}"
    receivers = [make_receiver(http, name=name) for _ in range(3)]
    groups = [make_group(http, receivers, name=name) for _ in range(3)]
    for what, made in (("receivers", receivers), ("groups", groups)):
        page = http.get(f"/api/v1/{what}", params={"name": name, "limit": 2, "offset": 1}).json()
        assert [item["id"] for item in page["data"]] == made[::-1][1:3]
        assert page["pagination"] == {"limit": 2, "next": None, "has_more": False, "offset": 1, "total": 3}
        assert "total" not in http.get(f"/api/v1/{what}", params={"name": name}).json()["pagination"]
        both = http.get(f"/api/v1/{what}", params={"offset": 1, "after": made[0]})
        assert set(problem(both, 400, "invalid_input")) == {"?offset"}


def test_changes_and_deletions_leave_the_house_as_messages(shared_installation: Installation, http: httpx2.Client) -> None:
    receiver = make_receiver(http)
    group = make_group(http, [receiver])
    http.put(f"/api/v1/receivers/{receiver}", json={"version": "2"})
    http.put(f"/api/v1/groups/{group}", json={"version": "2"})
    http.delete(f"/api/v1/groups/{group}")
    http.delete(f"/api/v1/receivers/{receiver}")
    messages = [json.loads(body) for body in asyncio.run(read_all(shared_installation.url))]
    mine = [(message["type"], message["version"]) for message in messages if message["id"] in (receiver, group)]
    assert mine == [
        ("epr.event.receiver.created", "1.0.0"),
        ("epr.event.receiver.group.created", "1.0.0"),
        ("xzepr.event.receiver.modified", "2"),
        ("epr.event.receiver.group.modified", "2"),
        ("xzepr.event.receiver.group.deleted", "2"),
        ("xzepr.event.receiver.deleted", "2"),
    ]
