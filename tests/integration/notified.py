"""Shared by tests of what a service manager is told."""

from __future__ import annotations

import socket
import time


class Manager:
    """Listens as systemd does."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self.got: list[str] = []

    def wait_for(self, wanted: str, *, seconds: float = 30.0) -> str:
        """Wait for the next message that begins so."""
        deadline = time.monotonic() + seconds
        while True:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            message = self._socket.recv(4096).decode()
            self.got.append(message)
            if message.startswith(wanted):
                return message

    def drain(self) -> None:
        """Forget what has come."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
