"""What a parent hands to a child when it starts it, and what the child says back; over the child's standard input, a socket pair.

Settings travel here and not in arguments or the environment, so that no secret shows in a process list. The parent keeps its end open as long as it
lives: the end of file there is how a child learns that its parent is gone, however it died.
"""

import os
import signal
import socket
import struct
import sys
import threading
import time
from typing import Final, Literal

import msgspec

from xzepr.settings import Settings, decode_settings, encode_settings

READY: Final = b"+"
# How long a child without a parent may take to end by itself.
ORPHAN_GRACE_S: Final = 5.0
_LENGTH: Final = struct.Struct("!I")


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """role: what to be; listen_fd: the listening socket, for a web worker; connections_max: this process's share."""

    role: Literal["web", "relay"]
    name: str
    settings: msgspec.Raw
    connections_min: int = 1
    connections_max: int
    listen_fd: int | None = None

    @property
    def decoded_settings(self) -> Settings:
        """As the parent read them."""
        return decode_settings(bytes(self.settings))


def give(orders: Orders, child: socket.socket) -> None:
    """Parent's side, before or right after the start."""
    body = msgspec.json.encode(orders)
    child.sendall(_LENGTH.pack(len(body)) + body)


def orders_for(settings: Settings) -> msgspec.Raw:
    """Settings in the form that orders carry."""
    return msgspec.Raw(encode_settings(settings))


class Parent:
    """Child's side: the parent as seen from here."""

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=os.dup(sys.stdin.fileno()))
        self._socket.setblocking(True)

    def orders(self) -> Orders:
        """Wait for them. Raises EOFError when the parent is gone already."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        return msgspec.json.decode(self._exactly(length), type=Orders)

    def say_ready(self) -> None:
        """The process serves."""
        self._socket.sendall(READY)

    def watch(self) -> None:
        """End this process when the parent is gone: first as by SIGTERM, and by force if that hangs."""
        threading.Thread(target=self._wait_for_end, name="parent-watch", daemon=True).start()

    def _wait_for_end(self) -> None:
        try:
            while self._socket.recv(1):
                pass
        except OSError:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_GRACE_S)
        os._exit(1)

    def _exactly(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count:
            piece = self._socket.recv(count - len(received))
            if not piece:
                raise EOFError("the parent is gone")
            received += piece
        return bytes(received)
