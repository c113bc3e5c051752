"""The files that hold our keys: read, made, rotated.

The private file holds one RSA key in PEM, which signs. The public file holds any number of public keys, one after another, each of which checks; the
public half of the private key counts whether it stands there or not. Above each key that we write stands when it was made; PEM allows such lines.

Each file is replaced as a whole, and the public one first, so whoever reads between the two finds keys that fit. A lock on the private file's
directory lets one process at a time make or rotate. What is wrong is a KeysError of one line that names the setting.
"""

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key

from xzepr import clock
from xzepr.auth.opaque import base64url
from xzepr.embedded.account import default_state_dir, make_directories
from xzepr.settings import Settings

PRIVATE, PUBLIC = "jwt.private_key_path", "jwt.public_key_path"
BITS_MIN: Final = 2048
# A longer key would only make every check slow.
BITS_MAX: Final = 8192
BITS_DEFAULT: Final = 2048
_EXPONENT: Final = 65537
_FILE_MAX_BYTES: Final = 256 * 1024
_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_CREATED: Final = re.compile(r"^created: (\S+)$", re.MULTILINE)
_PUBLIC_LABELS: Final = ("PUBLIC KEY", "RSA PUBLIC KEY")


class KeysError(Exception):
    """The keys cannot be used; the message is one line that names the setting."""


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """private: of the key that signs; public: of those that check, None when only the private key's own half does.

    Of the state directory (`ours`) they are made when they are not there; others are somebody's to make.
    """

    private: Path
    public: Path | None
    ours: bool = False

    @classmethod
    def of(cls, settings: Settings) -> "KeyFiles":
        """The configured files, else those of the state directory. Raises KeysError for a public file without a private one."""
        private, public = settings.jwt.private_key_path, settings.jwt.public_key_path
        if private is not None:
            return cls(Path(private).absolute(), Path(public).absolute() if public is not None else None)
        if public is not None:
            raise KeysError(f"{PRIVATE}: is missing; {PUBLIC} goes with it")
        chosen = settings.server.state_dir
        directory = (Path(chosen).absolute() if chosen else default_state_dir()) / "keys"
        return cls(directory / "signing.pem", directory / "public.pem", ours=True)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """kid: RFC 7638 thumbprint of the key. created: aware UTC; None when its file does not say."""

    kid: str
    key: RSAPublicKey
    created: datetime | None

    @classmethod
    def of(cls, key: RSAPublicKey, created: datetime | None) -> "PublicKey":
        """With its thumbprint."""
        return cls(thumbprint(key), key, created)


@dataclass(frozen=True, slots=True)
class KeySet:
    """signs: the private key; valid: all that check, that of the private key first."""

    signs: RSAPrivateKey
    valid: tuple[PublicKey, ...]


def thumbprint(key: RSAPublicKey) -> str:
    """The same for the same key everywhere: SHA-256 over its members in the order of their names, base64url. Source: RFC 7638."""
    members = msgspec.json.encode({"e": numeral(key.public_numbers().e), "kty": "RSA", "n": numeral(key.public_numbers().n)})
    return base64url(sha256(members).digest())


def numeral(number: int) -> str:
    """As a JSON Web Key carries numbers: big-endian bytes in base64url. Source: RFC 7518, 2."""
    return base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def read_keys(files: KeyFiles) -> KeySet:
    """Raises KeysError. The private file is read first: when both are replaced meanwhile, the new public file still holds the old key."""
    signs, created = _read_private(files)
    own = PublicKey.of(signs.public_key(), created)
    others = _read_public(files.public) if files.public is not None else []
    # The public file may say when the signing key was made where the private file of another tool does not.
    told = next((each.created for each in others if each.kid == own.kid and own.created is None), own.created)
    valid = {own.kid: replace(own, created=told)}
    for each in others:
        valid.setdefault(each.kid, each)
    return KeySet(signs, tuple(valid.values()))


def _read_private(files: KeyFiles) -> tuple[RSAPrivateKey, datetime | None]:
    text = _text_of(files.private, PRIVATE, secret=files.ours)
    blocks = [block for block in _BLOCK.finditer(text) if block[1].endswith("PRIVATE KEY")]
    if len(blocks) != 1:
        raise KeysError(f"{PRIVATE}: {files.private} holds {len(blocks) or 'no'} private keys in PEM, and must hold one")
    if "ENCRYPTED" in blocks[0][0]:
        raise KeysError(f"{PRIVATE}: the key in {files.private} is encrypted; write it without a passphrase")
    try:
        key = serialization.load_pem_private_key(blocks[0][0].encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeysError(f"{PRIVATE}: the key in {files.private} cannot be read") from None
    if not isinstance(key, RSAPrivateKey):
        raise KeysError(f"{PRIVATE}: the key in {files.private} is not an RSA key")
    _require_bits(key.key_size, PRIVATE, files.private)
    return key, _created(text[: blocks[0].start()])


def _read_public(path: Path) -> list[PublicKey]:
    text = _text_of(path, PUBLIC)
    found: list[PublicKey] = []
    end = 0
    for block in _BLOCK.finditer(text):
        if block[1] not in _PUBLIC_LABELS:
            raise KeysError(f"{PUBLIC}: {path} holds a {block[1]}; it must hold public keys only")
        try:
            key = serialization.load_pem_public_key(block[0].encode())
        except (ValueError, UnsupportedAlgorithm):
            raise KeysError(f"{PUBLIC}: key {len(found) + 1} in {path} cannot be read") from None
        if not isinstance(key, RSAPublicKey):
            raise KeysError(f"{PUBLIC}: key {len(found) + 1} in {path} is not an RSA key")
        _require_bits(key.key_size, PUBLIC, path)
        found.append(PublicKey.of(key, _created(text[end : block.start()])))
        end = block.end()
    if not found:
        raise KeysError(f"{PUBLIC}: {path} holds no public key in PEM")
    return found


def _text_of(path: Path, setting: str, *, secret: bool = False) -> str:
    """secret: refused when everybody can read it; the configured file was looked at with the other settings."""
    try:
        with path.open("rb") as opened:
            if secret and os.fstat(opened.fileno()).st_mode & stat.S_IROTH:
                raise KeysError(f"{setting}: everybody can read {path}: chmod 600 it")
            content = opened.read(_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise KeysError(f"{setting}: {path}: {error.strerror}") from None
    if len(content) > _FILE_MAX_BYTES:
        raise KeysError(f"{setting}: {path} is larger than {_FILE_MAX_BYTES} bytes, which no file of keys is")
    return content.decode("utf-8", "replace")


def _require_bits(bits: int, setting: str, path: Path) -> None:
    if not BITS_MIN <= bits <= BITS_MAX:
        raise KeysError(f"{setting}: {path} holds an RSA key of {bits} bits; {BITS_MIN} to {BITS_MAX} are taken")


def _created(above: str) -> datetime | None:
    told = _CREATED.findall(above)
    try:
        moment = datetime.fromisoformat(told[-1]) if told else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def make_missing(files: KeyFiles) -> None:
    """Make what of our own files is not there; nothing happens when both are. Of two that start at once one makes them. Raises KeysError."""
    if _is_there(files.private, PRIVATE) and (files.public is None or _is_there(files.public, PUBLIC)):
        return
    _make_directory(files.private.parent, ours=files.ours)
    with _alone(files):
        if not _is_there(files.private, PRIVATE):
            _write_private(files.private, new_key(BITS_DEFAULT), clock.now())
        if files.public is not None and not _is_there(files.public, PUBLIC):
            # Also what a start that was killed between the two left.
            key, created = _read_private(files)
            _write_public(files.public, [PublicKey.of(key.public_key(), created)])


def generate(files: KeyFiles, *, bits: int) -> PublicKey:
    """A new pair where there is none; the key. Raises KeysError when one of the files is there."""
    assert files.public is not None
    for path in (files.private.parent, files.public.parent):
        _make_directory(path, ours=files.ours)
    with _alone(files):
        for path, setting in ((files.private, PRIVATE), (files.public, PUBLIC)):
            if _is_there(path, setting):
                raise KeysError(f"{setting}: {path} is there already, and no key is overwritten; `xzepr keys rotate` makes a new one beside it")
        key, now = new_key(bits), clock.now()
        made = PublicKey.of(key.public_key(), now)
        _write_private(files.private, key, now)
        _write_public(files.public, [made])
    return made


def rotate(files: KeyFiles, *, bits: int | None, keep: int) -> KeySet:
    """A new key signs; the one that signed until now and older ones, `keep` in all, go on checking. bits: None, as many as before.

    Raises KeysError. Cut off between the two files it has added a public key that nobody signs with, and can be repeated.
    """
    if files.public is None:
        raise KeysError(f"{PUBLIC}: is missing; without it the tokens of the old key would end at once")
    with _alone(files):
        before = read_keys(files)
        key, now = new_key(bits or before.signs.key_size), clock.now()
        valid = [PublicKey.of(key.public_key(), now), *before.valid[:keep]]
        _write_public(files.public, valid)
        _write_private(files.private, key, now)
    return KeySet(key, tuple(valid))


def new_key(bits: int) -> RSAPrivateKey:
    """bits: BITS_MIN to BITS_MAX."""
    return generate_private_key(_EXPONENT, bits)


def _write_private(path: Path, key: RSAPrivateKey, created: datetime | None) -> None:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _replace(path, _above(created) + key.private_bytes(*form), 0o600, PRIVATE)


def _write_public(path: Path, keys: Sequence[PublicKey]) -> None:
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _replace(path, b"".join(_above(each.created) + each.key.public_bytes(*form) for each in keys), 0o644, PUBLIC)


def _above(created: datetime | None) -> bytes:
    return f"created: {clock.rfc3339(created)}\n".encode() if created is not None else b""


def _replace(path: Path, content: bytes, mode: int, setting: str) -> None:
    """Whole or not at all, also through a crash. What is replaced keeps its owner and mode: the server may run under another account than we do."""
    path = path.resolve()  # a link stays one
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)  # of a process that was killed; we are alone here
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            with contextlib.suppress(FileNotFoundError):
                replaced = path.stat()
                mode = stat.S_IMODE(replaced.st_mode)
                if (replaced.st_uid, replaced.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
            opened.write(content)
            opened.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        new.replace(path)
        _sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise KeysError(f"{setting}: {path} cannot be written: {error.strerror}") from None


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_there(path: Path, setting: str) -> bool:
    """Also a link that leads nowhere is there: what it is for is not ours to guess."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise KeysError(f"{setting}: {path}: {error.strerror}") from None
    return True


def _make_directory(path: Path, *, ours: bool) -> None:
    """Closed to others. The state directory above one of ours is made as the embedded PostgreSQL would make it, which comes here too."""
    try:
        if ours:
            make_directories(path.parent, 0o711 if os.geteuid() == 0 else 0o700, 0o755)
        make_directories(path, 0o700, 0o755)
    except OSError as error:
        raise KeysError(f"{PRIVATE}: the directory {path} cannot be made: {error.strerror}; set it, or server.state_dir") from None


@contextlib.contextmanager
def _alone(files: KeyFiles) -> Iterator[None]:
    """While this lasts nobody else makes or rotates these files. The kernel frees the lock of a process that dies."""
    directory = files.private.parent
    try:
        # The directory itself: a file for the lock would belong to whoever was first, and shut another account out.
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KeysError(f"{PRIVATE}: {directory}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
