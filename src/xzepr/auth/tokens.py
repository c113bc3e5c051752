"""Access tokens: signed by us, short-lived, checked without asking anybody.

RS256 and nothing else, whatever a token says of itself. The key is found by its kid among ours; where else a token says a key could be found is
reason enough to refuse it, since ours never say that. What is believed of a token stands in AccessClaims, and there only after every check. Whether a
login was ended in the meantime is looked up elsewhere, by sub, epoch and sid.
"""

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, Literal

import jwt
import msgspec

from xzepr import clock, ids
from xzepr.auth.keys import SigningKeys
from xzepr.auth.permissions import Permission, Role
from xzepr.auth.principal import How
from xzepr.auth.unverified import unverified_header
from xzepr.errors import InvalidToken
from xzepr.ids import FamilyId, UserId
from xzepr.settings import Settings

ALGORITHM: Final = "RS256"
# RFC 9068, 2.1: by it no other kind of token can be taken for one of these.
TYPE: Final = "at+jwt"
_REQUIRED: Final = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti"]
_FOREIGN: Final = frozenset({"jku", "jwk", "x5u", "x5c"})


class AccessClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token of ours says. epoch: of its user when it was made; family_id: of the login, how: by what; expires_at: seconds since 1970."""

    user_id: UserId
    username: str
    roles: frozenset[Role]
    epoch: int
    family_id: FamilyId | None
    how: How
    jti: str
    expires_at: int


class _Claims(msgspec.Struct, frozen=True):
    """As they stand in the token; those that every token has were looked at before."""

    sub: str
    name: str
    roles: frozenset[Role]
    permissions: list[str]
    epoch: int
    token_type: Literal["access"]
    jti: str
    iat: int
    exp: int
    sid: str | None = None
    how: How = How.PASSWORD


class AccessTokens:
    """Makes and checks them. settings: issuer, audience, seconds of life and leeway in the section jwt."""

    def __init__(self, settings: Settings, keys: SigningKeys) -> None:
        self._jwt = settings.jwt
        self._keys = keys

    @property
    def generation(self) -> int:
        """Rises when a key of ours no longer counts. Whoever keeps what verify() gave keeps it no longer than that."""
        return self._keys.generation

    def issue(
        self,
        *,
        user_id: UserId,
        username: str,
        roles: Iterable[Role],
        permissions: Iterable[Permission],
        epoch: int,
        family_id: FamilyId | None,
        how: How = How.PASSWORD,
    ) -> tuple[str, datetime]:
        """A new token, and the whole second at which it ends (aware UTC). permissions: for clients to read; roles decide when it comes back."""
        kid, key = self._keys.signing
        now = int(clock.now().timestamp())
        expires = now + self._jwt.access_token_expiration
        claims: dict[str, Any] = {
            "iss": self._jwt.issuer,
            "aud": self._jwt.audience,
            "sub": user_id,
            "exp": expires,
            "nbf": now,
            "iat": now,
            "jti": secrets.token_hex(16),
            "name": username,
            "roles": sorted(roles),
            "permissions": sorted(permissions),
            "epoch": epoch,
            "token_type": "access",
            "how": how,
        }
        if family_id is not None:
            claims["sid"] = family_id
        return jwt.encode(claims, key, ALGORITHM, {"kid": kid, "typ": TYPE}), datetime.fromtimestamp(expires, UTC)

    def verify(self, unverified_token: str) -> AccessClaims:
        """What the token says, if it is ours and counts now. Pure computing, some 100 µs. Raises InvalidToken with the reason."""
        header = unverified_header(unverified_token)
        if header.alg != ALGORITHM:
            raise InvalidToken(f"the token is not signed by {ALGORITHM}")
        if smuggled := sorted(_FOREIGN & header.names):
            raise InvalidToken(f"the token brings a key of its own ({', '.join(smuggled)})")
        key = self._keys.find(header.kid)
        if key is None:
            raise InvalidToken("the token is signed by a key that is not known here")
        claims = decoded(
            unverified_token,
            key,
            [ALGORITHM],
            issuer=self._jwt.issuer,
            audience=self._jwt.audience,
            leeway_s=self._jwt.leeway_seconds,
            required=_REQUIRED,
        )
        if claims.get("token_type") != "access":
            raise InvalidToken("the token is not an access token (token_type)")
        try:
            told = msgspec.convert(claims, _Claims)
        except msgspec.ValidationError as error:
            raise InvalidToken(f"the claims of the token are not those of ours: {_without_value(error)}") from None
        if told.exp - told.iat > self._jwt.access_token_expiration:
            # Made under another setting: what ended is remembered for as long as tokens of this one live.
            raise InvalidToken("the token is good for longer than tokens are here (jwt.access_token_expiration); log in again, or refresh it")
        family = told.sid
        if not ids.is_ulid(told.sub) or (family is not None and not ids.is_ulid(family)):
            raise InvalidToken("the claims of the token are not those of ours: sub and sid are ids")
        return AccessClaims(
            user_id=UserId(told.sub),
            username=told.name,
            roles=told.roles,
            epoch=told.epoch,
            family_id=FamilyId(family) if family is not None else None,
            how=told.how,
            jti=told.jti,
            expires_at=told.exp,
        )


def decoded(
    unverified_token: str, key: Any, algorithms: list[str], *, issuer: str, audience: str, leeway_s: float, required: list[str]
) -> dict[str, Any]:
    """The claims of a token that this key signed for this audience, and that counts now. Raises InvalidToken in words that repeat nothing of it."""
    try:
        return jwt.decode(
            unverified_token,
            key,
            algorithms,
            issuer=issuer,
            audience=audience,
            leeway=leeway_s,
            options={"require": required, "verify_signature": True},
        )
    except jwt.InvalidTokenError as error:
        raise InvalidToken(_reason(error)) from None
    except (ValueError, TypeError, OverflowError):
        # What the library does not expect, such as a number beyond all bounds.
        raise InvalidToken("the token cannot be read") from None


def _reason(error: jwt.InvalidTokenError) -> str:
    match error:
        case jwt.MissingRequiredClaimError():
            return f"the token has no claim {error.claim}"
        case jwt.ExpiredSignatureError():
            return "the token has expired"
        case jwt.ImmatureSignatureError():
            return "the token does not count yet (nbf, iat)"
        case jwt.InvalidIssuerError():
            return "the token was made by another issuer (iss)"
        case jwt.InvalidAudienceError():
            return "the token was made for another audience (aud)"
        case jwt.InvalidSignatureError():
            return "the signature of the token is wrong"
        case jwt.InvalidAlgorithmError():
            return "the token is signed by another algorithm than its key is for"
        case _:
            return "the token cannot be read"


def _without_value(error: msgspec.ValidationError) -> str:
    """The place alone: an enum's fault repeats the value."""
    return f"at {str(error).rpartition(' - at ')[2].strip('`')}" if " - at " in str(error) else "one is missing"
