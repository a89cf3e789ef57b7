"""What may happen to a leased job: guarded by (state = leased AND worker = me), in one place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, exists, literal, select, update

from nptwatch.store.records import FileState, JobState, KeptState, WorkerState
from nptwatch.store.tables import File, Job, KeptCheckpoint, Worker

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy.engine import Connection

LONGEST_DELAY_SECONDS = 3600.0
"""Doubling stops here: a job that failed ten times should not wait for days."""


def retry_after(attempts: int, first_delay_seconds: float) -> timedelta:
    """Give the pause after the nth failure: the first delay, doubled each time, at most an hour.

    Args:
        attempts: failures so far, this one included; at least 1.
        first_delay_seconds: pause after the first.
    """
    doubled = first_delay_seconds * 2 ** min(attempts - 1, 32)
    return timedelta(seconds=min(doubled, max(first_delay_seconds, LONGEST_DELAY_SECONDS)))


def change_leased(
    connection: Connection,
    job_id: int,
    worker_id: str,
    *,
    only_expired_at: datetime | None = None,
    **values: Any,  # noqa: ANN401 - column values
) -> bool:
    """Change a job if this worker still has its lease; the lease ends where `state` changes.

    Args:
        only_expired_at: change it only if the lease is past its time then.

    Returns:
        False: someone else has the job, nothing was written.
    """
    if "state" in values:
        values = {"worker_id": None, "leased_until": None, **values}
    statement = update(Job).where(
        Job.id == job_id, Job.state == JobState.LEASED, Job.worker_id == worker_id
    )
    if only_expired_at is not None:
        statement = statement.where(Job.leased_until <= only_expired_at)
    changed = connection.execute(statement.values(**values).returning(Job.id)).all()
    return len(changed) == 1


def requeue(
    connection: Connection, job_id: int, worker_id: str, reason: str, now: datetime
) -> bool:
    """Hand a job back at once, uncounted; False: someone else has it, nothing was written."""
    return change_leased(
        connection,
        job_id,
        worker_id,
        state=JobState.QUEUED,
        reason=reason,
        available_at=now,
        updated_at=now,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong with a leased job, and how often it may.

    Attributes:
        cause: a word to count by, e.g. "crash".
        error: what happened, for people; may be empty.
        max_attempts: the job is quarantined at so many failures.
        retry_delay_seconds: pause after the first failure.
    """

    cause: str
    error: str
    max_attempts: int
    retry_delay_seconds: float


def count_failure(
    connection: Connection,
    job_id: int,
    worker_id: str,
    failure: Failure,
    *,
    now: datetime,
    only_expired_at: datetime | None = None,
) -> JobState | None:
    """Count a failure: back to the queue after a pause, or quarantined when it was one too many.

    Returns:
        QUEUED, FAILED, or None where the lease was lost and nothing was written.
    """
    # writing first locks the row on Postgres, so that what is read next stays true
    if not change_leased(
        connection, job_id, worker_id, only_expired_at=only_expired_at, updated_at=now
    ):
        return None
    job = connection.execute(
        select(Job.attempts, Job.attempts_by_cause).where(Job.id == job_id)
    ).one()
    attempts = job.attempts + 1
    counted = job.attempts_by_cause.get(failure.cause, 0) + 1
    failed = attempts >= failure.max_attempts
    state = JobState.FAILED if failed else JobState.QUEUED
    change_leased(
        connection,
        job_id,
        worker_id,
        state=state,
        reason=f"{failure.cause}: {failure.error}" if failure.error else failure.cause,
        attempts=attempts,
        attempts_by_cause={**job.attempts_by_cause, failure.cause: counted},
        available_at=now + retry_after(attempts, failure.retry_delay_seconds),
    )
    return state


def take_back(
    connection: Connection,
    job_id: int,
    worker_id: str,
    failure: Failure,
    *,
    now: datetime,
    only_expired_at: datetime | None = None,
) -> bool:
    """Take a job from a worker that is gone; counted, unless it was still loading the base model.

    Loading takes the most memory: were it counted, a machine that is too small for the base would
    quarantine every checkpoint of the queue.

    Returns:
        False: the lease was lost, nothing was written.
    """
    state = connection.scalar(select(Worker.state).where(Worker.worker_id == worker_id))
    if state is not WorkerState.LOADING:
        counted = count_failure(
            connection, job_id, worker_id, failure, now=now, only_expired_at=only_expired_at
        )
        return counted is not None
    return change_leased(
        connection,
        job_id,
        worker_id,
        only_expired_at=only_expired_at,
        state=JobState.QUEUED,
        reason=f"{failure.cause} while the base model was loaded: {failure.error}",
        available_at=now + timedelta(seconds=failure.retry_delay_seconds),
        updated_at=now,
    )


def close_leased(
    connection: Connection,
    job_id: int,
    worker_id: str,
    state: JobState,
    reason: str,
    *,
    looked_at: Collection[str] | None,
    now: datetime,
) -> JobState | None:
    """End a job without a result, unless a file that its worker did not look at has the content.

    While the job was leased the watcher may have seen the file move: it queues nothing then, so
    that the one statement which ends the job must ask.

    Args:
        looked_at: paths that the worker tried; None: end it whatever the files are.

    Returns:
        The state it has now: QUEUED or `state`; None: the lease was lost, nothing was written.
    """
    tried = [] if looked_at is None else list(looked_at)
    whole = exists().where(
        File.checkpoint_id == Job.checkpoint_id,
        File.state == FileState.WHOLE,
        File.path.not_in(tried),
    )
    kept = exists().where(
        KeptCheckpoint.checkpoint_id == Job.checkpoint_id,
        KeptCheckpoint.state == KeptState.KEPT,
        KeptCheckpoint.path.not_in(tried),
    )
    moved = literal(False) if looked_at is None else whole | kept
    ended: JobState | None = connection.scalar(
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.LEASED, Job.worker_id == worker_id)
        .values(
            state=case(
                (moved, literal(JobState.QUEUED, Job.state.type)),
                else_=literal(state, Job.state.type),
            ),
            reason=case((moved, f"{reason}; another file has the same content"), else_=reason),
            worker_id=None,
            leased_until=None,
            updated_at=now,
        )
        .returning(Job.state)
    )
    return ended
