"""Tokens of other issuers count by the rules of the settings and by nothing else; a provider that misbehaves harms nobody."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from support.provider import DISCOVERY, JWKS, Provider, jwk, running_provider
from support.signing import public_pem, rsa_key, signed, signed_with_secret, unsigned
from xzepr import ids
from xzepr.auth import issuer_keys
from xzepr.auth.outside import NoAnswer, Outside
from xzepr.auth.permissions import Permission, Role
from xzepr.auth.principal import How
from xzepr.auth.trusted import TrustedIssuers, rule_matches
from xzepr.errors import InvalidToken, Unavailable
from xzepr.settings import Settings
from xzepr.settings.model import TrustedIssuerRule

AUDIENCE = "https://xzepr.example.com"
SUBJECT = "repo:acme/api:ref:refs/heads/main"
RECEIVERS = sorted(ids.mint(ids.EventReceiverId) for _ in range(3))
RULE = {"claims": {"repository": "acme/*", "ref": "refs/heads/main"}, "roles": ["event_manager"]}


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


Making = Callable[..., TrustedIssuers]


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with running_provider() as running:
        running.keys = [jwk(rsa_key(), "one")]
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(provider: Provider, clock: Clock) -> AsyncIterator[Making]:
    """TrustedIssuers with this provider; by discovery unless a test says otherwise."""
    made: list[TrustedIssuers] = []

    def making(*rules: dict[str, Any], **more: Any) -> TrustedIssuers:
        issuer = {"issuer": provider.issuer, "audience": AUDIENCE, "rules": list(rules or (RULE,)), **more}
        made.append(TrustedIssuers(msgspec.convert({"auth": {"trusted_issuers": [issuer]}}, Settings), monotonic=clock))
        return made[-1]

    yield making
    for each in made:
        await each.close()


def claims(provider: Provider, **changed: Any) -> dict[str, Any]:
    now = int(time.time())
    told = {
        "iss": provider.issuer,
        "aud": AUDIENCE,
        "sub": SUBJECT,
        "exp": now + 300,
        "iat": now,
        "repository": "acme/api",
        "ref": "refs/heads/main",
        **changed,
    }
    return {name: value for name, value in told.items() if value is not None}


def token(
    provider: Provider, *, key: Any = None, kid: str = "one", algorithm: str = "RS256", header: dict[str, Any] | None = None, **changed: Any
) -> str:
    return signed(key or rsa_key(), {"kid": kid, **(header or {})}, claims(provider, **changed), algorithm)


async def refusal(trusted: TrustedIssuers, given: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        await trusted.verify(given)
    return caught.value.message


# --- who it is, and what they may do


async def test_a_token_gives_what_its_rule_says(provider: Provider, make: Making) -> None:
    given = claims(provider)
    principal, expires_at = await make().verify(signed(rsa_key(), {"kid": "one"}, given))
    assert (principal.how, principal.name, principal.roles) == (How.TRUSTED_ISSUER, SUBJECT, {Role.EVENT_MANAGER})
    assert Permission.EVENT_CREATE in principal.permissions
    assert principal.event_receiver_ids is None
    assert not principal.is_login
    assert expires_at == given["exp"]
    assert provider.requests == [DISCOVERY, JWKS]


async def test_a_configured_address_of_the_keys_needs_no_discovery(provider: Provider, make: Making) -> None:
    principal, _ = await make(jwks_url=provider.jwks_url).verify(token(provider))
    assert principal.name == SUBJECT
    assert provider.requests == [JWKS]


async def test_only_configured_issuers_are_known_and_exactly(provider: Provider, make: Making) -> None:
    trusted = make()
    assert trusted.knows(provider.issuer)
    assert not any(trusted.knows(other) for other in (provider.issuer + "/", provider.issuer.upper(), "xzepr.io", ""))
    assert "not trusted here" in await refusal(trusted, token(provider, iss="https://evil.example"))
    assert provider.requests == []


async def test_the_same_subject_is_the_same_principal_everywhere(provider: Provider, make: Making) -> None:
    one, _ = await make().verify(token(provider))
    two, _ = await make().verify(token(provider, jti="another"))
    other, _ = await make().verify(token(provider, sub="repo:acme/web:ref:refs/heads/main"))
    assert one.id is not None
    assert ids.is_ulid(one.id)
    assert one.id == two.id != other.id


def test_a_derived_id_is_of_all_names_and_where_each_ends() -> None:
    made = {ids.derived(ids.UserId, *names) for names in (("a", "b"), ("b", "a"), ("ab",), ("ab", ""), ("", "ab"), ("a", "b", ""))}
    assert len(made) == 6
    assert all(ids.parse(ids.UserId, each) == each for each in made)
    # Once and for all: what it owns must be its own also after an upgrade.
    assert ids.derived(ids.UserId, "https://ci.example.com", "repo:acme/api") == "6DET8FK4Y7WP20E6JD8R7TXEVM"


async def test_several_rules_that_match_add_up(provider: Provider, make: Making) -> None:
    rules = (
        {"claims": {"repository": "acme/api"}, "roles": ["event_manager"], "event_receiver_ids": [RECEIVERS[0].lower()]},
        {"claims": {"ref": "refs/heads/*"}, "roles": ["event_viewer"], "event_receiver_ids": [RECEIVERS[1]]},
        {"claims": {"ref": "refs/tags/*"}, "roles": ["admin"]},
    )
    principal, _ = await make(*rules).verify(token(provider))
    assert principal.roles == {Role.EVENT_MANAGER, Role.EVENT_VIEWER}
    assert principal.event_receiver_ids == {RECEIVERS[0], RECEIVERS[1]}
    both, _ = await make(*rules, {"claims": {"sub": "repo:acme/*"}, "roles": []}).verify(token(provider))
    assert both.event_receiver_ids is None, "a rule without receivers means all"


async def test_a_genuine_token_that_no_rule_matches_is_told_so(provider: Provider, make: Making) -> None:
    assert "no rule matches" in await refusal(make(), token(provider, ref="refs/heads/feature"))
    assert "no rule matches" in await refusal(make(), token(provider, repository=None))


@pytest.mark.parametrize(
    ("wanted", "given", "matches"),
    [
        ({"a": "x"}, {"a": "x"}, True),
        ({"a": "x"}, {"a": "X"}, False),
        ({"a": "x"}, {"a": "xx"}, False),
        ({"a": "x*z"}, {"a": "xyyz"}, True),
        ({"a": "x*z"}, {"a": "xyy"}, False),
        ({"a": "*"}, {"a": ""}, True),
        ({"a": "*"}, {}, False),
        ({"a": "*"}, {"a": None}, False),
        ({"a": "*"}, {"a": {"b": "x"}}, False),
        ({"a": "*"}, {"a": []}, False),
        ({"a": "x"}, {"a": ["w", "x"]}, True),
        ({"a": "x"}, {"a": [["x"]]}, False),
        ({"a": "w*x"}, {"a": ["w", "x"]}, False),
        ({"a": "true"}, {"a": True}, True),
        ({"a": "True"}, {"a": True}, False),
        ({"a": "7"}, {"a": 7}, True),
        ({"a": "1"}, {"a": True}, False),
        ({"a.b": "x"}, {"a": {"b": "x"}}, True),
        ({"a.b": "x"}, {"a": {"b": ["v", "x"]}}, True),
        ({"a.b": "x"}, {"a": ["b", "x"]}, False),
        ({"a.b": "x"}, {"a": "b"}, False),
        ({"https://ci.example/org": "x"}, {"https://ci.example/org": "x"}, True),
        ({"a.b": "x"}, {"a.b": "y", "a": {"b": "x"}}, False),
        ({"a.b.c": "x"}, {"a.b": {"c": "x"}}, True),
        ({"a.b.c": "x"}, {"a": {"b.c": "x"}}, True),
        ({"a.b.c": "x"}, {"a.b": {"d": "y"}, "a": {"b": {"c": "x"}}}, False),
        ({"a.": "x"}, {"a": {"": "x"}}, True),
        ({".": "x"}, {"a": "x"}, False),
        ({"a": "x", "b": "y"}, {"a": "x"}, False),
        ({"a": "x", "b": "y"}, {"a": "x", "b": "y"}, True),
    ],
    ids=repr,
)
def test_every_named_claim_must_match(wanted: dict[str, str], given: dict[str, Any], matches: bool) -> None:
    assert rule_matches(TrustedIssuerRule(claims=wanted, roles=[]), given) is matches


# --- tokens that do not count


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"aud": None}, "no claim aud"),
        ({"aud": "https://another.example.com"}, "another audience"),
        ({"aud": []}, "no claim aud"),
        ({"aud": AUDIENCE + "/"}, "another audience"),
        ({"exp": None}, "no claim exp"),
        ({"exp": 1}, "has expired"),
        ({"nbf": 9_999_999_999}, "does not count yet"),
        ({"iat": 9_999_999_999}, "does not count yet"),
        ({"sub": None}, "no claim sub"),
        ({"sub": ""}, "1 to 1024 printable characters"),
        ({"sub": "a" * 1025}, "1 to 1024 printable characters"),
        ({"sub": "a\0b"}, "1 to 1024 printable characters"),
        ({"iss": None}, "names no issuer"),
        ({"iss": 7}, "names no issuer"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
async def test_claims_that_must_be_right_are(provider: Provider, make: Making, changed: dict[str, Any], reason: str) -> None:
    if "iss" in changed and changed["iss"] is not None:
        given = unsigned({"alg": "RS256", "kid": "one"}, {**claims(provider), **changed})
    else:
        given = token(provider, **changed)
    assert reason in await refusal(make(), given)


async def test_one_audience_of_several_is_enough(provider: Provider, make: Making) -> None:
    assert (await make().verify(token(provider, aud=["other", AUDIENCE])))[0].name == SUBJECT


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda told: unsigned({"alg": "none", "kid": "one"}, told), "signed by none of"),
        (lambda told: unsigned({"alg": "RS256", "kid": "one"}, told), "signature of the token is wrong"),
        (lambda told: signed_with_secret({"alg": "HS256", "kid": "one"}, told, public_pem(rsa_key()).encode()), "signed by none of"),
        (lambda told: signed(rsa_key(1), {"kid": "one"}, told), "signature of the token is wrong"),
        (lambda told: signed(ec.generate_private_key(ec.SECP521R1()), {"kid": "one"}, told, "ES512"), "signed by none of"),
        (lambda told: signed(rsa_key(), {}, told), "names no key"),
        (lambda told: signed(rsa_key(), {"kid": "one", "crit": ["exp"]}, told), "an extension"),
        (lambda told: signed(ec.generate_private_key(ec.SECP256R1()), {"kid": "one"}, told, "ES256"), "not one for this algorithm"),
        (lambda _: "a.b.c", "cannot be read"),
    ],
    ids=["none", "no signature", "HS256 with the public key", "another key", "ES512", "no kid", "crit", "ES256 by an RSA key's name", "garbage"],
)
async def test_forged_tokens_are_refused(provider: Provider, make: Making, made: Callable[[Any], str], reason: str) -> None:
    assert reason in await refusal(make(), made(claims(provider)))


async def test_keys_that_a_token_brings_along_are_not_looked_at(provider: Provider, make: Making) -> None:
    """Some genuine issuers say where their keys are; whoever says it, nobody goes there."""
    async with running_provider() as evil:
        evil.keys = [jwk(rsa_key(1), "one"), jwk(rsa_key(1), "evil")]
        smuggled = {"jku": evil.jwks_url, "x5u": evil.jwks_url, "jwk": jwk(rsa_key(1), "one")}
        trusted = make()
        assert "signature of the token is wrong" in await refusal(trusted, token(provider, key=rsa_key(1), header=smuggled))
        assert "does not publish" in await refusal(trusted, token(provider, key=rsa_key(1), kid="evil", header=smuggled))
        assert (await trusted.verify(token(provider, header=smuggled)))[0].name == SUBJECT
        assert evil.requests == []


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa_key(), "RS256"),
        (rsa_key(), "RS384"),
        (rsa_key(), "RS512"),
        (rsa_key(), "PS256"),
        (rsa_key(), "PS384"),
        (rsa_key(), "PS512"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
    ],
    ids=["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"],
)
async def test_each_algorithm_that_is_taken_works(provider: Provider, make: Making, key: Any, algorithm: str) -> None:
    provider.keys = [jwk(key, "one")]
    assert (await make().verify(token(provider, key=key, algorithm=algorithm)))[0].name == SUBJECT


async def test_a_key_is_used_as_its_issuer_says_only(provider: Provider, make: Making) -> None:
    provider.keys = [
        jwk(rsa_key(), "one", alg="RS512"),
        jwk(rsa_key(), "for encryption", use="enc"),
        jwk(rsa_key(), "for wrapping", key_ops=["wrapKey"]),
        {"kty": "oct", "kid": "a secret", "k": "AAAA"},
        {"kty": "RSA", "kid": "broken", "n": 7, "e": None},
        {"kty": "EC", "kid": "off the curve", "crv": "P-256", "x": "AQAB", "y": "AQAB"},
        jwk(rsa.generate_private_key(65537, 1024), "weak"),
        {**jwk(rsa_key(), "x"), "kid": 7},
    ]
    trusted = make()
    assert (await trusted.verify(token(provider, algorithm="RS512")))[0].name == SUBJECT
    assert "not one for this algorithm" in await refusal(trusted, token(provider, algorithm="RS256"))
    for kid in ("for encryption", "for wrapping", "a secret", "broken", "off the curve", "weak"):
        assert "does not publish" in await refusal(trusted, token(provider, kid=kid))


# --- rotation, and providers that misbehave


async def test_a_new_key_is_fetched_when_a_token_names_it_and_not_more_often_than_every_ten_seconds(
    provider: Provider, make: Making, clock: Clock
) -> None:
    trusted = make(jwks_url=provider.jwks_url)
    await trusted.verify(token(provider))
    provider.keys = [jwk(rsa_key(1), "two")]
    new = token(provider, key=rsa_key(1), kid="two")
    for _ in range(50):
        assert "does not publish" in await refusal(trusted, token(provider, kid="made up"))
        assert "does not publish" in await refusal(trusted, new)
    assert len(provider.requests) == 1
    clock.now_s += issuer_keys.RETRY_S
    assert (await trusted.verify(new))[0].name == SUBJECT
    assert len(provider.requests) == 2
    assert "does not publish" in await refusal(trusted, token(provider)), "a key that was withdrawn counts no more"


async def test_requests_at_once_share_one_fetch(provider: Provider, make: Making) -> None:
    trusted = make(jwks_url=provider.jwks_url)
    provider.held.clear()
    asked = [asyncio.create_task(trusted.verify(token(provider))) for _ in range(20)]
    while not provider.requests:
        await asyncio.sleep(0.01)
    asked[0].cancel()
    provider.held.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(isinstance(answer, tuple) for answer in answers[1:]), "one that left took nobody's keys with it"
    assert len(provider.requests) == 1


async def test_old_keys_are_fetched_again_and_nobody_waits_for_it(provider: Provider, make: Making, clock: Clock) -> None:
    trusted = make(jwks_url=provider.jwks_url)
    await trusted.verify(token(provider))
    clock.now_s += issuer_keys.STALE_S
    provider.held.clear()
    provider.keys = [jwk(rsa_key(1), "two")]
    async with asyncio.timeout(1):
        await trusted.verify(token(provider))
    while len(provider.requests) < 2:
        await asyncio.sleep(0.01)
    provider.held.set()
    async with asyncio.timeout(5):
        while True:
            try:
                await trusted.verify(token(provider))
            except InvalidToken:
                break
            await asyncio.sleep(0.01)


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b" " * 65536


async def drop_by_drop() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(0.05)


MISDEEDS: dict[str, dict[str, Any]] = {
    "status": {"status": 500},
    "redirect": {"status": 302, "headers": {"Location": "/elsewhere"}},
    "html": {"body": b"<html>"},
    "not UTF-8": {"body": b'{"keys": [{"kid": "\xff"}]}'},
    "another shape": {"body": b'{"keys": {"kid": "one"}}'},
    "deep": {"body": b"[" * 100_000},
    "no keys": {"body": b'{"keys": []}'},
    "only secrets": {"body": b'{"keys": [{"kty": "oct", "kid": "one", "k": "AAAA"}]}'},
    "endless": {"body": endless},
    "drop by drop": {"body": drop_by_drop},
    "hangs up": {"hangs_up": True},
    "cut short": {"headers": {"Content-Length": "100000"}},
    "no gzip": {"headers": {"Content-Encoding": "gzip"}},
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
async def test_whatever_a_provider_does_it_is_503_without_keys_and_nothing_changes_with_them(
    provider: Provider, make: Making, clock: Clock, misdeed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "FETCH_S", 0.5)
    known, unknown = make(jwks_url=provider.jwks_url), make(jwks_url=provider.jwks_url)
    await known.verify(token(provider))
    for name, value in MISDEEDS[misdeed].items():
        setattr(provider, name, value)
    for _ in range(3):
        with pytest.raises(Unavailable, match="cannot be fetched"):
            await unknown.verify(token(provider))
    assert len(provider.requests) == 2, "after a failure it is left alone for a while"
    clock.now_s += issuer_keys.STALE_S
    assert (await known.verify(token(provider)))[0].name == SUBJECT
    with pytest.raises(Unavailable):
        await known.verify(token(provider, kid="two"))
    assert (await known.verify(token(provider)))[0].name == SUBJECT
    provider.behave()
    clock.now_s += issuer_keys.RETRY_S
    assert (await unknown.verify(token(provider)))[0].name == SUBJECT
    assert "does not publish" in await refusal(known, token(provider, kid="two"))


async def test_a_provider_that_is_down_or_silent_is_503_in_time(
    provider: Provider, make: Making, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = make(jwks_url=provider.jwks_url)
    given = token(provider)
    await provider.stop()
    with pytest.raises(Unavailable):
        await trusted.verify(given)
    await provider.start()
    clock.now_s += issuer_keys.RETRY_S
    provider.held.clear()
    monkeypatch.setattr(issuer_keys, "FETCH_S", 0.5)
    async with asyncio.timeout(3):
        with pytest.raises(Unavailable):
            await trusted.verify(given)
    provider.behave()
    clock.now_s += issuer_keys.RETRY_S
    assert (await trusted.verify(given))[0].name == SUBJECT


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://another.example"},
        {"jwks_uri": "http://keys.example/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://user@127.0.0.1/jwks"},
        {"jwks_uri": f"https://{'a' * 64}.example/jwks"},
        {"jwks_uri": "https://xn--a.example:1/jwks"},
        {"jwks_uri": 7},
    ],
    ids=lambda document: str(document)[:40],
)
async def test_a_discovery_document_that_leads_astray_is_not_followed(provider: Provider, make: Making, document: dict[str, Any]) -> None:
    provider.discovery = document
    with pytest.raises(Unavailable):
        await make().verify(token(provider))
    assert provider.requests == [DISCOVERY]


async def test_an_issuer_elsewhere_cannot_send_us_to_this_machine(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def ask(_: Outside, method: str, url: str) -> tuple[int, bytes]:
        asked.append(url)
        return 200, msgspec.json.encode({"issuer": "https://ci.example.com", "jwks_uri": provider.jwks_url})

    monkeypatch.setattr(Outside, "ask", ask)
    with pytest.raises(NoAnswer, match="not https"):
        await issuer_keys.discovered_keys_url("https://ci.example.com", Outside())
    assert asked == ["https://ci.example.com" + DISCOVERY]
    assert provider.requests == []


async def test_a_discovery_that_is_down_is_503(provider: Provider, make: Making) -> None:
    provider.misbehaves_at, provider.status = DISCOVERY, 503
    with pytest.raises(Unavailable):
        await make().verify(token(provider))


async def test_swapped_keys_are_noticed_by_the_signature(provider: Provider, make: Making, clock: Clock) -> None:
    """The same name for another key: what was known counts until it is old, then the new one."""
    trusted = make(jwks_url=provider.jwks_url)
    await trusted.verify(token(provider))
    provider.keys = [jwk(rsa_key(1), "one")]
    swapped = token(provider, key=rsa_key(1))
    assert "signature of the token is wrong" in await refusal(trusted, swapped)
    clock.now_s += issuer_keys.STALE_S
    assert "signature of the token is wrong" in await refusal(trusted, swapped)
    async with asyncio.timeout(5):
        while len(provider.requests) < 2 or "wrong" not in await _answer(trusted, token(provider)):
            await asyncio.sleep(0.01)
    assert (await trusted.verify(swapped))[0].name == SUBJECT


async def _answer(trusted: TrustedIssuers, given: str) -> str:
    try:
        await trusted.verify(given)
    except InvalidToken as error:
        return error.message
    return ""


async def test_closing_ends_a_fetch_that_is_under_way(provider: Provider, make: Making) -> None:
    trusted = make(jwks_url=provider.jwks_url)
    provider.held.clear()
    waiting = asyncio.create_task(trusted.verify(token(provider)))
    while not provider.requests:
        await asyncio.sleep(0.01)
    await trusted.close()
    with pytest.raises((asyncio.CancelledError, Unavailable)):
        await waiting
