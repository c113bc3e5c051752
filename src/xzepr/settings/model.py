"""What can be set. A name here is a promise to users; a description here is the sample file's comment and the reference page's text.

Every key has a type and its bounds, and a description that gives its unit. Nothing here reads a file or the environment: load.py does.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta

from xzepr.auth.permissions import Role

# The largest number where nothing else bounds one: what PostgreSQL and every client take for an integer.
_MOST: Final = 2_147_483_647
_DAY_S: Final = 86_400
_ULID: Final = "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$"


def _about(text: str, **bounds: Any) -> Meta:
    return Meta(description=text, **bounds)


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of keys."""


class Server(_Section, frozen=True):
    """The HTTP server and its state."""

    host: Annotated[str, _about("Address to listen on.", min_length=1)] = "127.0.0.1"
    port: Annotated[int, _about("Port to listen on; 0: any free one.", ge=0, le=65535)] = 8042
    enable_https: Annotated[bool, _about("Speak TLS (needs the section tls). Not there yet: stops the start.")] = False
    workers: Annotated[Literal["auto"] | Annotated[int, Meta(ge=1, le=64)], _about("Web processes; auto: one a core, at most 8.")] = "auto"
    request_timeout_seconds: Annotated[float, _about("Seconds in which a request's body must have arrived.", gt=0, le=3600)] = 30.0
    max_connections: Annotated[int, _about("Connections of clients to each web process; more wait until some have gone.", ge=16, le=1_000_000)] = 4096
    trusted_proxies: Annotated[list[str], _about("Addresses or networks of proxies whose X-Forwarded-For counts.")] = []
    allowed_hosts: Annotated[list[str], _about("Host names this server answers for, besides localhost and its own address; *: any.")] = []
    dialect: Annotated[Literal["xzepr", "epr"], _about("Whose contract the root speaks.")] = "xzepr"
    state_dir: Annotated[
        str | None, _about("Directory of the embedded PostgreSQL and of files; null: /var/lib/xzepr as root, else ~/.local/state/xzepr.")
    ] = None


class EmbeddedDatabase(_Section, frozen=True):
    """The embedded PostgreSQL."""

    bindir: Annotated[str | None, _about("Directory of PostgreSQL's programs; null: looked for.")] = None


class DatabaseSettings(_Section, frozen=True):
    """PostgreSQL."""

    url: Annotated[str | None, _about("postgresql://user:password@host/name; null: the embedded PostgreSQL.")] = None
    direct_url: Annotated[str | None, _about("The same past a transaction pooler, for migrations and LISTEN; null: url.")] = None
    max_connections: Annotated[int, _about("Connections of the whole server, shared out among its processes.", ge=8, le=10_000)] = 20
    min_connections: Annotated[int, _about("Connections of the whole server that stay open when idle.", ge=0, le=10_000)] = 5
    connection_timeout_seconds: Annotated[float, _about("Seconds to wait for a connection, new or free.", gt=0, le=3600)] = 30.0
    embedded: EmbeddedDatabase = EmbeddedDatabase()


class Jwt(_Section, frozen=True):
    """Access and refresh tokens."""

    private_key_path: Annotated[
        str | None, _about("PEM file of the RSA key that signs tokens; it must not be readable by everybody. null: made in state_dir/keys.")
    ] = None
    public_key_path: Annotated[str | None, _about("PEM file of the keys that check tokens, one after another; all count at once.")] = None
    issuer: Annotated[str, _about("Claim iss of our tokens.", min_length=1)] = "xzepr.io"
    audience: Annotated[str, _about("Claim aud of our tokens.", min_length=1)] = "xzepr-api"
    # What is told of ended logins is kept for longer (auth/changes.py, KEPT_S).
    access_token_expiration: Annotated[
        int, _about("Seconds that an access token is good for; one that is good for longer is refused.", ge=1, le=_DAY_S)
    ] = 900
    refresh_token_expiration: Annotated[int, _about("Seconds that a refresh token is good for.", ge=1, le=_MOST)] = 604_800
    leeway_seconds: Annotated[int, _about("Seconds by which clocks may differ.", ge=0, le=300)] = 60


class Cors(_Section, frozen=True):
    """Which web pages of other origins may call."""

    allowed_origins: Annotated[list[str], _about("Origins such as https://app.example.com; *: any, refused in production.")] = []
    allow_credentials: Annotated[bool, _about("Whether such pages may send the user's credentials.")] = True
    max_age_seconds: Annotated[int, _about("Seconds that a browser may keep the permission.", ge=0, le=_MOST)] = 3600


class EventsPerMinute(_Section, frozen=True):
    """Events in batches, a minute and caller; 0: no limit."""

    service: Annotated[int, _about("Events a minute of a service.", ge=0, le=_MOST)] = 6_000_000
    other: Annotated[int, _about("Events a minute of any other caller.", ge=0, le=_MOST)] = 60_000


class RateLimit(_Section, frozen=True):
    """Requests a minute and caller; 0: no limit."""

    anonymous_rpm: Annotated[int, _about("Requests a minute of an address without credentials.", ge=0, le=_MOST)] = 10
    authenticated_rpm: Annotated[int, _about("Requests a minute of a login.", ge=0, le=_MOST)] = 100
    service_rpm: Annotated[
        int, _about("Requests a minute of an API key, a trusted issuer's token, a caller with anonymous_roles.", ge=0, le=_MOST)
    ] = 120_000
    admin_rpm: Annotated[int, _about("Requests a minute of an administrator.", ge=0, le=_MOST)] = 1000
    per_endpoint: Annotated[dict[str, Annotated[int, Meta(ge=0, le=_MOST)]], _about("Requests a minute of single routes, by route.")] = {}
    events_per_minute: EventsPerMinute = EventsPerMinute()
    redis_url: Annotated[str | None, _about("Redis or Valkey that several servers count in; null: each server counts for itself.")] = None


class Validation(_Section, frozen=True):
    """Sizes of bodies."""

    max_body_size: Annotated[int, _about("Bytes of a body, and of each event of a batch.", ge=1024, le=_MOST)] = 1_048_576
    max_batch_body_size: Annotated[int, _about("Bytes of a batch.", ge=1024, le=_MOST)] = 16_777_216


class Headers(_Section, frozen=True):
    """Security headers."""

    csp: Annotated[str, _about("Content-Security-Policy of pages; default: the one that our own pages need.", min_length=1)] = "default"
    hsts_max_age: Annotated[int, _about("Seconds of Strict-Transport-Security; sent over TLS only.", ge=0, le=_MOST)] = 63_072_000


class Security(_Section, frozen=True):
    """What callers may do to the server."""

    cors: Cors = Cors()
    rate_limit: RateLimit = RateLimit()
    validation: Validation = Validation()
    headers: Headers = Headers()


class Telemetry(_Section, frozen=True):
    """Logs, metrics, traces."""

    metrics_enabled: Annotated[bool, _about("Serve /metrics.")] = True
    metrics_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None, _about("A port of its own for /metrics, open to whoever reaches it; 0: any free one.")
    ] = None
    tracing_enabled: Annotated[bool, _about("Send traces to otlp_endpoint.")] = False
    otlp_endpoint: Annotated[str | None, _about("OTLP over HTTP, such as http://localhost:4318/v1/traces.")] = None
    jaeger_endpoint: Annotated[str | None, _about("For old deployments: translated to otlp_endpoint, with a warning.")] = None
    sample_ratio: Annotated[float, _about("Share of traces that are kept.", ge=0, le=1)] = 1.0
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _about("The least level that is logged.")] = "info"
    json_logs: Annotated[bool, _about("Log one JSON object a line.")] = False


class Tls(_Section, frozen=True):
    """TLS of the server. Not there yet: anything set here stops the start."""

    cert_path: Annotated[str | None, _about("PEM file of the certificate and its chain.")] = None
    key_path: Annotated[str | None, _about("PEM file of the certificate's key.")] = None
    client_ca_path: Annotated[str | None, _about("PEM file; clients must then show a certificate that one of these authorities signed.")] = None


class Kafka(_Section, frozen=True):
    """Where the stream is carried to."""

    brokers: Annotated[list[str], _about("Brokers as host:port; empty: no Kafka.")] = []
    default_topic: Annotated[str, _about("Topic of all messages.", min_length=1)] = "xzepr.dev.events"
    partitions: Annotated[int, _about("Partitions of a topic that we make.", ge=1, le=10_000)] = 3
    replication_factor: Annotated[int, _about("Copies of a topic that we make.", ge=1, le=100)] = 1
    security_protocol: Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], _about("As librdkafka names them.")] = "PLAINTEXT"
    sasl_mechanism: Annotated[str | None, _about("Such as SCRAM-SHA-512.")] = None
    sasl_username: Annotated[str | None, _about("User that sasl_mechanism logs in.")] = None
    sasl_password: Annotated[str | None, _about("Password of that user.")] = None
    ssl_ca_location: Annotated[str | None, _about("PEM file of the authorities that sign the brokers' certificates.")] = None
    ssl_certificate_location: Annotated[str | None, _about("PEM file of our certificate.")] = None
    ssl_key_location: Annotated[str | None, _about("PEM file of our certificate's key.")] = None


class Stream(_Section, frozen=True):
    """The stream in PostgreSQL."""

    retention_days: Annotated[int, _about("Days that a message can be read again; then the relay removes it from the stream.", ge=1, le=36_500)] = 30


class SubjectRule(_Section, frozen=True, kw_only=True):
    """How CloudEvents of a type come to the five fields of an artifact. In a field, {path} or {path|default} is filled in: subject, any attribute,
    purl.type, purl.name, purl.namespace, purl.version, purl.qualifiers.KEY of a package URL in the subject, data.… of the payload."""

    type: Annotated[str, _about("A CloudEvent's type; * within it matches anything.", min_length=1)]
    name: Annotated[str, _about("The artifact's name.", min_length=1)] = "{purl.name}"
    version: Annotated[str, _about("Its version.", min_length=1)] = "{purl.version}"
    release: Annotated[str, _about("Its release.", min_length=1)] = "{purl.qualifiers.release|0}"
    platform_id: Annotated[str, _about("Its platform.", min_length=1)] = "{purl.qualifiers.arch|any}"
    package: Annotated[str, _about("Its package type.", min_length=1)] = "{purl.type}"
    outcome: Annotated[str, _about("Path of the event's outcome; empty: every event is a success.")] = "data.subject.content.outcome"
    failed_outcomes: Annotated[list[str], _about("Outcomes that are failures.")] = msgspec.field(
        default_factory=lambda: ["fail", "failure", "error", "cancel"]
    )


class CloudEvents(_Section, frozen=True):
    """CloudEvents that are posted."""

    subject_rules: Annotated[
        list[SubjectRule],
        _about('Each {type: "dev.cdevents.*", name: "{purl.name}", …}; the first that matches counts, before the one for CDEvents that is built in.'),
    ] = []


class RetentionRule(_Section, frozen=True, kw_only=True):
    """Events of these receivers go when they are older."""

    event_receiver_type: Annotated[str, _about("A receiver's type; * within it matches anything.", min_length=1, max_length=255, pattern=r"\S")]
    older_than_days: Annotated[int, _about("Days.", ge=1, le=36_500)]


class Retention(_Section, frozen=True):
    """What is removed, and when."""

    rules: Annotated[
        list[RetentionRule],
        _about('Each {event_receiver_type: "artifact.*", older_than_days: 365}; the first that matches counts; no match: kept for good.'),
    ] = []


class Keycloak(_Section, frozen=True):
    """Login through OpenID Connect."""

    issuer_url: Annotated[str | None, _about("The provider, such as https://sso.example.com/realms/acme.")] = None
    client_id: Annotated[str | None, _about("Name of this server at the provider.")] = None
    client_secret: Annotated[str | None, _about("Secret of this server at the provider.")] = None
    redirect_url: Annotated[str | None, _about("/api/v1/auth/oidc/callback of this server, as browsers reach it.")] = None
    role_claim: Annotated[str, _about("Where roles stand in the provider's token.", min_length=1)] = "realm_access.roles"
    role_map: Annotated[dict[str, list[Role]], _about("The provider's roles, each with the roles it gives here.")] = {}


class TrustedIssuerRule(_Section, frozen=True, kw_only=True):
    """Whoever has these claims gets these roles."""

    claims: Annotated[dict[str, str], _about("Every one must match; * within a value matches anything.", min_length=1)]
    roles: Annotated[list[Role], _about("What they may do.")]
    event_receiver_ids: Annotated[list[Annotated[str, Meta(pattern=_ULID)]], _about("Receivers they may post to; empty: all.")] = []


class TrustedIssuer(_Section, frozen=True, kw_only=True):
    """Whose tokens are accepted besides our own."""

    issuer: Annotated[str, _about("Claim iss.", min_length=1)]
    jwks_url: Annotated[str | None, _about("Where its keys are; null: by discovery.")] = None
    audience: Annotated[str, _about("Claim aud.", min_length=1)]
    rules: Annotated[list[TrustedIssuerRule], _about("Several that match add up.")]


class BootstrapAdmin(_Section, frozen=True):
    """The first administrator, made on a database without users."""

    username: Annotated[str, _about("Name of the first administrator.", min_length=1)] = "admin"
    password: Annotated[str | None, _about("Password of the first administrator; null: made up and shown once.")] = None


class Auth(_Section, frozen=True):
    """Who may do what."""

    enable_local_auth: Annotated[bool, _about("Log in by name and password.")] = True
    password_min_chars: Annotated[int, _about("Of a new password. NIST SP 800-63B asks 8, and 15 where nothing else is asked for.", ge=8, le=128)] = 8
    enable_oidc: Annotated[bool, _about("Log in through the section keycloak.")] = False
    keycloak: Keycloak = Keycloak()
    trusted_issuers: Annotated[
        list[TrustedIssuer],
        _about(
            "CI systems and service accounts whose tokens count: each {issuer, jwks_url, audience, rules: [{claims, roles, event_receiver_ids}]}."
        ),
    ] = []
    bootstrap_admin: BootstrapAdmin = BootstrapAdmin()
    anonymous_roles: Annotated[list[Role], _about("Roles of a caller without credentials; must be empty in production.")] = []
    anonymous_networks: Annotated[list[str], _about("Addresses or networks from which alone anonymous_roles count.")] = msgspec.field(
        default_factory=lambda: ["127.0.0.0/8", "::1/128"]
    )
    allow_anonymous_remote: Annotated[bool, _about("Let anonymous_networks reach beyond this machine.")] = False


class Graphql(_Section, frozen=True):
    """GraphQL."""

    max_depth: Annotated[int, _about("Levels of fields within fields in a query.", ge=1, le=100)] = 8
    max_complexity: Annotated[int, _about("Points that a query may cost.", ge=1, le=_MOST)] = 1000
    introspection: Annotated[bool, _about("Let callers ask for the schema.")] = True
    playground: Annotated[bool, _about("Serve the page with a GraphQL editor.")] = True


class Settings(_Section, frozen=True):
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
    cloudevents: CloudEvents = CloudEvents()
    retention: Retention = Retention()
    auth: Auth = Auth()
    graphql: Graphql = Graphql()


# May come from a file, and are never shown.
SECRETS: Final = frozenset(
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
    """For a child process; decode_settings gives back the same, secrets included."""
    return msgspec.json.encode(settings)


def decode_settings(encoded: bytes) -> Settings:
    """What encode_settings was given. Raises msgspec.ValidationError when it is something else."""
    return msgspec.json.decode(encoded, type=Settings)
