"""POST /api/v1/events/batch, and CloudEvents in their three modes."""

import base64
import json
from typing import Any

import asyncpg
import httpx2
import pytest

from support.cast import artifact_of, event, make_group, make_receiver
from support.installation import Installation

NDJSON = {"Content-Type": "application/x-ndjson"}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCHED = {"Content-Type": "application/cloudevents-batch+json"}
PATH = "/api/v1/events/batch"


@pytest.fixture
def receiver(http: httpx2.Client) -> str:
    return make_receiver(http, schema={"type": "object", "properties": {"n": {"type": "integer"}}})


def faults(answer: httpx2.Response, status: int, code: str) -> set[str]:
    body = answer.json()
    assert (answer.status_code, body["error"]) == (status, code), answer.text
    return {fault["pointer"] for fault in body["errors"]}


def stored(http: httpx2.Client, name: str) -> list[dict[str, Any]]:
    """Oldest first."""
    found: list[dict[str, Any]] = http.get("/api/v1/events", params={"name": name, "limit": "1000"}).json()["data"]
    return found[::-1]


def test_an_array_is_stored_in_its_order(http: httpx2.Client, receiver: str) -> None:
    events = [event(receiver, name=f"batch-{receiver}", version=str(number), payload={"n": number}) for number in range(250)]
    answer = http.post(PATH, json=events)
    assert answer.status_code == 201, answer.text
    assert "location" not in answer.headers
    found = stored(http, f"batch-{receiver}")
    assert [each["id"] for each in found] == answer.json()["data"]
    assert [each["version"] for each in found] == [each["version"] for each in events]
    assert [each["seq"] for each in found] == sorted(each["seq"] for each in found)


def test_lines_are_events(http: httpx2.Client, receiver: str) -> None:
    text = "\n".join(json.dumps(event(receiver, name=f"lines-{receiver}", version=str(number))) for number in range(5)) + "\r\n\n"
    answer = http.post(PATH, content=text, headers=NDJSON)
    assert len(answer.json()["data"]) == 5
    assert len(stored(http, f"lines-{receiver}")) == 5


def test_payloads_come_back_as_sent(http: httpx2.Client, receiver: str) -> None:
    payload = '{"z":1e3,"a":1.0,"n":123456789012345678901234567890,"e":"\U0001f600"}'
    body = json.dumps([event(receiver, payload="HERE")]).replace('"HERE"', payload)
    event_id = http.post(PATH, content=body.encode(), headers={"Content-Type": "application/json"}).json()["data"][0]
    assert payload in http.get(f"/api/v1/events/{event_id}").text


def test_success_failure_success_in_one_batch_is_decided_in_order(http: httpx2.Client, receiver: str) -> None:
    group = make_group(http, [receiver], type=f"order.{receiver}")
    position = http.get("/api/v1/stream/position").json()["newest"]
    events = [event(receiver, name=f"sfs-{receiver}", success=success) for success in (True, False, True)]
    http.post(PATH, json=events)
    assert http.get(f"/api/v1/groups/{group}/status", params=artifact_of(events[0])).json()["complete"]
    kinds = []
    with http.stream("GET", "/api/v1/stream", params={"after": str(position), "name": f"sfs-{receiver}"}) as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
            if len(kinds) == 6:
                break
    assert len(kinds) == 6, "three events, complete, broken, complete"


def test_all_or_nothing_with_the_place_of_every_fault(http: httpx2.Client, receiver: str) -> None:
    name = f"nothing-{receiver}"
    events: list[Any] = [event(receiver, name=name) for _ in range(30)]
    events[3] = {**events[3], "version": "", "extra": 1}
    events[25] = {**events[25], "payload": {"n": "x"}}
    events[26] = 7
    events[27] = event("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    found = faults(http.post(PATH, json=events), 400, "invalid_input")
    assert found == {"/3/version", "/3/extra", "/25/payload/n", "/26", "/27/event_receiver_id"}
    assert faults(http.post(PATH, json=[events[0], events[25]]), 422, "payload_mismatch") == {"/1/payload/n"}
    assert stored(http, name) == []


def test_partial_tells_of_each(http: httpx2.Client, receiver: str) -> None:
    name = f"partial-{receiver}"
    lines = [json.dumps(event(receiver, name=name)), "{", json.dumps(event(receiver, name=name, payload={"n": "x"})), json.dumps({}), '{"a":1,"a":2}']
    answer = http.post(f"{PATH}?partial=true", content="\n".join(lines), headers=NDJSON)
    assert answer.status_code == 207, answer.text
    items = answer.json()["data"]
    assert [item["status"] for item in items] == [201, 400, 422, 400, 400]
    assert items[0]["id"] == stored(http, name)[0]["id"]
    assert [item.get("problem", {}).get("error") for item in items] == [None, "malformed_body", "payload_mismatch", "invalid_input", "malformed_body"]
    assert {"/3/name", "/3/success"} <= {fault["pointer"] for fault in items[3]["problem"]["errors"]}
    assert http.post(f"{PATH}?partial=perhaps", json=[event(receiver)]).status_code == 400


def test_a_repeated_key_gives_the_first_answer(http: httpx2.Client, receiver: str) -> None:
    name = f"again-{receiver}"
    body = [event(receiver, name=name), event(receiver, name=name, payload={"n": "x"})]
    for query, status in (("", 422), ("?partial=true", 207), ("?partial=true", 207)):
        answer = http.post(f"{PATH}{query}", json=body, headers={"Idempotency-Key": name})
        assert answer.status_code == status
        last, first = answer, (locals().get("first") or (answer if status == 207 else None))
    assert first is not None
    assert last.json()["data"][0] == first.json()["data"][0]
    assert last.headers["idempotency-replayed"] == "true"
    assert len(stored(http, name)) == 1
    assert http.post(PATH, json=body[:1], headers={"Idempotency-Key": name}).status_code == 409
    whole = [http.post(PATH, json=body[:1], headers={"Idempotency-Key": f"{name}-whole"}) for _ in range(2)]
    assert [answer.status_code for answer in whole] == [201, 201]
    assert whole[0].json() == whole[1].json()


async def test_what_is_kept_of_a_partial_batch_quotes_no_payload(http: httpx2.Client, shared_installation: Installation, receiver: str) -> None:
    secret = f"secret-{receiver}"
    body = [event(receiver, name=secret), event(receiver, payload={"n": secret}), {**event(receiver), "success": secret}, {"name": secret}]
    first, second = (http.post(f"{PATH}?partial=true", json=body, headers={"Idempotency-Key": secret}) for _ in range(2))
    assert (secret in first.text, second.headers["idempotency-replayed"]) == (True, "true")
    assert secret not in second.text

    def shown(answer: httpx2.Response) -> list[Any]:
        items = [(item["status"], item.get("id"), item.get("problem", {})) for item in answer.json()["data"]]
        return [(*item[:2], item[2].get("error"), item[2].get("title"), [fault["pointer"] for fault in item[2].get("errors", [])]) for item in items]

    assert shown(first) == shown(second)
    assert [set(item) for item in second.json()["data"]] == [set(item) for item in first.json()["data"]]
    assert second.json()["data"][1]["problem"]["errors"] == [{"pointer": "/1/payload/n", "message": "was told in the first answer"}]
    connection = await asyncpg.connect(shared_installation.environ["XZEPR__DATABASE__URL"])
    kept = await connection.fetchval("select k.answer from idempotency_keys k where k.key = $1", secret)
    await connection.close()
    assert "/1/payload/n" in kept
    assert secret not in kept


def test_a_partial_answer_lists_so_many_faults_in_all(http: httpx2.Client, receiver: str) -> None:
    """However many events have however many of them."""
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    wide = make_receiver(http, schema=schema)
    faulty = event(wide, payload={f"p{place}": "x" * 300 for place in range(60)})
    for bad, of_each in ((faulty, 61), ({f"f{place}": "x" for place in range(40)}, 49)):
        events = [event(receiver), *[bad] * 200]
        answer = http.post(f"{PATH}?partial=true", json=events, headers={"Idempotency-Key": f"{receiver}-{of_each}"})
        assert answer.status_code == 207, answer.text
        problems = [item["problem"] for item in answer.json()["data"][1:]]
        listed = [fault for problem in problems for fault in problem["errors"] if not fault["message"].startswith("and ")]
        assert len(listed) <= 50
        assert [problem["errors"][-1]["pointer"] for problem in problems[2:]] == [f"/{place}" for place in range(3, 201)]
        assert all(problem["errors"][-1]["message"].startswith("and ") and len(problem["errors"]) == 1 for problem in problems[2:])
        assert all("more)" in problem["detail"] for problem in problems)
        assert len(answer.content) < 200 * 2_000
        whole = http.post(PATH, json=events).json()
        assert len(whole["errors"]) == 50
        # The message counts all of them.
        assert int(whole["detail"].rpartition("(and ")[2].split()[0]) >= 199 * 48


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "malformed_body"),
        (b"[]", 400, "invalid_input"),
        (b"{}", 400, "invalid_input"),
        (b"[{]", 400, "malformed_body"),
        (b"\xff", 400, "malformed_body"),
    ],
)
def test_what_is_no_batch_is_refused(http: httpx2.Client, content: bytes, status: int, code: str) -> None:
    answer = http.post(PATH, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (status, code)


def test_bounds_are_told(http: httpx2.Client, receiver: str) -> None:
    small = json.dumps(event(receiver))
    answer = http.post(PATH, content="\n".join([small] * 10_001), headers=NDJSON)
    assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")
    answer = http.post("/api/v1/events", content="[" + ",".join(["{}"] * 10_001) + "]", headers=BATCHED)
    assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")
    large = event(receiver, payload={"text": "x" * 1_048_576})
    assert faults(http.post(PATH, json=[event(receiver), large]), 413, "body_too_large") == {"/1"}
    assert http.post(PATH, content=b" " * 16_777_217, headers=NDJSON).status_code == 413
    assert http.post(PATH, content=small, headers={"Content-Type": "text/csv"}).status_code == 415
    assert len(http.post(PATH, content="\n".join([small] * 10_000), headers=NDJSON).json()["data"]) == 10_000


def test_many_bad_events_cost_no_query_each(http: httpx2.Client, receiver: str) -> None:
    bad = event(receiver, payload={"n": "x"})
    unknown = event("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    answer = http.post(PATH, json=[bad, unknown] * 1_000)
    assert len(answer.json()["errors"]) == 50
    assert answer.elapsed.total_seconds() < 3


# CloudEvents.


def cloud(**changes: Any) -> dict[str, Any]:
    made = {"specversion": "1.0", "id": "1", "source": "/ci", "type": "t", "subject": "api/1.4.2/2026.11/x86-64-oci-linux/oci", "data": {"n": 1}}
    return {name: value for name, value in {**made, **changes}.items() if value is not ...}


def post_cloud(http: httpx2.Client, **changes: Any) -> httpx2.Response:
    return http.post("/api/v1/events", content=json.dumps(cloud(**changes)), headers=STRUCTURED)


def test_a_structured_event_becomes_one_of_ours(http: httpx2.Client) -> None:
    receiver = make_receiver(http, type=f"cloud.{id(http)}.structured")
    answer = post_cloud(http, type=f"cloud.{id(http)}.structured", source="/structured", xzdescription="told", subject="a%2Fb/1/2/%C3%BC/oci")
    assert answer.status_code == 201, answer.text
    found = http.get(answer.headers["location"]).json()
    wanted = {"name": "a/b", "version": "1", "release": "2", "platform_id": "ü", "package": "oci", "description": "told", "success": True}
    assert {field: found[field] for field in wanted} == wanted
    assert (found["payload"], found["event_receiver_id"]) == ({"n": 1}, receiver)


def test_extension_attributes_name_everything(http: httpx2.Client, receiver: str) -> None:
    given = {"xzname": "n", "xzversion": "v", "xzrelease": "r", "xzplatformid": "p", "xzpackage": "k", "xzsuccess": False, "xzreceiverid": receiver}
    answer = post_cloud(http, source="/extensions", subject=..., **given)
    found = http.get(answer.headers["location"]).json()
    assert [found[field] for field in ("name", "version", "release", "platform_id", "package")] == ["n", "v", "r", "p", "k"]
    assert found["success"] is False


def test_binary_mode_is_the_same_event(http: httpx2.Client, receiver: str) -> None:
    headers = {
        "Content-Type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": "%C3%BC",
        "ce-source": "/binary",
        "ce-type": "t",
        "ce-subject": "api/1/2/3/4",
        "ce-xzreceiverid": receiver,
        "ce-xzsuccess": "false",
    }
    answer = http.post("/api/v1/events", content=b'{"n": 1e0}', headers=headers)
    assert answer.status_code == 201, answer.text
    found = http.get(answer.headers["location"])
    assert '"payload":{"n":1e0}' in found.text
    assert found.json()["success"] is False
    again = post_cloud(http, id="ü", source="/binary", subject="api/1/2/3/4", xzreceiverid=receiver, xzsuccess="false", data=...)
    assert again.status_code == 409, "without its data it is another event"


def test_source_and_id_are_the_key(http: httpx2.Client, receiver: str) -> None:
    first = post_cloud(http, source="/key", xzreceiverid=receiver)
    again = post_cloud(http, source="/key", xzreceiverid=receiver, traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert post_cloud(http, source="/key", xzreceiverid=receiver, data={"n": 2}).status_code == 409
    assert post_cloud(http, source="/key", id="2", xzreceiverid=receiver).json() != first.json()


def test_a_repetition_counts_also_when_the_receiver_has_changed(http: httpx2.Client, receiver: str) -> None:
    first = post_cloud(http, source="/changed", xzreceiverid=receiver)
    http.put(f"/api/v1/receivers/{receiver}", json={"schema": {"required": ["other"]}})
    assert post_cloud(http, source="/changed", xzreceiverid=receiver).json() == first.json()
    assert post_cloud(http, source="/changed", id="2", xzreceiverid=receiver).status_code == 422


def test_a_batch_of_cloudevents_is_stored_whole(http: httpx2.Client, receiver: str) -> None:
    events = [cloud(id=str(number), source=f"/batch/{receiver}", xzreceiverid=receiver) for number in (1, 2, 1)]
    answer = http.post("/api/v1/events", content=json.dumps(events), headers=BATCHED)
    assert answer.status_code == 201, answer.text
    ids = answer.json()["data"]
    assert ids[0] == ids[2] != ids[1]
    again = http.post(
        "/api/v1/events", content=json.dumps([*events, cloud(id="3", source=f"/batch/{receiver}", xzreceiverid=receiver)]), headers=BATCHED
    )
    assert again.json()["data"][:3] == ids
    other = cloud(id="1", source=f"/batch/{receiver}", xzreceiverid=receiver, data={"n": 2})
    conflict = http.post("/api/v1/events", content=json.dumps([cloud(id="9", source="/x", xzreceiverid=receiver), other]), headers=BATCHED)
    assert faults(conflict, 409, "conflict") == {"/1"}
    twice = http.post("/api/v1/events", content=json.dumps([events[1] | {"id": "8"}, events[1] | {"id": "8", "data": {"n": 3}}]), headers=BATCHED)
    assert faults(twice, 409, "conflict") == {"/1"}


def test_base64_and_missing_data(http: httpx2.Client, receiver: str) -> None:
    encoded = base64.b64encode(b'{"n":5}').decode()
    answer = post_cloud(http, source="/base64", xzreceiverid=receiver, data=..., data_base64=encoded)
    assert http.get(answer.headers["location"]).json()["payload"] == {"n": 5}
    assert faults(post_cloud(http, source="/b", xzreceiverid=receiver, data=..., data_base64="%"), 400, "invalid_input") == {"/data_base64"}
    assert faults(post_cloud(http, source="/b", xzreceiverid=receiver, data_base64=encoded), 400, "invalid_input") == {"/data_base64"}
    anything = make_receiver(http)
    answer = post_cloud(http, source="/none", xzreceiverid=anything, data=...)
    assert http.get(answer.headers["location"]).json()["payload"] is None


def test_cdevents_are_mapped_by_their_package_url_and_outcome(http: httpx2.Client) -> None:
    kind = f"dev.cdevents.testsuiterun.finished.{id(http)}"
    make_receiver(http, type=kind)
    subject = "pkg:oci/acme/my%20app@sha256:244fd47?arch=amd64&release=7"
    data = {"subject": {"id": subject, "content": {"outcome": "fail"}}}
    answer = post_cloud(http, source="/cdevents", type=kind, subject=subject, data=data)
    found = http.get(answer.headers["location"]).json()
    assert [found[field] for field in ("name", "version", "release", "platform_id", "package")] == [
        "acme/my app",
        "sha256:244fd47",
        "7",
        "amd64",
        "oci",
    ]
    assert found["success"] is False
    assert faults(post_cloud(http, source="/cdevents", id="2", type=kind, subject="pkg:oci/acme"), 400, "invalid_input") == {"/subject"}


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"specversion": "0.3"}, {"/specversion"}),
        ({"specversion": ..., "id": "", "source": ...}, {"/specversion", "/id", "/source"}),
        ({"id": {"a": 1}}, {"/id"}),
        ({"subject": "api/1/2/3"}, {"/subject"}),
        ({"subject": "api/1/2/%20/4"}, {"/subject"}),
        ({"subject": ...}, {"/subject"}),
        ({"xzsuccess": "perhaps"}, {"/xzsuccess"}),
        ({"xzname": ""}, {"/xzname"}),
        ({"Upper": "x"}, {"/Upper"}),
        ({"type": "nobody has this type"}, {"/type"}),
        ({"xzdescription": "x" * 5001}, {"/xzdescription"}),
    ],
)
def test_faults_name_the_attribute(http: httpx2.Client, receiver: str, changes: dict[str, Any], pointers: set[str]) -> None:
    named = {} if "type" in changes else {"xzreceiverid": receiver}
    answer = post_cloud(http, **{"source": "/faults", **named, **changes})
    assert {fault["pointer"] for fault in answer.json()["errors"]} == pointers, answer.text
    assert answer.status_code == 400


def test_other_media_types_are_refused(http: httpx2.Client, receiver: str) -> None:
    assert post_cloud(http, source="/m", xzreceiverid=receiver, datacontenttype="application/xml").status_code == 415
    headers = {"Content-Type": "application/xml", "ce-specversion": "1.0", "ce-id": "1", "ce-source": "/m", "ce-type": "t"}
    assert http.post("/api/v1/events", content=b"<a/>", headers=headers).status_code == 415
    answer = http.post("/api/v1/events", content=b"{}", headers={"Content-Type": "application/json", "ce-specversion": "1.0"})
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {"ce-id", "ce-source", "ce-type"}
