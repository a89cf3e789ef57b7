"""Where an alert goes: the log, and a command of the user's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from typing import TYPE_CHECKING, Protocol

import structlog

from nptwatch.errors import NptwatchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from nptwatch.settings import AlertSettings
    from nptwatch.store.records import Delivery

STDERR_TAIL_BYTES = 2000
"""How much of a failed command's words is kept in the outbox."""

log = structlog.get_logger()


class DeliveryError(NptwatchError):
    """A channel did not take a message; it is tried again."""

    retryable = True


class Channel(Protocol):
    """Takes one message; returning means that it was delivered."""

    @property
    def name(self) -> str:
        """As it stands in the outbox."""

    def send(self, delivery: Delivery) -> None:
        """Deliver.

        Raises:
            DeliveryError: it was not delivered and may be tried again.
        """

    def close(self) -> None:
        """Break off what is being sent: the daemon stops."""


def make_channels(settings: AlertSettings) -> list[Channel]:
    """Build the channels that the settings name; the log is always one."""
    channels: list[Channel] = [LogChannel()]
    if settings.command:
        channels.append(
            CommandChannel(settings.command, timeout_seconds=settings.command_timeout_seconds)
        )
    return channels


def channel_names(settings: AlertSettings) -> tuple[str, ...]:
    """Names of the channels that the settings ask for, for the rules."""
    return tuple(channel.name for channel in make_channels(settings))


class LogChannel:
    """One log event per alert, at a level that a quiet log still shows."""

    name = "log"

    def send(self, delivery: Delivery) -> None:
        """Log the alert."""
        log.warning("alert_raised", event_id=delivery.event_id, **delivery.payload)

    def close(self) -> None:
        """Nothing to break off."""


class CommandChannel:
    """A program that gets the event as one JSON object on standard input.

    Input and error output are unlinked files, not pipes: a program that reads nothing, writes
    much, or leaves a child behind with its output open can neither break nor block the sender.
    """

    name = "command"

    def __init__(self, argv: Sequence[str], *, timeout_seconds: float) -> None:
        self._argv = tuple(argv)
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def send(self, delivery: Delivery) -> None:
        """Run the program; exit code 0 means delivered.

        Raises:
            DeliveryError: it could not be started, failed, or ran too long and was killed.
        """
        event = {"event_id": delivery.event_id, **delivery.payload}
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
            said.write(json.dumps(event, sort_keys=True).encode() + b"\n")
            said.seek(0)
            process = self._start(said, errors)
            try:
                code = process.wait(self._timeout_seconds)
            except subprocess.TimeoutExpired:
                _kill_group(process)
                msg = f"{self._argv[0]} was killed after {self._timeout_seconds:g} s"
                raise DeliveryError(msg) from None
            finally:
                with self._lock:
                    self._process = None
            if code != 0:
                msg = f"{self._argv[0]} ended with exit code {code}{_tail(errors)}"
                raise DeliveryError(msg)

    def close(self) -> None:
        """Kill the program that runs now and start no other."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                _kill_group(self._process)

    def _start(self, said: IO[bytes], errors: IO[bytes]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                msg = "the daemon stops"
                raise DeliveryError(msg)
            try:
                self._process = subprocess.Popen(  # noqa: S603 - the user's own command, no shell
                    self._argv,
                    stdin=said,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as exc:
                msg = f"{self._argv[0]} could not be started: {exc.strerror}"
                raise DeliveryError(msg) from exc
            return self._process


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and its children; the group is gone already when all of them ended."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _tail(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - STDERR_TAIL_BYTES))
    text = errors.read().decode(errors="replace").strip()
    return f": {text}" if text else ""
