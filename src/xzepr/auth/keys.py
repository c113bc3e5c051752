"""The keys of one process: the one that signs its tokens, and all that check them.

They are read when the process starts, and again when a file has changed: looked at when a key is asked for, at most every LOOK_S, and at once when a
token names a key that is not known here, which is how the first token of a rotated key finds a process that has not noticed yet. Files that cannot be
used then change nothing: it is logged, and the keys that there are go on counting.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from xzepr.auth.key_files import KeyFiles, KeysError, PublicKey, make_missing, read_keys
from xzepr.settings import Settings

log = structlog.get_logger(__name__)

LOOK_S: Final = 5.0
# Whoever sends tokens of made-up keys makes us look at two files ten times a second, not more often.
LOOK_UNKNOWN_S: Final = 0.1

_Seen = tuple[tuple[int, int, int], ...]


class SigningKeys:
    """Reads the files; raises KeysError when they cannot be used. For one thread. monotonic: seconds that only rise."""

    def __init__(self, files: KeyFiles, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._monotonic = monotonic
        self._looked_at_s = monotonic()
        # Before the reading: what changes meanwhile is then noticed the next time.
        self._seen = _seen(files)
        keys = read_keys(files)
        self._signs, self._valid = keys.signs, {key.kid: key for key in keys.valid}
        self._signs_kid = keys.valid[0].kid
        self._said_of = self._seen
        self._generation = 0

    @classmethod
    def of(cls, settings: Settings) -> "SigningKeys":
        """Of the configured files, else of the state directory, where what is missing is made. Raises KeysError."""
        files = KeyFiles.of(settings)
        if files.ours:
            make_missing(files)
        return cls(files)

    @property
    def signing(self) -> tuple[str, RSAPrivateKey]:
        """The key that signs now, behind its kid."""
        self._look(LOOK_S)
        return self._signs_kid, self._signs

    @property
    def valid(self) -> tuple[PublicKey, ...]:
        """All that check now, the one that signs first."""
        self._look(LOOK_S)
        return tuple(self._valid.values())

    @property
    def generation(self) -> int:
        """Rises when a key no longer counts: what was checked with it earlier must be checked again."""
        self._look(LOOK_S)
        return self._generation

    def find(self, kid: str) -> RSAPublicKey | None:
        """The key of this name, if it checks; None when there is none."""
        self._look(LOOK_S if kid in self._valid else LOOK_UNKNOWN_S)
        found = self._valid.get(kid)
        return found.key if found is not None else None

    def _look(self, interval_s: float) -> None:
        now_s = self._monotonic()
        if now_s - self._looked_at_s < interval_s:
            return
        self._looked_at_s = now_s
        seen = _seen(self._files)
        if seen == self._seen:
            return
        try:
            keys = read_keys(self._files)
        except KeysError as error:
            # Said once for each change, and tried again at every look.
            if seen != self._said_of:
                log.warning("keys.not_taken_up", reason=str(error))
            self._said_of = seen
            return
        valid = {key.kid: key for key in keys.valid}
        self._generation += not self._valid.keys() <= valid.keys()
        self._seen, self._signs, self._signs_kid, self._valid = seen, keys.signs, keys.valid[0].kid, valid
        log.info("keys.taken_up", signs=self._signs_kid, valid=len(valid))


def _seen(files: KeyFiles) -> _Seen:
    """What changes when a file is replaced, written to or given another mode; zeros for one that is not there."""
    return tuple(_mark(path) for path in (files.private, files.public) if path is not None)


def _mark(path: Path) -> tuple[int, int, int]:
    try:
        info = path.stat()
    except OSError:
        return 0, 0, 0
    return info.st_ctime_ns, info.st_ino, info.st_size
