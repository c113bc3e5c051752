"""Sessions of browsers: a cookie that no script can read, of which only a hash is stored.

`__Host-xzepr_session` is HttpOnly, Secure, SameSite=Lax and of the whole host, and no other host of the same domain can plant it. Where browsers
reach this server over plain HTTP, which is only good on its own machine, they refuse such a name: there the cookie is `xzepr_session`, without
Secure. Which of the two counts is decided by the settings (is_secure) and never by a request: a plain cookie on a server behind TLS is as good as
none.

A page must prove for every unsafe method that it could read this server's answers: header X-CSRF-Token (csrf_token_of). SameSite and the check of
Origin (web/middleware.py) hold foreign pages off as well; each of the three stands alone.
"""

import hmac
import re
from datetime import datetime, timedelta
from typing import Any, Final

from starlette.datastructures import Headers

from xzepr import ids
from xzepr.auth import changes
from xzepr.auth.opaque import base64url, digest, new_secret
from xzepr.auth.principal import How, Principal
from xzepr.db.pool import Connection
from xzepr.db.queries import Queries
from xzepr.errors import PermissionDenied
from xzepr.ids import FamilyId
from xzepr.settings import Settings

queries = Queries("xzepr.auth")

SESSION_COOKIE: Final = "xzepr_session"
CSRF_HEADER: Final = "x-csrf-token"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_PREFIX: Final = "__Host-"


class CsrfRefused(PermissionDenied):
    """A browser's session needs the header X-CSRF-Token here: csrf_token of GET /api/v1/auth/me."""

    def __init__(self, principal: Principal) -> None:
        """principal: whose session it is, for the audit log."""
        super().__init__()
        self.principal = principal


def is_secure(settings: Settings) -> bool:
    """Whether browsers reach this server over TLS, its own or that of a proxy in front."""
    redirect_url = settings.auth.keycloak.redirect_url
    if settings.auth.enable_oidc and redirect_url is not None:
        return redirect_url.lower().startswith("https:")
    return settings.server.enable_https or bool(settings.server.trusted_proxies)


def cookie_of(headers: Headers, name: str, *, secure: bool) -> str | None:
    """A token in the cookie of this name; None when there is none, or two that differ, of which one is somebody else's."""
    wanted = _named(name, secure=secure)
    found = set()
    # One line, or several over HTTP/2.
    for pair in ";".join(headers.getlist("cookie")).split(";"):
        given, _, value = pair.strip().partition("=")
        if given == wanted:
            found.add(value)
    token = found.pop() if len(found) == 1 else ""
    return token if _TOKEN.fullmatch(token) else None


def session_cookie(headers: Headers, *, secure: bool) -> str | None:
    """The token of the browser's session. secure: is_secure()."""
    return cookie_of(headers, SESSION_COOKIE, secure=secure)


def csrf_token_of(token: str) -> str:
    """What the pages of this session send in X-CSRF-Token. It says nothing about the session's own token."""
    return base64url(digest("csrf" + token))


def require_csrf(headers: Headers, token: str, method: str, principal: Principal) -> None:
    """For a request that a session's cookie speaks for. principal: as far as it is known. Raises CsrfRefused."""
    if method in SAFE_METHODS:
        return
    given = headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode(), csrf_token_of(token).encode()):
        raise CsrfRefused(principal)


def set_cookie_header(token: str, *, secure: bool, lifetime: timedelta, name: str = SESSION_COOKIE) -> str:
    """The value of Set-Cookie."""
    return _cookie(name, token, secure=secure, max_age_s=int(lifetime.total_seconds()))


def clear_cookie_header(*, secure: bool, name: str = SESSION_COOKIE) -> str:
    """The value of Set-Cookie that takes it away."""
    return _cookie(name, "", secure=secure, max_age_s=0)


async def begin_session(connection: Connection, user_id: str, id_token: str | None, now: datetime, lifetime: timedelta) -> tuple[str, FamilyId]:
    """In the transaction of the login. The token, which is shown to the browser alone, and the family that the session is one of."""
    token, family_id = new_secret(), ids.mint(FamilyId)
    await connection.execute(queries["begin_family"], family_id, user_id, How.BROWSER, now, now + lifetime)
    await connection.execute(queries["browser_session_add"], digest(token), family_id, id_token)
    return token, family_id


async def find_session(connection: Connection, token_sha256: bytes, now: datetime) -> Any | None:
    """family_id, method, created_at, expires_at, user_id, username, email, roles, auth_epoch; None when it has ended."""
    return await connection.fetchrow(queries["browser_session_find"], token_sha256, now)


async def end_session(connection: Connection, token_sha256: bytes, now: datetime) -> Any | None:
    """In the transaction of the logout; every process learns of it. family_id, id_token, user_id, username, roles; None: it has ended already."""
    ended = await connection.fetchrow(queries["browser_session_end"], token_sha256, now)
    if ended is not None:
        await changes.tell(connection, changes.FAMILY, ended["family_id"])
    return ended


def _named(name: str, *, secure: bool) -> str:
    return _PREFIX + name if secure else name


def _cookie(name: str, value: str, *, secure: bool, max_age_s: int) -> str:
    return f"{_named(name, secure=secure)}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
