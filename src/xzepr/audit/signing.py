"""The keys of checkpoints: the one that signs, those that check. The same that sign access tokens, RSA with SHA-256 (RS256); kid: RFC 7638.

Files are read when they are needed, so a key that was rotated counts without a restart.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from xzepr.auth.key_files import thumbprint

_PUBLIC_PEM: Final = re.compile(rb"-----BEGIN (?:RSA )?PUBLIC KEY-----.*?-----END (?:RSA )?PUBLIC KEY-----", re.DOTALL)


class KeyUnusable(Exception):
    """A key file cannot be read, or holds no RSA key; the message names the file."""


class Signer(Protocol):
    """Signs with one key. kid: which."""

    @property
    def kid(self) -> str:
        """Of its public half."""

    def sign(self, data: bytes) -> bytes:
        """The signature."""


class PemSigner:
    """The RSA key of a PEM file. Raises KeyUnusable."""

    def __init__(self, path: str | Path) -> None:
        self._key = _private_key(Path(path))
        self.kid = thumbprint(self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        """RS256."""
        return self._key.sign(data, PKCS1v15(), SHA256())


def is_signed(key: RSAPublicKey, data: bytes, signature: bytes) -> bool:
    """Whether the signature is this key's, of this data."""
    try:
        key.verify(signature, data, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def public_keys(*, private: str | Path | None, public: Iterable[str | Path]) -> dict[str, RSAPublicKey]:
    """By kid. private: its public half counts; public: files with any number of keys one after another. Raises KeyUnusable."""
    found = [key for path in public for key in _public_keys(Path(path))]
    if private is not None:
        found.append(_private_key(Path(private)).public_key())
    return {thumbprint(key): key for key in found}


def _private_key(path: Path) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise KeyUnusable(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError):
        # TypeError: it is encrypted.
        raise KeyUnusable(f"{path}: is not a private key in PEM without a passphrase") from None
    if not isinstance(key, RSAPrivateKey):
        raise KeyUnusable(f"{path}: is not an RSA key")
    return key


def _public_keys(path: Path) -> list[RSAPublicKey]:
    try:
        pieces = _PUBLIC_PEM.findall(path.read_bytes())
        keys = [load_pem_public_key(piece) for piece in pieces]
    except OSError as error:
        raise KeyUnusable(f"{path}: {error.strerror}") from None
    except ValueError:
        raise KeyUnusable(f"{path}: holds a public key that cannot be read") from None
    found = [key for key in keys if isinstance(key, RSAPublicKey)]
    if not found:
        raise KeyUnusable(f"{path}: holds no public RSA key in PEM")
    return found
