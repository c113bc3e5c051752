"""Key files for tests, and tokens signed in every way that a forger could try."""

import base64
import hashlib
import hmac
import json
from functools import cache
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from xzepr.auth import key_files
from xzepr.auth.key_files import KeyFiles
from xzepr.settings import Settings


def rsa_key(number: int = 0) -> RSAPrivateKey:
    """One of as many as a test needs; making one takes a tenth of a second, so each is made once."""
    return _made(number)


@cache
def _made(_number: int) -> RSAPrivateKey:
    return key_files.new_key(2048)


def private_pem(key: Any) -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()  # type: ignore[no-any-return]


def public_pem(key: Any) -> str:
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key.public_key().public_bytes(*form).decode()  # type: ignore[no-any-return]


def key_pair(directory: Path, number: int = 0) -> KeyFiles:
    """Files as another tool would write them."""
    private, public = directory / "private.pem", directory / "public.pem"
    private.write_text(private_pem(rsa_key(number)), "utf-8")
    private.chmod(0o600)
    public.write_text(public_pem(rsa_key(number)), "utf-8")
    return KeyFiles(private, public)


def settings_with(files: KeyFiles, **more: Any) -> Settings:
    """more: sections."""
    paths = {"private_key_path": str(files.private), "public_key_path": str(files.public) if files.public is not None else None}
    return msgspec.convert({**more, "jwt": {**paths, **more.get("jwt", {})}}, Settings)


def raw_part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(header: Any, claims: Any, signature: bytes = b"") -> str:
    return f"{raw_part(header)}.{raw_part(claims)}.{raw_part(signature)}"


def signed_with_secret(header: Any, claims: Any, secret: bytes) -> str:
    """HS256 by hand: the library refuses a public key as a secret, a forger does not."""
    text = f"{raw_part(header)}.{raw_part(claims)}"
    return f"{text}.{raw_part(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def signed(key: Any, header: dict[str, Any], claims: dict[str, Any], algorithm: str = "RS256") -> str:
    return jwt.encode(claims, key, algorithm, header)
