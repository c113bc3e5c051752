"""What must hold together before anything starts, and what the settings ask for that is not there yet.

A finding is about one key. Those that stop the start and those that only warn come in two lists; nothing here raises.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from xzepr.fields import Username
from xzepr.settings.model import Settings, TrustedIssuer, is_network, knobs, value_of
from xzepr.urls import is_https_or_loopback, is_loopback
from xzepr.wildcard import covers

_IN_THE_CLEAR: Final = (
    "TLS is not there yet, and without it this would serve in the clear: leave it out, and end TLS in a proxy that server.trusted_proxies names"
)

# The one list of keys whose part does not exist yet, by the beginning of their path; delete the line when the part is there. None: setting the key
# has no effect and warns. A reason: ignoring it would leave a door open that somebody believes shut, so it stops the start.
NOT_THERE_YET: Final[dict[str, str | None]] = {
    "server.enable_https": _IN_THE_CLEAR,
    "tls.": _IN_THE_CLEAR,
    "server.dialect": None,
    "security.rate_limit.": None,
    "security.validation.max_batch_body_size": None,
    "telemetry.metrics_": None,
    "telemetry.tracing_enabled": None,
    "telemetry.otlp_endpoint": None,
    "telemetry.jaeger_endpoint": None,
    "telemetry.sample_ratio": None,
    "kafka.": None,
    "graphql.": None,
}

_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
# A proxy that "everybody" is says nothing: whoever connects may then claim any address. Shorter prefixes than this are meant as everybody.
_PROXY_PREFIX_MIN: Final = 8
_KEY_FILES: Final = ("jwt.private_key_path", "jwt.public_key_path")
_DATABASE_URLS: Final = ("database.url", "database.direct_url")
_HTTP_URLS: Final = ("telemetry.otlp_endpoint", "auth.keycloak.issuer_url", "auth.keycloak.redirect_url")
_CALLBACK: Final = "/api/v1/auth/oidc/callback"
_PATHS: Final = ("_path", "_location", "_dir", "bindir")
# Every token of an issuer has them: by themselves they tell no caller from another.
_SAID_BY_ISSUER: Final = frozenset({"iss", "aud"})


@dataclass(frozen=True, slots=True)
class Finding:
    """path: the key it is about, dotted; reason: what is wrong with it, without the key."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the checks may look at besides the settings. cwd: relative paths begin here."""

    environ: Mapping[str, str]
    cwd: Path
    allow_embedded: bool


def faults(settings: Settings, around: Surroundings) -> list[Finding]:
    """Everything that stops the start."""
    found = [Finding(path, reason) for path, reason in _asked_for_too_early(settings) if reason is not None]
    for check in _CHECKS:
        found += check(settings)
    found += _key_files(settings, around)
    if settings.env == "production":
        found += _production(settings, allow_embedded=around.allow_embedded)
    return found


def remarks(settings: Settings) -> list[Finding]:
    """Everything that is worth a warning."""
    too_early = [Finding(path, "has no effect yet") for path, reason in _asked_for_too_early(settings) if reason is None]
    return [*too_early, *_unwise(settings)]


def _asked_for_too_early(settings: Settings) -> Iterator[tuple[str, str | None]]:
    for knob in knobs():
        if value_of(settings, knob.path) != knob.default:
            yield from ((knob.path, reason) for beginning, reason in NOT_THERE_YET.items() if knob.path.startswith(beginning))


def _networks(settings: Settings) -> Iterator[Finding]:
    for path in ("server.trusted_proxies", "auth.anonymous_networks"):
        for text in value_of(settings, path):
            if not is_network(text):
                yield Finding(path, f"{text!r} is not an address or network")


def _anonymous(settings: Settings) -> Iterator[Finding]:
    """Roles without credentials do not reach beyond this machine unless somebody said so."""
    auth = settings.auth
    if auth.allow_anonymous_remote:
        return
    wide = [text for text in auth.anonymous_networks if is_network(text) and not _is_loopback(text)]
    if wide:
        yield Finding("auth.anonymous_networks", f"{', '.join(wide)} reaches beyond this machine; that needs auth.allow_anonymous_remote")
    everybody = [text for text in settings.server.trusted_proxies if is_network(text) and _is_everybody(text)]
    if everybody and auth.anonymous_roles:
        reason = (
            f"{', '.join(everybody)} lets any caller say it comes from this machine; with auth.anonymous_roles that needs auth.allow_anonymous_remote"
        )
        yield Finding("server.trusted_proxies", reason)


def _is_loopback(text: str) -> bool:
    network = ip_network(text, strict=False)
    return any(network.version == loopback.version and network.subnet_of(loopback) for loopback in _LOOPBACK)  # type: ignore[arg-type]


def _is_everybody(text: str) -> bool:
    return ip_network(text, strict=False).prefixlen < _PROXY_PREFIX_MIN


def _hosts(settings: Settings) -> Iterator[Finding]:
    for host in settings.server.allowed_hosts:
        if host != "*" and (not host or any(sign in host for sign in "*/@? ")):
            yield Finding("server.allowed_hosts", f"{host!r} is not a host name; * stands alone for any")


def _origins(settings: Settings) -> Iterator[Finding]:
    for origin in settings.security.cors.allowed_origins:
        if origin != "*" and not _is_origin(origin):
            yield Finding("security.cors.allowed_origins", f"{origin!r} is not an origin such as https://app.example.com")


def _is_origin(text: str) -> bool:
    """Scheme, host, port and nothing else. The slash that people paste along does no harm; a pattern would never match."""
    parts = _parts(text)
    if parts is None or "*" in text or any(sign in text for sign in "@?# "):
        return False
    return bool(parts[0] and parts[1] and parts[2] in ("", "/"))


def _parts(url: str) -> tuple[str, str, str] | None:
    """Scheme, host, path; None when it is no URL."""
    try:
        split = urlsplit(url)
        _ = split.port  # reading it is what checks it
    except ValueError:
        return None
    return split.scheme, split.hostname or "", split.path


def _urls(settings: Settings) -> Iterator[Finding]:
    """The URL itself is not shown: it may hold a password."""
    for path in _DATABASE_URLS:
        url = value_of(settings, path)
        if url is not None and not url.startswith(("postgresql://", "postgres://")):
            yield Finding(path, "does not begin with postgresql://")
    for path in _HTTP_URLS:
        url = value_of(settings, path)
        parts = _parts(url) if url is not None else ("http", "none", "")
        if parts is None or parts[0] not in ("http", "https") or not parts[1]:
            yield Finding(path, "is not a URL that begins with http:// or https://")


def _database(settings: Settings) -> Iterator[Finding]:
    database = settings.database
    if database.url is None and database.direct_url is not None:
        yield Finding("database.direct_url", "goes with database.url, which is not set")
    if database.min_connections > database.max_connections:
        yield Finding("database.min_connections", f"{database.min_connections} is more than database.max_connections ({database.max_connections})")


def _trusted_issuers(settings: Settings) -> Iterator[Finding]:
    """A rule that holds for whoever the issuer serves would let the whole world of a public CI system in."""
    path = "auth.trusted_issuers"
    names = [each.issuer for each in settings.auth.trusted_issuers]
    for number, each in enumerate(settings.auth.trusted_issuers):
        for reason in _faults_of_issuer(each, settings.jwt.issuer):
            yield Finding(path, f"issuer {number + 1} ({each.issuer}): {reason}")
        if each.issuer in names[:number]:
            yield Finding(path, f"issuer {number + 1} ({each.issuer}) stands there twice: put its rules together")


def _faults_of_issuer(given: TrustedIssuer, own: str) -> Iterator[str]:
    if given.issuer == own:
        yield "is jwt.issuer, the name of this server's own tokens"
    if given.jwks_url is not None and not is_https_or_loopback(given.jwks_url):
        yield "jwks_url is not a URL that begins with https:// (http:// only for this machine)"
    if given.jwks_url is None and not is_https_or_loopback(given.issuer):
        yield "is not a URL that begins with https://, so its keys cannot be found by discovery: set its jwks_url"
    for number, rule in enumerate(given.rules, start=1):
        if all(name in _SAID_BY_ISSUER or not wanted.strip("*") for name, wanted in rule.claims.items()):
            yield f"rule {number} matches every token of the issuer: name a claim, besides iss and aud, and the value that it must have"


def _tls(settings: Settings) -> Iterator[Finding]:
    if settings.server.enable_https:
        for path in ("tls.cert_path", "tls.key_path"):
            if value_of(settings, path) is None:
                yield Finding(path, "is missing; server.enable_https needs it")


def _oidc(settings: Settings) -> Iterator[Finding]:
    """What goes over plain HTTP can be read and changed on the way: the code, the tokens, the cookie of the session."""
    if not settings.auth.enable_oidc:
        return
    for name in ("issuer_url", "client_id", "redirect_url"):
        if not getattr(settings.auth.keycloak, name):
            yield Finding(f"auth.keycloak.{name}", "is missing; auth.enable_oidc needs it")
    for name in ("issuer_url", "redirect_url"):
        url = getattr(settings.auth.keycloak, name)
        parts = _parts(url) if url else None
        if parts is not None and parts[0] in ("http", "https") and parts[1] and not is_https_or_loopback(url):
            yield Finding(f"auth.keycloak.{name}", "must begin with https:// unless it is on this machine, and have neither a user nor a fragment")
    redirect_url = settings.auth.keycloak.redirect_url
    if redirect_url and not redirect_url.endswith(_CALLBACK):
        yield Finding("auth.keycloak.redirect_url", f"does not end with {_CALLBACK}, where this server takes the provider's answer")


def _bootstrap(settings: Settings) -> Iterator[Finding]:
    """The first administrator is a user like any other. What they would type is never shown."""
    first = settings.auth.bootstrap_admin
    if not settings.auth.enable_local_auth:
        return
    try:
        msgspec.convert(first.username, Username)
    except msgspec.ValidationError:
        yield Finding(
            "auth.bootstrap_admin.username", "must be 1 to 100 characters without control characters, and begin and end with no white space"
        )
    if first.password is not None:
        # The list of passwords that are guessed first takes a moment to load.
        from xzepr.auth.passwords import fault_of

        reason = fault_of(first.password, settings.auth.password_min_chars, first.username)
        if reason is not None:
            yield Finding("auth.bootstrap_admin.password", reason)


def _home(settings: Settings) -> Iterator[Finding]:
    for knob in knobs():
        if knob.path.endswith(_PATHS) and str(value_of(settings, knob.path)).startswith("~"):
            yield Finding(knob.path, "begins with ~, which only a shell knows: write the whole path")


_CHECKS: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    _networks,
    _anonymous,
    _hosts,
    _origins,
    _urls,
    _database,
    _trusted_issuers,
    _tls,
    _oidc,
    _bootstrap,
    _home,
)


def _key_files(settings: Settings, around: Surroundings) -> Iterator[Finding]:
    for path in _KEY_FILES:
        name = value_of(settings, path)
        if name is None:
            continue
        file = around.cwd / name
        try:
            with file.open("rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
        except OSError as error:
            yield Finding(path, f"{file}: {error.strerror}")
            continue
        if path == "jwt.private_key_path" and mode & stat.S_IROTH and not _is_handed_in(file, around.environ):
            yield Finding(path, f"everybody can read {file}: chmod 600 it")


def _is_handed_in(file: Path, environ: Mapping[str, str]) -> bool:
    """Kubernetes and Docker mount secrets read-only, systemd hands them over in a directory of the unit's own."""
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if credentials and file.resolve().is_relative_to(Path(credentials).resolve()):
        return True
    return bool(os.statvfs(file).f_flag & os.ST_RDONLY)


def _production(settings: Settings, *, allow_embedded: bool) -> Iterator[Finding]:
    for path in _KEY_FILES:
        if value_of(settings, path) is None:
            yield _needed(path, "is missing")
    if settings.auth.anonymous_roles:
        yield _needed("auth.anonymous_roles", "must be empty")
    if "*" in settings.security.cors.allowed_origins:
        yield _needed("security.cors.allowed_origins", "must not hold *")
    if not settings.server.enable_https and not settings.server.trusted_proxies:
        yield _needed("server.trusted_proxies", "is missing: plain HTTP needs a proxy in front that ends TLS (or server.enable_https)")
    if settings.database.url is None and not allow_embedded:
        yield _needed("database.url", "is missing (--allow-embedded runs on the embedded PostgreSQL)")


def _needed(path: str, reason: str) -> Finding:
    return Finding(path, f"{reason}; XZEPR_ENV=production asks for that")


def _unwise(settings: Settings) -> Iterator[Finding]:
    cors, telemetry = settings.security.cors, settings.telemetry
    if telemetry.tracing_enabled and telemetry.otlp_endpoint is None:
        yield Finding("telemetry.tracing_enabled", "there is no telemetry.otlp_endpoint to send traces to")
    if settings.auth.anonymous_roles and settings.auth.allow_anonymous_remote:
        yield Finding("auth.anonymous_roles", "callers without credentials have these roles also from other machines")
    if "*" in cors.allowed_origins and cors.allow_credentials:
        yield Finding("security.cors.allowed_origins", "pages of any origin may call with the user's credentials")
    yield from _idle_oidc(settings)
    yield from _idle_rules(settings)


def _idle_oidc(settings: Settings) -> Iterator[Finding]:
    """A provider that nobody can log in through, or that lets people in who may then do nothing."""
    keycloak = settings.auth.keycloak
    if not settings.auth.enable_oidc:
        if keycloak.issuer_url is not None:
            yield Finding("auth.keycloak.issuer_url", "has no effect: auth.enable_oidc is off")
        return
    if not keycloak.role_map:
        yield Finding("auth.keycloak.role_map", "is empty: whoever logs in through the provider may do nothing here")
    parts = _parts(keycloak.redirect_url) if keycloak.redirect_url else None
    hosts = {host.lower() for host in settings.server.allowed_hosts}
    if parts is not None and not is_loopback(parts[1]) and parts[1] != settings.server.host.lower() and not {"*", parts[1]} & hosts:
        yield Finding("auth.keycloak.redirect_url", f"browsers come back to {parts[1]}, which server.allowed_hosts does not name")


def _idle_rules(settings: Settings) -> Iterator[Finding]:
    """Rules of which nobody will ever see an effect, or another one than was meant."""
    patterns = [rule.event_receiver_type for rule in settings.retention.rules]
    for number, pattern in enumerate(patterns):
        if pattern != pattern.strip():
            yield Finding("retention.rules", f"rule {number + 1}: {pattern!r} begins or ends with white space, which counts")
        before = next((place for place in range(number) if covers(patterns[place], pattern)), None)
        if before is not None:
            reason = (
                f"rule {number + 1} ({pattern}) never counts: rule {before + 1} ({patterns[before]}) stands before it and matches all that it matches"
            )
            yield Finding("retention.rules", reason)
