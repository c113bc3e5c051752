"""Secrets that mean nothing by themselves: tokens, keys, codes, states. Made, and kept as hashes, here and nowhere else."""

import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256


def new_secret() -> str:
    """32 random bytes, as 43 characters that go into a URL, a header and a cookie."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    """What is kept of a secret with 256 bits of chance: no salt and no slow hash is needed."""
    return sha256(secret.encode()).digest()


def base64url(data: bytes) -> str:
    """Without padding. Source: RFC 7515, 2."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def challenge_of(code_verifier: str) -> str:
    """Of PKCE, S256. Source: RFC 7636, 4.2."""
    return base64url(digest(code_verifier))
