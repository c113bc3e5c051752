"""Bearer tokens of issuers that the settings trust: a CI system, a Keycloak service account. Nothing of them is stored here, and no secret there.

A token counts when a key of its issuer signed it for the configured audience, it has not expired, and at least one rule matches its claims. What the
matching rules give adds up. A claim is named as it stands, or by dots through objects; it must be there, also for `*`.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from xzepr import ids
from xzepr.auth.issuer_keys import IssuerKeys, discovered_keys_url
from xzepr.auth.jwks import ALL_ALGORITHMS
from xzepr.auth.outside import Outside
from xzepr.auth.principal import How, Principal
from xzepr.auth.tokens import decoded
from xzepr.auth.unverified import unverified_header, unverified_issuer
from xzepr.errors import InvalidToken
from xzepr.ids import UserId
from xzepr.settings import Settings
from xzepr.settings.model import TrustedIssuer, TrustedIssuerRule
from xzepr.wildcard import matches

_REQUIRED: Final = ["iss", "aud", "exp", "sub"]
_SUBJECT_MAX_CHARS: Final = 1024


class TrustedIssuers:
    """Those of `auth.trusted_issuers`. monotonic: seconds that only rise."""

    def __init__(self, settings: Settings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._leeway_s = settings.jwt.leeway_seconds
        self._issuers = {each.issuer: each for each in settings.auth.trusted_issuers}
        self._outside = Outside()
        self._keys = {
            each.issuer: IssuerKeys(each.issuer, partial(self._keys_url, each), self._outside, monotonic=monotonic)
            for each in settings.auth.trusted_issuers
        }

    def knows(self, issuer: str) -> bool:
        """Whether tokens of this issuer can count; exactly as the settings have it."""
        return issuer in self._issuers

    async def verify(self, unverified_token: str) -> tuple[Principal, float]:
        """Who it is, and when the token ends, in seconds since 1970.

        Raises InvalidToken with the reason; Unavailable when its key is not known and the issuer cannot be asked.
        """
        header = unverified_header(unverified_token)
        if header.alg not in ALL_ALGORITHMS:
            raise InvalidToken(f"the token is signed by none of {', '.join(sorted(ALL_ALGORITHMS))}")
        issuer = self._issuers.get(unverified_issuer(unverified_token))
        if issuer is None:
            raise InvalidToken("the token was made by an issuer that is not trusted here (auth.trusted_issuers)")
        key = await self._keys[issuer.issuer].find(header.kid, header.alg)
        claims = decoded(
            unverified_token,
            key,
            [header.alg],
            issuer=issuer.issuer,
            audience=issuer.audience,
            leeway_s=self._leeway_s,
            required=_REQUIRED,
        )
        return principal_of(issuer, claims), float(claims["exp"])

    async def close(self) -> None:
        """Ends what is being fetched."""
        for keys in self._keys.values():
            await keys.close()
        await self._outside.close()

    async def _keys_url(self, issuer: TrustedIssuer) -> str:
        return issuer.jwks_url or await discovered_keys_url(issuer.issuer, self._outside)


def principal_of(issuer: TrustedIssuer, claims: Mapping[str, Any]) -> Principal:
    """Whom the claims of a verified token speak of, by the issuer's rules. Raises InvalidToken when none matches."""
    subject: str = claims["sub"]
    if not 0 < len(subject) <= _SUBJECT_MAX_CHARS or not subject.isprintable():
        raise InvalidToken(f"the token's subject (sub) must have 1 to {_SUBJECT_MAX_CHARS} printable characters")
    matching = [rule for rule in issuer.rules if rule_matches(rule, claims)]
    if not matching:
        raise InvalidToken(f"the token of {issuer.issuer} is genuine, and no rule matches its claims (auth.trusted_issuers)")
    return Principal(
        id=ids.derived(UserId, issuer.issuer, subject),
        name=subject,
        roles=frozenset(role for rule in matching for role in rule.roles),
        how=How.TRUSTED_ISSUER,
        event_receiver_ids=_receivers(matching),
    )


def _receivers(rules: Iterable[TrustedIssuerRule]) -> frozenset[str] | None:
    """None: all."""
    given = [rule.event_receiver_ids for rule in rules]
    if not all(given):
        return None
    return frozenset(each.upper() for one in given for each in one)


def rule_matches(rule: TrustedIssuerRule, claims: Mapping[str, Any]) -> bool:
    """Whether every claim that the rule names has a value that the rule wants; of a list one member is enough."""
    return all(any(matches(wanted, text) for text in _texts(claims, name)) for name, wanted in rule.claims.items())


def _texts(claims: Mapping[str, Any], name: str) -> list[str]:
    """The values of a claim; none when it is not there, or is nothing that can be written in a rule."""
    value = _value(claims, name)
    return [text for each in (value if isinstance(value, list) else [value]) if (text := _text(each)) is not None]


def _value(claims: Any, name: str) -> Any:
    """None when it is not there. Names may hold dots themselves (`kubernetes.io`, URLs): the longest one that is there counts."""
    if not isinstance(claims, Mapping):
        return None
    if name in claims:
        return claims[name]
    head, dot, _ = name.rpartition(".")
    while dot:
        if head in claims:
            return _value(claims[head], name[len(head) + 1 :])
        head, dot, _ = head.rpartition(".")
    return None


def _text(value: Any) -> str | None:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            return None
