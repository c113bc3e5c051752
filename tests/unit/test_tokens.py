"""An access token counts when it is ours in every respect, and is refused in words that repeat nothing of it otherwise."""

import base64
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_type_hints

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from support.signing import key_pair, public_pem, raw_part, rsa_key, settings_with, signed, signed_with_secret, unsigned
from xzepr import clock, ids
from xzepr.auth.changes import KEPT_S, SLOW_COMMIT_S
from xzepr.auth.key_files import rotate, thumbprint
from xzepr.auth.keys import SigningKeys
from xzepr.auth.permissions import ROLE_PERMISSIONS, Role
from xzepr.auth.tokens import AccessTokens
from xzepr.auth.unverified import TOKEN_MAX_BYTES, unverified_header, unverified_issuer
from xzepr.errors import InvalidToken, Unauthenticated
from xzepr.ids import FamilyId, UserId
from xzepr.settings.model import Jwt

ALICE, LOGIN = ids.mint(UserId), ids.mint(FamilyId)
KID = thumbprint(rsa_key().public_key())
HEADER: dict[str, Any] = {"kid": KID, "typ": "at+jwt"}


@pytest.fixture
def tokens(tmp_path: Path) -> AccessTokens:
    files = key_pair(tmp_path)
    return AccessTokens(settings_with(files), SigningKeys(files))


def issued(tokens: AccessTokens) -> str:
    permissions = ROLE_PERMISSIONS[Role.EVENT_VIEWER]
    return tokens.issue(user_id=ALICE, username="alice", roles=[Role.EVENT_VIEWER], permissions=permissions, epoch=3, family_id=LOGIN)[0]


def claims(**changed: Any) -> dict[str, Any]:
    """Of a token that counts; None: without that one."""
    now = int(time.time())
    told = {
        "iss": "xzepr.io",
        "aud": "xzepr-api",
        "sub": ALICE,
        "exp": now + 900,
        "nbf": now,
        "iat": now,
        "jti": "1",
        "name": "alice",
        "roles": ["user"],
        "permissions": ["event:read"],
        "epoch": 1,
        "token_type": "access",
        "sid": LOGIN,
        **changed,
    }
    return {name: value for name, value in told.items() if value is not None}


def refusal(tokens: AccessTokens, token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        tokens.verify(token)
    assert (caught.value.status, caught.value.code) == (401, "invalid_token")
    assert isinstance(caught.value, Unauthenticated)
    return caught.value.message


def test_what_is_issued_is_verified_and_says_the_same(tokens: AccessTokens) -> None:
    before = clock.now()
    token, expires_at = tokens.issue(user_id=ALICE, username="alice", roles=[Role.USER, Role.ADMIN], permissions=[], epoch=7, family_id=LOGIN)
    told = tokens.verify(token)
    assert (told.user_id, told.username, told.roles, told.epoch, told.family_id) == (ALICE, "alice", {Role.USER, Role.ADMIN}, 7, LOGIN)
    assert datetime.fromtimestamp(told.expires_at, UTC) == expires_at
    assert timedelta(seconds=898) < expires_at - before <= timedelta(seconds=900)
    assert tokens.verify(issued(tokens)).jti != told.jti


def test_a_token_that_was_made_to_live_longer_than_tokens_do_now_is_refused(tokens: AccessTokens, tmp_path: Path) -> None:
    # What ended is remembered for as long as tokens live by the settings of now.
    now = int(time.time())
    assert "good for longer" in refusal(tokens, signed(rsa_key(), HEADER, claims(iat=now - 100, nbf=now - 100, exp=now + 801)))
    token = issued(tokens)
    files = key_pair(tmp_path)
    lower = AccessTokens(settings_with(files, jwt={"access_token_expiration": 899}), SigningKeys(files))
    assert "good for longer" in refusal(lower, token)
    assert longest_of("access_token_expiration") + longest_of("leeway_seconds") + SLOW_COMMIT_S < KEPT_S


def longest_of(field: str) -> int:
    """By the bounds of the setting."""
    [meta] = get_type_hints(Jwt, include_extras=True)[field].__metadata__
    return int(meta.le)


def test_a_token_without_a_login_has_no_family(tokens: AccessTokens) -> None:
    token, _ = tokens.issue(user_id=ALICE, username="alice", roles=[], permissions=[], epoch=1, family_id=None)
    assert tokens.verify(token).family_id is None


def test_header_and_claims_are_those_of_the_contract(tokens: AccessTokens) -> None:
    token = issued(tokens)
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "kid": KID, "typ": "at+jwt"}
    told = jwt.decode(token, rsa_key().public_key(), ["RS256"], audience="xzepr-api", issuer="xzepr.io")
    assert {"iss", "aud", "sub", "exp", "nbf", "iat", "jti", "roles", "permissions", "epoch", "token_type"} <= set(told)
    assert (told["sub"], told["name"], told["sid"], told["token_type"]) == (ALICE, "alice", LOGIN, "access")
    assert told["permissions"] == sorted(ROLE_PERMISSIONS[Role.EVENT_VIEWER])
    assert told["exp"] - told["iat"] == 900


def test_the_claims_that_the_other_tests_change_count_as_they_are(tokens: AccessTokens) -> None:
    assert tokens.verify(signed(rsa_key(), HEADER, claims())).user_id == ALICE


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (lambda: unsigned({"alg": "none", "kid": KID}, claims()), "not signed by RS256"),
        (lambda: unsigned({"alg": "None", "kid": KID}, claims()), "not signed by RS256"),
        (lambda: unsigned({"alg": "RS256", "kid": KID}, claims()), "signature of the token is wrong"),
        (lambda: signed_with_secret({"alg": "HS256", "kid": KID}, claims(), public_pem(rsa_key()).encode()), "not signed by RS256"),
        (lambda: signed_with_secret({"alg": "RS256", "kid": KID}, claims(), public_pem(rsa_key()).encode()), "signature of the token is wrong"),
        (lambda: signed(rsa_key(), HEADER, claims(), "RS512"), "not signed by RS256"),
        (lambda: signed(rsa_key(), HEADER, claims(), "PS256"), "not signed by RS256"),
        (lambda: signed(ec.generate_private_key(ec.SECP256R1()), HEADER, claims(), "ES256"), "not signed by RS256"),
        (lambda: signed(rsa_key(1), HEADER, claims()), "signature of the token is wrong"),
    ],
    ids=["none", "None", "no signature", "HS256 with the public key", "the same called RS256", "RS512", "PS256", "ES256", "another key"],
)
def test_another_signature_is_refused(tokens: AccessTokens, token: Any, reason: str) -> None:
    assert reason in refusal(tokens, token())


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"kid": "unheard-of"}, "a key that is not known here"),
        ({"kid": thumbprint(rsa_key(1).public_key())}, "a key that is not known here"),
        ({}, "names no key (kid)"),
        ({"kid": ""}, "names no key (kid)"),
        ({"kid": "k" * 1025}, "names no key (kid)"),
        ({**HEADER, "jku": "https://evil.example/jwks.json"}, "brings a key of its own (jku)"),
        ({**HEADER, "x5u": "https://evil.example/cert.pem"}, "brings a key of its own (x5u)"),
        ({**HEADER, "x5c": ["MIIB"]}, "brings a key of its own (x5c)"),
        ({**HEADER, "jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}}, "brings a key of its own (jwk)"),
        ({**HEADER, "crit": ["exp"]}, "an extension that is not known here (crit)"),
    ],
)
def test_a_header_that_names_no_key_of_ours_or_brings_one_is_refused(tokens: AccessTokens, header: dict[str, Any], reason: str) -> None:
    forged = signed(rsa_key(1), header, claims())
    assert reason in refusal(tokens, forged)


def test_a_key_that_is_brought_along_is_refused_even_when_ours_signed(tokens: AccessTokens) -> None:
    assert "(jku)" in refusal(tokens, signed(rsa_key(), {**HEADER, "jku": "https://xzepr.io/jwks.json"}, claims()))


@pytest.mark.parametrize("kid", [1, None, ["a"], {"a": 1}])
def test_a_kid_that_is_no_text_is_refused(tokens: AccessTokens, kid: Any) -> None:
    assert "names no key (kid)" in refusal(tokens, unsigned({"alg": "RS256", "kid": kid}, claims(), b"x"))


NOW = int(time.time())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"iss": "another.example"}, "another issuer (iss)"),
        ({"aud": "another-api"}, "another audience (aud)"),
        ({"aud": ["another-api"]}, "another audience (aud)"),
        ({"token_type": "refresh"}, "not an access token"),
        ({"token_type": "Access"}, "not an access token"),
        ({"token_type": None}, "not an access token"),
        ({"exp": NOW - 120}, "has expired"),
        ({"exp": "soon"}, "cannot be read"),
        ({"exp": 1e400}, "cannot be read"),
        ({"nbf": NOW + 3600}, "does not count yet"),
        ({"iat": NOW + 3600}, "does not count yet"),
        ({"roles": ["root"]}, "at $.roles[0]"),
        ({"roles": None}, "one is missing"),
        ({"epoch": "1"}, "at $.epoch"),
        ({"epoch": None}, "one is missing"),
        ({"name": None}, "one is missing"),
        ({"sub": "alice"}, "sub and sid are ids"),
        ({"sub": 7}, "cannot be read"),
        ({"sid": "x"}, "sub and sid are ids"),
        *[({name: None}, f"has no claim {name}") for name in ("iss", "aud", "sub", "exp", "nbf", "iat", "jti")],
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_claims_that_are_not_those_of_a_token_of_ours_are_refused(tokens: AccessTokens, changed: dict[str, Any], reason: str) -> None:
    assert reason in refusal(tokens, signed(rsa_key(), HEADER, claims(**changed)))


def test_the_clocks_may_differ_by_the_leeway_and_no_more(tmp_path: Path) -> None:
    files = key_pair(tmp_path)
    tokens = AccessTokens(settings_with(files, jwt={"leeway_seconds": 5}), SigningKeys(files))
    now = int(time.time())
    assert tokens.verify(signed(rsa_key(), HEADER, claims(exp=now - 2))).user_id == ALICE
    assert "expired" in refusal(tokens, signed(rsa_key(), HEADER, claims(exp=now - 7)))
    assert tokens.verify(signed(rsa_key(), HEADER, claims(nbf=now + 3))).user_id == ALICE
    assert "not count yet" in refusal(tokens, signed(rsa_key(), HEADER, claims(nbf=now + 60)))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "abc",
        "a.b.c",
        "xzepr_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "ü.ü.ü",
        f"{raw_part([])}.{raw_part({})}.{raw_part(b'x')}",
        f"{raw_part(b'{' * 5000)}.{raw_part({})}.{raw_part(b'x')}",
        f"{raw_part(b'[' * 5000)}.{raw_part({})}.{raw_part(b'x')}",
        f"{raw_part(bytes(range(256)))}.{raw_part({})}.{raw_part(b'x')}",
        f"{raw_part({'alg': 'RS256', 'kid': KID})}.{raw_part([1])}.{raw_part(b'x')}",
        f"{raw_part({'alg': 'RS256', 'kid': KID})}..",
        f"{raw_part({'alg': 7, 'kid': KID})}.{raw_part({})}.",
    ],
    ids=[str(number) for number in range(15)],
)
def test_garbage_is_refused(tokens: AccessTokens, token: str) -> None:
    assert refusal(tokens, token).startswith("the ")


def test_garbage_that_is_signed_by_us_is_refused(tokens: AccessTokens) -> None:
    for payload in (b"[1]", b"\xff", b"{", b"null", b'{"exp": NaN}'):
        token = jwt.PyJWS().encode(payload, rsa_key(), "RS256", HEADER)
        assert refusal(tokens, token).startswith("the token ")


def test_a_token_beyond_the_bound_is_refused_before_it_is_looked_at(tokens: AccessTokens) -> None:
    large = signed(rsa_key(), HEADER, claims(name="a" * TOKEN_MAX_BYTES))
    assert f"longer than {TOKEN_MAX_BYTES} bytes" in refusal(tokens, large)
    began_s = time.perf_counter()
    for _ in range(100):
        refusal(tokens, "a" * 10_000_000)
    assert time.perf_counter() - began_s < 1


def test_a_changed_character_anywhere_is_noticed(tokens: AccessTokens) -> None:
    token = issued(tokens)
    for place in range(0, len(token), 7):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        refusal(tokens, changed)


@trials(deadline=None, max_examples=200)
@given(st.text(max_size=200))
def test_no_text_does_anything_but_be_refused(text: str) -> None:
    for read in (unverified_header, unverified_issuer):
        with pytest.raises(InvalidToken) as caught:
            read(text)
        assert len(caught.value.message) < 100


@pytest.mark.parametrize(
    "token",
    [
        signed(rsa_key(1), {"kid": "hunter2-kid"}, claims()),
        signed(rsa_key(), HEADER, claims(roles=["hunter2"])),
        signed(rsa_key(), HEADER, claims(iss="hunter2")),
        signed(rsa_key(), HEADER, claims(token_type="hunter2")),
        "hunter2",
    ],
    ids=["kid", "roles", "iss", "token_type", "garbage"],
)
def test_a_refusal_repeats_nothing_of_the_token(tokens: AccessTokens, token: str) -> None:
    message = refusal(tokens, token)
    assert "hunter2" not in message
    assert base64.urlsafe_b64encode(b"hunter2").decode() not in message


def test_a_token_of_the_key_before_a_rotation_still_counts_and_new_ones_are_of_the_new_key(tmp_path: Path) -> None:
    files = key_pair(tmp_path)
    here_s = 0.0
    keys = SigningKeys(files, monotonic=lambda: here_s)
    tokens = AccessTokens(settings_with(files), keys)
    other_process = AccessTokens(settings_with(files), SigningKeys(files, monotonic=lambda: here_s))
    old = issued(tokens)
    rotate(files, bits=None, keep=1)
    assert unverified_header(issued(tokens)).kid == KID, "looked at again within the minute, not at once"
    here_s = 60.0
    new = issued(tokens)
    assert unverified_header(new).kid != KID
    assert tokens.verify(old).user_id == tokens.verify(new).user_id == ALICE
    # The other process looked at nothing yet: the unknown name of the key is what makes it look.
    assert other_process.verify(new).user_id == ALICE
    assert other_process.verify(old).user_id == ALICE


def test_a_token_of_a_key_that_was_thrown_away_ends_within_a_minute(tmp_path: Path) -> None:
    files = key_pair(tmp_path)
    here_s = 0.0
    tokens = AccessTokens(settings_with(files), SigningKeys(files, monotonic=lambda: here_s))
    old, generation = issued(tokens), tokens.generation
    rotate(files, bits=None, keep=0)
    here_s = 60.0
    assert tokens.generation > generation, "what was kept of earlier checks must go"
    assert "not known here" in refusal(tokens, old)
