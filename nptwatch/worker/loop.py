"""The worker's loop: claim the newest job, diagnose it, record what came of it."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import structlog

from nptwatch.errors import DatabaseError
from nptwatch.store.engine import utc_now
from nptwatch.store.labels import ANYTHING
from nptwatch.store.recording import follow_nothing, keep_nothing
from nptwatch.store.records import WorkerState
from nptwatch.worker.diagnose import Diagnoser, Diagnosis
from nptwatch.worker.heartbeat import Heartbeat
from nptwatch.worker.recorder import Recorder
from nptwatch.worker.resident import resident_bytes
from nptwatch.worker.sight import Sight
from nptwatch.worker.taking import Taking

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from nptwatch.settings import WorkerSettings
    from nptwatch.store.labels import Offer
    from nptwatch.store.news import AlertRules
    from nptwatch.store.queue import Queue
    from nptwatch.store.records import (
        Claim,
        FollowUp,
        KeepRule,
        Request,
    )
    from nptwatch.store.workers import Workers
    from nptwatch.worker.outcomes import Outcome
    from nptwatch.worker.wake import Wake

__all__ = ["Diagnoser", "WorkerLoop"]

FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 10.0
"""Pauses between tries to reach a lost database."""

QUEUE_EMPTY = 10
"""Exit code of a worker that was to end when nothing is queued; the code of no error."""

log = structlog.get_logger()


def _nobody() -> None:
    return None


class WorkerLoop:
    """Works the queue off, one job at a time, until it is told to stop.

    Args:
        request: gives how a profile is measured under the settings of this process; what was
            asked for otherwise is asked again so.
        abandon: ends the process when a job outlasts the time-out of a stop (see Heartbeat).
        follow: decides what is asked for after a quick result (policy.py).
        until_empty: end when nothing is queued that fits, not even for later; what others have in
            hand is theirs.
        keep: decides what is kept.
        on_wanted: called when something is to be kept; must not block.
        offer: what this worker takes jobs by.
        sight: tells files that are gone from those that its host does not see.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        workers: Workers,
        diagnoser: Diagnoser,
        rules: AlertRules,
        settings: WorkerSettings,
        request: Callable[[str], Request],
        unloadable_after_seconds: float,
        worker_id: str,
        wake: Wake,
        abandon: Callable[[], None],
        follow: FollowUp = follow_nothing,
        until_empty: bool = False,
        keep: KeepRule = keep_nothing,
        on_wanted: Callable[[], None] = _nobody,
        offer: Offer = ANYTHING,
        sight: Sight | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        sight = sight or Sight()
        self._taking = Taking(offer=offer, sight=sight, keep_seconds=settings.keep_base_seconds)
        self._queue = queue
        self._workers = workers
        self._diagnoser = diagnoser
        self._recorder = Recorder(
            queue=queue,
            worker_id=worker_id,
            settings=settings,
            rules=rules,
            follow=follow,
            keep=keep,
            on_wanted=on_wanted,
        )
        self._settings = settings
        self._worker_id = worker_id
        self._wake = wake
        self._abandon = abandon
        self._until_empty = until_empty
        self._clock = clock
        self._seen_at: datetime | None = None
        self._is_queue_empty = False
        self._idle_since: float | None = None
        self._is_stale = False
        self._is_cut_off = False
        self._pause_seconds = FIRST_RETRY_SECONDS
        self._diagnosis = Diagnosis(
            queue=queue,
            diagnoser=diagnoser,
            settings=settings,
            request=request,
            sight=sight,
            unloadable_after_seconds=unloadable_after_seconds,
            clock=clock,
        )

    def run(self, ready: Callable[[], None]) -> int:
        """Work until stopped, worn out (`max_jobs`), idle, or unable to trust the device.

        Args:
            ready: called once the worker is known to the database and about to claim.

        Returns:
            The exit code of the process.

        Raises:
            DatabaseError: at the start, or when the schema does not fit any more.
        """
        self._workers.register(
            self._worker_id,
            socket.gethostname(),
            os.getpid(),
            self._diagnoser.device,
            self._taking.offer,
        )
        ready()
        while not (self._wake.stopping or self._is_worn_out()):
            self._turn()
        self._say_goodbye()
        return self._diagnosis.exit_code or (QUEUE_EMPTY if self._is_queue_empty else 0)

    def _turn(self) -> None:
        """Do one job, or wait for one."""
        if self._diagnosis.rest_seconds > 0:
            self._rest()
            return
        try:
            claim = self._claim()
            if claim is None:
                self._beat_idle()
                self._is_queue_empty = self._until_empty and not self._queue.has_queued(
                    self._taking.offer
                )
        except DatabaseError as error:
            _raise_if_final(error)
            self._note_outage(error)
            self._wake.wait(self._pause_seconds)
            self._pause_seconds = min(2 * self._pause_seconds, LONGEST_RETRY_SECONDS)
            return
        self._note_outage(None)
        if claim is not None:
            self._idle_since = None
            self._work(claim)
        elif self._has_idled():
            log.info("base_unloaded", base_model=self._diagnoser.base_model)
            self._is_stale = True
        elif not self._is_queue_empty:
            self._wake.wait(self._settings.poll_seconds)

    def _rest(self) -> None:
        """Claim nothing for a while: it would only be handed back."""
        try:
            self._beat_idle()
        except DatabaseError as error:
            _raise_if_final(error)  # the next claim says what is wrong
        self._wake.wait(min(self._diagnosis.rest_seconds, self._settings.poll_seconds))

    def _has_idled(self) -> bool:
        """Tell whether a base has been held for nothing for long.

        The process ends for it: no other way gives back all that torch and CUDA have taken.
        """
        most_seconds = self._settings.idle_unload_minutes * 60
        if self._diagnoser.base_model is None or not most_seconds:
            return False
        if self._idle_since is None:
            self._idle_since = time.monotonic()
        return time.monotonic() - self._idle_since >= most_seconds

    def _claim(self) -> Claim | None:
        """Claim a job; after an outage give back first what may have been claimed unheard.

        Where the connection broke between the commit and its answer, nobody else would look at
        that job before its lease ends.
        """
        if self._is_cut_off:
            reason = "claimed while the database was lost"
            self._queue.release_held(self._worker_id, reason=reason)
        preferred = self._taking.preferred(self._diagnoser.base_model)
        claim = self._queue.claim(
            self._worker_id,
            lease_seconds=self._settings.lease_seconds,
            offer=self._taking.offer,
            held=preferred,
        )
        if claim is not None and preferred is None:
            self._taking.took_first()
        return claim

    def _work(self, claim: Claim) -> None:
        log.info(
            "job_claimed",
            job_id=claim.job_id,
            run=claim.run_name,
            step=claim.step,
            profile=claim.profile,
            attempts=claim.attempts,
        )
        self._seen_at = None
        with Heartbeat(
            claim,
            queue=self._queue,
            workers=self._workers,
            worker_id=self._worker_id,
            settings=self._settings,
            wake=self._wake,
            abandon=self._abandon,
        ) as heartbeat:
            outcome = self._diagnosis.of(claim, heartbeat.tell)
            heartbeat.measured()
            self._record(claim, outcome, heartbeat)

    def _record(self, claim: Claim, outcome: Outcome, heartbeat: Heartbeat) -> None:
        """Write an outcome down, however long the database is away, while the job is ours."""
        pause_seconds = FIRST_RETRY_SECONDS
        while not heartbeat.over.is_set():
            try:
                self._recorder.write(claim, outcome)
            except DatabaseError as error:
                _raise_if_final(error)
                if pause_seconds == FIRST_RETRY_SECONDS:
                    log.warning("record_failed", job_id=claim.job_id, error=str(error))
                heartbeat.over.wait(pause_seconds)
                pause_seconds = min(pause_seconds * 2, LONGEST_RETRY_SECONDS)
            else:
                return
        log.warning("outcome_dropped", job_id=claim.job_id, outcome=type(outcome).__name__)

    def _beat_idle(self) -> None:
        """Say now and then that this worker lives, not at every poll."""
        now = self._clock()
        interval_seconds = self._settings.lease_seconds / 4
        if self._seen_at and (now - self._seen_at).total_seconds() < interval_seconds:
            return
        self._workers.beat(
            self._worker_id,
            state=WorkerState.IDLE,
            base_model=self._diagnoser.base_model,
            jobs_done=self._recorder.jobs_done,
            offer=self._taking.offer,
            memory_bytes=resident_bytes(),
        )
        self._seen_at = now

    def _note_outage(self, error: DatabaseError | None) -> None:
        """Log a lost database once, and once that it is back."""
        if error is not None and not self._is_cut_off:
            log.warning("claim_failed", error=str(error))
        elif error is None and self._is_cut_off:
            log.info("claim_works_again")
        self._is_cut_off = error is not None
        if error is None:
            self._pause_seconds = FIRST_RETRY_SECONDS

    def _is_worn_out(self) -> bool:
        is_enough = 0 < self._settings.max_jobs <= self._recorder.jobs_done
        return (
            is_enough
            or self._is_queue_empty
            or self._is_stale
            or self._diagnosis.exit_code is not None
        )

    def _say_goodbye(self) -> None:
        try:
            self._workers.stopped(self._worker_id)
        except DatabaseError as error:
            log.warning("goodbye_failed", error=str(error))


def _raise_if_final(error: DatabaseError) -> None:
    """A schema that does not fit will not come right by waiting: let the process end."""
    if not error.retryable:
        raise error
