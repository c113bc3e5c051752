"""A login and what follows from it: token pairs that are refreshed, until somebody ends the login.

A login begins a *family*. Its refresh token is 32 random bytes, kept as a hash, good for one use: turning it in gives the next one. One that is
turned in again is a race when its successor is still unused within SUPERSEDED_S (two tabs, a lost answer): 409, and nothing ends. Later it means
that two parties hold it, and one of them stole it: the family ends. Each use prolongs the family, but for one that began at a provider: that ends
when it would have ended without any. Source: RFC 9700, 4.14; contract `rest.md`, "Accounts".
"""

from datetime import datetime, timedelta
from typing import Any, Final

from xzepr import clock, ids
from xzepr.audit.acts import Act
from xzepr.audit.denials import Denials
from xzepr.audit.record import Outcome, record
from xzepr.auth import changes, throttle
from xzepr.auth.model import Credentials, KnownUser, LoggedIn, TokenPair
from xzepr.auth.opaque import digest, new_secret
from xzepr.auth.passwords import Passwords
from xzepr.auth.permissions import Role
from xzepr.auth.principal import How, Principal
from xzepr.auth.tokens import AccessTokens
from xzepr.clock import rfc3339
from xzepr.db.pool import Connection, Database
from xzepr.db.queries import Queries
from xzepr.errors import InvalidCredentials, InvalidToken, RefreshSuperseded, TooManyAttempts, Unavailable
from xzepr.ids import FamilyId, UserId
from xzepr.settings import Settings

queries = Queries("xzepr.auth")

SUPERSEDED_S: Final = 10.0
SWEEP_FAMILIES_MAX: Final = 5_000
# A family that is over, and a token that has expired, stay so long, so that a stolen token still meets its history.
FAMILIES_KEPT_FOR: Final = timedelta(days=7)
# Each time it was changed while it was checked: somebody is at it at this moment.
CHECKS_MAX: Final = 3
_REFUSED: Final = "the refresh token does not count; log in again"


class Logins:
    """What one process needs to log people in."""

    def __init__(self, settings: Settings, database: Database, tokens: AccessTokens, passwords: Passwords, denials: Denials) -> None:
        self._settings = settings
        self._database = database
        self._tokens = tokens
        self._passwords = passwords
        self._denials = denials

    async def log_in(self, caller: Principal, credentials: Credentials, now: datetime) -> TokenPair:
        """By name and password. Raises InvalidCredentials, the same and after the same time for every reason; TooManyAttempts, Unavailable."""
        guesses = throttle.Guesses(credentials.username, caller.nearest)
        try:
            async with self._database.transaction() as connection:
                await guesses.begin(connection, now)
        except TooManyAttempts as error:
            # Whoever guesses on must not fill the log.
            self._denials.note(caller, Act.AUTH_LOGIN, None, {"how": How.PASSWORD, "error": error.code}, outcome=Outcome.FAILURE, now=now)
            raise
        async with self._database.connection() as connection:
            row = await connection.fetchrow(queries["find_user_by_name"], credentials.username)
        for _ in range(CHECKS_MAX):
            stored = row["password_hash"] if row is not None else None
            is_right = await self._is_right(stored, credentials.password, guesses)
            if row is None or stored is None or not is_right or not row["enabled"]:
                break
            new_hash = await self._passwords.hash(credentials.password) if self._passwords.is_outdated(stored) else None
            async with self._database.transaction() as connection:
                if new_hash is not None:
                    await connection.execute(queries["rehash_password"], row["id"], stored, new_hash)
                # As it is now: it may have been disabled, or got another password, while this one was checked. Then that one counts.
                row = await connection.fetchrow(queries["lock_user"], row["id"])
                if row is not None and row["enabled"] and row["password_hash"] in (stored, new_hash):
                    user = known_user(row)
                    await record(connection, logged_in(user, How.PASSWORD, caller), Act.AUTH_LOGIN, user.id, details={"how": How.PASSWORD})
                    pair = await self.begin(connection, user, How.PASSWORD, caller)
                    # Last: the count of the address is everybody's there.
                    await guesses.take_back(connection, is_right=True)
                    return pair
        # What was typed for a name may be a password: only a name that is one is kept.
        known = {"username": row["username"]} if row is not None else {}
        details = {"how": How.PASSWORD, **known}
        async with self._database.transaction() as connection:
            await record(connection, caller, Act.AUTH_LOGIN, row["id"] if row is not None else None, outcome=Outcome.FAILURE, details=details)
        raise InvalidCredentials

    async def _is_right(self, stored: str | None, password: str, guesses: throttle.Guesses) -> bool:
        try:
            return await self._passwords.verify(stored, password)
        except Unavailable:
            # Nobody looked at it.
            async with self._database.transaction() as connection:
                await guesses.take_back(connection, is_right=False)
            raise

    async def begin(self, connection: Connection, user: KnownUser, how: How, _principal: Principal) -> TokenPair:
        """A new family and its first pair, in the caller's transaction; the audit row is the caller's as well."""
        now = clock.now()
        family_id = ids.mint(FamilyId)
        ends_at = now + timedelta(seconds=self._settings.jwt.refresh_token_expiration)
        await connection.execute(queries["begin_family"], family_id, user.id, how, now, ends_at)
        await connection.execute(queries["note_login"], user.id, now)
        refresh_token = new_secret()
        await connection.execute(queries["add_refresh_token"], digest(refresh_token), family_id, now, ends_at)
        return self._pair(user, family_id, refresh_token, how)

    async def refresh(self, caller: Principal, refresh_token: str, now: datetime) -> TokenPair:
        """The next pair; the one before is dead. Raises InvalidToken, RefreshSuperseded."""
        async with self._database.transaction() as connection:
            token = await connection.fetchrow(queries["lock_refresh_token"], digest(refresh_token))
            if token is None:
                raise InvalidToken(_REFUSED)
            family = await connection.fetchrow(queries["find_family"], token["family_id"], token["successor_sha256"])
            row = {**dict(token), **dict(family or {})}
            reused = self._require_unused(row, now)
            if not reused:
                successor = new_secret()
                ends_at = now + timedelta(seconds=self._settings.jwt.refresh_token_expiration)
                if row["method"] == How.OIDC:
                    # The provider is asked at the login alone: who was taken out there must not stay in for ever.
                    ends_at = min(ends_at, row["family_expires_at"])
                await connection.execute(queries["add_refresh_token"], digest(successor), row["family_id"], now, ends_at)
                await connection.execute(queries["use_refresh_token"], digest(refresh_token), now, digest(successor))
                await connection.execute(queries["sweep_refresh_tokens"], row["family_id"], now - FAMILIES_KEPT_FOR)
                await connection.execute(queries["prolong_family"], row["family_id"], ends_at)
                return self._pair(known_user(row), row["family_id"], successor, How(row["method"]))
            # The end of the family must be stored, so the refusal comes behind the commit.
            await end_family(connection, row["family_id"], now)
            actor = logged_in(known_user(row), How(row["method"]), caller)
            await record(connection, actor, Act.AUTH_REFRESH_REUSE, row["family_id"], outcome=Outcome.FAILURE)
        raise InvalidToken("the refresh token was used before; the login that it belongs to is ended, log in again")

    def _require_unused(self, row: Any, now: datetime) -> bool:
        """Whether it was stolen. Raises InvalidToken for one that is over, RefreshSuperseded for a race."""
        if row["ended_at"] is not None or not row["user_counts"]:
            raise InvalidToken(_REFUSED)
        if row["used_at"] is None:
            if min(row["expires_at"], row["family_expires_at"]) <= now:
                raise InvalidToken(_REFUSED)
            return False
        # Also one that has expired: whoever has it was there when it was good.
        if now - row["used_at"] <= timedelta(seconds=SUPERSEDED_S) and row["successor_used"] is False:
            raise RefreshSuperseded
        return True

    async def log_out(self, principal: Principal, now: datetime) -> None:
        """End the login that the caller came by, with every token of it; for a key or a CI token there is none, and nothing happens."""
        if principal.family_id is None:
            return
        async with self._database.transaction() as connection:
            await end_family(connection, principal.family_id, now)
            await record(connection, principal, Act.AUTH_LOGOUT, principal.id)

    def _pair(self, user: KnownUser, family_id: str, refresh_token: str, how: How) -> TokenPair:
        token, expires_at = self._tokens.issue(
            user_id=user.id,
            username=user.username,
            roles=user.roles,
            permissions=Principal(roles=frozenset(user.roles)).permissions,
            epoch=user.auth_epoch,
            family_id=FamilyId(family_id),
            how=how,
        )
        return TokenPair(
            access_token=token,
            refresh_token=refresh_token,
            expires_in=self._settings.jwt.access_token_expiration,
            token=token,
            expires_at=rfc3339(expires_at),
            user=LoggedIn(id=user.id, username=user.username, email=user.email, roles=user.roles),
        )


async def end_family(connection: Connection, family_id: str, now: datetime) -> None:
    """In the caller's transaction; every process hears of it. Nothing when it is over already."""
    if await connection.fetchval(queries["end_family"], family_id, now) is not None:
        await changes.tell(connection, changes.FAMILY, family_id)


async def sweep(database: Database, now: datetime) -> None:
    """Logins that nobody can go on with."""
    async with database.connection() as connection:
        await connection.execute(queries["sweep_families"], now - FAMILIES_KEPT_FOR, SWEEP_FAMILIES_MAX)


def known_user(row: Any) -> KnownUser:
    """From a row with its columns."""
    roles = [Role(role) for role in row["roles"]]
    return KnownUser(id=UserId(row["id"]), username=row["username"], email=row["email"], roles=roles, auth_epoch=row["auth_epoch"])


def logged_in(user: KnownUser, how: How, caller: Principal, family_id: FamilyId | None = None) -> Principal:
    """Who acts, once that is known. caller: the same request before."""
    known = Principal(id=user.id, name=user.username, roles=frozenset(user.roles), how=how, family_id=family_id)
    return known.seen(caller.address, caller.request_id)
