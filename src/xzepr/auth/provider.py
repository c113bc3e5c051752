"""The OpenID Connect provider as this server sees it: discovery, keys, tokens. No database, no request of ours.

Everything that comes from it is unverified until verify() returns Claims. Discovery is kept for FRESH_S (the keys: issuer_keys.py). A provider that
is down is asked again after RETRY_AFTER_S; what was known before goes on counting meanwhile.

Failures: ProviderUnavailable when it does not answer or answers with what no provider would; LoginFailed when it refuses, or what it says does
not hold. Source: OpenID Connect Core 1.0 (3.1.3.7 for the id_token), Discovery 1.0, RFC 7636, RFC 9207.
"""

import asyncio
import base64
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import jwt
import msgspec
import structlog

from xzepr.auth.issuer_keys import IssuerKeys
from xzepr.auth.jwks import ALL_ALGORITHMS, PublicKey
from xzepr.auth.outside import NoAnswer, Outside, discovery_url, in_words, read
from xzepr.errors import InvalidToken, LoginFailed, ProviderUnavailable, Unavailable
from xzepr.urls import is_https_or_loopback

log = structlog.get_logger(__name__)

T = TypeVar("T")

FRESH_S: Final = 3600.0
RETRY_AFTER_S: Final = 1.0
CLAIM_MAX_CHARS: Final = 255
# What the library raises besides its own errors for claims of a type that it does not expect.
_NO_TOKEN: Final = (jwt.PyJWTError, TypeError, ValueError, OverflowError, RecursionError)
_SCOPES: Final = "openid profile email"


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What discovery says, as far as it is used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    code_challenge_methods_supported: list[str] | None = None
    token_endpoint_auth_methods_supported: list[str] | None = None
    authorization_response_iss_parameter_supported: bool = False


class UnverifiedTokens(msgspec.Struct, frozen=True, kw_only=True):
    """As the token endpoint gave them."""

    id_token: str
    access_token: str | None = None


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Who logged in, by a verified id_token. roles: the provider's own names; username: what it calls the person, else the subject."""

    issuer: str
    subject: str
    username: str
    email: str | None
    roles: list[str]
    id_token: str


class Provider:
    """One provider. issuer_url: as it names itself; redirect_url: where it sends browsers back to; role_claim: a path, dots are nesting."""

    def __init__(self, *, issuer_url: str, client_id: str, client_secret: str | None, redirect_url: str, role_claim: str, leeway_s: int) -> None:
        self.issuer = issuer_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_url = redirect_url
        self._role_claim = role_claim
        self._leeway_s = leeway_s
        self._outside = Outside()
        self._metadata = _KeptMetadata(self._discover)
        self._keys = IssuerKeys(issuer_url, self._keys_url, self._outside)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._keys.close()
        await self._outside.close()

    @property
    def is_reachable(self) -> bool:
        """Whether discovery and keys could be fetched the last time, or it was not tried yet."""
        return not (self._metadata.failure or self._keys.failure)

    async def metadata(self) -> Metadata:
        """Raises ProviderUnavailable while it was never reached."""
        try:
            return await self._metadata.get()
        except NoAnswer as error:
            raise self._unavailable(str(error)) from None

    async def authorization_url(self, *, state: str, nonce: str, code_challenge: str) -> str:
        """Where the browser logs in. code_challenge: S256."""
        metadata = await self.metadata()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_url,
            "scope": _SCOPES,
            "state": state,
            "nonce": nonce,
            "code_challenge": code_challenge,
            "code_challenge_method": "S256",
        }
        return _with_query(metadata.authorization_endpoint, asked)

    async def logout_url(self, id_token: str) -> str | None:
        """Where a browser ends its session at the provider, which then sends it to the root of this server; None: it has no such address."""
        end_session = (await self.metadata()).end_session_endpoint
        if end_session is None:
            return None
        home = urlsplit(self._redirect_url)
        asked = {"id_token_hint": id_token, "client_id": self._client_id, "post_logout_redirect_uri": f"{home.scheme}://{home.netloc}/"}
        return _with_query(end_session, asked)

    async def require_own_answer(self, iss: str | None) -> None:
        """Of the callback's parameter iss: a code of another provider must not be turned in here. Raises LoginFailed. Source: RFC 9207."""
        if iss is None and not (await self.metadata()).authorization_response_iss_parameter_supported:
            return
        if iss != self.issuer:
            other = f"the answer comes from the provider {in_words(iss or 'without a name')}, not from {self.issuer}"
            raise LoginFailed(other, kept=f"the answer comes from the provider of another name, not from {self.issuer}")

    async def turn_in(self, code: str, code_verifier: str) -> UnverifiedTokens:
        """The code of the callback for tokens. Raises LoginFailed with the provider's own words when it refuses."""
        metadata = await self.metadata()
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self._redirect_url, "code_verifier": code_verifier}
        headers = {}
        if self._client_secret is None:
            form["client_id"] = self._client_id
        elif _wants_secret_in_body(metadata):
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        else:
            headers["Authorization"] = _basic(self._client_id, self._client_secret)
        status, body = await self._ask("POST", metadata.token_endpoint, headers=headers, form=form)
        if status >= 500:
            raise self._unavailable(f"answered {status} when the login was to be finished")
        if status != 200:
            raise _refusal(status, body)
        return self._read(body, UnverifiedTokens, "tokens")

    async def verify(self, tokens: UnverifiedTokens, nonce: str) -> Claims:
        """The only way to Claims. nonce: of the login that this browser began. Raises LoginFailed naming what does not hold."""
        payload, algorithm = await self._verified(tokens.id_token, audience=self._client_id)
        _require_party(payload, self._client_id)
        given = payload.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(errors="replace"), nonce.encode()):
            raise LoginFailed("the id_token is of another login (nonce)")
        _require_at_hash(payload, algorithm, tokens.access_token)
        subject = payload["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= CLAIM_MAX_CHARS or not subject.isprintable():
            raise LoginFailed("the id_token names no subject that can be kept (sub)")
        roles = await self._roles(payload, tokens.access_token, subject)
        email = _text(payload.get("email"))
        # An address that the provider itself does not vouch for is nobody's.
        if payload.get("email_verified") is False:
            email = None
        username = _text(payload.get("preferred_username")) or email or _text(payload.get("name")) or subject
        return Claims(issuer=self.issuer, subject=subject, username=username, email=email, roles=roles, id_token=tokens.id_token)

    async def _roles(self, payload: Mapping[str, Any], access_token: str | None, subject: str) -> list[str]:
        """Of the first that has the claim: id_token, access token, userinfo. Keycloak writes them into the access token only."""
        found = roles_in(payload, self._role_claim)
        if found is None and access_token is not None:
            found = roles_in(await self._access_claims(access_token, subject), self._role_claim)
        if found is None and access_token is not None and (endpoint := (await self.metadata()).userinfo_endpoint) is not None:
            found = roles_in(await self._userinfo(endpoint, access_token, subject), self._role_claim)
        return found or []

    async def _access_claims(self, token: str, subject: str) -> Mapping[str, Any]:
        """Empty for one that is not ours to read: opaque, or signed for somebody else. It then says nothing, least of all a role."""
        try:
            payload, _ = await self._verified(token, audience=None)
        except LoginFailed as error:
            log.debug("oidc.access_token_not_read", reason=error.message)
            return {}
        if payload["sub"] != subject:
            raise LoginFailed("the access token is of another person than the id_token")
        return payload

    async def _userinfo(self, endpoint: str, access_token: str, subject: str) -> Mapping[str, Any]:
        status, body = await self._ask("GET", endpoint, headers={"Authorization": f"Bearer {access_token}"})
        if status != 200:
            raise self._unavailable(f"answered {status} to the question for the person's roles (userinfo)")
        payload: dict[str, Any] = self._read(body, dict[str, Any], "a userinfo")
        if payload.get("sub") != subject:
            raise LoginFailed("the userinfo is of another person than the id_token")
        return payload

    async def _verified(self, token: str, *, audience: str | None) -> tuple[dict[str, Any], str]:
        """Payload and algorithm. audience None: whomever it is for. Raises LoginFailed."""
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in ALL_ALGORITHMS:
                raise LoginFailed(f"a token is signed by {in_words(str(algorithm))}, which is not accepted")
            key = await self._key(header.get("kid"), algorithm)
            payload: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=audience,
                issuer=self.issuer,
                leeway=self._leeway_s,
                options={"require": ["iss", "sub", "exp", "iat", *(["aud"] if audience else [])], "verify_aud": audience is not None},
            )
        except _NO_TOKEN as error:
            raise LoginFailed(f"the provider's token is not valid: {in_words(str(error))}") from None
        return payload, algorithm

    async def _key(self, kid: object, algorithm: str) -> PublicKey:
        """For this key id; without one the only key that fits. Raises LoginFailed when there is none."""
        try:
            return await self._keys.find(kid if isinstance(kid, str) else None, algorithm)
        except InvalidToken as error:
            raise LoginFailed(f"what the provider gave does not hold: {error.message}") from None
        except Unavailable:
            raise self._unavailable(self._keys.failure or "does not give its keys") from None

    async def _ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        try:
            return await self._outside.ask(method, url, headers=headers, form=form)
        except NoAnswer as error:
            raise self._unavailable(str(error)) from None

    def _read(self, body: bytes, wanted: type[T], what: str) -> T:
        try:
            return read(body, wanted, what)
        except NoAnswer as error:
            raise self._unavailable(str(error)) from None

    def _unavailable(self, predicate: str) -> ProviderUnavailable:
        return ProviderUnavailable(f"the provider ({urlsplit(self.issuer).netloc}) {predicate}")

    async def _keys_url(self) -> str:
        return (await self._metadata.get()).jwks_uri

    async def _discover(self) -> Metadata:
        """Raises NoAnswer."""
        status, body = await self._outside.ask("GET", discovery_url(self.issuer))
        if status != 200:
            raise NoAnswer(f"answered {status} to discovery; is auth.keycloak.issuer_url right?")
        found = read(body, Metadata, "a discovery document")
        if found.issuer != self.issuer:
            raise NoAnswer(f"calls itself {in_words(found.issuer)}: write auth.keycloak.issuer_url exactly so")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint", "end_session_endpoint"):
            url = getattr(found, name)
            if url is not None and not is_https_or_loopback(url):
                raise NoAnswer(f"gave a {name} that is neither https nor on this machine")
        if found.code_challenge_methods_supported is not None and "S256" not in found.code_challenge_methods_supported:
            raise NoAnswer("does not know PKCE with S256")
        return found


class _KeptMetadata:
    """What was discovered last. One question at a time; whoever comes meanwhile waits for its answer."""

    def __init__(self, discover: Callable[[], Awaitable[Metadata]]) -> None:
        self._discover = discover
        self._value: Metadata | None = None
        self._fetched_s = 0.0
        self._tried_s = 0.0
        self.failure: str | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> Metadata:
        """Asked again when it is older than FRESH_S; what is older counts on when that fails. Raises NoAnswer while there is nothing."""
        async with self._lock:
            if not self._is_fresh() and (self.failure is None or time.monotonic() - self._tried_s >= RETRY_AFTER_S):
                await self._ask()
            if self._value is None:
                raise NoAnswer(self.failure)
            return self._value

    def _is_fresh(self) -> bool:
        return self._value is not None and time.monotonic() - self._fetched_s < FRESH_S

    async def _ask(self) -> None:
        self._tried_s = time.monotonic()
        try:
            self._value = await self._discover()
            self._fetched_s, self.failure = time.monotonic(), None
        except NoAnswer as error:
            self.failure = str(error)
            log.warning("oidc.provider_not_reached", reason=self.failure)


def roles_in(payload: Mapping[str, Any], path: str) -> list[str] | None:
    """The texts at this path; None: there is nothing. A key that is named like the whole path (some providers use URLs) comes before nesting."""
    found: Any = payload.get(path)
    if found is None:
        found = payload
        for part in path.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return [found]
    return [role for role in found if isinstance(role, str)] if isinstance(found, list) else None


def _require_party(payload: Mapping[str, Any], client_id: str) -> None:
    """A token for several audiences names the one that it was made for. Raises LoginFailed."""
    audiences, party = payload["aud"], payload.get("azp")
    if party is None and isinstance(audiences, list) and len(audiences) > 1:
        raise LoginFailed("the id_token is for several audiences and does not say for which it was made (azp)")
    if party is not None and party != client_id:
        raise LoginFailed("the id_token was made for another client (azp)")


def _require_at_hash(payload: Mapping[str, Any], algorithm: str, access_token: str | None) -> None:
    """That both tokens come from one login, where the provider says so. Raises LoginFailed."""
    given = payload.get("at_hash")
    if given is None or access_token is None:
        return
    digest: bytes = jwt.get_algorithm_by_name(algorithm).compute_hash_digest(access_token.encode())
    expected = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=")
    if not isinstance(given, str) or not hmac.compare_digest(given.rstrip("=").encode(errors="replace"), expected):
        raise LoginFailed("the access token does not go with the id_token (at_hash)")


def _refusal(status: int, body: bytes) -> LoginFailed:
    try:
        said = read(body, dict[str, Any], "a reason")
    except NoAnswer:
        said = {}
    words = [said[name] for name in ("error", "error_description") if isinstance(said.get(name), str)]
    return LoginFailed(f"the provider refused the login: {in_words(': '.join(words)) or f'it answered {status}'}")


def _wants_secret_in_body(metadata: Metadata) -> bool:
    methods = metadata.token_endpoint_auth_methods_supported or ["client_secret_basic"]
    return "client_secret_basic" not in methods and "client_secret_post" in methods


def _basic(client_id: str, secret: str) -> str:
    """Both are form-encoded first. Source: RFC 6749, 2.3.1."""
    return "Basic " + base64.b64encode(f"{quote(client_id, safe='')}:{quote(secret, safe='')}".encode()).decode()


def _with_query(url: str, asked: Mapping[str, str]) -> str:
    """An endpoint may have a query of its own."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(asked)}"


def _text(value: object) -> str | None:
    """A claim as it can be kept and shown; None: there is none."""
    return in_words(value)[:CLAIM_MAX_CHARS] or None if isinstance(value, str) else None
