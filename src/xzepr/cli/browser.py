"""A login in a browser, for the command line: the server sends the browser to 127.0.0.1 at the end, with a code that only this command can use.

Only this command, because the code is worth something only together with the verifier, which never leaves this process until it turns the code in
(PKCE, S256), and because an answer that does not bring back our state is not ours. Such an answer is refused and the wait goes on: anything on this
machine can ask our port, so none of it may end the login. Source: RFC 8252, RFC 7636; contract `rest.md`, "Accounts".
"""

import hmac
import os
import secrets
import sys
import threading
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from xzepr_client import BASE_PATH

from xzepr.auth.opaque import challenge_of
from xzepr.cli.connection import Failure

# For a person who looks for a password.
WAIT_S: Final = 300.0
# Browsers open connections ahead, and send nothing over them.
_SILENCE_MAX_S: Final = 10.0
_DONE: Final = "You are logged in. Go back to the terminal; this page may be closed."
_REFUSED: Final = "The login was refused. The terminal says why; this page may be closed."
_NOT_OURS: Final = "This is not an answer to the login that the terminal waits for."


class _Answer(NamedTuple):
    """What the browser brought: a code, or why there is none."""

    code: str | None
    error: str | None


class Loopback:
    """Waits on a free port of 127.0.0.1 for one answer. wait_s: at most so long."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._state = secrets.token_urlsafe(32)
        self._answers: SimpleQueue[_Answer] = SimpleQueue()
        handler = type("Handler", (_Handler,), {"state": self._state, "answers": self._answers})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def address_for(self, url: str, verifier: str) -> str:
        """Where the browser begins."""
        query = {"port": self._server.server_address[1], "state": self._state, "code_challenge": challenge_of(verifier)}
        return f"{url}{BASE_PATH}/auth/cli/authorize?{urlencode(query)}"

    def wait(self) -> str:
        """The code. Raises Failure when the login was refused, or nobody logged in."""
        try:
            answer = self._answers.get(timeout=self._wait_s)
        except Empty:
            raise Failure(
                f"nobody logged in within {self._wait_s:g} s", advice="run it again; without a browser here, `xzepr login` without --browser"
            ) from None
        if answer.code is None:
            raise Failure(f"the login was refused: {answer.error}")
        return answer.code


class _Handler(BaseHTTPRequestHandler):
    """state, answers: of its Loopback."""

    state: str
    answers: SimpleQueue[_Answer]
    timeout = _SILENCE_MAX_S

    def do_GET(self) -> None:
        """The one answer that is ours; all else is refused."""
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path != "/" or not hmac.compare_digest(query.get("state", "").encode(), self.state.encode()):
            self._say(404 if parts.path != "/" else 400, _NOT_OURS)
        elif "code" in query:
            # The page first: when the command goes on, this thread may be at its end.
            self._say(200, _DONE)
            self.answers.put(_Answer(query["code"], None))
        else:
            self._say(200, _REFUSED)
            self.answers.put(_Answer(None, query.get("error_description") or query.get("error") or "the server sent no code"))

    def log_message(self, *_: Any) -> None:
        """The terminal is for the person; and an address with a code is for no log."""

    def _say(self, status: int, text: str) -> None:
        body = f"<!doctype html><meta charset=utf-8><title>XZepr</title><p>{text}</p>\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", "default-src 'none'")
        # The address has the code in it.
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def new_verifier() -> str:
    """64 random bytes, in the characters that RFC 7636 allows."""
    return secrets.token_urlsafe(64)


def open_browser(address: str) -> None:
    """Where there is one to be seen. Not the ones for terminals: they would take this one away."""
    has_screen = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    if has_screen:
        # Some of them return only when they are closed.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
