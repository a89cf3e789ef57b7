"""A worker process as the daemon sees it: its pipes, its signals, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from nptwatch.service.handover import dump_settings, worker_environment
from nptwatch.worker.loop import QUEUE_EMPTY
from nptwatch.worker.wake import NUDGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nptwatch.settings import Settings


class WorkerProcess:
    """A running worker; made by starting it.

    Args:
        worker_id: its name in the database.
        arguments: more of its command line; for tests (see worker_main).
    """

    def __init__(self, worker_id: str, env: Mapping[str, str], arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", "nptwatch.service.worker_main", "--worker-id", worker_id]
        self.worker_id = worker_id
        self._lock = threading.Lock()  # nobody writes to a pipe that is being closed
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=worker_environment(env),
            start_new_session=True,  # the terminal's Ctrl-C is the daemon's to handle
            bufsize=0,
        )

    @property
    def found_empty(self) -> bool:
        """Whether it ended because nothing is queued, as it was asked to."""
        return self._process.returncode == QUEUE_EMPTY

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def wait_ready(self, settings: Settings) -> bool:
        """Send the settings and wait for `ready`; false: the worker ended before."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - asked for above
        assert stdout is not None  # noqa: S101
        try:
            stdin.write(dump_settings(settings))
        except BrokenPipeError:
            return False
        os.set_blocking(stdin.fileno(), False)
        return bool(stdout.readline())

    def nudge(self) -> None:
        """Write one byte to the worker; a full pipe holds enough of them already."""
        with self._lock:
            if self._process.stdin is not None and not self._process.stdin.closed:
                try:
                    os.write(self._process.stdin.fileno(), NUDGE)
                except OSError:  # full, or the worker just died
                    return

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; without effect once the process was waited for."""
        self._process.send_signal(number)

    def wait(self) -> str | None:
        """Wait for its end.

        Returns:
            How it ended, in words; None: in good order.
        """
        code = self._process.wait()
        with self._lock:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
        if code in {0, QUEUE_EMPTY}:
            return None
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
