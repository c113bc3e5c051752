"""Names that older deployments use. Accepted, with a warning that gives the new one. Source: contract `config.md`."""

from typing import Final
from urllib.parse import urlsplit

# Dotted old name to dotted new name.
RENAMED: Final = {
    "kafka.default_topic_partitions": "kafka.partitions",
    "kafka.default_topic_replication_factor": "kafka.replication_factor",
    "kafka.auth.security_protocol": "kafka.security_protocol",
    "kafka.auth.sasl_config.mechanism": "kafka.sasl_mechanism",
    "kafka.auth.sasl_config.username": "kafka.sasl_username",
    "kafka.auth.sasl_config.password": "kafka.sasl_password",
    "kafka.auth.ssl_config.ca_location": "kafka.ssl_ca_location",
    "kafka.auth.ssl_config.certificate_location": "kafka.ssl_certificate_location",
    "kafka.auth.ssl_config.key_location": "kafka.ssl_key_location",
}
# A whole section that moved: its keys keep their names.
MOVED_SECTIONS: Final = {"auth.jwt.": "jwt.", "security.monitoring.": "telemetry."}
# No longer of any use: dropped with this reason.
DROPPED: Final = {"auth.jwt_secret": "tokens are signed with RS256 keys (jwt.private_key_path); a shared secret is not used"}

OTLP_PORT: Final = 4318
OTLP_ROUTE: Final = "/v1/traces"


def new_name(path: str) -> str | None:
    """The name that replaced this one, None when it is not an old name."""
    if path in RENAMED:
        return RENAMED[path]
    for old, new in MOVED_SECTIONS.items():
        if path.startswith(old):
            return new + path.removeprefix(old)
    return None


def otlp_of_jaeger(endpoint: str) -> str:
    """The OTLP route on the host of a Jaeger Thrift route: Jaeger has taken OTLP since 1.35 and no longer takes Thrift.

    endpoint: a URL, or host:port. Raises ValueError when it holds no host.
    """
    try:
        parts = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        raise ValueError("takes a URL such as http://localhost:14268/api/traces")
    scheme = parts.scheme if parts.scheme == "https" else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{OTLP_PORT}{OTLP_ROUTE}"
