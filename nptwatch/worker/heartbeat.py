"""Renews the lease of the job in hand, and ends one that hangs or outlasts the stop's time-out."""

from __future__ import annotations

import faulthandler
import threading
import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Self

import structlog

from nptwatch.errors import DatabaseError
from nptwatch.store.records import JobState, WorkerState
from nptwatch.worker.resident import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from nptwatch.settings import WorkerSettings
    from nptwatch.store.queue import Queue
    from nptwatch.store.records import Claim
    from nptwatch.store.workers import Workers
    from nptwatch.worker.wake import Wake

TICK_SECONDS = 0.25
"""How soon a passed deadline is noticed."""

_STANDARD_ERROR = 2
"""By its number: `sys.stderr` may have none."""

log = structlog.get_logger()


class Heartbeat:
    """A thread for as long as one job is in hand.

    Args:
        abandon: called when the job was given back because a time-out passed while it was
            measured; the measuring thread may be deep in a library, so this ends the process.

    Attributes:
        over: set when there is no point in going on with the job: the lease is lost, or a
            time-out passed.
    """

    def __init__(
        self,
        claim: Claim,
        *,
        queue: Queue,
        workers: Workers,
        worker_id: str,
        settings: WorkerSettings,
        wake: Wake,
        abandon: Callable[[], None],
    ) -> None:
        self._claim = claim
        self._queue = queue
        self._workers = workers
        self._worker_id = worker_id
        self._settings = settings
        self._wake = wake
        self._abandon = abandon
        self._interval_seconds = settings.lease_seconds / 4
        self._state = WorkerState.BUSY
        self._telling = threading.Lock()
        self._ended = threading.Event()
        self._is_measured = False
        self._thread = threading.Thread(
            target=copy_context().run,  # so that its log lines name the worker too
            args=(self._run,),
            name="nptwatch-heartbeat",
            daemon=True,
        )
        self.over = threading.Event()

    def __enter__(self) -> Self:
        """Start to beat."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def measured(self) -> None:
        """Be told that only the outcome is to be recorded: that may wait for a database."""
        self._is_measured = True

    def tell(self, state: WorkerState) -> None:
        """Have the database know what the worker is at before it goes on.

        Raises:
            DatabaseError: it does not know.
        """
        with self._telling:  # else a beat that is under way could write the state before
            self._state = state
            self._workers.beat(self._worker_id, state=state, job_id=self._claim.job_id)

    def _run(self) -> None:
        began = due = time.monotonic()  # at once: others see what this worker is at
        most_seconds = self._settings.max_job_minutes * 60
        is_held = True
        while not self._ended.is_set():
            if self._wake.stopped_for > self._settings.shutdown_seconds:
                self._hand_back()
                return
            if 0 < most_seconds < time.monotonic() - began and not self._is_measured:
                self._time_out()
                return
            if is_held and time.monotonic() >= due:
                due = time.monotonic() + self._interval_seconds
                is_held = self._beat()
                if not is_held:
                    self._lost()  # and the limits go on: what hangs would have the worker for ever
            self._ended.wait(min(self._interval_seconds, TICK_SECONDS))

    def _lost(self) -> None:
        """Say that the lease is lost, unless this worker itself has just ended the job."""
        if not self._ended.wait(TICK_SECONDS):
            log.warning("lease_lost", job_id=self._claim.job_id)
            self.over.set()

    def _beat(self) -> bool:
        """Renew the lease; an unreachable database is no answer, so the lease may still hold."""
        try:
            held = self._queue.heartbeat(
                self._claim.job_id, self._worker_id, lease_seconds=self._settings.lease_seconds
            )
            with self._telling:
                self._workers.beat(
                    self._worker_id,
                    state=self._state,
                    job_id=self._claim.job_id,
                    memory_bytes=resident_bytes(),
                )
        except DatabaseError as error:
            log.warning("heartbeat_failed", job_id=self._claim.job_id, error=str(error))
            return True
        return held

    def _time_out(self) -> None:
        """End a hang, on a dead mount or in a driver: the heartbeat would hold its job for ever."""
        reason = f"not done after {self._settings.max_job_minutes:g} min (worker.max_job_minutes)"
        try:
            state = self._give_back(reason)
            if state is None:
                self._lost()
                if self._ended.is_set() or self._is_measured:
                    return
            self._workers.stopped(self._worker_id)
        except DatabaseError as error:  # the lease will expire instead
            log.warning("hand_back_failed", job_id=self._claim.job_id, error=str(error))
            state = None
        log.error("job_timed_out", job_id=self._claim.job_id, reason=reason, state=state)
        faulthandler.dump_traceback(file=_STANDARD_ERROR)  # where it hangs
        self.over.set()
        self._abandon()

    def _give_back(self, reason: str) -> JobState | None:
        """Count a time-out, unless the base is still being loaded; None: the lease was lost."""
        delay_seconds = self._settings.retry_delay_seconds
        if self._state is WorkerState.LOADING:
            held = self._queue.release(
                self._claim,
                self._worker_id,
                reason=f"its base: {reason}",
                delay_seconds=delay_seconds,
            )
            return JobState.QUEUED if held else None
        return self._queue.fail(
            self._claim,
            self._worker_id,
            cause="timeout",
            error=reason,
            max_attempts=self._settings.max_attempts,
            retry_delay_seconds=delay_seconds,
        )

    def _hand_back(self) -> None:
        reason = f"the worker stopped and had {self._settings.shutdown_seconds:g} s to finish"
        try:
            if self._queue.release(self._claim, self._worker_id, reason=reason):
                log.info("job_handed_back", job_id=self._claim.job_id, reason=reason)
            self._workers.stopped(self._worker_id)
        except DatabaseError as error:  # the lease will expire instead
            log.warning("hand_back_failed", job_id=self._claim.job_id, error=str(error))
        self.over.set()
        self._abandon()
