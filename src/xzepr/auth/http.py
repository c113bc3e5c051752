"""`/api/v1/auth`, `/api/v1/api-keys`, `/api/v1/admin/users`: parse, call, answer."""

from msgspec import UNSET, UnsetType

from xzepr import clock
from xzepr.auth.api_keys import create_api_key, revoke_api_key, search_api_keys
from xzepr.auth.browser import csrf_token_of, is_secure, session_cookie
from xzepr.auth.model import (
    ApiKey,
    ApiKeyPage,
    Credentials,
    Me,
    NewApiKey,
    NewUser,
    RefreshToken,
    TokenPair,
    User,
    UserChange,
    UserPage,
    UserRoles,
)
from xzepr.auth.passwords import require_good
from xzepr.auth.permissions import AUTHENTICATED, PUBLIC, Permission
from xzepr.auth.principal import How
from xzepr.auth.users import change_user, create_user, delete_user, get_user, search_users, set_roles
from xzepr.errors import (
    Conflict,
    InvalidCredentials,
    InvalidInput,
    InvalidToken,
    NotFound,
    PermissionDenied,
    RefreshSuperseded,
    TooManyAttempts,
)
from xzepr.house import House
from xzepr.ids import ApiKeyId, UserId
from xzepr.page import Created, Page
from xzepr.web.call import Answer, Call
from xzepr.web.routes import Route

_PAIR = {
    "access_token": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIwMU04In0.c2ln",
    "refresh_token": "lqzOTbRYtV1yQ5dZFsUEvC0aWg2JmT8KpXh7nBi4oM0",
    "token_type": "Bearer",
    "expires_in": 900,
    "token": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIwMU04In0.c2ln",
    "expires_at": "2026-11-02T08:30:30.000000Z",
    "user": {"id": "01M88Q7AG504QSGMQWKDMNZ1V2", "username": "alice", "email": "alice@example.com", "roles": ["event_manager"]},
}


async def post_login(call: Call[House]) -> Answer:
    if not call.house.settings.auth.enable_local_auth:
        raise NotFound("logins by name and password are not enabled here (auth.enable_local_auth)")
    return Answer(await call.house.logins.log_in(call.principal, call.body, clock.now()))


async def post_refresh(call: Call[House]) -> Answer:
    body: RefreshToken = call.body
    return Answer(await call.house.logins.refresh(call.principal, body.refresh_token, clock.now()))


async def post_logout(call: Call[House]) -> Answer:
    await call.house.logins.log_out(call.principal, clock.now())
    return Answer()


async def show_me(call: Call[House]) -> Answer:
    principal = call.principal
    receiver_ids = principal.event_receiver_ids
    return Answer(
        Me(
            id=principal.id,
            username=principal.name,
            roles=sorted(principal.roles),
            permissions=sorted(principal.permissions),
            how=principal.how,
            event_receiver_ids=sorted(receiver_ids) if receiver_ids is not None else None,
            csrf_token=_csrf_token(call),
        )
    )


def _csrf_token(call: Call[House]) -> str | UnsetType:
    session = session_cookie(call.headers, secure=is_secure(call.house.settings)) if call.principal.how is How.BROWSER else None
    return csrf_token_of(session) if session is not None else UNSET


async def post_api_key(call: Call[House]) -> Answer:
    if "idempotency-key" in call.headers:
        raise InvalidInput.at("Idempotency-Key", "does not go with this address: a key is shown once, and never again")
    key = await create_api_key(call.house.database, call.principal, call.body, clock.now())
    return Answer(key, headers={"Location": f"/api/v1/api-keys/{key.id}"})


async def list_api_keys(call: Call[House]) -> Answer:
    return Answer(await search_api_keys(call.house.database, call.principal, call.query))


async def remove_api_key(call: Call[House]) -> Answer:
    await revoke_api_key(call.house.database, call.principal, ApiKeyId(call.path["id"]), clock.now())
    return Answer()


async def post_user(call: Call[House]) -> Answer:
    user: NewUser = call.body
    if user.roles:
        call.principal.require([Permission.ROLE_MANAGE])
    house = call.house
    min_chars = house.settings.auth.password_min_chars
    # Before the work of hashing.
    require_good(user.password, "/password", min_chars=min_chars, username=user.username, email=user.email)
    user_id = await create_user(house.database, call.principal, user, await house.passwords.hash(user.password), clock.now(), call.claim)
    return Answer(Created(user_id), headers={"Location": f"/api/v1/admin/users/{user_id}"})


async def list_users(call: Call[House]) -> Answer:
    return Answer(await search_users(call.house.database, call.query))


async def show_user(call: Call[House]) -> Answer:
    return Answer(await get_user(call.house.database, UserId(call.path["id"])))


async def patch_user(call: Call[House]) -> Answer:
    house = call.house
    min_chars = house.settings.auth.password_min_chars
    return Answer(await change_user(house.database, house.passwords, call.principal, UserId(call.path["id"]), call.body, min_chars, clock.now()))


async def remove_user(call: Call[House]) -> Answer:
    await delete_user(call.house.database, call.principal, UserId(call.path["id"]), clock.now())
    return Answer()


async def put_roles(call: Call[House]) -> Answer:
    body: UserRoles = call.body
    return Answer(await set_roles(call.house.database, call.principal, UserId(call.path["id"]), body.roles, clock.now()))


ROUTES = (
    Route(
        method="POST",
        path="/api/v1/auth/login",
        handler=post_login,
        permission=PUBLIC,
        body=Credentials,
        answer=TokenPair,
        tag="accounts",
        summary="Log in by name and password",
        description="One answer for every failure. After several wrong logins from an address the next ones must wait.",
        problems=(InvalidCredentials, NotFound, TooManyAttempts),
        example_body={"username": "alice", "password": "the rain in november"},
        example_answer=_PAIR,
    ),
    Route(
        method="POST",
        path="/api/v1/auth/refresh",
        handler=post_refresh,
        permission=PUBLIC,
        body=RefreshToken,
        answer=TokenPair,
        tag="accounts",
        summary="Turn a refresh token in for a new pair",
        description="The refresh token is dead afterwards. One that is used again later ends the whole login: somebody else has it.",
        problems=(InvalidToken, RefreshSuperseded),
        example_body={"refresh_token": "lqzOTbRYtV1yQ5dZFsUEvC0aWg2JmT8KpXh7nBi4oM0"},
        example_answer=_PAIR,
    ),
    Route(
        method="POST",
        path="/api/v1/auth/logout",
        handler=post_logout,
        permission=AUTHENTICATED,
        status=204,
        tag="accounts",
        summary="End the login that this token belongs to",
        description="Its access tokens and its refresh token are dead in every process within a second.",
    ),
    Route(
        method="GET",
        path="/api/v1/auth/me",
        handler=show_me,
        permission=AUTHENTICATED,
        answer=Me,
        tag="accounts",
        summary="Who am I, and what may I do?",
    ),
    Route(
        method="POST",
        path="/api/v1/api-keys",
        handler=post_api_key,
        permission=AUTHENTICATED,
        body=NewApiKey,
        answer=ApiKey,
        status=201,
        tag="accounts",
        summary="Make an API key",
        description="By somebody who logged in. The key is shown in this answer and never again. It can do no more than its owner at that moment.",
        problems=(PermissionDenied,),
        example_body={"name": "ci of api", "scopes": ["event:create"], "expires_at": "2027-11-02T00:00:00Z"},
    ),
    Route(
        method="GET",
        path="/api/v1/api-keys",
        handler=list_api_keys,
        permission=AUTHENTICATED,
        query=ApiKeyPage,
        answer=Page[ApiKey],
        tag="accounts",
        summary="List your API keys, newest first",
        description="An administrator sees all, or those of `user_id`.",
        problems=(PermissionDenied,),
    ),
    Route(
        method="DELETE",
        path="/api/v1/api-keys/{id}",
        handler=remove_api_key,
        permission=AUTHENTICATED,
        path_params={"id": ApiKeyId},
        status=204,
        tag="accounts",
        summary="Revoke an API key",
        description="It is dead in every process within a second.",
        problems=(NotFound, PermissionDenied),
    ),
    Route(
        method="POST",
        path="/api/v1/admin/users",
        handler=post_user,
        permission=Permission.USER_MANAGE,
        body=NewUser,
        answer=Created,
        status=201,
        tag="accounts",
        summary="Create a local user",
        description="With roles it needs role:manage, too, and every permission of these roles.",
        problems=(Conflict, PermissionDenied),
        idempotent=True,
        secret_body=True,
        example_body={"username": "alice", "password": "the rain in november", "email": "alice@example.com", "roles": ["event_manager"]},
        example_answer={"data": "01M88Q7AG504QSGMQWKDMNZ1V2"},
    ),
    Route(
        method="GET",
        path="/api/v1/admin/users",
        handler=list_users,
        permission=Permission.USER_MANAGE,
        query=UserPage,
        answer=Page[User],
        tag="accounts",
        summary="List users, newest first",
    ),
    Route(
        method="GET",
        path="/api/v1/admin/users/{id}",
        handler=show_user,
        permission=Permission.USER_MANAGE,
        path_params={"id": UserId},
        answer=User,
        tag="accounts",
        summary="Get one user",
        problems=(NotFound,),
    ),
    Route(
        method="PATCH",
        path="/api/v1/admin/users/{id}",
        handler=patch_user,
        permission=Permission.USER_MANAGE,
        path_params={"id": UserId},
        body=UserChange,
        answer=User,
        tag="accounts",
        summary="Change, disable or enable a user",
        description=(
            "Disabling and a new password end the user's logins within a second. The last administrator cannot be disabled. "
            "A new password needs every permission that the user has."
        ),
        problems=(NotFound, Conflict, PermissionDenied),
        example_body={"enabled": False},
    ),
    Route(
        method="DELETE",
        path="/api/v1/admin/users/{id}",
        handler=remove_user,
        permission=Permission.USER_MANAGE,
        path_params={"id": UserId},
        status=204,
        tag="accounts",
        summary="Delete a user",
        description=(
            "What it owns and did stays under its id. The last administrator cannot be deleted. "
            "Who comes from a provider is made anew by their next login: disable them to keep them out."
        ),
        problems=(NotFound, Conflict),
    ),
    Route(
        method="PUT",
        path="/api/v1/admin/users/{id}/roles",
        handler=put_roles,
        permission=Permission.ROLE_MANAGE,
        path_params={"id": UserId},
        body=UserRoles,
        answer=User,
        tag="accounts",
        summary="Give a user other roles",
        description=(
            "In place of those before; the user's tokens end within a second. The last administrator stays one. "
            "To give a role takes every permission of it."
        ),
        problems=(NotFound, Conflict, PermissionDenied),
        example_body={"roles": ["event_viewer"]},
    ),
)
