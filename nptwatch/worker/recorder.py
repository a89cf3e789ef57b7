"""Writes down what came of a job, and logs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from nptwatch.store.records import JobState
from nptwatch.worker.outcomes import (
    AskAgain,
    Close,
    Fault,
    HandBack,
    Outcome,
    Store,
    StoreKnown,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from nptwatch.settings import WorkerSettings
    from nptwatch.store.news import AlertRules
    from nptwatch.store.queue import Queue
    from nptwatch.store.records import Claim, Finished, FollowUp, KeepRule, Request

log = structlog.get_logger()


class Recorder:
    """Records the outcomes of one worker's jobs; what is no longer its own is only logged.

    Args:
        follow: decides what is asked for after a quick result (policy.py).
        keep: decides what is kept.
        on_wanted: called when something is to be kept; must not block.

    Attributes:
        jobs_done: results that were recorded.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        worker_id: str,
        settings: WorkerSettings,
        rules: AlertRules,
        follow: FollowUp,
        keep: KeepRule,
        on_wanted: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._worker_id = worker_id
        self._settings = settings
        self._rules = rules
        self._follow = follow
        self._keep = keep
        self._on_wanted = on_wanted
        self.jobs_done = 0

    def write(self, claim: Claim, outcome: Outcome) -> None:
        """Record an outcome, in one transaction.

        Raises:
            DatabaseError: nothing is recorded.
        """
        match outcome:
            case Store(measured=measured):
                done = self._queue.finish(
                    claim, self._worker_id, measured, self._rules, self._follow, self._keep
                )
                self._log_done(
                    claim,
                    done,
                    grade=measured.grade,
                    mse=measured.mse,
                    cosine=measured.cosine,
                    error=measured.error,
                    duration_seconds=round(measured.duration_seconds, 3),
                )
            case StoreKnown(result_id=result_id):
                done = self._queue.finish_known(
                    claim, self._worker_id, result_id, self._rules, self._follow, self._keep
                )
                self._log_done(claim, done, known=True)
            case Close():
                self._close(claim, outcome)
            case AskAgain(request=request):
                self._ask_again(claim, request)
            case HandBack():
                self._hand_back(claim, outcome)
            case Fault():
                self._fail(claim, outcome)

    def _close(self, claim: Claim, outcome: Close) -> None:
        state = self._queue.close(
            claim.job_id,
            self._worker_id,
            outcome.state,
            outcome.reason,
            looked_at=claim.paths,
        )
        if state is None:
            self._log_lost(claim)
        elif state == JobState.QUEUED:
            log.info("checkpoint_moved", reason=outcome.reason, **_which(claim))
        else:
            tell = log.warning if state == JobState.UNLOADABLE else log.info
            tell(f"checkpoint_{state}", reason=outcome.reason, **_which(claim))

    def _ask_again(self, claim: Claim, request: Request) -> None:
        if self._queue.ask_again(claim.job_id, self._worker_id, request):
            log.info("asked_again", reason="the settings changed", **_which(claim))
        else:
            self._log_lost(claim)

    def _hand_back(self, claim: Claim, outcome: HandBack) -> None:
        held = self._queue.release(
            claim, self._worker_id, reason=outcome.reason, delay_seconds=outcome.delay_seconds
        )
        if held:
            log.warning(
                outcome.event,
                reason=outcome.reason,
                delay_seconds=round(outcome.delay_seconds, 1),
                **_which(claim),
            )
        else:
            self._log_lost(claim)

    def _fail(self, claim: Claim, outcome: Fault) -> None:
        state = self._queue.fail(
            claim,
            self._worker_id,
            cause=outcome.cause,
            error=outcome.error,
            max_attempts=self._settings.max_attempts,
            retry_delay_seconds=self._settings.retry_delay_seconds,
        )
        facts = {"cause": outcome.cause, "error": outcome.error, **_which(claim)}
        if state is None:
            self._log_lost(claim)
        elif state == JobState.FAILED:
            log.error("job_quarantined", attempts=claim.attempts + 1, **facts)
        else:
            log.warning("job_failed", attempts=claim.attempts + 1, **facts)

    def _log_done(self, claim: Claim, done: Finished | None, **facts: object) -> None:
        if done is None:
            self._log_lost(claim)
            return
        self.jobs_done += 1
        log.info("job_done", late=done.late, **_which(claim), **facts)
        if done.change is not None:
            change = done.change
            log.info(
                "status_changed",
                run=change.run_name,
                step=change.step,
                old=change.old,
                new=change.new,
                mse=change.mse,
                cosine=change.cosine,
            )
        if done.wanted is not None:
            self._on_wanted()
        if done.asked is not None:
            log.info("full_asked", run=claim.run_name, step=claim.step, because=done.asked)

    def _log_lost(self, claim: Claim) -> None:
        log.warning("lease_lost", **_which(claim))


def _which(claim: Claim) -> dict[str, object]:
    return {
        "job_id": claim.job_id,
        "run": claim.run_name,
        "step": claim.step,
        "path": claim.paths[0] if claim.paths else None,
    }
