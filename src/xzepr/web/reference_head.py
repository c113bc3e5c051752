"""The part of docs/reference/api.md that people write: the rules of every route, and what to do about each problem."""

from typing import Final

HEAD: Final = """\
# REST API

This page is written from the code by `make reference`. A running server has the same as an OpenAPI 3.1 document at `/openapi.json`, with pages to
try it at `/docs`; `xzepr openapi` prints the document. Words are those of the [glossary](../glossary.md).

```sh
XZEPR_URL=${{XZEPR_URL:-http://127.0.0.1:8042}}
curl -sf "$XZEPR_URL/api/v1/status"
XZEPR_API_KEY=${{XZEPR_API_KEY:-$(xzepr api-key create --name "looking around" --scope receiver:read --expires-in 1h)}}
curl -sf -H "X-API-Key: $XZEPR_API_KEY" "$XZEPR_URL/api/v1/receivers?type=dev.cdevents.artifact.signed&limit=1"
```

## Rules for every route

**Addresses.** Everything below `/api/v1` is also at `/xzepr/api/v1`. A trailing slash makes no difference and no redirect. `HEAD` works where `GET`
does, `OPTIONS` everywhere; another method is 405 with `Allow`. An unknown query parameter is 400.

**Who may call.** A route names the permission it needs, or is public. A request shows one credential: `Authorization: Bearer` with the token of a
login or of a [trusted issuer](../how_to/ci_without_secrets.md), or `X-API-Key` with an [API key](../how_to/api_keys_for_ci.md). One that does not
count is 401, never nobody. A caller without any has the roles of `auth.anonymous_roles`, none unless set; see
[Settings](../explanations/settings.md#who-may-call-what).

{roles}

**Bodies** are JSON in UTF-8, `Content-Type: application/json`, at most `security.validation.max_body_size` bytes (1 MiB unless set), and must have
arrived within `server.request_timeout_seconds`. A field that the route does not know is 400 and named. JSON that could not be given back as it was
sent is 400: duplicate members, NUL (`\\u0000`), lone surrogates, invalid UTF-8, numbers beyond a double's range written with an exponent, integers of
more than 1,000 digits, more than 128 levels. All else in a `payload` or `schema` comes back exactly as sent, less the white space outside of
texts.

**Heads.** The request line and the headers have at most 64 KiB, and 100 lines (431 `headers_too_large`), and must have arrived 15 seconds after the
first of them, or after the beginning of the connection (408). Both close the connection. Headers behind a body in chunks are ignored.

**Ids** are ULIDs: 26 characters of 0-9 and A-Z without I, L, O, U. Lower case is accepted; anything else is 400 `invalid_id`.

**Times** are RFC 3339 in UTC with `Z` and six digits of a second: `2026-11-25T08:00:00.123000Z`. In a query any zone may stand.

**Lists** are `{{"data": […], "pagination": {{"limit", "next", "has_more"}}}}`, newest first, at most `limit` (1 to 1000, default 50) at a time. While
`has_more` is true, ask again with `after=` the value of `next`. A page may be short, even empty, while `has_more` is true: one request looks at a
bounded number of rows, and a page ends with the row by which its payloads, schemas and descriptions come to 8 MiB. Receivers and groups also take
`offset`, and then tell `offset` and `total`; go on at `offset` plus the number of rows that came. Filters compare exactly; several all have to match;
`from` is inclusive, `to` exclusive, both on `created_at`.

**Changing.** Receivers and groups carry a `resource_version`, which is also their `ETag`. Send it as `If-Match` with a change, and the change is
refused with 412 when somebody else was faster. Events never change.

**Trying again.** A `POST` that creates takes an `Idempotency-Key` of your own. The same key with the same body (byte for byte) within 24 hours
gives the first answer again and makes nothing new, also in another process and after a crash; the same key with another body is 409. While the
first request is still under way a second one waits for its answer. Only answers of success are remembered; of the events that a batch with
`partial=true` refused only codes and places.

**Request ids.** Every answer has `X-Request-ID`: yours when you sent a short printable one, else one of ours. It stands in the server's log lines.
A `traceparent` is kept with the event.

**Problems.** Every refusal is `application/problem+json` (RFC 9457):

```json
{{
  "type": "/docs/problems#invalid_input",
  "title": "The input is not valid",
  "status": 400,
  "detail": "/name: is missing",
  "instance": "/api/v1/events",
  "error": "invalid_input",
  "message": "/name: is missing",
  "request_id": "01M88Q7AG504QSGMQWKDMNZ1V7",
  "errors": [{{"pointer": "/name", "message": "is missing"}}]
}}
```

Programs decide by `error`, which is stable; people read `detail`. `errors` names all faults of an input at once: a pointer (RFC 6901) begins at the
root of the body, `?name` is a query parameter. What each code means is [below](#problem-codes). Any route may answer 400 `unknown_host`, 500
`internal_error` and 503 `unavailable` (with `Retry-After`); they are not repeated at each. What is no HTTP at all is refused in plain text.

**Browsers.** A page of another origin may read only when `security.cors.allowed_origins` names it, and may never change anything otherwise (403
`foreign_origin`). The server answers only for hosts that it knows (`server.allowed_hosts`). No page here loads anything from another host:
`/static/…` and `/favicon.ico` are served from the package.

**Not there yet:** rate limits and their headers, WebSocket, GraphQL, replays, `/metrics`.
The [roadmap](../explanations/production_readiness_roadmap.md) says what that means for production.
"""

# By problem code. A test asks for a line for each.
ADVICE: Final = {
    "internal_error": "Try again; if it stays, look for the `request_id` in the log.",
    "invalid_input": "Mend every fault in `errors`.",
    "malformed_body": "Send one JSON value in UTF-8; `errors` has the place.",
    "invalid_id": "Send the id as it was given to you.",
    "unknown_host": "Call by a name in `server.allowed_hosts`, or add the name there.",
    "unauthenticated": "Log in (`xzepr login`, `POST /api/v1/auth/login`), or send an API key as `X-API-Key`.",
    "invalid_credentials": "Try again with the right name and password; an administrator can give another password.",
    "invalid_token": "Get a new token; `detail` says what is wrong with this one.",
    "login_failed": "Log in again; `detail` says what the login failed by.",
    "permission_denied": "Ask for a role that has the permission which `detail` names.",
    "foreign_origin": "Add the page's origin to `security.cors.allowed_origins`, if it is yours.",
    "not_found": "Check the id; what was deleted is not found either.",
    "method_not_allowed": "Use a method that `Allow` names.",
    "request_timeout": "Send faster, or raise `server.request_timeout_seconds`, which is for bodies.",
    "headers_too_large": "Send fewer and shorter headers; cookies of other sites on the same host may be among them.",
    "in_flight": "Ask again in a while with the same key: the first request then has its answer.",
    "too_many_attempts": "Wait as long as `Retry-After` says.",
    "too_many_readers": "End some of the readers of this principal, or let them share one.",
    "refresh_superseded": "Use the pair that the other request with this token was given.",
    "conflict": "Read the object again; `detail` says what it conflicts with.",
    "position_expired": "Begin again at `oldest`; what lies before it is gone.",
    "precondition_failed": "Read the object again, apply your change to it, and send its new `ETag`.",
    "body_too_large": "Send less, or raise `security.validation.max_body_size`.",
    "unsupported_media_type": "Send `Content-Type: application/json`.",
    "payload_mismatch": "Mend every fault in `errors`, or the receiver's schema.",
    "validation_too_costly": "Make the schema simpler: less recursion, fewer alternatives, shorter patterns.",
    "unavailable": "Try again after `Retry-After` seconds; `/health` says which part is down.",
    "provider_unavailable": "Try again; if it stays, `detail` says what the provider does, and `auth.keycloak` where it should be.",
}
