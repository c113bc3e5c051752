"""People and programs with accounts, for an installation whose first administrator's password is known."""

import itertools
import secrets
from typing import Any

import httpx2

from support.cast import created

ADMIN, PASSWORD = "admin", "correct horse battery staple"
SETTINGS = {"XZEPR__AUTH__BOOTSTRAP_ADMIN__PASSWORD": PASSWORD, "XZEPR__AUTH__ANONYMOUS_ROLES": ""}
_names = itertools.count(1)


def log_in(http: httpx2.Client, username: str = ADMIN, password: str = PASSWORD) -> dict[str, Any]:
    answer = http.post("/api/v1/auth/login", json={"username": username, "password": password})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def bearer(pair: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {pair['access_token']}"}


class Person:
    """A user with a password, and a client that sends the token of a login."""

    def __init__(self, http: httpx2.Client, admin: dict[str, str], *roles: str) -> None:
        self.username = f"user-{next(_names)}-{secrets.token_hex(3)}"
        self.password = secrets.token_urlsafe(12)
        body = {"username": self.username, "password": self.password, "roles": list(roles)}
        self.id = created(http.post("/api/v1/admin/users", json=body, headers=admin))
        self.pair = log_in(http, self.username, self.password)
        self.headers = bearer(self.pair)


def make_key(http: httpx2.Client, headers: dict[str, str], *scopes: str, **more: Any) -> dict[str, Any]:
    answer = http.post("/api/v1/api-keys", json={"name": "ci", "scopes": list(scopes), **more}, headers=headers)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())
