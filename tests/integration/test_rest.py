"""Receivers, groups and events over HTTP, as a client meets them."""

import json
import re

import httpx2
import pytest

from support.cast import artifact_of, created, event, make_group, make_receiver, post_event

ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, str]:
    """Pointer to message; the rest of the problem is checked here."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["error"], body["message"]) == (status, code, body["detail"])
    assert body["request_id"] == answer.headers["x-request-id"]
    assert {"type", "title", "instance"} <= set(body)
    return {fault["pointer"]: fault["message"] for fault in body.get("errors", [])}


def test_a_receiver_comes_back_as_it_was_sent(http: httpx2.Client) -> None:
    schema = '{"type":"object", "properties": {"b":{"maximum":1e3},"a":{"const":-0.0}} }'
    body = f'{{"name":"scan","type":"artifact.scanned","version":"1.0.0","description":"d","schema":{schema}}}'
    answer = http.post("/api/v1/receivers", content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    receiver_id = created(answer)
    assert ULID.fullmatch(receiver_id)
    assert answer.headers["location"] == f"/api/v1/receivers/{receiver_id}"
    shown = http.get(f"/api/v1/receivers/{receiver_id.lower()}")
    assert '"schema":{"type":"object","properties":{"b":{"maximum":1e3},"a":{"const":-0.0}}}' in shown.text
    assert shown.headers["etag"] == '"1"'
    receiver = shown.json()
    assert list(receiver) == (
        [
            "id",
            "name",
            "type",
            "version",
            "description",
            "schema",
            "fingerprint",
            "restricted",
            "owner_id",
            "resource_version",
            "created_at",
            "updated_at",
        ]
    )
    assert (receiver["restricted"], receiver["owner_id"], receiver["resource_version"]) == (False, None, 1)
    assert TIME.fullmatch(receiver["created_at"])
    assert receiver["created_at"] == receiver["updated_at"]


def test_the_fingerprint_is_eprs(http: httpx2.Client) -> None:
    from hashlib import sha256

    receiver_id = make_receiver(http, name="n", type="t", version="1", description="d")
    expected = sha256(b"v1 t d n 1").hexdigest()
    assert http.get(f"/api/v1/receivers/{receiver_id}").json()["fingerprint"] == expected


def test_an_event_comes_back_as_it_was_sent(http: httpx2.Client) -> None:
    receiver_id = make_receiver(http)
    payload = '{"z":1e3,"a":[1.0,-0,1180591620717411303424,"\\u00e9\\/"],"":{"n":null}}'
    body = json.dumps(event(receiver_id)).replace('"payload": {}', f'"payload": {payload.replace(",", " , ")}')
    answer = http.post("/api/v1/events", content=body, headers={"Content-Type": "application/json"})
    event_id = created(answer)
    assert answer.headers["location"] == f"/api/v1/events/{event_id}"
    shown = http.get(f"/api/v1/events/{event_id}")
    assert f'"payload":{payload}' in shown.text
    stored = shown.json()
    assert list(stored) == [
        "id",
        "seq",
        "name",
        "version",
        "release",
        "platform_id",
        "package",
        "description",
        "payload",
        "success",
        "event_receiver_id",
        "event_receiver_version",
        "owner_id",
        "created_at",
    ]
    assert stored["seq"] > 10**12
    assert stored["created_at"].endswith("000Z")
    assert TIME.fullmatch(stored["created_at"])


def test_all_faults_of_an_event_are_told_at_once(http: httpx2.Client) -> None:
    body = {"name": " ", "version": "v" * 256, "release": 7, "packag": "oci", "payload": {}, "success": "yes", "event_receiver_id": "x"}
    faults = problem(http.post("/api/v1/events", json=body), 400, "invalid_input")
    assert set(faults) == {"/name", "/version", "/release", "/platform_id", "/package", "/packag", "/success"}
    assert "blank" in faults["/name"]
    assert "255" in faults["/version"]
    assert "package" in faults["/packag"]


def test_an_unknown_receiver_is_named(http: httpx2.Client) -> None:
    assert set(problem(http.post("/api/v1/events", json=event("01ARZ3NDEKTSV4RRFFQ69G5FAV")), 400, "invalid_input")) == {"/event_receiver_id"}
    assert set(problem(http.post("/api/v1/events", json=event("nonsense")), 400, "invalid_id")) == {"/event_receiver_id"}


def test_a_payload_that_does_not_fit_is_refused_with_a_pointer_per_fault(http: httpx2.Client) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "t": {"format": "date-time"}}, "required": ["b"]}
    receiver_id = make_receiver(http, schema=schema)
    answer = http.post("/api/v1/events", json=event(receiver_id, payload={"a": "x", "t": "yesterday"}))
    assert set(problem(answer, 422, "payload_mismatch")) == {"/payload", "/payload/a", "/payload/t"}
    assert http.get("/api/v1/events", params={"event_receiver_id": receiver_id}).json()["data"] == []


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "strin"}, "/schema/type"),
        ({"$ref": "https://example.com/schema.json"}, "/schema/$ref"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "/schema/properties/a/$ref"),
        ({"properties": {"a": {"pattern": "(?=x)y"}}}, "/schema/properties/a/pattern"),
        ({"pattern": "(a{200}){200}b"}, "/schema/pattern"),
        ({"$schema": "https://example.com/draft"}, "/schema/$schema"),
        ([], "/schema"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_at_its_place(http: httpx2.Client, schema: object, pointer: str) -> None:
    body = {"name": "n", "type": "t", "version": "1", "schema": schema}
    assert set(problem(http.post("/api/v1/receivers", json=body), 400, "invalid_input")) == {pointer}


def test_a_group_names_each_receiver_it_cannot_have(http: httpx2.Client) -> None:
    receiver_id = make_receiver(http)
    body = {"name": "g", "type": "g", "version": "1", "event_receiver_ids": ["x", receiver_id, receiver_id]}
    assert set(problem(http.post("/api/v1/groups", json=body), 400, "invalid_input")) == {"/event_receiver_ids/0", "/event_receiver_ids/2"}
    body["event_receiver_ids"] = [receiver_id, "01ARZ3NDEKTSV4RRFFQ69G5FAV"]
    assert set(problem(http.post("/api/v1/groups", json=body), 400, "invalid_input")) == {"/event_receiver_ids/1"}
    body["event_receiver_ids"] = []
    assert set(problem(http.post("/api/v1/groups", json=body), 400, "invalid_input")) == {"/event_receiver_ids"}


def test_enabling_a_group_makes_a_version_only_when_it_changes_something(http: httpx2.Client) -> None:
    group_id = make_group(http, [make_receiver(http)])
    assert http.get(f"/api/v1/groups/{group_id}").json()["enabled"] is True
    changed = http.patch(f"/api/v1/groups/{group_id}", json={"enabled": False})
    assert (changed.status_code, changed.json()["enabled"], changed.headers["etag"]) == (200, False, '"2"')
    again = http.patch(f"/api/v1/groups/{group_id}", json={"enabled": False})
    assert again.json()["resource_version"] == 2
    assert set(problem(http.patch(f"/api/v1/groups/{group_id}", json={"enable": True}), 400, "invalid_input")) == {"/enabled", "/enable"}


def test_what_is_not_there_is_not_found(http: httpx2.Client) -> None:
    for path in ("events", "receivers", "groups"):
        problem(http.get(f"/api/v1/{path}/01ARZ3NDEKTSV4RRFFQ69G5FAV"), 404, "not_found")
        problem(http.get(f"/api/v1/{path}/nonsense"), 400, "invalid_id")
    problem(http.patch("/api/v1/groups/01ARZ3NDEKTSV4RRFFQ69G5FAV", json={"enabled": True}), 404, "not_found")
    problem(http.get("/api/v1/nonsense"), 404, "not_found")


def test_lists_go_page_by_page_without_gap_or_repetition(http: httpx2.Client) -> None:
    receiver_id = make_receiver(http, name="paged")
    posted = [post_event(http, receiver_id, version=str(number)) for number in range(7)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = http.get("/api/v1/events", params={"event_receiver_id": receiver_id, "limit": 3, **after}).json()
        seen += [row["id"] for row in page["data"]]
        if not page["pagination"]["has_more"]:
            assert page["pagination"] == {"limit": 3, "next": None, "has_more": False}
            break
        after = {"after": page["pagination"]["next"]}
    assert seen == posted[::-1]


def test_each_filter_of_events_compares_exactly(http: httpx2.Client) -> None:
    receiver_id = make_receiver(http, name="filtered")
    other = {"name": "Ünï", "version": "2", "release": "x", "platform_id": "arm", "package": "deb", "success": False}
    post_event(http, receiver_id, name="filter-me")
    wanted = post_event(http, receiver_id, **other)
    for key, value in other.items():
        answer = http.get("/api/v1/events", params={"event_receiver_id": receiver_id, key: str(value).lower() if key == "success" else value})
        assert [row["id"] for row in answer.json()["data"]] == [wanted], key
    assert [row["id"] for row in http.get("/api/v1/events", params=artifact_of(other)).json()["data"]] == [wanted]
    moment = http.get(f"/api/v1/events/{wanted}").json()["created_at"]
    at = {"event_receiver_id": receiver_id, "name": other["name"]}
    assert len(http.get("/api/v1/events", params={**at, "from": moment}).json()["data"]) == 1
    assert http.get("/api/v1/events", params={**at, "to": moment}).json()["data"] == []


def test_receivers_and_groups_are_listed_by_their_filters(http: httpx2.Client) -> None:
    receiver_id = make_receiver(http, name="listed", type="listed.type", version="9")
    fingerprint = http.get(f"/api/v1/receivers/{receiver_id}").json()["fingerprint"]
    for filters in ({"name": "listed"}, {"type": "listed.type"}, {"version": "9"}, {"fingerprint": fingerprint}):
        assert [row["id"] for row in http.get("/api/v1/receivers", params=filters).json()["data"]] == [receiver_id]
    group_id = make_group(http, [receiver_id], name="listed", enabled=False)
    for filters in ({"name": "listed"}, {"event_receiver_id": receiver_id}, {"event_receiver_id": receiver_id, "enabled": "false"}):
        assert [row["id"] for row in http.get("/api/v1/groups", params=filters).json()["data"]] == [group_id]
    assert http.get("/api/v1/groups", params={"event_receiver_id": receiver_id, "enabled": "true"}).json()["data"] == []


def test_unknown_and_wrong_parameters_are_told_at_once(http: httpx2.Client) -> None:
    faults = problem(http.get("/api/v1/events?limit=0&nam=x&success=perhaps&from=yesterday&after=1"), 400, "invalid_input")
    assert set(faults) == {"?limit", "?nam", "?success", "?from", "?after"}
    assert set(problem(http.get("/api/v1/events?after=1"), 400, "invalid_id")) == {"?after"}
    assert set(problem(http.get("/api/v1/status?x=1"), 400, "invalid_input")) == {"?x"}


def test_a_trailing_slash_equals_none(http: httpx2.Client) -> None:
    assert http.get("/api/v1/status/").json() == http.get("/api/v1/status").json()
    assert created(http.post("/api/v1/receivers/", json={"name": "n", "type": "t", "version": "1", "schema": {}}))


def test_the_contract_is_also_served_under_its_lasting_name(http: httpx2.Client) -> None:
    receiver_id = make_receiver(http)
    assert http.get(f"/xzepr/api/v1/receivers/{receiver_id}").json()["id"] == receiver_id


def test_other_methods_are_refused_with_what_is_allowed(http: httpx2.Client) -> None:
    answer = http.put("/api/v1/events", json={})
    problem(answer, 405, "method_not_allowed")
    assert {"GET", "HEAD", "POST"} <= set(answer.headers["allow"].split(", "))
    head = http.head("/health")
    assert (head.status_code, head.text) == (200, "")


def test_bodies_are_bounded_and_must_be_json(http: httpx2.Client) -> None:
    problem(http.post("/api/v1/events", content=b"x" * (1_048_576 + 1), headers={"Content-Type": "application/json"}), 413, "body_too_large")
    problem(http.post("/api/v1/events", content=b"{}", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")
    problem(http.post("/api/v1/events", content=b"", headers={"Content-Type": "application/json"}), 400, "malformed_body")

    def endless():
        for _ in range(40):
            yield b" " * 65_536

    problem(http.post("/api/v1/events", content=endless(), headers={"Content-Type": "application/json"}), 413, "body_too_large")


def test_a_page_of_another_origin_may_not_post(http: httpx2.Client) -> None:
    body = {"name": "n", "type": "t", "version": "1", "schema": {}}
    problem(http.post("/api/v1/receivers", json=body, headers={"Origin": "https://evil.example"}), 403, "foreign_origin")
    problem(http.post("/api/v1/receivers", json=body, headers={"Sec-Fetch-Site": "cross-site"}), 403, "foreign_origin")
    problem(http.get("/health", headers={"Host": "evil.example"}), 400, "unknown_host")


def test_a_proxy_on_this_machine_does_not_make_the_world_local(http: httpx2.Client) -> None:
    answer = http.get("/api/v1/events", headers={"X-Forwarded-For": "203.0.113.7"})
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"]


def test_health_names_its_parts(http: httpx2.Client) -> None:
    health = http.get("/health").json()
    assert (health["status"], health["service"]) == ("healthy", "xzepr")
    assert health["components"] == {
        "database": "healthy",
        "migrations": "healthy",
        "relay": "healthy",
        "kafka": "disabled",
        "redis": "disabled",
        "oidc": "disabled",
    }
    assert http.get("/health/live").status_code == http.get("/health/ready").status_code == 200


def test_the_api_pages_come_from_this_server_alone(http: httpx2.Client) -> None:
    page = http.get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page.text)
    for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        assert http.get(path).status_code == 200, path
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "/api/v1/groups/{id}/status" in document["paths"]
