"""What wakes or stops a worker: its life line to the daemon, and signals."""

from __future__ import annotations

import os
import select
import signal
import threading
import time

NUDGE = b"\n"
"""A byte on the life line: look at the queue now."""

STOP_BYTES = frozenset((int(signal.SIGTERM), int(signal.SIGINT)))
"""What `signal.set_wakeup_fd` writes for these signals."""


class Wake:
    """Lets threads wait for a nudge or a stop.

    A thread of its own reads the life line and a pipe that signals arrive through
    (`signal.set_wakeup_fd(wake.signal_fd)`), so that both are noticed even while the main thread
    sits in a long call into a library. The life line's end of file means that the daemon is
    gone, which stops the worker as a signal does: no worker outlives its daemon.

    Args:
        lifeline: file descriptor that nudges arrive on; None where there is no daemon.
    """

    def __init__(self, lifeline: int | None = None) -> None:
        self._lifeline = lifeline
        self._changed = threading.Condition()
        self._nudged = False
        self._stopped_at: float | None = None
        self._read_fd, self.signal_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._closing = False
        self._thread = threading.Thread(target=self._listen, name="nptwatch-wake", daemon=True)
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """Whether the worker is to end."""
        return self._stopped_at is not None

    @property
    def stopped_for(self) -> float:
        """Seconds since the worker was told to end; 0 where it was not."""
        return 0.0 if self._stopped_at is None else time.monotonic() - self._stopped_at

    def wait(self, timeout: float) -> None:
        """Return at a nudge, when the worker is to end, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._nudged or self.stopping, timeout)
            self._nudged = False

    def nudge(self) -> None:
        """Wake whoever waits."""
        with self._changed:
            self._nudged = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Tell the worker to end."""
        with self._changed:
            if self._stopped_at is None:
                self._stopped_at = time.monotonic()
            self._changed.notify_all()

    def close(self) -> None:
        """End the listening thread."""
        self._closing = True
        os.write(self.signal_fd, NUDGE)
        self._thread.join()
        os.close(self._read_fd)
        os.close(self.signal_fd)

    def _listen(self) -> None:
        poller = select.poll()
        poller.register(self._read_fd, select.POLLIN)
        if self._lifeline is not None:
            poller.register(self._lifeline, select.POLLIN)
        while not self._closing:
            for fd, _ in poller.poll():
                said = os.read(fd, 4096)
                if not said:
                    poller.unregister(fd)
                if not said or (fd == self._read_fd and STOP_BYTES & set(said)):
                    self.stop()
                else:
                    self.nudge()
