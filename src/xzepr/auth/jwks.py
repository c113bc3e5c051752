"""Public keys as somebody else publishes them (RFC 7517), and what each of them may be used for."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from xzepr.auth.key_files import BITS_MAX, BITS_MIN

_NUMBER_MAX_CHARS: Final = 2048

# Which algorithms a key may be used with, by its type and curve. None of them takes a secret for a key.
ALGORITHMS: Final[dict[str, tuple[str, ...]]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
}
ALL_ALGORITHMS: Final = frozenset(name for names in ALGORITHMS.values() for name in names)

PublicKey = RSAPublicKey | EllipticCurvePublicKey


class PublishedKeys:
    """Of a list of keys those that sign, have a name and are of a kind that we take; the others are for somebody else."""

    def __init__(self, jwks: Iterable[Mapping[str, Any]] = ()) -> None:
        # By kid and algorithm; None: two keys of one name, so nobody can tell which is meant.
        self._keys: dict[tuple[str, str], PublicKey | None] = {}
        for each in jwks:
            kid = each.get("kid")
            algorithms = _algorithms_of(each) if isinstance(kid, str) else ()
            key = _public_key(each) if algorithms else None
            if key is not None:
                for algorithm in algorithms:
                    place = (str(kid), algorithm)
                    self._keys[place] = None if place in self._keys else key
        self._kids = frozenset(kid for kid, _ in self._keys)

    def __len__(self) -> int:
        return len(self._kids)

    def has(self, kid: str | None) -> bool:
        """Whether a key has this name; None: whether there is any."""
        return bool(self._kids) if kid is None else kid in self._kids

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """The one key of this name for this algorithm; without a name the only one that there is."""
        if kid is not None:
            return self._keys.get((kid, algorithm))
        fitting = [key for (_, name), key in self._keys.items() if name == algorithm]
        return fitting[0] if len(fitting) == 1 else None


def _algorithms_of(jwk: Mapping[str, Any]) -> tuple[str, ...]:
    if jwk.get("use", "sig") != "sig" or "verify" not in _operations(jwk):
        return ()
    kind = jwk.get("crv") if jwk.get("kty") == "EC" else jwk.get("kty")
    algorithms = ALGORITHMS.get(kind, ()) if isinstance(kind, str) else ()
    return tuple(name for name in algorithms if jwk.get("alg", name) == name)


def _operations(jwk: Mapping[str, Any]) -> list[Any]:
    told = jwk.get("key_ops", ["verify"])
    return told if isinstance(told, list) else []


def _public_key(jwk: Mapping[str, Any]) -> PublicKey | None:
    """Of the public members alone, whatever else stands there; None when they are no key, or a weak one, or one so long that checking takes long."""
    names = ("n", "e") if jwk["kty"] == "RSA" else ("x", "y")
    members = {name: jwk.get(name) for name in names}
    if not all(isinstance(number, str) and len(number) <= _NUMBER_MAX_CHARS for number in members.values()):
        return None
    try:
        if jwk["kty"] == "RSA":
            rsa = RSAAlgorithm.from_jwk({"kty": "RSA", **members})
            return rsa if isinstance(rsa, RSAPublicKey) and BITS_MIN <= rsa.key_size <= BITS_MAX else None
        curve = ECAlgorithm.from_jwk({"kty": "EC", "crv": jwk["crv"], **members})
        return curve if isinstance(curve, EllipticCurvePublicKey) else None
    except (jwt.InvalidKeyError, ValueError, TypeError):
        return None
