"""Token pairs that stand for real ones: a family in the database, and texts that nobody accepts."""

import secrets
from datetime import timedelta

from xzepr import clock, ids
from xzepr.auth.model import KnownUser, LoggedIn, TokenPair
from xzepr.auth.principal import How, Principal
from xzepr.db.pool import Connection
from xzepr.ids import FamilyId


class PlainLogins:
    """A `Logins`. begun: whom it gave tokens, and how they came in."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, How]] = []

    async def begin(self, connection: Connection, user: KnownUser, how: How, principal: Principal) -> TokenPair:
        assert principal.request_id is not None
        now = clock.now()
        await connection.execute(
            "insert into login_families (id, user_id, method, created_at, expires_at) values ($1, $2, $3, $4, $5)",
            ids.mint(FamilyId),
            user.id,
            how,
            now,
            now + timedelta(days=7),
        )
        self.begun.append((user.username, how))
        token = secrets.token_urlsafe()
        return TokenPair(
            access_token=token,
            refresh_token=secrets.token_urlsafe(),
            expires_in=900,
            token=token,
            expires_at=clock.rfc3339(now + timedelta(seconds=900)),
            user=LoggedIn(id=user.id, username=user.username, email=user.email, roles=user.roles),
        )
