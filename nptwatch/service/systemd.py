"""What systemd is told of a service, as sd_notify(3) says; nothing where nobody listens."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PINGS = 3
"""So many signs of life are sent in the time after which systemd takes the service for hung."""

_MICROSECONDS = 1_000_000

log = structlog.get_logger()


class Notifier:
    """Speaks to the service manager, if there is one.

    Args:
        address: of its socket, "@..." an abstract one; None: nobody listens.
        watchdog_seconds: after so long without `alive` the service is killed; None: it is not.
        clock: monotonic seconds; systemd reckons by the same clock.
    """

    def __init__(
        self,
        address: str | None,
        *,
        watchdog_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._every = None if watchdog_seconds is None else watchdog_seconds / PINGS
        self._clock = clock
        self._pinged = -float("inf")
        self._status: str | None = None
        self._has_failed = False

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self:
        """Find out who listens, and whether a watchdog is set for this process."""
        micros = env.get("WATCHDOG_USEC", "")
        is_ours = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        is_set = micros.isdigit() and int(micros) > 0 and is_ours
        return cls(
            env.get("NOTIFY_SOCKET") or None,
            watchdog_seconds=int(micros) / _MICROSECONDS if is_set else None,
        )

    @property
    def is_heard(self) -> bool:
        """Whether somebody listens."""
        return self._address is not None

    def ready(self) -> None:
        """Say that the service works, at its start or after a reload."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Say in a line what it does; what was said last is not said again."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={' '.join(text.split())}")

    def alive(self) -> None:
        """Keep the watchdog quiet; to be called often, by the loop whose progress it stands for."""
        now = self._clock()
        if self._every is not None and now - self._pinged >= self._every:
            self._pinged = now
            self._send("WATCHDOG=1")

    def busy(self, seconds: float) -> None:
        """Say that starting, reloading or stopping takes so much longer from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * _MICROSECONDS)}")

    def reloading(self) -> None:
        """Say that settings are read again; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={round(self._clock() * _MICROSECONDS)}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.sendto(message.encode(), address)
        except OSError as error:
            if not self._has_failed:
                log.warning("systemd_not_told", error=str(error))
            self._has_failed = True
