"""What can be set. A name here is a promise to users; a description here is the sample file's comment and the reference page's text."""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from xzepr.auth.permissions import Role


def _about(text: str, **bounds: Any) -> Meta:
    return Meta(description=text, **bounds)


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of knobs."""


class Server(_Section):
    """The HTTP server and its state."""

    host: Annotated[str, _about("Address to listen on.", min_length=1)] = "127.0.0.1"
    port: Annotated[int, _about("Port to listen on; 0: any free one.", ge=0, le=65535)] = 8042
    enable_https: Annotated[bool, _about("Speak TLS (needs the section tls). Not there yet: stops the start.")] = False
    workers: Annotated[Literal["auto"] | Annotated[int, Meta(ge=1, le=256)], _about("Web processes; auto: one a core, at most 8.")] = "auto"
    request_timeout_seconds: Annotated[float, _about("A body must have arrived by then.", gt=0)] = 30
    trusted_proxies: Annotated[list[str], _about("Networks of proxies whose X-Forwarded-For counts.")] = []
    allowed_hosts: Annotated[list[str], _about("Host names this server answers for, besides localhost and its own address; *: any.")] = []
    dialect: Annotated[Literal["xzepr", "epr"], _about("Whose contract the root speaks.")] = "xzepr"
    state_dir: Annotated[str | None, _about("Where embedded PostgreSQL and files live; null: /var/lib/xzepr as root, else ~/.local/state/xzepr.")] = None


class EmbeddedDatabase(_Section):
    """The embedded PostgreSQL."""

    bindir: Annotated[str | None, _about("Directory of PostgreSQL's binaries; null: looked for.")] = None


class DatabaseSettings(_Section):
    """PostgreSQL."""

    url: Annotated[str | None, _about("postgresql://user:password@host/name; null: the embedded one.")] = None
    direct_url: Annotated[str | None, _about("The same without a transaction pooler, for migrations and LISTEN.")] = None
    max_connections: Annotated[int, _about("Of the whole server, shared out among its processes.", ge=8, le=10_000)] = 20
    min_connections: Annotated[int, _about("Kept open, of the whole server.", ge=0)] = 5
    connection_timeout_seconds: Annotated[float, _about("For connecting, and for a free connection.", gt=0)] = 30
    embedded: EmbeddedDatabase = EmbeddedDatabase()


class Jwt(_Section):
    """Access and refresh tokens."""

    private_key_path: Annotated[str | None, _about("PEM file, RS256; nobody else may be able to read it.")] = None
    public_key_path: Annotated[str | None, _about("PEM file.")] = None
    issuer: Annotated[str, _about("Claim iss.", min_length=1)] = "xzepr.io"
    audience: Annotated[str, _about("Claim aud.", min_length=1)] = "xzepr-api"
    access_token_expiration: Annotated[int, _about("Seconds.", ge=1)] = 900
    refresh_token_expiration: Annotated[int, _about("Seconds.", ge=1)] = 604800
    leeway_seconds: Annotated[int, _about("How far clocks may differ.", ge=0, le=300)] = 60


class Cors(_Section):
    """Which web pages of other origins may call."""

    allowed_origins: Annotated[list[str], _about("Origins such as https://app.example.com; * is refused in production.")] = []
    allow_credentials: Annotated[bool, _about("Whether they may send credentials.")] = True
    max_age_seconds: Annotated[int, _about("How long a browser may keep the answer.", ge=0)] = 3600


class EventsPerMinute(_Section):
    """Events in batches, a minute and caller; 0: no limit."""

    service: Annotated[int, _about("For services.", ge=0)] = 6_000_000
    other: Annotated[int, _about("For all others.", ge=0)] = 60_000


class RateLimit(_Section):
    """Requests a minute and caller; 0: no limit."""

    anonymous_rpm: Annotated[int, _about("Callers without credentials.", ge=0)] = 10
    authenticated_rpm: Annotated[int, _about("Logins.", ge=0)] = 100
    service_rpm: Annotated[int, _about("API keys, trusted issuers, callers with anonymous_roles.", ge=0)] = 120_000
    admin_rpm: Annotated[int, _about("Administrators.", ge=0)] = 1000
    per_endpoint: Annotated[dict[str, int], _about("Route to requests a minute.")] = {}
    events_per_minute: EventsPerMinute = EventsPerMinute()
    redis_url: Annotated[str | None, _about("Counters shared by several servers.")] = None


class Validation(_Section):
    """Sizes of bodies."""

    max_body_size: Annotated[int, _about("Bytes of a body, and of each event of a batch.", ge=1024)] = 1_048_576
    max_batch_body_size: Annotated[int, _about("Bytes of a batch.", ge=1024)] = 16_777_216


class Headers(_Section):
    """Security headers."""

    csp: Annotated[str, _about("Content-Security-Policy; default: ours.")] = "default"
    hsts_max_age: Annotated[int, _about("Seconds; sent over TLS only.", ge=0)] = 63_072_000


class Security(_Section):
    """What callers may do to the server."""

    cors: Cors = Cors()
    rate_limit: RateLimit = RateLimit()
    validation: Validation = Validation()
    headers: Headers = Headers()


class Telemetry(_Section):
    """Logs, metrics, traces."""

    metrics_enabled: Annotated[bool, _about("Serve /metrics.")] = True
    metrics_port: Annotated[Annotated[int, Meta(ge=1, le=65535)] | None, _about("A port of its own for /metrics, open there.")] = None
    tracing_enabled: Annotated[bool, _about("Send traces to otlp_endpoint.")] = False
    otlp_endpoint: Annotated[str | None, _about("OTLP over HTTP, such as http://localhost:4318/v1/traces.")] = None
    jaeger_endpoint: Annotated[str | None, _about("For old deployments: translated to otlp_endpoint.")] = None
    sample_ratio: Annotated[float, _about("Share of traces kept.", ge=0, le=1)] = 1.0
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _about("Least level that is logged.")] = "info"
    json_logs: Annotated[bool, _about("One JSON object a line.")] = False


class Tls(_Section):
    """TLS of the server. Not there yet: anything set here stops the start."""

    cert_path: Annotated[str | None, _about("PEM file, certificate and chain.")] = None
    key_path: Annotated[str | None, _about("PEM file.")] = None
    client_ca_path: Annotated[str | None, _about("PEM file; clients must then show a certificate of it.")] = None


class Kafka(_Section):
    """Where the stream is carried to."""

    brokers: Annotated[list[str], _about("host:port; empty: no Kafka.")] = []
    default_topic: Annotated[str, _about("Topic of all messages.", min_length=1)] = "xzepr.dev.events"
    partitions: Annotated[int, _about("Of a topic that is made.", ge=1)] = 3
    replication_factor: Annotated[int, _about("Of a topic that is made.", ge=1)] = 1
    security_protocol: Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], _about("As in librdkafka.")] = "PLAINTEXT"
    sasl_mechanism: Annotated[str | None, _about("Such as SCRAM-SHA-512.")] = None
    sasl_username: Annotated[str | None, _about("With sasl_mechanism.")] = None
    sasl_password: Annotated[str | None, _about("With sasl_mechanism.")] = None
    ssl_ca_location: Annotated[str | None, _about("PEM file.")] = None
    ssl_certificate_location: Annotated[str | None, _about("PEM file.")] = None
    ssl_key_location: Annotated[str | None, _about("PEM file.")] = None


class Stream(_Section):
    """The stream in PostgreSQL."""

    retention_days: Annotated[int, _about("How long messages can be read again.", ge=1)] = 30


class RetentionRule(_Section, kw_only=True):
    """Events of these receivers go when they are older."""

    event_receiver_type: Annotated[str, _about("A type; * within it matches anything.", min_length=1)]
    older_than_days: Annotated[int, _about("Days.", ge=1)]


class Retention(_Section):
    """What is removed, and when."""

    rules: Annotated[list[RetentionRule], _about("The first that matches counts; no match: kept for good.")] = []


class Keycloak(_Section):
    """Login through OpenID Connect."""

    issuer_url: Annotated[str | None, _about("Such as https://sso.example.com/realms/acme.")] = None
    client_id: Annotated[str | None, _about("Of this server.")] = None
    client_secret: Annotated[str | None, _about("Of this server.")] = None
    redirect_url: Annotated[str | None, _about("…/api/v1/auth/oidc/callback as browsers reach it.")] = None
    role_claim: Annotated[str, _about("Where roles stand in the token.", min_length=1)] = "realm_access.roles"
    role_map: Annotated[dict[str, list[Role]], _about("Their role to ours.")] = {}


class TrustedIssuerRule(_Section, kw_only=True):
    """Whoever has these claims gets these roles."""

    claims: Annotated[dict[str, str], _about("Every one must match; * within a value.", min_length=1)]
    roles: Annotated[list[Role], _about("What they may do.")]
    event_receiver_ids: Annotated[list[str], _about("Empty: all.")] = []


class TrustedIssuer(_Section, kw_only=True):
    """Whose tokens are accepted besides our own."""

    issuer: Annotated[str, _about("Claim iss.", min_length=1)]
    jwks_url: Annotated[str | None, _about("null: by discovery.")] = None
    audience: Annotated[str, _about("Claim aud.", min_length=1)]
    rules: Annotated[list[TrustedIssuerRule], _about("Several that match add up.")]


class BootstrapAdmin(_Section):
    """The first administrator, made on a database without users."""

    username: Annotated[str, _about("Its name.", min_length=1)] = "admin"
    password: Annotated[str | None, _about("null: made up and shown once.")] = None


class Auth(_Section):
    """Who may do what."""

    enable_local_auth: Annotated[bool, _about("Log in by name and password.")] = True
    enable_oidc: Annotated[bool, _about("Log in through the section keycloak.")] = False
    keycloak: Keycloak = Keycloak()
    trusted_issuers: Annotated[list[TrustedIssuer], _about("CI systems and service accounts.")] = []
    bootstrap_admin: BootstrapAdmin = BootstrapAdmin()
    anonymous_roles: Annotated[list[Role], _about("Roles of a caller without credentials; must be empty in production.")] = []
    anonymous_networks: Annotated[list[str], _about("anonymous_roles count only from here.")] = msgspec.field(
        default_factory=lambda: ["127.0.0.0/8", "::1/128"]
    )
    allow_anonymous_remote: Annotated[bool, _about("Allow anonymous_networks wider than this machine.")] = False


class Graphql(_Section):
    """GraphQL."""

    max_depth: Annotated[int, _about("Of a query.", ge=1)] = 8
    max_complexity: Annotated[int, _about("Of a query.", ge=1)] = 1000
    introspection: Annotated[bool, _about("Show the schema.")] = True
    playground: Annotated[bool, _about("Serve the editor.")] = True


class Settings(_Section):
    """All of it. env: XZEPR_ENV, not a key of its own."""

    env: str = "development"
    server: Server = Server()
    database: DatabaseSettings = DatabaseSettings()
    jwt: Jwt = Jwt()
    security: Security = Security()
    telemetry: Telemetry = Telemetry()
    tls: Tls = Tls()
    kafka: Kafka = Kafka()
    stream: Stream = Stream()
    retention: Retention = Retention()
    auth: Auth = Auth()
    graphql: Graphql = Graphql()


# May come from a file, and are never shown.
SECRETS = frozenset(
    {
        "database.url",
        "database.direct_url",
        "kafka.sasl_password",
        "auth.keycloak.client_secret",
        "auth.bootstrap_admin.password",
        "security.rate_limit.redis_url",
    }
)


class Knob(msgspec.Struct, frozen=True):
    """One key. path: dotted; type: as declared, with its bounds."""

    path: str
    type: Any
    default: Any
    description: str


def knobs(section: type[msgspec.Struct] = Settings, prefix: str = "") -> Iterator[Knob]:
    """Every key, in the order of the model; a section's keys follow each other."""
    hints = get_type_hints(section, include_extras=True)
    defaults = section()
    for field in msgspec.structs.fields(section):
        path = prefix + field.name
        if path == "env":
            continue
        hint, default = hints[field.name], getattr(defaults, field.name)
        if isinstance(hint, type) and issubclass(hint, _Section):
            yield from knobs(hint, path + ".")
        else:
            meta = next(extra for extra in hint.__metadata__ if isinstance(extra, Meta))
            yield Knob(path, hint, default, meta.description or "")


def sections(section: type[msgspec.Struct] = Settings, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted path and description of every section."""
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, _Section):
            yield prefix + field.name, (field.type.__doc__ or "").partition("\n")[0]
            yield from sections(field.type, f"{prefix}{field.name}.")


def value_of(settings: Settings, path: str) -> Any:
    """By dotted path."""
    value: Any = settings
    for part in path.split("."):
        value = getattr(value, part)
    return value


def is_network(text: str) -> bool:
    """Whether it is an address or a network of addresses."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def encode_settings(settings: Settings) -> bytes:
    """For a child process; decode_settings gives back the same."""
    return msgspec.json.encode(settings)


def decode_settings(encoded: bytes) -> Settings:
    return msgspec.json.decode(encoded, type=Settings)
