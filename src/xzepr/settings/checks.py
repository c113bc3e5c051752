"""What must hold together before anything starts, and what the settings ask for that is not there yet."""

import os
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from xzepr.settings.model import Settings, is_network, knobs, value_of

# Keys whose part does not exist yet, by the beginning of their path. Delete the line when the part is there.
NOT_THERE_YET: Final = (
    "server.dialect",
    "jwt.",
    "security.rate_limit.",
    "security.validation.max_batch_body_size",
    "telemetry.metrics_",
    "telemetry.tracing_enabled",
    "telemetry.otlp_endpoint",
    "telemetry.jaeger_endpoint",
    "telemetry.sample_ratio",
    "kafka.",
    "stream.retention_days",
    "retention.",
    "auth.enable_local_auth",
    "auth.enable_oidc",
    "auth.keycloak.",
    "auth.trusted_issuers",
    "auth.bootstrap_admin.",
    "graphql.",
)
# Of these, ignoring the value would leave a door open that somebody believes shut.
STOPS_THE_START: Final = ("server.enable_https", "tls.")

_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def check(
    settings: Settings, sources: Mapping[str, str], environ: Mapping[str, str], *, allow_embedded: bool
) -> tuple[list[str], list[str]]:
    """Problems that stop the start, and warnings; one line each."""
    problems = [*_not_there_but_needed(settings), *_networks(settings), *_files(settings, environ), *_values(settings)]
    if settings.env == "production":
        problems += [f"XZEPR_ENV=production: {reason}" for reason in _production(settings, allow_embedded=allow_embedded)]
    return problems, [*_not_there_yet(settings, sources), *_unwise(settings)]


def _not_there_but_needed(settings: Settings) -> Iterator[str]:
    for knob in knobs():
        if knob.path.startswith(STOPS_THE_START) and value_of(settings, knob.path) != knob.default:
            yield f"{knob.path}: TLS is not there yet, and without it this would serve in the clear: end TLS in a proxy in front (server.trusted_proxies)"


def _not_there_yet(settings: Settings, sources: Mapping[str, str]) -> Iterator[str]:
    for knob in knobs():
        if knob.path.startswith(NOT_THERE_YET) and knob.path in sources and value_of(settings, knob.path) != knob.default:
            yield f"{knob.path}: has no effect yet"


def _networks(settings: Settings) -> Iterator[str]:
    for path in ("server.trusted_proxies", "auth.anonymous_networks"):
        for text in value_of(settings, path):
            if not is_network(text):
                yield f"{path}: {text!r} is not an address or network"
    wide = [text for text in settings.auth.anonymous_networks if is_network(text) and not _is_loopback(text)]
    if wide and not settings.auth.allow_anonymous_remote:
        yield f"auth.anonymous_networks: {', '.join(wide)} reaches beyond this machine; that needs auth.allow_anonymous_remote"


def _is_loopback(text: str) -> bool:
    network = ip_network(text, strict=False)
    return any(network.version == loopback.version and network.subnet_of(loopback) for loopback in _LOOPBACK)  # type: ignore[arg-type]


def _files(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    for path in ("jwt.private_key_path", "jwt.public_key_path"):
        name = value_of(settings, path)
        if name is None:
            continue
        try:
            readable_by_all = bool(os.stat(name).st_mode & 0o004)
        except OSError as error:
            yield f"{path}: {name}: {error.strerror}"
            continue
        if path == "jwt.private_key_path" and readable_by_all and not _is_handed_in(Path(name), environ):
            yield f"{path}: everybody can read {name}: chmod 600 it"


def _is_handed_in(path: Path, environ: Mapping[str, str]) -> bool:
    """Kubernetes and Docker mount secrets read-only, systemd hands them over in a directory of the unit's own."""
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if credentials and path.resolve().is_relative_to(Path(credentials).resolve()):
        return True
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _values(settings: Settings) -> Iterator[str]:
    database = settings.database
    for path in ("database.url", "database.direct_url"):
        url = value_of(settings, path)
        if url is not None and not url.startswith(("postgresql://", "postgres://")):
            yield f"{path}: begins with postgresql://"
    if database.url is None and database.direct_url is not None:
        yield "database.direct_url: goes with database.url"
    if database.min_connections > database.max_connections:
        yield f"database.min_connections: is more than database.max_connections ({database.max_connections})"
    for origin in settings.security.cors.allowed_origins:
        if origin != "*" and ("://" not in origin or origin.rstrip("/") != origin or "/" in origin.split("://", 1)[1]):
            yield f"security.cors.allowed_origins: {origin!r} is not an origin such as https://app.example.com"


def _production(settings: Settings, *, allow_embedded: bool) -> Iterator[str]:
    for path in ("jwt.private_key_path", "jwt.public_key_path"):
        if value_of(settings, path) is None:
            yield f"{path} is missing"
    if settings.auth.anonymous_roles:
        yield "auth.anonymous_roles must be empty"
    if "*" in settings.security.cors.allowed_origins:
        yield "security.cors.allowed_origins must not hold *"
    if not settings.server.enable_https and not settings.server.trusted_proxies:
        yield "server.enable_https, or server.trusted_proxies for a proxy that ends TLS, is missing"
    if settings.database.url is None and not allow_embedded:
        yield "database.url is missing (--allow-embedded runs on the embedded PostgreSQL)"


def _unwise(settings: Settings) -> Iterator[str]:
    telemetry = settings.telemetry
    if telemetry.tracing_enabled and telemetry.otlp_endpoint is None:
        yield "telemetry.tracing_enabled: there is no telemetry.otlp_endpoint to send traces to"
    if settings.auth.anonymous_roles and settings.auth.allow_anonymous_remote:
        yield "auth.anonymous_roles: callers without credentials have these roles also from other machines"
