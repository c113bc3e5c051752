"""With which configuration the server started: a row of its own, so that whoever weakened it for an hour is on record."""

from hashlib import sha256
from typing import Any

import msgspec

from xzepr import __version__
from xzepr.audit.acts import Act
from xzepr.audit.record import record
from xzepr.auth.principal import SYSTEM
from xzepr.db.pool import Connection
from xzepr.settings import Settings
from xzepr.settings.masking import masked
from xzepr.settings.model import knobs, value_of


async def record_start(connection: Connection, settings: Settings, command: str) -> None:
    """settings: as they were given; command: what was started."""
    await record(connection, SYSTEM, Act.SERVER_START, details=facts_of(settings, command))


def facts_of(settings: Settings, command: str) -> dict[str, Any]:
    """Every value that differs from its default, and a digest of all values, by which two starts can be compared.

    Secrets are masked in both: from a digest over a password that somebody thought up, and little else unknown, the password can be guessed.
    """
    values = {knob.path: masked(knob.path, value_of(settings, knob.path)) for knob in knobs()}
    changed = {knob.path: values[knob.path] for knob in knobs() if value_of(settings, knob.path) != knob.default}
    digest = sha256(msgspec.json.encode(values, order="sorted")).hexdigest()
    return {"command": command, "version": __version__, "environment": settings.env, "settings": changed, "settings_sha256": digest}
