"""Is an answer one that the OpenAPI document promises, and the one that the request deserves?

Checked: never 5xx; the status is documented for the operation; so is the media type; the body satisfies its schema; headers that the document names are
there and satisfy theirs, and no others come besides those of every answer; a sound request is refused only for what no schema can say; a broken
one always.
"""

import json
import re
from collections import Counter
from typing import Any, Final

import httpx2
import jsonschema_rs

from support.openapi_cases import Case, Json

# On every answer, whatever the operation: the server's own, security, caching.
STANDING: Final = frozenset(
    "date server content-type content-length transfer-encoding connection keep-alive cache-control vary x-accel-buffering x-content-type-options "
    "referrer-policy cross-origin-opener-policy content-security-policy".split()
)
# Faults that no schema can say: whether something is there, what the schema of a receiver in a batch says (alone it is 422), whether an object is a JSON Schema, whether two parameters
# go together, whether a password would be guessed, what the caller may do itself.
_NOT_IN_THE_SCHEMA: Final = re.compile(
    r"(/\d+)?/event_receiver_id|/\d+/payload(/.*)?|/event_receiver_ids/\d+|/user_id|/schema(/.*)?|/password|/scopes/\d+|/expires_at|\?(after|offset|event_receiver_id|owner_id|from|to)"
)


class Answers:
    """Checks against one document, and counts what was seen by operation and status."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._validators: dict[str, jsonschema_rs.Validator] = {}
        self.seen: Counter[tuple[str, int]] = Counter()
        self.sorts: Counter[str] = Counter()

    def check(self, case: Case, answer: httpx2.Response, body: bytes) -> None:
        """Raises AssertionError that shows the request and says what is wrong with its answer."""
        self.seen[case.operation.about["operationId"], answer.status_code] += 1
        self.sorts[f"{case.sort}: {case.what}"] += 1
        try:
            self._check(case, answer, body)
        except (AssertionError, jsonschema_rs.ValidationError, json.JSONDecodeError) as error:
            shown = f"{answer.status_code} {dict(answer.headers)}\n{body[:2000]!r}"
            raise AssertionError(f"{error}\n\nof the request {case}\n\nanswered {shown}") from error

    def envelope(self, body: bytes) -> None:
        """One message of the stream. Raises AssertionError."""
        if message := self.fault_of({"$ref": "#/components/schemas/Envelope"}, json.loads(body)):
            raise AssertionError(f"{message}\n\nof the message {body[:2000]!r}")

    def fault_of(self, schema: Json, value: Any) -> str | None:
        """Why a value does not satisfy a schema of the document; None: it does."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": self._document["components"], "allOf": [schema]}
            self._validators[key] = jsonschema_rs.validator_for(whole, validate_formats=True)
        error = next(iter(self._validators[key].iter_errors(value)), None)
        return None if error is None else f"{'/'.join(map(str, error.instance_path))}: {error.message[:500]}"

    def _check(self, case: Case, answer: httpx2.Response, body: bytes) -> None:
        assert answer.status_code < 500, "a fault of the server"
        if case.method == "OPTIONS":
            assert (answer.status_code, body) == (204, b""), "OPTIONS is 204 without a body"
            self._check_allow(case, answer)
            return
        self._check_documented(case, answer, body)
        if case.sort == "broken":
            wanted = {415} if case.what == "wrong media type" else {400}
            if case.path.rstrip("/").endswith("/batch") and wanted == {400}:
                # A key is looked up before the events are read, and partial tells of each event.
                wanted |= {409} if any(name == "Idempotency-Key" for name, _ in case.headers) else set()
                if answer.status_code == 207:
                    wanted |= {207} if any(item["status"] == 400 for item in json.loads(body)["data"]) else set()
            assert answer.status_code in wanted, f"broken, and not {wanted}"
        if case.sort == "sound" and answer.status_code == 400:
            self._check_refusal(body)

    def _check_documented(self, case: Case, answer: httpx2.Response, body: bytes) -> None:
        promise = self._promise(case, answer.status_code)
        self._check_headers(promise, answer)
        given = dict(case.headers).get("X-Request-ID")
        assert given in (None, answer.headers["x-request-id"]), "the caller's request id is not echoed"
        if case.method == "HEAD":
            assert body == b"", "an answer to HEAD has a body"
            return
        if "content" not in promise:
            assert body == b"", "a body where none is documented"
            return
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        assert media_type in promise["content"], f"{media_type} is not documented here"
        if media_type.endswith("json"):
            fault = self.fault_of(promise["content"][media_type]["schema"], json.loads(body))
            assert fault is None, fault

    def _promise(self, case: Case, status: int) -> Json:
        """What the document says of such an answer."""
        if case.sort == "beside" and case.method != "HEAD":
            assert status == 405, "another method is 405"
            other: Json = self._document["components"]["responses"]["MethodNotAllowed"]
            return other
        documented: dict[str, Json] = case.operation.about["responses"]
        assert str(status) in documented, f"{status} is not documented for {case.operation.about['operationId']}"
        return documented[str(status)]

    def _check_headers(self, promise: Json, answer: httpx2.Response) -> None:
        promised = {name.lower(): self._header(about) for name, about in promise.get("headers", {}).items()}
        for name, about in promised.items():
            if name in answer.headers:
                fault = self.fault_of(about["schema"], answer.headers[name])
                assert fault is None, f"header {name}: {fault}"
            else:
                assert not about.get("required"), f"header {name} is missing"
        unknown = set(answer.headers) - STANDING - set(promised)
        assert not unknown, f"headers that are not documented: {unknown}"

    def _header(self, about: Json) -> Json:
        found: Json = self._document["components"]["headers"][about["$ref"].rpartition("/")[2]] if "$ref" in about else about
        return found

    def _check_allow(self, case: Case, answer: httpx2.Response) -> None:
        listed = {method.upper() for method in self._document["paths"][case.operation.path]}
        allowed = set(answer.headers["allow"].split(", "))
        assert allowed == listed | {"OPTIONS"} | ({"HEAD"} if "GET" in listed else set()), "Allow is not what the document lists"

    def _check_refusal(self, body: bytes) -> None:
        problem = json.loads(body)
        places = [fault["pointer"] for fault in problem.get("errors", [])]
        assert places, "refused without a place"
        unexpected = [place for place in places if _NOT_IN_THE_SCHEMA.fullmatch(place) is None]
        assert not unexpected, f"the document allows it, and it is refused at {unexpected}"
