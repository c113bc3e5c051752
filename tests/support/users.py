"""Users that are there without having been registered, for tests of what they may do."""

from collections.abc import Iterable

import asyncpg

from xzepr import clock, ids
from xzepr.auth.permissions import Role
from xzepr.auth.principal import How, Principal
from xzepr.ids import UserId


async def make_users(url: str, names: Iterable[str]) -> dict[str, UserId]:
    """By name: enabled, without a password and without roles."""
    made = {name: ids.mint(UserId) for name in names}
    connection = await asyncpg.connect(url)
    try:
        await connection.executemany(
            "insert into users (id, username, roles, enabled, created_at, updated_at) values ($1, $2, '{}', true, $3, $3)",
            [(user_id, name, clock.now()) for name, user_id in made.items()],
        )
    finally:
        await connection.close()
    return made


def principal(user_id: UserId, name: str, *roles: Role, event_receiver_ids: Iterable[str] | None = None) -> Principal:
    """Logged in; with event_receiver_ids by an API key that is for these alone."""
    if event_receiver_ids is None:
        return Principal(id=user_id, name=name, roles=frozenset(roles), how=How.PASSWORD)
    return Principal(id=user_id, name=name, roles=frozenset(roles), how=How.API_KEY, event_receiver_ids=frozenset(event_receiver_ids))
