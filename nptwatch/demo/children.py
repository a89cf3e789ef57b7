"""The demo's processes: started in sessions of their own, stopped by name of their id only."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

from nptwatch.errors import NptwatchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LOG_TAIL_LINES = 8


class DemoError(NptwatchError):
    """The demo did not show what it is there to show."""


class Child:
    """A process that writes to a log file.

    It leads a session of its own, so that Ctrl-C reaches the demo alone, which then stops it.

    Args:
        keep: a file descriptor that it inherits (the demo folder's lock).
    """

    def __init__(
        self, name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str], keep: int
    ) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own modules
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(env),
                pass_fds=(keep,),
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """True until it has ended."""
        return self._process.poll() is None

    def require_running(self) -> None:
        """Hold that it has not ended.

        Raises:
            DemoError: it has, whatever its exit code.
        """
        if not self.running:
            raise DemoError(self._how_it_ended("unasked"))

    def require_success(self) -> None:
        """Hold that it ended with 0, or has not ended yet.

        Raises:
            DemoError: it failed; quotes the end of its log.
        """
        if not self.running and self._process.returncode != 0:
            raise DemoError(self._how_it_ended("early"))

    def stop(self, *, seconds: float) -> None:
        """Ask it to end; kill its session when it does not, or when the user cannot wait."""
        if not self.running:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except BaseException as exc:
            self._kill()
            if not isinstance(exc, subprocess.TimeoutExpired):
                raise

    def _kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()

    def _how_it_ended(self, how: str) -> str:
        code = self._process.returncode
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        with self._log.open(encoding="utf-8", errors="replace") as log:
            last = "".join(log.readlines()[-LOG_TAIL_LINES:]).rstrip()
        return f"the {self.name} ended {how} ({why}); its log, {self._log}, ends with:\n{last}"
