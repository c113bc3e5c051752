"""`GET /.well-known/jwks.json`: the keys by which anybody can check our access tokens. Only their public halves are ever known here."""

from typing import Final

import msgspec

from xzepr.auth.key_files import PublicKey, numeral
from xzepr.auth.permissions import PUBLIC
from xzepr.auth.tokens import ALGORITHM
from xzepr.house import House
from xzepr.web.call import Answer, Call
from xzepr.web.routes import Route

_KEPT_FOR_S: Final = 300


class Jwk(msgspec.Struct, frozen=True, kw_only=True):
    """A public RSA key. kid: its RFC 7638 thumbprint; n, e: base64url."""

    kty: str = "RSA"
    use: str = "sig"
    alg: str = ALGORITHM
    kid: str
    n: str
    e: str

    @classmethod
    def of(cls, key: PublicKey) -> "Jwk":
        """For the wire."""
        numbers = key.key.public_numbers()
        return cls(kid=key.kid, n=numeral(numbers.n), e=numeral(numbers.e))


class Jwks(msgspec.Struct, frozen=True):
    """All keys that count, the one that signs first."""

    keys: list[Jwk]


async def show_keys(call: Call[House]) -> Answer:
    """From memory."""
    return Answer(Jwks([Jwk.of(key) for key in call.house.keys.valid]), headers={"Cache-Control": f"public, max-age={_KEPT_FOR_S}"})


ROUTES = (
    Route(
        method="GET",
        path="/.well-known/jwks.json",
        handler=show_keys,
        permission=PUBLIC,
        answer=Jwks,
        tag="accounts",
        summary="Public keys of our access tokens",
        description="A JSON Web Key Set (RFC 7517). After a rotation the keys before it stay for a while. May be kept for five minutes.",
        example_answer={
            "keys": [
                {
                    "kty": "RSA",
                    "use": "sig",
                    "alg": ALGORITHM,
                    "kid": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
                    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMst",
                    "e": "AQAB",
                }
            ]
        },
    ),
)
