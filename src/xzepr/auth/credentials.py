"""What a request brings to show who it comes from, as sent and not yet believed."""

from typing import Final, NamedTuple

from starlette.datastructures import Headers

from xzepr.errors import InvalidInput, InvalidToken

BEARER: Final = "bearer"
API_KEY: Final = "api_key"
SESSION: Final = "session"
SECRET_MAX_CHARS: Final = 16_384


class Credential(NamedTuple):
    """kind: one of the three above."""

    kind: str
    secret: str


def credential_of(headers: Headers) -> Credential | None:
    """Raises InvalidInput when a request brings a token and a key, or one of them twice; InvalidToken for a scheme that is none of ours."""
    authorizations, keys = headers.getlist("authorization"), headers.getlist("x-api-key")
    if len(authorizations) + len(keys) > 1:
        raise InvalidInput.at("Authorization", "and X-API-Key: one credential in a request")
    if keys:
        return Credential(API_KEY, _bounded(keys[0].strip()))
    return of_authorization(authorizations[0]) if authorizations else None


def of_authorization(value: str) -> Credential:
    """`Bearer …`; an API key may stand there, too. Raises InvalidToken."""
    scheme, _, secret = value.strip().partition(" ")
    secret = secret.strip()
    if scheme.lower() != BEARER or not secret:
        raise InvalidToken("Authorization: Bearer and a token are expected")
    # Tools that can set a bearer token and no other header send keys this way.
    return Credential(API_KEY if secret.startswith("xzepr_") else BEARER, _bounded(secret))


def _bounded(secret: str) -> str:
    if not 0 < len(secret) <= SECRET_MAX_CHARS or not secret.isascii():
        raise InvalidToken("the credential is no token or key of ours")
    return secret
