"""`/api/v1/auth/oidc` and `/api/v1/auth/cli`: parse, call, answer.

A browser (Accept: text/html) that comes back from the provider and is not let in gets a small page that says why; programs get the problem.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Annotated, Final

from msgspec import Meta, Struct
from starlette.responses import HTMLResponse, RedirectResponse, Response

from xzepr import clock
from xzepr.auth.browser import clear_cookie_header, cookie_of, is_secure, require_csrf, session_cookie, set_cookie_header
from xzepr.auth.model import TokenPair
from xzepr.auth.oidc import LOGIN_LIFETIME, CliLogin, InBrowser, Oidc, Returned, ToCommand
from xzepr.auth.opaque import new_secret
from xzepr.auth.permissions import PUBLIC
from xzepr.errors import ForeignOrigin, LoginFailed, NotFound, PermissionDenied, ProviderUnavailable, TooManyAttempts, Unauthenticated, XzeprError
from xzepr.house import House
from xzepr.web.call import Answer, Call
from xzepr.web.pages import failure_page, prefers_html
from xzepr.web.routes import Route

# Names the browser that began a login, for as long as a login may take. Not the login: two tabs may log in at the same time.
LOGIN_COOKIE: Final = "xzepr_oidc"
_VARY: Final = {"Vary": "Accept"}

Handler = Callable[[Call[House]], Awaitable[Answer | Response]]


class LoginQuery(Struct, frozen=True, kw_only=True):
    """How to log in."""

    redirect_to: Annotated[str, Meta(min_length=1, max_length=2000)] | None = None


class AuthorizationUrl(Struct, frozen=True, kw_only=True):
    """Where the browser logs in."""

    authorization_url: str
    state: str


class CallbackQuery(Struct, frozen=True, kw_only=True):
    """What the provider sends the browser back with: code and state, or error."""

    state: Annotated[str, Meta(max_length=1000)] | None = None
    code: Annotated[str, Meta(max_length=8000)] | None = None
    error: Annotated[str, Meta(max_length=1000)] | None = None
    error_description: Annotated[str, Meta(max_length=4000)] | None = None
    iss: Annotated[str, Meta(max_length=1000)] | None = None


class CliQuery(Struct, frozen=True, kw_only=True):
    """Where a command waits for its browser."""

    port: Annotated[int, Meta(ge=1024, le=65535)]
    state: Annotated[str, Meta(min_length=1, max_length=200, pattern="^[!-~]+$")]
    code_challenge: Annotated[str, Meta(min_length=43, max_length=43, pattern="^[A-Za-z0-9_-]+$")]


class CliCode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command's code, and what its code_challenge was made from."""

    code: Annotated[str, Meta(min_length=1, max_length=200)]
    code_verifier: Annotated[str, Meta(min_length=43, max_length=128, pattern="^[A-Za-z0-9._~-]+$")]


class LoggedOut(Struct, frozen=True, kw_only=True):
    """Where the browser goes on to end its session at the provider as well; null: nowhere."""

    logout_url: str | None


def _oidc(call: Call[House]) -> Oidc:
    if call.house.oidc is None:
        raise NotFound("login through a provider is not enabled on this server (auth.enable_oidc)")
    return call.house.oidc


def _with_page(handler: Handler) -> Handler:
    """A person in front of a browser reads why, not JSON."""

    @wraps(handler)
    async def shown(call: Call[House]) -> Answer | Response:
        try:
            return await handler(call)
        except XzeprError as error:
            if not prefers_html(call.headers.get("accept", "")):
                raise
            page = failure_page("Login failed", error.message, call.request_id, again="/api/v1/auth/oidc/login")
            return HTMLResponse(page, error.status, headers=_VARY)

    return shown


@_with_page
async def start_login(call: Call[House]) -> Answer | Response:
    query: LoginQuery = call.query
    accept = call.headers.get("accept", "").lower()
    wants_json = "application/json" in accept and not prefers_html(accept)
    browser = _browser(call) or new_secret()
    to = query.redirect_to if wants_json else query.redirect_to or "/"
    begun = await _oidc(call).begin(call.principal, browser=browser, redirect_to=to, now=clock.now())
    cookie = {"Set-Cookie": _login_cookie(call, browser), **_VARY}
    if wants_json:
        return Answer(AuthorizationUrl(authorization_url=begun.authorization_url, state=begun.state), headers=cookie)
    return RedirectResponse(begun.authorization_url, 302, headers=cookie)


@_with_page
async def take_callback(call: Call[House]) -> Answer | Response:
    query: CallbackQuery = call.query
    returned = Returned(state=query.state, code=query.code, error=query.error, error_description=query.error_description, iss=query.iss)
    oidc = _oidc(call)
    session = session_cookie(call.headers, secure=is_secure(call.house.settings))
    outcome = await oidc.finish(returned, browser=_browser(call), session=session, principal=call.principal, now=clock.now())
    if isinstance(outcome, ToCommand):
        return RedirectResponse(outcome.url, 302)
    if isinstance(outcome, InBrowser):
        cookie = set_cookie_header(outcome.token, secure=is_secure(call.house.settings), lifetime=oidc.session_lifetime)
        return RedirectResponse(outcome.redirect_to, 303, headers={"Set-Cookie": cookie})
    return Answer(outcome)


async def log_out(call: Call[House]) -> Answer:
    oidc, secure = _oidc(call), is_secure(call.house.settings)
    token = session_cookie(call.headers, secure=secure)
    if token is None:
        raise Unauthenticated("there is no browser's session to end")
    require_csrf(call.headers, token, "POST", call.principal)
    url = await oidc.log_out(token, call.principal, clock.now())
    return Answer(LoggedOut(logout_url=url), headers={"Set-Cookie": clear_cookie_header(secure=secure)})


@_with_page
async def start_cli_login(call: Call[House]) -> Answer | Response:
    query: CliQuery = call.query
    oidc = _oidc(call)
    # A page that sends a person here could have the code delivered to a program that it is in league with. Commands open the address themselves.
    if call.headers.get("sec-fetch-site", "none").lower() not in ("none", "same-origin"):
        raise ForeignOrigin("a login of the command line is begun by the command itself: xzepr login")
    browser = _browser(call) or new_secret()
    cli = CliLogin(port=query.port, state=query.state, code_challenge=query.code_challenge)
    begun = await oidc.begin(call.principal, browser=browser, redirect_to="/", cli=cli, now=clock.now())
    return RedirectResponse(begun.authorization_url, 302, headers={"Set-Cookie": _login_cookie(call, browser)})


async def take_cli_code(call: Call[House]) -> Answer:
    body: CliCode = call.body
    return Answer(await _oidc(call).turn_in_cli_code(body.code, body.code_verifier, principal=call.principal, now=clock.now()))


def _browser(call: Call[House]) -> str | None:
    return cookie_of(call.headers, LOGIN_COOKIE, secure=is_secure(call.house.settings))


def _login_cookie(call: Call[House], browser: str) -> str:
    return set_cookie_header(browser, secure=is_secure(call.house.settings), lifetime=LOGIN_LIFETIME, name=LOGIN_COOKIE)


_NOT_ENABLED: Final = "404 unless `auth.enable_oidc` is on."

ROUTES = (
    Route(
        method="GET",
        path="/api/v1/auth/oidc/login",
        handler=start_login,
        permission=PUBLIC,
        query=LoginQuery,
        answer=AuthorizationUrl,
        redirects=(302,),
        tag="logins",
        summary="Log in through the provider",
        description=(
            "302 to the provider; with `Accept: application/json` its address in the body. A cookie binds the login to this browser, for 10 minutes. "
            "Afterwards the browser has a session and goes to `redirect_to`, a path of this server (default `/`); a login that was begun with "
            "`Accept: application/json` and without `redirect_to` is answered with tokens. " + _NOT_ENABLED
        ),
        problems=(NotFound, TooManyAttempts, ProviderUnavailable),
        example_answer={
            "authorization_url": "https://sso.example.com/realms/acme/protocol/openid-connect/auth?response_type=code&client_id=xzepr",
            "state": "VvAxNzPIu0hVN0pVxYHhVdq0rLeg3Hq0dXCqvN9wL_8",
        },
    ),
    Route(
        method="GET",
        path="/api/v1/auth/oidc/callback",
        handler=take_callback,
        permission=PUBLIC,
        query=CallbackQuery,
        other_parameters=True,
        answer=TokenPair,
        redirects=(302, 303),
        tag="logins",
        summary="Where the provider sends the browser back to",
        description=(
            "Tokens; or 303 with the cookie of the browser's session; or, for a login of the command line, 302 to the command on this machine. "
            "Parameters that are not named here are the provider's own and ignored. " + _NOT_ENABLED
        ),
        problems=(LoginFailed, PermissionDenied, NotFound, ProviderUnavailable),
    ),
    Route(
        method="POST",
        path="/api/v1/auth/oidc/logout",
        handler=log_out,
        permission=PUBLIC,
        answer=LoggedOut,
        tag="logins",
        summary="End the browser's session, and learn where to end it at the provider",
        description=(
            "Needs the cookie of the session and the header `X-CSRF-Token`. The session has then ended in every process; a page that sends the "
            "browser on to `logout_url` ends the one at the provider as well, which sends it back to `/`. " + _NOT_ENABLED
        ),
        problems=(Unauthenticated, PermissionDenied, NotFound),
        example_answer={"logout_url": "https://sso.example.com/realms/acme/protocol/openid-connect/logout?client_id=xzepr"},
    ),
    Route(
        method="GET",
        path="/api/v1/auth/cli/authorize",
        handler=start_cli_login,
        permission=PUBLIC,
        query=CliQuery,
        status=302,
        redirects=(302,),
        tag="logins",
        summary="Log the command line in through a browser",
        description=(
            "`xzepr login` opens this. After the login the browser is sent to `http://127.0.0.1:<port>/?code&state`. "
            "A page of another site cannot begin it. " + _NOT_ENABLED
        ),
        problems=(ForeignOrigin, NotFound, TooManyAttempts, ProviderUnavailable),
    ),
    Route(
        method="POST",
        path="/api/v1/auth/cli/token",
        handler=take_cli_code,
        permission=PUBLIC,
        body=CliCode,
        answer=TokenPair,
        tag="logins",
        summary="Turn in the code of the command line for tokens",
        description="Once, within 60 seconds; code_verifier is what the code_challenge was made from (S256). " + _NOT_ENABLED,
        problems=(LoginFailed, PermissionDenied, NotFound),
        example_body={"code": "3dIt2KDcS8Hb6W0pYJ8m0y1m1k0nq8c1kJ7iV0cQ1uM", "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"},
    ),
)
