"""A provider that does what it is told: sound unless a test spoils something. On a real socket, in a thread of its own."""

import asyncio
import base64
import contextlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

CLIENT_ID, CLIENT_SECRET = "xzepr", "a secret/with:signs"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


# Made once: each takes a tenth of a second.
KEY, OTHER_KEY, EC_KEY = rsa_key(), rsa_key(), ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    algorithm = jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else jwt.algorithms.RSAAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig", **more}


@dataclass
class Person:
    """Who sits in front of the browser, as the provider knows them. claims: more, or others, of the id_token."""

    sub: str = field(default_factory=lambda: secrets.token_hex(8))
    username: str = field(default_factory=lambda: f"alice.{secrets.token_hex(4)}")
    email: str | None = "alice@example.com"
    roles: list[str] | None = field(default_factory=lambda: ["release-manager"])


@dataclass
class Script:
    """What it does otherwise than it should. Of paths: discovery, jwks, token, userinfo."""

    # Over the id_token's claims; a value of ... takes the claim away.
    claims: dict[str, Any] = field(default_factory=dict)
    access_claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "RS256"
    key: Any = None
    # A whole id_token in place of the one that would be made.
    id_token: str | None = None
    access_token: str | None = None
    published: list[dict[str, Any]] | None = None
    discovery: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] = field(default_factory=dict)
    roles_in: str = "access_token"
    # By path: seconds to wait, status, bytes of the body, and another place to look.
    delay_s: dict[str, float] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    body: dict[str, bytes] = field(default_factory=dict)
    drip: set[str] = field(default_factory=set)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)


class ScriptedProvider:
    """issuer: its URL. asked: paths in the order in which they were asked for."""

    def __init__(self) -> None:
        self.person, self.script = Person(), Script()
        self.asked: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.authorizations: list[str | None] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.issuer = f"http://127.0.0.1:{self._socket.getsockname()[1]}/realms/acme"
        self._over = threading.Event()

    def sane(self) -> None:
        """As it was at first; codes that are out stay good."""
        self.person, self.script = Person(), Script()
        self.asked.clear()
        self.forms.clear()
        self.authorizations.clear()

    def come_back(self, authorization_url: str, **changes: str | None) -> str:
        """The person logs in: path and query of the callback. changes: parameters in place of the sound ones; None: left out."""
        asked = dict(parse_qsl(urlsplit(authorization_url).query))
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        given = {"code": code, "state": asked["state"], "session_state": "x", "iss": self.issuer, **changes}
        return f"{urlsplit(asked['redirect_uri']).path}?{urlencode({name: value for name, value in given.items() if value is not None})}"

    # --- what it answers ---

    async def _answer(self, request: Request) -> Response:
        path = request.path_params["path"]
        name = {".well-known/openid-configuration": "discovery"}.get(path, path)
        self.asked.append(name)
        script = self.script
        given_up_s = time.monotonic() + script.delay_s.get(name, 0)
        while time.monotonic() < given_up_s and not self._over.is_set():
            await asyncio.sleep(0.02)
        body, status = await getattr(self, f"_{name}")(request), 200
        if isinstance(body, tuple):
            body, status = body
        content = script.body.get(name, json.dumps(body).encode())
        headers = {"Content-Type": "application/json", **script.headers.get(name, {})}
        if name in script.drip:
            return _Dripping(content, self._over)
        return Response(content, script.status.get(name, status), headers)

    async def _discovery(self, _: Request) -> Any:
        found = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/auth",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/logout",
            "code_challenge_methods_supported": ["plain", "S256"],
            "authorization_response_iss_parameter_supported": True,
            **self.script.discovery,
        }
        return {name: value for name, value in found.items() if value is not ...}

    async def _jwks(self, _: Request) -> Any:
        return {"keys": self.script.published if self.script.published is not None else [jwk(KEY, "k1"), jwk(OTHER_KEY, "enc", use="enc")]}

    async def _token(self, request: Request) -> Any:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        self.forms.append(form)
        self.authorizations.append(request.headers.get("authorization"))
        asked = self._codes.pop(form.get("code", ""), None)
        if asked is None or asked["redirect_uri"] != form["redirect_uri"]:
            return {"error": "invalid_grant", "error_description": "Code not valid"}, 400
        if _b64(sha256(form["code_verifier"].encode()).digest()) != asked["code_challenge"]:
            return {"error": "invalid_grant", "error_description": "PKCE verification failed"}, 400
        access_token = self.script.access_token or self._access_token()
        return {"access_token": access_token, "token_type": "Bearer", "id_token": self.script.id_token or self._id_token(asked, access_token)}

    async def _userinfo(self, _: Request) -> Any:
        return {"sub": self.person.sub, **self._roles("userinfo"), **self.script.userinfo}

    # --- tokens ---

    def _id_token(self, asked: dict[str, str], access_token: str) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": self.person.sub,
            "aud": CLIENT_ID,
            "azp": CLIENT_ID,
            "exp": now + 300,
            "iat": now,
            "nonce": asked["nonce"],
            "at_hash": _b64(sha256(access_token.encode()).digest()[:16]),
            "preferred_username": self.person.username,
            "email": self.person.email,
            "email_verified": True,
            **self._roles("id_token"),
            **self.script.claims,
        }
        return self.signed(claims)

    def _access_token(self) -> str:
        now = int(time.time())
        return self.signed(
            {
                "iss": self.issuer,
                "sub": self.person.sub,
                "aud": "account",
                "exp": now + 300,
                "iat": now,
                **self._roles("access_token"),
                **self.script.access_claims,
            }
        )

    def signed(self, claims: dict[str, Any]) -> str:
        kept = {name: value for name, value in claims.items() if value is not ...}
        headers = {name: value for name, value in {"kid": "k1", **self.script.header}.items() if value is not ...}
        return jwt.encode(kept, self.script.key or KEY, algorithm=self.script.algorithm, headers=headers)

    def _roles(self, where: str) -> dict[str, Any]:
        return {"realm_access": {"roles": self.person.roles}} if self.script.roles_in == where and self.person.roles is not None else {}

    # --- running ---

    @contextlib.contextmanager
    def running(self) -> Iterator["ScriptedProvider"]:
        app = Starlette(routes=[Route("/realms/acme/{path:path}", self._answer, methods=["GET", "POST"])])
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=lambda: server.run(sockets=[self._socket]), daemon=True)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield self
        finally:
            self._over.set()
            server.should_exit = True
            thread.join(10)
            self._socket.close()


class _Dripping(Response):
    """A byte at a time, for ever: no wait for a single one is long."""

    def __init__(self, content: bytes, over: threading.Event) -> None:
        super().__init__(content)
        self._over = over

    async def __call__(self, _: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        while not self._over.is_set():
            with contextlib.suppress(Exception):
                await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.sleep(0.05)


@contextlib.contextmanager
def scripted_provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider().running() as provider:
        yield provider
