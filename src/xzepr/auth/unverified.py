"""What a token says about itself before anybody believed it: enough to find the key that it must be checked with, and nothing more.

Everything here is the caller's word. It is bounded before it is looked at, and what is wrong with it is told without repeating it.
"""

import base64
from typing import Any, Final

import msgspec

from xzepr.errors import InvalidToken

# Bytes. Our own tokens have about a thousand, those of CI systems up to three thousand.
TOKEN_MAX_BYTES: Final = 16 * 1024
_NAME_MAX_CHARS: Final = 1024


class Header(msgspec.Struct, frozen=True):
    """Of the members of a header, those that decide something. names: all that it has."""

    alg: str
    kid: str
    names: frozenset[str]


def unverified_header(unverified_token: str) -> Header:
    """alg and kid as the token has them. Raises InvalidToken for what is no signed token of three parts, or names no key."""
    members = _members(unverified_token, 0, "header")
    if "crit" in members or "b64" in members:
        # What is critical must be understood, and nothing that can stand there is. Source: RFC 7515, 4.1.11.
        raise InvalidToken("the token asks for an extension that is not known here (crit)")
    alg, kid = members.get("alg"), members.get("kid")
    if not isinstance(alg, str):
        raise InvalidToken("the token names no algorithm (alg)")
    if not isinstance(kid, str) or not 0 < len(kid) <= _NAME_MAX_CHARS:
        raise InvalidToken("the token names no key (kid)")
    return Header(alg, kid, frozenset(members))


def unverified_issuer(unverified_token: str) -> str:
    """Who the token says made it, to choose who checks it. Raises InvalidToken when it says nothing of the kind."""
    issuer = _members(unverified_token, 1, "claims").get("iss")
    if not isinstance(issuer, str) or not 0 < len(issuer) <= _NAME_MAX_CHARS:
        raise InvalidToken("the token names no issuer (iss)")
    return issuer


def _members(unverified_token: str, place: int, what: str) -> dict[str, Any]:
    # Characters: ASCII is asked for below, and there the two are the same.
    if len(unverified_token) > TOKEN_MAX_BYTES:
        raise InvalidToken(f"the token is longer than {TOKEN_MAX_BYTES} bytes")
    parts = unverified_token.split(".")
    if len(parts) != 3 or not unverified_token.isascii():
        raise InvalidToken("the token is not a signed JSON Web Token")
    try:
        members = msgspec.json.decode(base64.b64decode(parts[place] + "=" * (-len(parts[place]) % 4), altchars=b"-_", validate=True))
    except (ValueError, msgspec.DecodeError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise InvalidToken(f"the {what} of the token cannot be read")
    return members
