"""Who asks? From the address and the credential of a request to a principal.

- No credential: `auth.anonymous_roles`, from `auth.anonymous_networks` alone. What cannot be told is never local: a Unix socket, a hop that is no
  address, a request that was forwarded by a proxy nobody named. A proxy on this machine that adds no header at all cannot be told from a local
  caller: such an installation must not set anonymous_roles.
- A credential that does not count is 401, never anonymous.
- One that was verified is kept in memory by its kind and SHA-256: what was sent as one kind never counts as another. At every use it is held against
  what ended since (`changes`), and it is looked at anew then, when it has expired, and when it was kept for longer than an access token lives: what
  ended is not remembered longer. A process that has not heard of changes for a moment asks the database about each, and refuses when there is no
  answer.
"""

import time
from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from starlette.datastructures import Headers

from xzepr import clock
from xzepr.auth import credentials
from xzepr.auth.api_keys import Uses
from xzepr.auth.browser import find_session, is_secure, require_csrf, session_cookie
from xzepr.auth.changes import Changes
from xzepr.auth.credentials import Credential
from xzepr.auth.opaque import digest
from xzepr.auth.permissions import Permission, Role
from xzepr.auth.principal import How, Principal
from xzepr.auth.tokens import AccessTokens
from xzepr.auth.trusted import TrustedIssuers
from xzepr.auth.unverified import unverified_issuer
from xzepr.db.pool import Database
from xzepr.db.queries import Queries
from xzepr.errors import InvalidToken
from xzepr.ids import FamilyId, UserId
from xzepr.settings import Settings

queries = Queries("xzepr.auth")

Address = IPv4Address | IPv6Address

_ADDRESS_MAX_CHARS: Final = 64
KNOWN_MAX: Final = 20_000

# A request that was forwarded came from somewhere else than the address it arrives from. Besides these: every `x-forwarded-…`.
_FORWARDED: Final = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip"})


class Known:
    """A credential that was verified. ends_at: seconds since 1970. epoch: of its user then; user_id None: no user of ours.

    generation: of the signing keys that it was verified by, None for what they did not sign. since_s: when that began, by the clock of `changes`.
    """

    __slots__ = ("ends_at", "epoch", "generation", "principal", "since_s", "user_id")

    def __init__(self, principal: Principal, ends_at: float, user_id: str | None, epoch: int, generation: int | None, since_s: float) -> None:
        self.principal = principal
        self.ends_at = ends_at
        self.user_id = user_id
        self.epoch = epoch
        self.generation = generation
        self.since_s = since_s


class Callers:
    """From addresses: where a request comes from, and what it may do without a credential. settings: frozen, read once."""

    def __init__(self, settings: Settings) -> None:
        self._anonymous = Principal(roles=frozenset(settings.auth.anonymous_roles))
        self._nobody = Principal()
        self._anonymous_networks = [ip_network(text, strict=False) for text in settings.auth.anonymous_networks]
        self._proxies = [ip_network(text, strict=False) for text in settings.server.trusted_proxies]

    def anonymous(self, peer: str | None, headers: Headers, request_id: str | None) -> Principal:
        """Who comes without a credential. peer: the address that the connection comes from, None for a Unix socket."""
        client = self.client_address(peer, headers)
        is_near = client is not None and any(client in network for network in self._anonymous_networks)
        nearest = client or self.nearest_address(peer, headers)
        address, counted_by = (str(each) if each is not None else None for each in (client, nearest))
        return (self._anonymous if is_near else self._nobody).seen(address, request_id, counted_by)

    def client_address(self, peer: str | None, headers: Headers) -> Address | None:
        """Whose request this is; None when it cannot be told. peer: the address that the connection comes from, None for a Unix socket.

        Behind trusted proxies the rightmost address of X-Forwarded-For that is not one of them. A request that says it was forwarded, but not by a
        trusted proxy, has no address that can be believed: a proxy on this machine would otherwise make the whole world local.
        """
        way = self._way(peer, headers)
        caller = way[-1]
        if caller is None or self._is_proxy(caller):
            # Every hop is a trusted proxy, or one is no address: the proxy speaks for itself. It is not a caller from here.
            return None
        return None if len(way) == 1 and _was_forwarded(headers) else caller

    def nearest_address(self, peer: str | None, headers: Headers) -> Address | None:
        """By what attempts are counted where client_address() has no answer: the trusted proxy that is the farthest away, else the peer.

        Who share a proxy share a count then, and nobody else does. Whether a header says that the request was forwarded changes nothing: with it
        anybody could leave their own count for one that others share. None for a Unix socket alone.
        """
        way = self._way(peer, headers)
        return way[-1] if way[-1] is not None or len(way) == 1 else way[-2]

    def _way(self, peer: str | None, headers: Headers) -> list[Address | None]:
        """From the peer outwards, one step behind each trusted proxy: the last one is no proxy, or no address, or nobody tells of more."""
        way = [address_of(peer)]
        hops = (hop for line in reversed(headers.getlist("x-forwarded-for")) for hop in reversed(line.split(",")))
        while way[-1] is not None and self._is_proxy(way[-1]) and (hop := next(hops, None)) is not None:
            way.append(address_of(hop.strip()))
        return way

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self._proxies)


class Authenticator:
    """Of one process. Opened and closed with it."""

    def __init__(self, settings: Settings, database: Database, tokens: AccessTokens, trusted: TrustedIssuers, heard: Changes) -> None:
        self.callers = Callers(settings)
        self._database = database
        self._tokens = tokens
        self._trusted = trusted
        self._changes = heard
        self._is_secure = is_secure(settings)
        self.uses = Uses(database)
        self._known: OrderedDict[tuple[str, bytes], Known] = OrderedDict()

    def anonymous(self, peer: str | None, headers: Headers, request_id: str | None) -> Principal:
        """The caller of a public route: where it comes from, and nothing that it brings is looked at."""
        return self.callers.anonymous(peer, headers, request_id)

    async def authenticate(self, peer: str | None, headers: Headers, request_id: str | None, method: str) -> Principal:
        """A header speaks before a browser's cookie, which goes along with whatever a page asks for.

        Raises InvalidToken for a credential that does not count, InvalidInput for two of them, Unavailable when that cannot be found out,
        CsrfRefused for an unsafe method that only a cookie speaks for.
        """
        credential = credentials.credential_of(headers)
        if credential is None and (session := session_cookie(headers, secure=self._is_secure)) is not None:
            credential = Credential(credentials.SESSION, session)
        if credential is None:
            return self.callers.anonymous(peer, headers, request_id)
        client = self.callers.client_address(peer, headers)
        principal = (await self.principal_of(credential)).seen(str(client) if client is not None else None, request_id)
        if credential.kind == credentials.SESSION:
            # Behind the look at the session: the refusal is then in its user's name.
            require_csrf(headers, credential.secret, method, principal)
        return principal

    async def principal_of(self, credential: Credential) -> Principal:
        """See authenticate()."""
        found = self.known(credential)
        if found is None:
            # What did not count once must not count again when the reason for it is forgotten.
            self._known.pop(_name(credential), None)
            found = await self._verify(credential)
            self._keep(credential, found)
        return self.used(found)

    def known(self, credential: Credential) -> Known | None:
        """From memory, and only if that is good enough to accept by. None says nothing."""
        found = self._known.get(_name(credential))
        return found if found is not None and self.counts(found) else None

    def counts(self, known: Known) -> bool:
        """Whether it may be accepted at this moment without asking anybody."""
        if (known.user_id is not None and not self._changes.is_fresh()) or not self._changes.remembers(known.since_s):
            return False
        if known.generation is not None and known.generation != self._tokens.generation:
            return False
        return known.ends_at > time.time() and not self._changes.ends(known.user_id, known.epoch, known.principal.family_id, known.principal.key_id)

    def used(self, known: Known) -> Principal:
        """Note the use of a key."""
        principal = known.principal
        if principal.key_id is not None:
            self.uses.note(principal.key_id, time.time())
        return principal

    async def _verify(self, credential: Credential) -> Known:
        # Before the first query: what ends after it is heard of.
        since_s = self._changes.monotonic()
        if credential.kind == credentials.API_KEY:
            return await self._verify_key(credential.secret, since_s)
        if credential.kind == credentials.SESSION:
            return await self._verify_session(credential.secret, since_s)
        if self._trusted.knows(unverified_issuer(credential.secret)):
            principal, ends_at = await self._trusted.verify(credential.secret)
            return Known(principal, ends_at, None, 0, None, since_s)
        return await self._verify_access(credential.secret, since_s)

    async def _verify_access(self, token: str, since_s: float) -> Known:
        generation = self._tokens.generation
        claims = self._tokens.verify(token)
        is_over = self._changes.ends(claims.user_id, claims.epoch, claims.family_id)
        if not is_over and not self._changes.is_fresh():
            async with self._database.connection() as connection:
                is_over = not await connection.fetchval(queries["is_access_current"], claims.user_id, claims.epoch, claims.family_id)
        if is_over:
            raise InvalidToken("the login that the token belongs to is ended; log in again")
        principal = Principal(
            id=claims.user_id,
            name=claims.username,
            roles=claims.roles,
            how=claims.how,
            family_id=claims.family_id,
        )
        return Known(principal, claims.expires_at, claims.user_id, claims.epoch, generation, since_s)

    async def _verify_key(self, key: str, since_s: float) -> Known:
        """With its owner as of now, so that nothing that was heard later is missed: the epoch says how old that is."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(queries["find_api_key"], digest(key))
        if row is None or row["revoked_at"] is not None or not row["user_counts"]:
            raise InvalidToken("the API key does not count")
        ends_at = row["expires_at"].timestamp() if row["expires_at"] is not None else float("inf")
        if ends_at <= time.time():
            raise InvalidToken("the API key has expired")
        receiver_ids = row["event_receiver_ids"]
        principal = Principal(
            id=UserId(row["user_id"]),
            name=row["username"],
            roles=frozenset(Role(role) for role in row["roles"]),
            how=How.API_KEY,
            scopes=frozenset(Permission(scope) for scope in row["scopes"]),
            event_receiver_ids=frozenset(receiver_ids) if receiver_ids is not None else None,
            key_id=row["id"],
        )
        return Known(principal, ends_at, row["user_id"], row["auth_epoch"], None, since_s)

    async def _verify_session(self, token: str, since_s: float) -> Known:
        async with self._database.connection() as connection:
            row = await find_session(connection, digest(token), clock.now())
        if row is None:
            raise InvalidToken("the session is over; log in again")
        roles = frozenset(Role(role) for role in row["roles"])
        principal = Principal(id=UserId(row["user_id"]), name=row["username"], roles=roles, how=How.BROWSER, family_id=FamilyId(row["family_id"]))
        return Known(principal, row["expires_at"].timestamp(), row["user_id"], row["auth_epoch"], None, since_s)

    def _keep(self, credential: Credential, known: Known) -> None:
        name = _name(credential)
        self._known[name] = known
        self._known.move_to_end(name)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)


def _name(credential: Credential) -> tuple[str, bytes]:
    """Under which it is kept: never the secret itself. The token of a session is none in another place, where no CSRF token is asked for."""
    return credential.kind, digest(credential.secret)


def _was_forwarded(headers: Headers) -> bool:
    return any(name in _FORWARDED or name.startswith("x-forwarded") for name in headers)


def address_of(text: str | None) -> Address | None:
    """The address in a text; None when there is none. An IPv4 address mapped into IPv6 is the IPv4 address."""
    return _parsed(text) if text and len(text) <= _ADDRESS_MAX_CHARS else None


# A fifth of a request's time here otherwise; callers are few.
@lru_cache(maxsize=4096)
def _parsed(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A dual-stack socket shows an IPv4 peer as ::ffff:127.0.0.1.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
