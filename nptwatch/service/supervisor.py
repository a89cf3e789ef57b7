"""Keeps one worker process per slot alive, and gives back what a dead one had in hand."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import structlog

from nptwatch.errors import DatabaseError
from nptwatch.service.child import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nptwatch.service.build import Stores
    from nptwatch.settings import Settings

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 60.0
"""Pauses between restarts; they double."""

HEALTHY_SECONDS = 30.0
"""A worker that was ready for so long starts the pauses anew."""

STOP_MARGIN_SECONDS = 5.0
"""A worker hands its job back after `shutdown_seconds`; if it is there later, it is killed."""

HURRY_SECONDS = 1.0
"""What a second interrupt leaves of that."""

POLL_SECONDS = 0.05

log = structlog.get_logger()


class Supervisor:
    """One thread and one process per configured worker.

    Args:
        arguments: more of the worker's command line (see worker_main). A worker that was to end
            when nothing is queued, and did, gets no successor.
    """

    def __init__(
        self, settings: Settings, stores: Stores, *, arguments: Sequence[str] = ()
    ) -> None:
        self._settings = settings
        self._slots = [
            Slot(number, settings, stores, arguments) for number in range(settings.worker.count)
        ]

    def start(self) -> None:
        """Start all workers; returns before they are ready."""
        for slot in self._slots:
            slot.start()

    def nudge(self) -> None:
        """Tell all workers to look at the queue now."""
        for slot in self._slots:
            slot.nudge()

    def is_alive(self) -> bool:
        """Whether every worker has its thread (its process may be between two lives)."""
        return all(slot.is_alive() or slot.is_done for slot in self._slots)

    def is_done(self) -> bool:
        """Whether all workers ended because nothing is queued."""
        return all(slot.is_done for slot in self._slots)

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """End all workers: first politely, in the end by force.

        Args:
            hurry: asked while waiting; true cuts the wait short.
        """
        for slot in self._slots:
            slot.terminate()
        now = time.monotonic()
        deadline = now + self._settings.worker.shutdown_seconds + STOP_MARGIN_SECONDS
        while any(slot.is_alive() for slot in self._slots) and time.monotonic() < deadline:
            if hurry():
                deadline = min(deadline, time.monotonic() + HURRY_SECONDS)
                hurry = _never
            self._slots[0].join(POLL_SECONDS)
        for slot in self._slots:
            slot.kill()
            slot.join(STOP_MARGIN_SECONDS)


class Slot:
    """One place for a worker: starts it, waits for its end, starts the next.

    Attributes:
        is_done: its worker ended because nothing is queued.
    """

    def __init__(
        self, number: int, settings: Settings, stores: Stores, arguments: Sequence[str]
    ) -> None:
        self._number = number
        self._settings = settings
        self._stores = stores
        self._arguments = tuple(arguments)
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._stop = threading.Event()
        self.is_done = False
        self._delay_seconds = FIRST_DELAY_SECONDS
        self._thread = threading.Thread(
            target=self._run, name=f"nptwatch-worker-{number}", daemon=True
        )

    def start(self) -> None:
        """Start the slot's thread."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the slot's thread runs."""
        return self._thread.is_alive()

    def join(self, timeout: float) -> None:
        """Wait for the slot's thread."""
        self._thread.join(timeout)

    def nudge(self) -> None:
        """Have the worker look at the queue now."""
        with self._lock:
            if self._worker is not None:
                self._worker.nudge()

    def terminate(self) -> None:
        """Start no further worker and ask the one that runs to end."""
        self._stop.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the worker by force."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._worker is not None:
                self._worker.signal(number)

    def _run(self) -> None:
        try:
            while not (self._stop.is_set() or self.is_done):
                if not self._live_once():
                    self._stop.wait(self._delay_seconds)
                    self._delay_seconds = min(self._delay_seconds * 2, LONGEST_DELAY_SECONDS)
        except Exception:  # outermost: the daemon sees the dead thread and ends
            log.exception("supervisor_failed", slot=self._number)

    def _live_once(self) -> bool:
        """Run one worker to its end; true: start the next at once."""
        try:
            worker = self._spawn()
        except OSError as error:  # no memory or no process to be had: later, perhaps
            log.error("worker_start_failed", slot=self._number, ended=str(error))  # noqa: TRY400
            return False
        if worker is None:
            return True
        ready = worker.wait_ready(self._settings)
        ready_at = time.monotonic()
        if ready:
            log.info("worker_ready", worker_id=worker.worker_id, pid=worker.pid)
        ended = worker.wait()
        with self._lock:
            self._worker = None
        if self._stop.is_set():
            self._after_stop(worker.worker_id, ended)
            return True
        if worker.found_empty:
            log.info("worker_found_nothing_queued", worker_id=worker.worker_id)
            self.is_done = True
            return True
        if ready and time.monotonic() - ready_at > HEALTHY_SECONDS:
            self._delay_seconds = FIRST_DELAY_SECONDS
        return self._after_end(worker.worker_id, ready=ready, ended=ended)

    def _spawn(self) -> WorkerProcess | None:
        with self._lock:
            if self._stop.is_set():
                return None
            worker_id = f"{socket.gethostname()}-{self._number}-{secrets.token_hex(3)}"
            self._worker = WorkerProcess(worker_id, os.environ, self._arguments)
            log.info("worker_started", worker_id=worker_id, pid=self._worker.pid)
            return self._worker

    def _after_end(self, worker_id: str, *, ready: bool, ended: str | None) -> bool:
        """Tell how a worker ended that nobody stopped; true: start the next at once."""
        if not ready:
            log.error("worker_start_failed", worker_id=worker_id, ended=ended)
            return False
        if ended is None:
            log.info("worker_recycled", worker_id=worker_id)
            return True
        log.error("worker_crashed", worker_id=worker_id, ended=ended)
        self._persist(lambda: self._give_back(worker_id, ended))
        return False

    def _give_back(self, worker_id: str, ended: str) -> None:
        settings = self._settings.worker
        jobs = self._stores.queue.release_worker(
            worker_id,
            cause="crash",
            error=f"the worker ended by {ended}",
            max_attempts=settings.max_attempts,
            retry_delay_seconds=settings.retry_delay_seconds,
        )
        if jobs:
            log.warning("jobs_given_back", worker_id=worker_id, jobs=jobs)

    def _after_stop(self, worker_id: str, ended: str | None) -> None:
        """Give back, uncounted, what a worker had in hand that had to be killed."""
        log.info("worker_stopped", worker_id=worker_id, ended=ended)
        if ended is None:
            return
        try:
            reason = "its worker was stopped and had to be killed"
            self._stores.queue.release_held(worker_id, reason=reason)
            self._stores.workers.stopped(worker_id)
        except DatabaseError as error:  # the lease will expire instead
            log.warning("hand_back_failed", worker_id=worker_id, error=str(error))

    def _persist(self, write: Callable[[], None]) -> None:
        """Write to the database, however long it is away."""
        while True:
            try:
                return write()
            except DatabaseError as error:
                log.warning("jobs_not_given_back", slot=self._number, error=str(error))
            if self._stop.wait(self._delay_seconds):
                return None


def _never() -> bool:
    return False
