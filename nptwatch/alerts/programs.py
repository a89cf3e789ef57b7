"""Runs a program that may hang, and ends it with all its children."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO, Literal

TAIL_BYTES = 2000
"""How much of a program's words is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A program that ended by itself: exit code, and the end of what it said."""

    code: int
    said: str


class Program:
    """One program, run as often as wanted, one run at a time.

    Input and output are files, not pipes: a program that reads nothing, writes much, or leaves a
    child behind with its output open can neither break nor block the caller. The input may hold
    secrets: its file is memory.

    Args:
        label: what errors call it.
        argv: program and arguments; no shell sees them.
        hear: which of its outputs is kept; the other goes nowhere.
        env: its environment.
        timeout_seconds: it is killed then.
    """

    def __init__(
        self,
        label: str,
        argv: Sequence[str],
        *,
        hear: Literal["stdout", "stderr"],
        env: Mapping[str, str],
        timeout_seconds: float,
    ) -> None:
        self._label = label
        self._argv = tuple(argv)
        self._hear = hear
        self._env = env
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def run(self, words: bytes) -> Ended:
        """Run it with `words` on its standard input.

        Raises:
            DeliveryError: it could not be started, or ran too long and was killed.
        """
        with (
            os.fdopen(os.memfd_create("nptwatch"), "w+b") as told,
            tempfile.TemporaryFile() as said,
        ):
            told.write(words)
            told.seek(0)
            process = self._start(told, said)
            try:
                code = process.wait(self._timeout_seconds)
            except subprocess.TimeoutExpired:
                _kill_group(process)
                msg = f"{self._label} was killed after {self._timeout_seconds:g} s"
                raise DeliveryError(msg) from None
            finally:
                with self._lock:
                    self._process = None
            return Ended(code=code, said=_tail(said))

    def close(self) -> None:
        """Kill what runs now and start nothing more."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                _kill_group(self._process)

    def _start(self, told: IO[bytes], said: IO[bytes]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise DeliveryError("the daemon stops")
            try:
                self._process = subprocess.Popen(  # noqa: S603 - ours or the user's own, no shell
                    self._argv,
                    stdin=told,
                    stdout=said if self._hear == "stdout" else subprocess.DEVNULL,
                    stderr=said if self._hear == "stderr" else subprocess.DEVNULL,
                    env=self._env,
                    start_new_session=True,
                )
            except OSError as exc:
                msg = f"{self._label} could not be started: {exc.strerror}"
                raise DeliveryError(msg) from exc
            return self._process


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and its children; the group is gone already when all of them ended."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _tail(said: IO[bytes]) -> str:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - TAIL_BYTES))
    return said.read().decode(errors="replace").strip()
