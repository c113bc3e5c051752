"""Who asks? So far: nobody with credentials. A caller without them has `auth.anonymous_roles`, from `auth.anonymous_networks` alone.

What cannot be told is never local: a Unix socket, a hop that is no address, a request that was forwarded by a proxy nobody named. A proxy on this
machine that adds no header at all cannot be told from a local caller: such an installation must not set anonymous_roles.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from starlette.datastructures import Headers

from xzepr.auth.principal import Principal
from xzepr.settings import Settings

Address = IPv4Address | IPv6Address

_ADDRESS_MAX_CHARS: Final = 64

# A request that was forwarded came from somewhere else than the address it arrives from. Besides these: every `x-forwarded-…`.
_FORWARDED: Final = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip"})


class Authenticator:
    """Turns a request's address and headers into a principal. settings: frozen, read once."""

    def __init__(self, settings: Settings) -> None:
        self._anonymous = Principal(roles=frozenset(settings.auth.anonymous_roles))
        self._nobody = Principal()
        self._anonymous_networks = [ip_network(text, strict=False) for text in settings.auth.anonymous_networks]
        self._proxies = [ip_network(text, strict=False) for text in settings.server.trusted_proxies]

    def principal(self, peer: str | None, headers: Headers) -> Principal:
        """peer: the address that the connection comes from, None when there is none (a Unix socket)."""
        client = self.client_address(peer, headers)
        if client is not None and any(client in network for network in self._anonymous_networks):
            return self._anonymous
        return self._nobody

    def client_address(self, peer: str | None, headers: Headers) -> Address | None:
        """Whose request this is; None when it cannot be told.

        Behind trusted proxies the rightmost address of X-Forwarded-For that is not one of them. A request that says it was forwarded, but not by a
        trusted proxy, has no address that can be believed: a proxy on this machine would otherwise make the whole world local.
        """
        address = address_of(peer)
        if address is None or not self._is_proxy(address):
            return None if _was_forwarded(headers) else address
        hops = [hop for line in headers.getlist("x-forwarded-for") for hop in line.split(",")]
        for hop in reversed(hops):
            address = address_of(hop.strip())
            if address is None or not self._is_proxy(address):
                return address
        # Every hop is a trusted proxy, or there is none: the proxy speaks for itself. It is not a caller from here.
        return None

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self._proxies)


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
