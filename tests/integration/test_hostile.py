"""A hostile corpus of our own against a whole installation, and what looks hostile but is legal.

Each hostile request has one defined answer: the status, the code, and the place of every fault. It stores nothing, and the server is well afterwards
(the fixture `target` looks after each test). What is legal comes back byte for byte, over REST and in the stream's envelope.
"""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import pytest

from support.cast import created, event, make_group, make_receiver
from support.raw_stream import envelopes

JSON = {"Content-Type": "application/json"}
# A body has one level of its own around the payload.
PAYLOAD_DEPTH_MAX = 127
TOO_LARGE = 2 << 20


class Target:
    """An event receiver that nothing may be stored under."""

    def __init__(self, http: httpx2.Client) -> None:
        self.http = http
        self.receiver_id = make_receiver(http)

    def body(self, payload: str = '{"a":1}', **fields: Any) -> str:
        """An event as text, its payload as given."""
        whole = json.dumps(event(self.receiver_id, **fields), ensure_ascii=False, separators=(",", ":"))
        return whole.replace('"payload":{}', f'"payload":{payload}')

    def post(self, content: bytes | str, headers: dict[str, str] | None = None) -> httpx2.Response:
        raw = content.encode() if isinstance(content, str) else content
        return self.http.post("/api/v1/events", content=raw, headers=JSON if headers is None else headers)

    def malformed(self, content: bytes | str, *pointers: str) -> None:
        refused(self.post(content), 400, "malformed_body", *pointers)


@pytest.fixture
def target(http: httpx2.Client) -> Iterator[Target]:
    aimed_at = Target(http)
    yield aimed_at
    assert http.get("/api/v1/events", params={"event_receiver_id": aimed_at.receiver_id}).json()["data"] == []
    health = http.get("/health")
    assert (health.status_code, health.json()["components"]["database"]) == (200, "healthy")


def refused(answer: httpx2.Response, status: int, code: str, *pointers: str) -> None:
    """A problem with this code and faults at exactly these places."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text[:500]}"
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["error"]) == (status, code), problem
    assert sorted(fault["pointer"] for fault in problem.get("errors", [])) == sorted(pointers), problem
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert len(answer.content) < 64 * 1024, "a refusal does not send the hostile body back"


# JSON that is none, or would not survive.


def test_an_event_cut_anywhere_is_malformed(target: Target) -> None:
    whole = target.body('{"a":[1,{"b":"é\\n"},true,null,-1.5e3]}').encode()
    for place in range(len(whole)):
        target.malformed(whole[:place], "")
    for place in range(1, len(whole)):
        target.malformed(whole[place:], "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b"nul",
        b"{]",
        b'{"a":1,}',
        b"[1,]",
        b'{"a" 1}',
        b"{'a':1}",
        b"{a:1}",
        b"{}{}",
        b"{} x",
        b"// c\n{}",
        b"\x00",
        b"\xff" * 1000,
    ],
)
def test_text_that_is_no_json_is_malformed(target: Target, content: bytes) -> None:
    target.malformed(content, "")


@pytest.mark.parametrize("content", [b"null", b"true", b"1", b'"x"', b"[]", b"[{}]"])
def test_json_that_is_no_object_is_one_fault_at_the_root(target: Target, content: bytes) -> None:
    refused(target.post(content), 400, "invalid_input", "")


@pytest.mark.parametrize(
    "hostile",
    [
        b"\xff",
        b"\x80",
        b"\xc3",
        b"\xc0\xaf",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfe\xff",
    ],
    ids=lambda hostile: hostile.hex(),
)
@pytest.mark.parametrize("place", ['{"a":"HERE"}', '{"HERE":1}', '{"a":HERE}'])
def test_invalid_utf8_is_malformed_wherever_it_stands(target: Target, hostile: bytes, place: str) -> None:
    target.malformed(target.body(place).encode().replace(b"HERE", hostile), "")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_another_encoding_is_malformed(target: Target, encoding: str) -> None:
    target.malformed(target.body('{"a":"é"}').encode(encoding), "")


@pytest.mark.parametrize(
    "half", ["\\ud800", "\\uD800", "\\udbff", "\\udc00", "\\uDFFF", "\\udc00\\ud800", "\\ud800\\ud800", "\\ud800x", "x\\\\\\ud800"]
)
def test_lone_surrogates_are_told_with_their_places(target: Target, half: str) -> None:
    target.malformed(target.body(f'{{"a":"{half}"}}'), "/payload/a")
    target.malformed(target.body(f'{{"l":[1,2,{{"d":"{half}"}}]}}'), "/payload/l/2/d")
    target.malformed(target.body(description="HERE").replace("HERE", half), "/description")
    answer = target.post(target.body(f'{{"{half}":1}}'))
    refused(answer, 400, "malformed_body", answer.json()["errors"][0]["pointer"])
    assert answer.json()["errors"][0]["pointer"].startswith("/payload/")


@pytest.mark.parametrize("escape", ["\\u0000", "a\\u0000", "\\u0000b", "\\\\\\u0000"])
def test_escaped_nul_is_told_with_its_place(target: Target, escape: str) -> None:
    target.malformed(target.body(f'{{"a":"{escape}","b":["{escape}"]}}'), "/payload/a", "/payload/b/0")
    for field in ("name", "version", "release", "platform_id", "package", "description"):
        target.malformed(target.body(**{field: "HERE"}).replace("HERE", escape), f"/{field}")


def test_nul_in_the_name_of_a_member_is_told(target: Target) -> None:
    target.malformed(target.body('{"a\\u0000":1}'), "/payload/a\ufffd")


@pytest.mark.parametrize("raw", [b"\x00", b"\x01", b"\x1f", b"\n", b"\t", b"\r"], ids=lambda raw: raw.hex())
def test_raw_control_characters_in_a_string_are_malformed(target: Target, raw: bytes) -> None:
    target.malformed(target.body('{"a":"HERE"}').encode().replace(b"HERE", raw), "")
    target.malformed(target.body('{"HERE":1}').encode().replace(b"HERE", raw), "")


@pytest.mark.parametrize("depth", [PAYLOAD_DEPTH_MAX + 1, 20_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_too_deep_is_malformed(target: Target, depth: int, opening: str, closing: str) -> None:
    times = -(-depth // (2 if len(closing) == 2 else 1))
    target.malformed(target.body(opening * times + "1" + closing * times), "")
    # Never closed: as deep, and no JSON either.
    target.malformed(target.body(opening * times), "")


def test_only_brackets_at_the_root_are_malformed(target: Target) -> None:
    for bracket in (b"[", b"{", b'{"a":', b"]"):
        target.malformed(bracket * 20_000, "")


@pytest.mark.parametrize(
    "number", ["1e400", "-1e400", "1E+309", "1.5e99999999999", "9" * 1001, "-" + "1" * 1001, "1" * 100_000, "NaN", "Infinity", "-Infinity"]
)
def test_number_that_would_not_survive_is_told_with_its_place(target: Target, number: str) -> None:
    target.malformed(target.body(f'{{"n":{number}}}'), "/payload/n")
    target.malformed(target.body(f'{{"l":[0,{{"n":{number}}}]}}'), "/payload/l/1/n")
    target.malformed(target.body(number), "/payload")


@pytest.mark.parametrize("number", ["01", "-01", "1.", ".5", "+1", "0x1", "1e", "1e+", "--1", "-", "1_000", "1,5", "\u0661", "nan", "inf"])
def test_number_that_is_none_is_malformed(target: Target, number: str) -> None:
    target.malformed(target.body(f'{{"n":{number}}}'), "")


def test_duplicate_members_are_told_at_every_depth(target: Target) -> None:
    target.malformed(target.body('{"a":1,"a":1}'), "/payload/a")
    target.malformed(target.body('{"a":1,"b":2,"a":3,"b":4,"a":5}'), "/payload/a", "/payload/a", "/payload/b")
    target.malformed(target.body('{"a":[0,{"b":{"c":1,"c":2}}]}'), "/payload/a/1/b/c")
    target.malformed(target.body('{"":1,"":2}'), "/payload/")
    target.malformed(target.body('{"a/b~":1,"a/b~":2}'), "/payload/a~1b~0")
    target.malformed(target.body("[" * 120 + '{"x":1,"x":1}' + "]" * 120), "/payload" + "/0" * 120 + "/x")


def test_members_that_differ_in_their_escapes_alone_are_duplicates(target: Target) -> None:
    target.malformed(target.body('{"a":1,"\\u0061":2}'), "/payload/a")
    target.malformed(target.body('{"é":1,"\\u00e9":2}'), "/payload/é")


def test_each_field_twice_is_told(target: Target) -> None:
    whole = target.body()
    for field in json.loads(whole):
        target.malformed(whole[:-1] + f',"{field}":null}}', f"/{field}")


def test_many_faults_are_told_up_to_a_bound(target: Target) -> None:
    answer = target.post(target.body("{" + ",".join('"a":1e999' for _ in range(10_000)) + "}"))
    assert answer.status_code == 400
    assert len(answer.json()["errors"]) == 50


# Bounds and types.


@pytest.mark.parametrize("field", ["name", "version", "release", "platform_id", "package"])
@pytest.mark.parametrize(
    "text", ["", " ", "\t\n", "\u2003\u00a0", "v" * 256, "😀" * 256, "x" * 500_000], ids=lambda text: f"{text[:2]!r}x{len(text)}"
)
def test_text_field_is_neither_blank_nor_longer_than_255(target: Target, field: str, text: str) -> None:
    refused(target.post(target.body(**{field: text})), 400, "invalid_input", f"/{field}")


def test_description_is_bounded(target: Target) -> None:
    refused(target.post(target.body(description="d" * 5001)), 400, "invalid_input", "/description")
    refused(target.post(target.body(description="😀" * 5001)), 400, "invalid_input", "/description")


def test_huge_body_is_too_large_whatever_it_holds(target: Target) -> None:
    for content in (target.body(f'"{"x" * TOO_LARGE}"').encode(), b"[" * TOO_LARGE, b" " * TOO_LARGE, b"\xff" * TOO_LARGE, b"9" * TOO_LARGE):
        refused(target.post(content), 413, "body_too_large")


WRONG_TYPES: dict[str, list[Any]] = {
    "name": [None, 1, 1.5, True, [], {}, ["api"]],
    "version": [None, 1, [], {}],
    "release": [None, 1, [], {}],
    "platform_id": [None, 1, [], {}],
    "package": [None, 1, [], {}],
    "description": [None, 1, [], {}],
    "success": [None, 0, 1, "true", "", [], {}],
    "event_receiver_id": [None, 1, True, [], {}],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG_TYPES.items() for value in values])
def test_field_of_another_type_is_told(target: Target, field: str, value: Any) -> None:
    refused(target.post(target.body(**{field: value})), 400, "invalid_input", f"/{field}")


def test_missing_fields_are_all_told(target: Target) -> None:
    needed = [f"/{field}" for field in event("x") if field != "description"]
    refused(target.post("{}"), 400, "invalid_input", *needed)
    for field in event("x"):
        whole = json.loads(target.body())
        if field != "description":
            del whole[field]
            refused(target.post(json.dumps(whole)), 400, "invalid_input", f"/{field}")


@pytest.mark.parametrize("name", ["id", "owner_id", "Name", "name ", "", "__proto__", "a/b", "a~b", "x" * 1000, "😀"])
def test_unknown_field_is_told(target: Target, name: str) -> None:
    pointer = "/" + name[:80].replace("~", "~0").replace("/", "~1")
    refused(target.post(target.body(**{name: 1})), 400, "invalid_input", pointer)


def test_every_fault_of_a_body_is_told_at_once(target: Target) -> None:
    whole = {"name": " ", "version": "v" * 256, "release": 7, "packag": "oci", "payload": {}, "success": "yes", "event_receiver_id": None}
    pointers = ["/name", "/version", "/release", "/platform_id", "/package", "/packag", "/success", "/event_receiver_id"]
    refused(target.post(json.dumps(whole)), 400, "invalid_input", *pointers)


WRONG_RECEIVERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"name": ""}, ["/name"]),
    ({"type": "t" * 256}, ["/type"]),
    ({"version": None}, ["/version"]),
    ({"description": "d" * 5001}, ["/description"]),
    ({"schema": None}, ["/schema"]),
    ({"schema": True}, ["/schema"]),
    ({"schema": []}, ["/schema"]),
    ({"schema": "{}"}, ["/schema"]),
    ({"schema": {"type": "nonsense"}}, ["/schema/type"]),
    ({"schema": {"pattern": "("}}, ["/schema/pattern"]),
    ({"schema": {"pattern": "(?=a)"}}, ["/schema/pattern"]),
    ({"schema": {"$ref": "https://example.com/schema"}}, ["/schema/$ref"]),
    ({"schema": {"$schema": "https://example.com/draft"}}, ["/schema/$schema"]),
    ({"restricted": "yes"}, ["/restricted"]),
    ({"restricted": None}, ["/restricted"]),
    ({"fingerprint": "x"}, ["/fingerprint"]),
    ({"name": 1, "type": 1, "x": 1}, ["/name", "/type", "/x"]),
]


@pytest.mark.parametrize(("fields", "pointers"), WRONG_RECEIVERS, ids=[str(fields)[:60] for fields, _ in WRONG_RECEIVERS])
def test_receiver_that_cannot_be_is_refused_at_its_places(http: httpx2.Client, fields: dict[str, Any], pointers: list[str]) -> None:
    body = {"name": "hostile", "type": "hostile", "version": "1", "schema": {}, **fields}
    refused(http.post("/api/v1/receivers", json=body), 400, "invalid_input", *pointers)
    assert http.get("/api/v1/receivers", params={"version": "1", "type": "hostile"}).json()["data"] == []


WRONG_GROUPS: list[tuple[dict[str, Any], list[str]]] = [
    ({"name": " "}, ["/name"]),
    ({"type": 1}, ["/type"]),
    ({"enabled": "true"}, ["/enabled"]),
    ({"enabled": None}, ["/enabled"]),
    ({"event_receiver_ids": []}, ["/event_receiver_ids"]),
    ({"event_receiver_ids": None}, ["/event_receiver_ids"]),
    ({"event_receiver_ids": "x"}, ["/event_receiver_ids"]),
    ({"event_receiver_ids": {}}, ["/event_receiver_ids"]),
    ({"event_receiver_ids": [1, None]}, ["/event_receiver_ids/0", "/event_receiver_ids/1"]),
    ({"event_receiver_ids": ["x", "01ARZ3NDEKTSV4RRFFQ69G5FAV "]}, ["/event_receiver_ids/0", "/event_receiver_ids/1"]),
    ({"event_receiver_ids": ["01ARZ3NDEKTSV4RRFFQ69G5FAV"]}, ["/event_receiver_ids/0"]),
    ({"event_receiver_ids": ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "01arz3ndektsv4rrffq69g5fav"]}, ["/event_receiver_ids/1"]),
    ({"event_receiver_ids": ["01ARZ3NDEKTSV4RRFFQ69G5FAV"] * 101}, ["/event_receiver_ids"]),
    ({"created_at": "2026-11-25T06:00:00Z"}, ["/created_at"]),
]


@pytest.mark.parametrize(("fields", "pointers"), WRONG_GROUPS, ids=[str(fields)[:60] for fields, _ in WRONG_GROUPS])
def test_group_that_cannot_be_is_refused_at_its_places(http: httpx2.Client, fields: dict[str, Any], pointers: list[str]) -> None:
    body = {"name": "hostile", "type": "hostile", "version": "1", "event_receiver_ids": [make_receiver(http)], **fields}
    refused(http.post("/api/v1/groups", json=body), 400, "invalid_input", *pointers)
    assert http.get("/api/v1/groups", params={"version": "1", "type": "hostile"}).json()["data"] == []


def test_group_that_is_refused_stays_as_it_was(http: httpx2.Client) -> None:
    group_id = make_group(http, [make_receiver(http)])
    before = http.get(f"/api/v1/groups/{group_id}").text
    for body in (
        "",
        "{",
        "[]",
        "{}",
        '{"enabled":null}',
        '{"enabled":"no"}',
        '{"enabled":true,"enabled":false}',
        '{"enabled":true,"x":1}',
        '{"enabled":1}',
    ):
        answer = http.patch(f"/api/v1/groups/{group_id}", content=body.encode(), headers=JSON)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), body
    assert http.get(f"/api/v1/groups/{group_id}").text == before


# Ids and parameters.

WRONG_IDS = [
    "x",
    "01ARZ3NDEKTSV4RRFFQ69G5FA",
    "01ARZ3NDEKTSV4RRFFQ69G5FAVX",
    "81ARZ3NDEKTSV4RRFFQ69G5FAV",
    "01ARZ3NDEKTSV4RRFFQ69G5FAI",
    "01ARZ3NDEKTSV4RRFFQ69G5FAL",
    "01ARZ3NDEKTSV4RRFFQ69G5FAO",
    "01ARZ3NDEKTSV4RRFFQ69G5FAU",
    "\u06601ARZ3NDEKTSV4RRFFQ69G5FAV",
    "01ARZ3NDEKTSV4RRFFQ69G5FA\u017f",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV\n",
    " 01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV\x7f",
    "00000000-0000-0000-0000-000000000000",
    "../../etc/passwd",
    "'; drop table events; --",
    "x" * 5000,
]


@pytest.mark.parametrize("wrong", WRONG_IDS, ids=lambda wrong: repr(wrong[:30]))
def test_id_that_is_none_is_told_wherever_it_stands(target: Target, wrong: str) -> None:
    http = target.http
    for path in ("/api/v1/events/{}", "/api/v1/receivers/{}", "/api/v1/groups/{}"):
        if "/" not in wrong:
            refused(http.get(path.format(quote(wrong, safe=""))), 400, "invalid_id", "id")
    refused(target.post(target.body(event_receiver_id=wrong)), 400, "invalid_id", "/event_receiver_id")
    for path, name in (("groups", "event_receiver_id"), ("groups", "after"), ("receivers", "after"), ("artifacts", "after")):
        refused(http.get(f"/api/v1/{path}?{name}={quote(wrong, safe='')}"), 400, "invalid_id", f"?{name}")


def test_ids_that_are_none_among_the_parameters_of_events_are_all_told(http: httpx2.Client) -> None:
    refused(http.get("/api/v1/events?event_receiver_id=x&after=y"), 400, "invalid_id", "?event_receiver_id", "?after")
    for wrong in WRONG_IDS:
        refused(http.get("/api/v1/events", params={"after": wrong}), 400, "invalid_id", "?after")


def test_id_of_nothing_is_not_found(http: httpx2.Client) -> None:
    for path in ("events", "receivers", "groups"):
        refused(http.get(f"/api/v1/{path}/01ARZ3NDEKTSV4RRFFQ69G5FAV"), 404, "not_found")


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("x=1", ["?x"]),
        ("nam=api", ["?nam"]),
        ("limit=1&limit=2", ["?limit"]),
        ("limit=0", ["?limit"]),
        ("limit=1001", ["?limit"]),
        ("limit=-1", ["?limit"]),
        ("limit=", ["?limit"]),
        ("limit=1e2", ["?limit"]),
        ("limit=1.0", ["?limit"]),
        ("limit=%D9%A1", ["?limit"]),
        ("limit=" + "9" * 10_000, ["?limit"]),
        ("success=maybe", ["?success"]),
        ("success=", ["?success"]),
        ("from=yesterday", ["?from"]),
        ("from=2026-01-01", ["?from"]),
        ("from=2026-01-01T00:00:00", ["?from"]),
        ("from=2026-13-01T00:00:00Z", ["?from"]),
        ("from=2026-01-01T00:00:00%2B25:00", ["?from"]),
        ("to=10000-01-01T00:00:00Z", ["?to"]),
        ("name=%00", ["?name"]),
        ("name=a%00b&version=%00", ["?name", "?version"]),
        ("%00=1", ["?\x00"]),
        ("limit=0&success=2&x=1&limit=3", ["?limit", "?success", "?x", "?limit"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_parameter_that_is_no_good_is_told(http: httpx2.Client, query: str, pointers: list[str]) -> None:
    refused(http.get(f"/api/v1/events?{query}"), 400, "invalid_input", *pointers)


@pytest.mark.parametrize(
    "query", ["name=%ff", "%ff=1", "name=%ed%a0%80", "&".join(f"p{place}=1" for place in range(101))], ids=lambda query: query[:20]
)
def test_query_that_cannot_be_read_is_one_fault(http: httpx2.Client, query: str) -> None:
    refused(http.get(f"/api/v1/events?{query}"), 400, "invalid_input", "?")


def test_time_at_the_ends_of_the_calendar_is_taken(http: httpx2.Client) -> None:
    for moment in ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-14:00"):
        for name in ("from", "to"):
            answer = http.get(f"/api/v1/events?{name}={moment}")
            assert answer.status_code in (200, 400), answer.text


def test_parameters_are_refused_where_none_are_taken(target: Target) -> None:
    answer = target.http.post("/api/v1/events?dry_run=1", content=target.body().encode(), headers=JSON)
    refused(answer, 400, "invalid_input", "?dry_run")
    refused(target.http.get("/health?x=1"), 400, "invalid_input", "?x")


# Media types and encodings.


@pytest.mark.parametrize(
    "media_type",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/jsonx",
        "application/*",
        "*/*",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "application/problem+json",
        "json",
        "é",
        "application/json, text/plain",
    ],
)
def test_body_of_another_type_is_refused(target: Target, media_type: str | None) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type.encode("latin-1")}
    refused(target.http.post("/api/v1/events", content=target.body().encode(), headers=headers), 415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "x-nonsense", "gzip, identity"])
def test_coded_body_is_refused(target: Target, coding: str) -> None:
    refused(target.post(target.body(), {**JSON, "Content-Encoding": coding}), 415, "unsupported_media_type")


# On the wire.


def exchange(http: httpx2.Client, request: bytes, *, end: bool = False) -> bytes:
    """Everything that the server answers on one connection until it closes it, or is silent for a second. end: we close our half first."""
    address = urlsplit(str(http.base_url))
    received = b""
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(request)
        if end:
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while piece := connection.recv(65536):
                received += piece
    return received


def request_of(http: httpx2.Client, headers: list[str], body: bytes) -> bytes:
    host = urlsplit(str(http.base_url)).netloc
    head = ["POST /api/v1/events HTTP/1.1", f"Host: {host}", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(head).encode() + body


def statuses(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


def test_body_longer_than_declared_is_cut_there_and_its_rest_is_no_request(target: Target) -> None:
    body = target.body().encode()
    answers = statuses(exchange(target.http, request_of(target.http, [f"Content-Length: {len(body) - 10}"], body)))
    assert answers[0] == 400
    assert all(400 <= status < 500 for status in answers)


def test_body_shorter_than_declared_is_never_taken(target: Target) -> None:
    body = target.body().encode()
    answers = statuses(exchange(target.http, request_of(target.http, [f"Content-Length: {len(body) + 1}"], body), end=True))
    assert all(400 <= status < 500 for status in answers)


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: -1"],
        ["Content-Length: x"],
        ["Content-Length: 1e3"],
        ["Content-Length: 0x10"],
        ["Content-Length: 99999999999999999999999999"],
        ["Content-Length: 10", "Content-Length: 11"],
        ["Content-Length: 10, 11"],
        ["Content-Length: 10", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip"],
        ["Transfer-Encoding: chunked, gzip"],
        ["Transfer-Encoding: nonsense"],
        ["X-Bad\x00Name: 1", "Content-Length: 0"],
        ["X-Bad: a\x00b", "Content-Length: 0"],
        ["X-Folded: a", " b", "Content-Length: 0"],
        [": no name", "Content-Length: 0"],
    ],
    ids=" ".join,
)
def test_headers_that_lie_about_the_body_are_refused(target: Target, headers: list[str]) -> None:
    answers = statuses(exchange(target.http, request_of(target.http, headers, target.body().encode()), end=True))
    assert answers, "it says why"
    assert all(400 <= status < 500 or status == 501 for status in answers)


@pytest.mark.parametrize(
    "chunks", [b"zz\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n", b"5;" + b"x" * 100_000]
)
def test_chunks_that_are_none_are_refused(target: Target, chunks: bytes) -> None:
    answers = statuses(exchange(target.http, request_of(target.http, ["Transfer-Encoding: chunked"], chunks), end=True))
    assert all(400 <= status < 500 for status in answers)


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def test_chunked_body_that_ends_early_is_never_taken(target: Target) -> None:
    body = target.body().encode()
    answers = statuses(exchange(target.http, request_of(target.http, ["Transfer-Encoding: chunked"], chunked(body, 7)), end=True))
    assert all(400 <= status < 500 for status in answers)


def test_chunked_body_over_the_limit_is_too_large(target: Target) -> None:
    whole = chunked(target.body(f'"{"x" * TOO_LARGE}"').encode(), 60_000) + b"0\r\n\r\n"
    assert statuses(exchange(target.http, request_of(target.http, ["Transfer-Encoding: chunked"], whole)))[:1] == [413]


def test_chunked_body_is_taken_whatever_its_pieces(http: httpx2.Client) -> None:
    aimed_at = Target(http)
    body = aimed_at.body('{"a":"é😀"}').encode()
    for size in (1, 2, 3, 100, 100_000):
        whole = chunked(body, size) + b"0\r\n\r\n"
        assert statuses(exchange(http, request_of(http, ["Transfer-Encoding: chunked", "Connection: close"], whole))) == [201]
    stored = http.get("/api/v1/events", params={"event_receiver_id": aimed_at.receiver_id}).json()["data"]
    assert [event["payload"] for event in stored] == [{"a": "é😀"}] * 5


# What is legal, byte for byte.

LEGAL = {
    "key order": '{"z":1,"a":2,"M":3,"10":4,"9":5,"":6}',
    "numbers as written": "[1e3,1E3,1e+3,1.0,1.10,-0,-0.0,0.0,0e0,5e-324,1.7976931348623157e308,0.1000000000000000055511151231257827]",
    "2^70": "[1180591620717411303424,-1180591620717411303424,18446744073709551616,9223372036854775808,-9223372036854775809]",
    "integer of 1,000 digits": "[" + "9" * 1000 + ",-" + "1" * 1000 + "]",
    "number of 400 digits and a fraction": "1" * 400 + ".5",
    "fraction of 5,000 digits": "0." + "1" * 5000,
    "10,000 fields": "{" + ",".join(f'"field {place}":{place}' for place in range(10_000)) + "}",
    "100,000 items": "[" + ",".join("0" * 1 for _ in range(100_000)) + "]",
    "128 levels of lists": "[" * PAYLOAD_DEPTH_MAX + "]" * PAYLOAD_DEPTH_MAX,
    "128 levels of objects": '{"a":' * (PAYLOAD_DEPTH_MAX - 1) + "{}" + "}" * (PAYLOAD_DEPTH_MAX - 1),
    "brackets in strings": json.dumps({"a": "[" * 20_000, 'b"\\': '{"' * 500, "c": "\\" * 501}, separators=(",", ":")),
    "escapes": r'{"a":"\"\\\/\b\f\n\r\t\u00e9\u00E9\ud83d\ude00\uD83D\uDE00\u2028\u007f\ufffe","\u0061\/":"\u0041"}',
    "escaped backslash before u0000": r'["\\u0000","\\ud800","\\\\u0000"]',
    "characters": '["é😀\u2028\u2029\u0085\u00a0\ufeff\ufffd\U0010ffff","\x7f"]',
    "empty key": '{"":{"":[{"":""}]}}',
    "long string": '"' + "x😀" * 100_000 + '"',
    "spaces in strings": '{" a b ":"  c   d  "}',
    "names that mean something elsewhere": '{"__proto__":1,"constructor":2,"$ref":"#/nowhere","$schema":"x","payload":{},"id":"x"}',
    "null": "null",
    "false": "false",
    "zero": "0",
    "minus zero": "-0",
    "string": '""',
    "empty list": "[]",
    "empty object": "{}",
}


def told(http: httpx2.Client, receiver_id: str, event_id: str) -> bytes:
    return next(body for body in envelopes(http, event_receiver_id=receiver_id) if f'"id":"{event_id}"'.encode() in body)


@pytest.mark.parametrize("payload", LEGAL.values(), ids=LEGAL.keys())
def test_legal_payload_comes_back_byte_for_byte(http: httpx2.Client, payload: str) -> None:
    aimed_at = Target(http)
    event_id = created(aimed_at.post(aimed_at.body(payload)))
    expected = f'"payload":{payload},"success"'.encode()
    assert expected in http.get(f"/api/v1/events/{event_id}").content
    assert expected in http.get("/api/v1/events", params={"event_receiver_id": aimed_at.receiver_id}).content
    assert expected in told(http, aimed_at.receiver_id, event_id)


def test_white_space_outside_strings_is_all_that_is_lost(http: httpx2.Client) -> None:
    aimed_at = Target(http)
    payload = '\r\n{ "b" : [ 1e3 ,\t-0 , { } ] ,\n "a b" : " x\\n " }\n'
    event_id = created(aimed_at.post(aimed_at.body(payload)))
    expected = b'"payload":{"b":[1e3,-0,{}],"a b":" x\\n "},"success"'
    assert expected in http.get(f"/api/v1/events/{event_id}").content
    assert expected in told(http, aimed_at.receiver_id, event_id)


SCHEMAS = {
    "numbers as written": '{"enum":[1e3,1.0,-0,1180591620717411303424,' + "9" * 1000 + '],"maximum":1.50}',
    "key order and escapes": r'{"title":"\u00e9\/😀","properties":{"z":{},"a":{},"":{}},"default":{"b":1,"a":2}}',
    "annotations": '{"x-ours":[[],{},null],"description":"  "}',
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_legal_schema_comes_back_byte_for_byte(http: httpx2.Client, schema: str) -> None:
    body = f'{{"name":"n","type":"t","version":"1","description":"d","schema":{schema}}}'
    receiver_id = created(http.post("/api/v1/receivers", content=body.encode(), headers=JSON))
    expected = f'"schema":{schema},"fingerprint"'.encode()
    assert expected in http.get(f"/api/v1/receivers/{receiver_id}").content
    assert expected in next(envelopes(http, event_receiver_id=receiver_id))


@pytest.mark.parametrize(
    "text",
    ["😀" * 255, "é" * 255, " x ", "a\tb\nc", "\u2028", "\u202e", '"\\/', "\x7f", "\ufffd\uffff", "0", "null"],
    ids=lambda text: repr(text[:5]),
)
def test_text_fields_come_back_as_sent(http: httpx2.Client, text: str) -> None:
    aimed_at = Target(http)
    fields = dict.fromkeys(("name", "version", "release", "platform_id", "package"), text)
    if not text.strip():
        fields = dict.fromkeys(fields, text + "x")
    fields["description"] = text
    event_id = created(aimed_at.post(json.dumps(event(aimed_at.receiver_id, **fields))))
    shown = http.get(f"/api/v1/events/{event_id}").json()
    assert {name: shown[name] for name in fields} == fields
    envelope = json.loads(told(http, aimed_at.receiver_id, event_id))
    assert {name: envelope[name] for name in fields if name != "description"} == {k: v for k, v in fields.items() if k != "description"}
    found = http.get("/api/v1/events", params={name: value for name, value in fields.items() if name != "description"})
    assert event_id in [each["id"] for each in found.json()["data"]]


def test_description_of_5000_characters_comes_back_as_sent(http: httpx2.Client) -> None:
    aimed_at = Target(http)
    event_id = created(aimed_at.post(aimed_at.body(description="😀" * 5000)))
    assert http.get(f"/api/v1/events/{event_id}").json()["description"] == "😀" * 5000
