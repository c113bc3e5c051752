"""Header lines that show who posts."""

from typing import Any

import httpx2

from benchmarks.server import PASSWORD, USERNAME


def token_line(port: int) -> str:
    """Of a login just made: an access token lives for fifteen minutes."""
    return f"Authorization: Bearer {_login(port)['access_token']}"


def key_line(port: int) -> str:
    """Of a new API key."""
    headers = {"Authorization": f"Bearer {_login(port)['access_token']}"}
    key = _post(port, "/api/v1/api-keys", {"name": "bench", "scopes": ["event:create"]}, headers)["key"]
    return f"X-API-Key: {key}"


def _login(port: int) -> dict[str, Any]:
    return _post(port, "/api/v1/auth/login", {"username": USERNAME, "password": PASSWORD}, {})


def _post(port: int, path: str, body: object, headers: dict[str, str]) -> dict[str, Any]:
    answer = httpx2.post(f"http://127.0.0.1:{port}{path}", json=body, headers=headers, timeout=30)
    if not answer.is_success:
        raise RuntimeError(f"POST {path}: {answer.status_code} {answer.text}")
    return dict(answer.json())
