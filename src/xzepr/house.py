"""What one web process holds, joined in app.py and handed to every door."""

from dataclasses import dataclass

from xzepr.audit.denials import Denials
from xzepr.auth.authenticate import Authenticator
from xzepr.auth.changes import Changes
from xzepr.auth.keys import SigningKeys
from xzepr.auth.logins import Logins
from xzepr.auth.oidc import Oidc
from xzepr.auth.passwords import Passwords
from xzepr.auth.tokens import AccessTokens
from xzepr.auth.trusted import TrustedIssuers
from xzepr.db.pool import Database
from xzepr.events.record import Recorder
from xzepr.events.search import EventReads
from xzepr.receivers.payload import PayloadChecker
from xzepr.settings import Settings
from xzepr.stream.follow import Tail


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """settings: frozen; database: this process's share of the connections; tail: the end of the stream, shared by all followers;
    keys, tokens: of our own access tokens; trusted: those of other issuers that count here; changes: what ended credentials;
    oidc: None where auth.enable_oidc is off; denials: what was refused, counted for the audit log."""

    settings: Settings
    database: Database
    checker: PayloadChecker
    recorder: Recorder
    reads: EventReads
    tail: Tail
    keys: SigningKeys
    tokens: AccessTokens
    trusted: TrustedIssuers
    changes: Changes
    authenticator: Authenticator
    passwords: Passwords
    logins: Logins
    oidc: Oidc | None
    denials: Denials
