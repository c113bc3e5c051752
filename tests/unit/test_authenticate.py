"""Anonymous roles count only for a caller that is known to be in auth.anonymous_networks."""

from typing import Any

import msgspec
import pytest
from starlette.datastructures import Headers

from xzepr.auth.authenticate import Callers
from xzepr.auth.permissions import Role
from xzepr.settings import Settings

PROXY = "10.0.0.1"


def callers(**server: Any) -> Callers:
    plain = {"auth": {"anonymous_roles": ["admin"]}, "server": server}
    return Callers(msgspec.convert(plain, Settings))


def is_anonymous_admin(peer: str | None, headers: dict[str, str] | None = None, **server: Any) -> bool:
    return callers(**server).anonymous(peer, Headers(headers or {}), None).roles == {Role.ADMIN}


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_caller_on_this_machine_has_the_anonymous_roles(peer: str) -> None:
    assert is_anonymous_admin(peer)


@pytest.mark.parametrize("peer", ["10.0.0.5", "192.168.1.1", "::ffff:10.0.0.5", "2001:db8::1", "fe80::1%eth0", "/run/xzepr.sock", "", None])
def test_caller_from_elsewhere_or_from_nowhere_known_has_none(peer: str | None) -> None:
    assert not is_anonymous_admin(peer)


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Host", "X-Forwarded-Proto", "CF-Connecting-IP", "True-Client-IP"]
)
def test_forwarded_request_is_not_local_though_the_proxy_is(header: str) -> None:
    assert not is_anonymous_admin("127.0.0.1", {header: "127.0.0.1"})


def test_trusted_proxy_tells_who_asks() -> None:
    assert is_anonymous_admin(PROXY, {"X-Forwarded-For": "127.0.0.1"}, trusted_proxies=["10.0.0.0/8"])
    assert not is_anonymous_admin(PROXY, {"X-Forwarded-For": "203.0.113.7"}, trusted_proxies=["10.0.0.0/8"])


def test_rightmost_hop_that_is_no_trusted_proxy_counts() -> None:
    spoofed = {"X-Forwarded-For": "127.0.0.1, 203.0.113.7, 10.0.0.2"}
    assert not is_anonymous_admin(PROXY, spoofed, trusted_proxies=["10.0.0.0/8"])
    address = callers(trusted_proxies=["10.0.0.0/8"]).client_address(PROXY, Headers(spoofed))
    assert str(address) == "203.0.113.7"


def test_hops_in_several_header_lines_are_one_list() -> None:
    headers = Headers(raw=[(b"x-forwarded-for", b"127.0.0.1"), (b"x-forwarded-for", b"203.0.113.7")])
    assert str(callers(trusted_proxies=[PROXY]).client_address(PROXY, headers)) == "203.0.113.7"


@pytest.mark.parametrize("hops", ["", "unknown", "127.0.0.1, nonsense", "127.0.0.1:80", "10.0.0.9"])
def test_proxy_that_tells_no_address_makes_nobody_local(hops: str) -> None:
    assert not is_anonymous_admin(PROXY, {"X-Forwarded-For": hops}, trusted_proxies=["10.0.0.0/8"])


def test_trusted_proxy_on_this_machine_is_no_caller_itself() -> None:
    assert not is_anonymous_admin("127.0.0.1", trusted_proxies=["127.0.0.1"])


@pytest.mark.parametrize(
    ("peer", "hops", "counted_by"),
    [
        (PROXY, "203.0.113.7, 10.0.0.2", "203.0.113.7"),
        # Users in the networks of the proxies: each for itself.
        (PROXY, "10.1.1.1", "10.1.1.1"),
        (PROXY, "10.1.1.2, 10.0.0.2", "10.1.1.2"),
        (PROXY, "unknown, 10.1.1.3", "10.1.1.3"),
        (PROXY, "nonsense", PROXY),
        (PROXY, None, PROXY),
        # Whoever says that the request was forwarded is counted as the one who says so.
        ("198.51.100.1", "203.0.113.7", "198.51.100.1"),
        (None, "203.0.113.7", None),
    ],
)
def test_attempts_are_counted_by_the_farthest_address_that_can_be_believed(peer: str | None, hops: str | None, counted_by: str | None) -> None:
    headers = Headers({"Via": "1.1 somebody", **({"X-Forwarded-For": hops} if hops is not None else {})})
    assert callers(trusted_proxies=["10.0.0.0/8"]).anonymous(peer, headers, None).nearest == counted_by


def test_nobody_has_roles_when_none_are_set() -> None:
    principal = Callers(Settings()).anonymous("127.0.0.1", Headers({}), None)
    assert principal.roles == frozenset()
    assert principal.id is None
