"""Secrets are not shown: not by `config show`, not in a message. Of a URL only the password is hidden, so that a wrong host can still be seen.

Where it cannot be told where a password ends, more is hidden rather than less.
"""

import re
from typing import Any, Final

import msgspec

from xzepr.settings.model import SECRETS

MASK: Final = "********"
# Up to the last @: a password that should have been percent-encoded may hold @, / and ? itself.
_USERINFO: Final = re.compile(r"(://[^:/?#@]*:).*@", re.DOTALL)
_PARAMETER: Final = re.compile(r"([?&;][^=&;]*(?:pass|secret|token|key)[^=&;]*=)[^&;]*", re.IGNORECASE)


def masked(path: str, value: Any) -> Any:
    """The value of a key, as builtin types, fit to be shown."""
    if path in SECRETS and value is not None:
        return masked_url(value) if "://" in value else MASK
    return _without_passwords(msgspec.to_builtins(value))


def masked_url(text: str) -> str:
    """A URL without its passwords; another text as it is."""
    if "://" not in text:
        return text
    return _PARAMETER.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1{MASK}@", text))


def _without_passwords(value: Any) -> Any:
    match value:
        case str():
            return masked_url(value)
        case list():
            return [_without_passwords(item) for item in value]
        case dict():
            return {key: _without_passwords(item) for key, item in value.items()}
    return value
