"""Logging in through the provider, from the first redirect to a session, a token pair, or a code for the command line.

1. begin(): state, nonce and PKCE verifier are made and stored under a hash of the state, together with a hash of the cookie that names the browser.
2. The provider logs the person in and sends the browser back with the state and a code.
3. finish(): the stored login is taken away (once, within LOGIN_LIFETIME, by the same browser), then the code is turned in and the tokens are verified
   (provider.py), then user, session or tokens, and the audit row are one transaction.

A crash or an error between 3's steps costs a login that has to begin again; nothing of it can be used a second time. A login that fails after its
state was taken is told in the audit log as `auth.login` with the reason, in our words or the provider's, never in those that came with the callback;
counted, as refusals are, since anybody can begin a login and come back with an error. A callback with a state that nobody knows is not recorded.
"""

import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
import structlog

from xzepr.audit.acts import Act
from xzepr.audit.denials import Denials
from xzepr.audit.record import Outcome, record
from xzepr.auth.browser import begin_session, end_session
from xzepr.auth.logins import known_user, logged_in
from xzepr.auth.model import KnownUser, LogsIn, TokenPair
from xzepr.auth.opaque import challenge_of, digest, new_secret
from xzepr.auth.outside import in_words
from xzepr.auth.permissions import Role
from xzepr.auth.principal import How, Principal
from xzepr.auth.provider import Claims, Provider
from xzepr.auth.provider_users import ProviderUser, user_of_provider
from xzepr.auth.throttle import Pace
from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import InvalidInput, LoginFailed, PermissionDenied, XzeprError
from xzepr.settings import Settings

log = structlog.get_logger(__name__)
queries = Queries("xzepr.auth")

LOGIN_LIFETIME: Final = timedelta(minutes=10)
CLI_CODE_LIFETIME: Final = timedelta(seconds=60)
# From one address, behind which many people may sit, in a minute and process. Each is a row for LOGIN_LIFETIME.
BEGUN_MAX: Final = 60
# redirect_to of a login that is answered with tokens.
_TOKENS: Final = ""
_UNKNOWN_LOGIN: Final = "this login is not known here: it was finished, is older than 10 minutes, or began in another browser; log in again"
_UNKNOWN_CODE: Final = "the code is not known here: it was used, is older than 60 seconds, or does not go with the code_verifier; log in again"


class CliLogin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a command on the person's machine waits for the end of the login. code_challenge: S256 of a verifier that only the command has."""

    port: int
    state: str
    code_challenge: str


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A login that waits for the person. authorization_url: of the provider; state: as it comes back with the callback."""

    authorization_url: str
    state: str


class Returned(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider sent the browser back with; everything unverified."""

    state: str | None = None
    code: str | None = None
    error: str | None = None
    error_description: str | None = None
    iss: str | None = None


class InBrowser(msgspec.Struct, frozen=True, kw_only=True):
    """A session has begun. token: for its cookie."""

    token: str
    redirect_to: str


class ToCommand(msgspec.Struct, frozen=True, kw_only=True):
    """The browser goes on to the command that waits on its machine, with a code that is good for one try."""

    url: str


class Oidc:
    """Logins through one provider. settings: with all of auth.keycloak; logins: who makes token pairs; denials: where failures are counted."""

    def __init__(self, settings: Settings, database: Database, logins: LogsIn, denials: Denials) -> None:
        keycloak = settings.auth.keycloak
        assert keycloak.issuer_url is not None
        assert keycloak.client_id is not None
        assert keycloak.redirect_url is not None
        self.provider = Provider(
            issuer_url=keycloak.issuer_url,
            client_id=keycloak.client_id,
            client_secret=keycloak.client_secret,
            redirect_url=keycloak.redirect_url,
            role_claim=keycloak.role_claim,
            leeway_s=settings.jwt.leeway_seconds,
        )
        self.session_lifetime = timedelta(seconds=settings.jwt.refresh_token_expiration)
        self._role_map = keycloak.role_map
        self._database = database
        self._logins = logins
        self._denials = denials
        self._pace = Pace(BEGUN_MAX)

    async def close(self) -> None:
        """Let go of the connections to the provider."""
        await self.provider.close()

    async def begin(self, caller: Principal, *, browser: str, redirect_to: str | None, cli: CliLogin | None = None, now: datetime) -> Begun:
        """browser: the token of its cookie; redirect_to: an own path, None: the login is answered with tokens.

        Raises InvalidInput for a redirect_to that leads elsewhere, TooManyAttempts, ProviderUnavailable.
        """
        if redirect_to is not None:
            require_own_path(redirect_to)
        self._pace.take(caller.nearest, now)
        state, nonce, verifier = new_secret(), new_secret(), secrets.token_urlsafe(48)
        url = await self.provider.authorization_url(state=state, nonce=nonce, code_challenge=challenge_of(verifier))
        of_cli = (cli.port, cli.state, cli.code_challenge) if cli is not None else (None, None, None)
        to = _TOKENS if redirect_to is None else redirect_to
        async with self._database.connection() as connection:
            await connection.execute(queries["provider_login_add"], digest(state), digest(browser), nonce, verifier, to, *of_cli, now)
        return Begun(authorization_url=url, state=state)

    async def finish(
        self, returned: Returned, *, browser: str | None, session: str | None, principal: Principal, now: datetime
    ) -> InBrowser | TokenPair | ToCommand:
        """browser: None when its cookie is missing; session: its own so far, which a new one ends; principal: who calls, for the audit log.

        Raises LoginFailed (unknown state, refused by the provider, tokens that do not hold), PermissionDenied for a user who is disabled here,
        ProviderUnavailable.
        """
        login = await self._take(returned.state, browser, now)
        try:
            claims = await self._claims(returned, login)
            async with self._database.transaction() as connection:
                outcome = await self._let_in(connection, claims, login, principal, now)
                if session is not None and isinstance(outcome, InBrowser):
                    # Its cookie is about to be overwritten: nobody could ever log it out.
                    await self._end(connection, session, principal, now)
                return outcome
        except XzeprError as error:
            self._denials.note(principal, Act.AUTH_LOGIN, None, _failure(error), outcome=Outcome.FAILURE, now=now)
            raise

    async def turn_in_cli_code(self, code: str, code_verifier: str, *, principal: Principal, now: datetime) -> TokenPair:
        """The command's code for tokens: once, within CLI_CODE_LIFETIME. Raises LoginFailed, PermissionDenied for a user who is disabled."""
        failure: XzeprError | None = None
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(queries["cli_code_take"], digest(code))
            if row is None:
                raise LoginFailed(_UNKNOWN_CODE)
            fits = hmac.compare_digest(row["code_challenge"].encode(), challenge_of(code_verifier).encode())
            if not fits or now - row["created_at"] > CLI_CODE_LIFETIME:
                failure = LoginFailed(_UNKNOWN_CODE)
            elif not row["enabled"]:
                failure = PermissionDenied("this account is disabled")
            if failure is None:
                return await self._pair(connection, known_user(row), How(row["method"]), principal)
            # The code is gone all the same, so this commits.
            await record(connection, principal, Act.AUTH_LOGIN, row["id"], outcome=Outcome.FAILURE, details=_failure(failure))
        raise failure

    async def log_out(self, token: str, principal: Principal, now: datetime) -> str | None:
        """End the browser's session, everywhere. Where the browser ends its session at the provider; None: nowhere, or the provider is down."""
        async with self._database.transaction() as connection:
            id_token = await self._end(connection, token, principal, now)
        if id_token is None:
            return None
        try:
            return await self.provider.logout_url(id_token)
        except XzeprError as error:
            # Here the person is logged out; that must not fail because of the provider.
            log.warning("oidc.logout_without_provider", reason=error.message)
            return None

    async def _end(self, connection: Connection, token: str, principal: Principal, now: datetime) -> str | None:
        """The session's id_token; None: it had none, or is over already."""
        ended = await end_session(connection, digest(token), now)
        if ended is None:
            return None
        roles = frozenset(Role(role) for role in ended["roles"])
        known = Principal(id=ended["user_id"], name=ended["username"], roles=roles, how=How.BROWSER, family_id=ended["family_id"])
        await record(connection, known.seen(principal.address, principal.request_id), Act.AUTH_LOGOUT, ended["user_id"])
        id_token: str | None = ended["id_token"]
        return id_token

    async def _take(self, state: str | None, browser: str | None, now: datetime) -> Any:
        if state is None or browser is None:
            raise LoginFailed(_UNKNOWN_LOGIN)
        async with self._database.connection() as connection:
            login = await connection.fetchrow(queries["provider_login_take"], digest(state), digest(browser))
        if login is None or now - login["created_at"] > LOGIN_LIFETIME:
            raise LoginFailed(_UNKNOWN_LOGIN)
        return login

    async def _claims(self, returned: Returned, login: Any) -> Claims:
        await self.provider.require_own_answer(returned.iss)
        if returned.error is not None or not returned.code:
            said = [text for text in (returned.error, returned.error_description) if text]
            why, reason = "the provider refused the login", "it gave neither a code nor a reason"
            kept = "the browser came back with an error" if said else reason
            raise LoginFailed(f"{why}: {in_words(': '.join(said)) or reason}", kept=f"{why}: {kept}")
        tokens = await self.provider.turn_in(returned.code, login["code_verifier"])
        return await self.provider.verify(tokens, login["nonce"])

    async def _let_in(
        self, connection: Connection, claims: Claims, login: Any, principal: Principal, now: datetime
    ) -> InBrowser | TokenPair | ToCommand:
        user = await user_of_provider(
            connection, claims.issuer, claims.subject, username=claims.username, email=claims.email, roles=self._roles(claims.roles), now=now
        )
        await self._record_changes(connection, user, principal)
        if login["cli_port"] is not None:
            code = new_secret()
            await connection.execute(queries["cli_code_add"], digest(code), user.id, How.OIDC, login["cli_code_challenge"], now)
            return ToCommand(url=f"http://127.0.0.1:{login['cli_port']}/?{urlencode({'code': code, 'state': login['cli_state']})}")
        if login["redirect_to"] == _TOKENS:
            return await self._pair(connection, user, How.OIDC, principal)
        token, family_id = await begin_session(connection, user.id, claims.id_token, now, self.session_lifetime)
        await record(connection, logged_in(user, How.BROWSER, principal, family_id), Act.AUTH_LOGIN, user.id, details={"how": How.BROWSER})
        return InBrowser(token=token, redirect_to=login["redirect_to"])

    def _roles(self, names: Sequence[str]) -> set[Role]:
        return {role for name in names for role in self._role_map.get(name, [])}

    async def _pair(self, connection: Connection, user: KnownUser, how: How, principal: Principal) -> TokenPair:
        pair = await self._logins.begin(connection, user, how, principal)
        await record(connection, logged_in(user, how, principal), Act.AUTH_LOGIN, user.id, details={"how": how})
        return pair

    async def _record_changes(self, connection: Connection, user: ProviderUser, principal: Principal) -> None:
        """The provider made this user, or gave other roles; nobody here did."""
        provider = Principal(name=self.provider.issuer, how=How.OIDC).seen(principal.address, principal.request_id)
        if user.is_new:
            await record(connection, provider, Act.USER_CREATE, user.id, details={"username": user.username, "roles": user.roles})
        elif user.has_other_roles:
            await record(connection, provider, Act.USER_CHANGE_ROLES, user.id, details={"before": user.roles_before, "after": user.roles})


def _failure(error: XzeprError) -> dict[str, str]:
    """For the audit log."""
    return {"how": How.OIDC, "error": error.code, "reason": error.kept if isinstance(error, LoginFailed) else error.message}


async def sweep(database: Database, now: datetime) -> None:
    """Remove logins and codes that nobody can finish any more."""
    async with database.connection() as connection:
        await connection.execute(queries["provider_logins_sweep"], now - LOGIN_LIFETIME)
        await connection.execute(queries["cli_codes_sweep"], now - CLI_CODE_LIFETIME)


def require_own_path(redirect_to: str) -> None:
    """A path of this server. What browsers take for another host (`//`, `/\\`, or these behind what they strip) is refused. Raises InvalidInput."""
    own = redirect_to.startswith("/") and not redirect_to.startswith(("//", "/\\"))
    if not own or not redirect_to.isprintable() or "\\" in redirect_to:
        raise InvalidInput.at("?redirect_to", "must be a path of this server, such as /docs")
