"""A server that answers as a test tells it to, for what a real one does only now and then."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

BASE = "/xzepr/api/v1"


class Request:
    """path: without the base; query: of the address; body: of JSON."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        parts = urlsplit(target)
        self.method = method
        self.path = parts.path.removeprefix(BASE)
        self.query = dict(parse_qsl(parts.query))
        self.headers = headers
        self.body = json.loads(body) if body else None


# Status, object of the body, headers.
Answer = tuple[int, Any, dict[str, str]]
Script = Callable[[Request], Answer]


def problem(status: int, code: str) -> Answer:
    return status, {"error": code, "detail": f"scripted {code}"}, {"Content-Type": "application/problem+json"}


@contextmanager
def scripted(script: Script) -> Iterator[str]:
    """Its URL."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, told, headers = script(Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            text = json.dumps(told).encode() if told is not None else b""
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815  the names of http.server

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
