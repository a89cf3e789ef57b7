"""The queue: one guarded statement claims a job; only the lease's owner may end it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from nptwatch.store.asking import OTHER_SETTINGS, ask, ask_by
from nptwatch.store.claiming import claim_by, take, waits_for
from nptwatch.store.engine import utc_now
from nptwatch.store.labels import ANYTHING, Offer, Waiting
from nptwatch.store.leases import (
    Failure,
    change_leased,
    close_leased,
    count_failure,
    requeue,
    take_back,
)
from nptwatch.store.listing import job_counts, job_rows, waiting_jobs
from nptwatch.store.newest import flag_newest
from nptwatch.store.postgres import lock_runs, tell_workers
from nptwatch.store.recording import (
    comparable_mse,
    follow_nothing,
    keep_nothing,
    keep_result,
    record_outcome,
    store_result,
)
from nptwatch.store.records import Claim, Finished, JobRow, JobState, WorkerState
from nptwatch.store.tables import MAX_ID, Job, Result, Worker
from nptwatch.store.tallies import count_done, next_ordinal

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection

    from nptwatch.store.engine import Database
    from nptwatch.store.news import AlertRules
    from nptwatch.store.records import Asked, Clock, FollowUp, KeepRule, Measured, Request

_ENDS_BY_OWNER = frozenset({JobState.DELETED, JobState.SUPERSEDED, JobState.UNLOADABLE})

RESULT_FORGOTTEN = "the result that it was known by was forgotten meanwhile"


class Queue:
    """Jobs and their leases. Every method is one transaction.

    Raises (every method):
        DatabaseError: the database cannot be used.
    """

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def claim(
        self,
        worker_id: str,
        *,
        lease_seconds: float,
        offer: Offer = ANYTHING,
        held: str | None = None,
    ) -> Claim | None:
        """Lease the next job that is due and fits; None: there is none.

        The more urgent first; of these a run's newest before older ones; of these those of the
        base that the worker holds; of these the last written.

        Args:
            offer: what the worker takes jobs by.
            held: the base that it has in memory; None: it prefers none.
        """
        statement, about = claim_by(offer, held, self._database.paths)
        with self._database.each_alone() as connection:
            now = self._clock()  # not before others let us in: what they queued is due by now
            until = now + timedelta(seconds=lease_seconds)
            about |= {"now": now, "worker": worker_id, "until": until}
            return take(connection, statement, about)

    def has_queued(self, offer: Offer = ANYTHING) -> bool:
        """Say whether any job that fits waits for a worker, be it for later.

        Args:
            offer: what the worker takes jobs by.
        """
        statement, about = waits_for(offer, self._database.paths)
        with self._database.read() as connection:
            return bool(connection.scalar(statement, about))

    def heartbeat(self, job_id: int, worker_id: str, *, lease_seconds: float) -> bool:
        """Renew the lease; False: it is lost, and so is what the worker does with the job."""
        until = self._clock() + timedelta(seconds=lease_seconds)
        with self._database.begin() as connection:
            return change_leased(connection, job_id, worker_id, leased_until=until)

    def known_result(self, claim: Claim, *, base_revision: str) -> int | None:
        """Find a result of the same content, profile, settings and base: measure no second time."""
        query = select(Result.id).where(
            Result.fingerprint == claim.fingerprint,
            Result.profile == claim.profile,
            Result.settings_hash == claim.settings_hash,
            Result.base_revision == base_revision,
        )
        with self._database.read() as connection:
            return connection.scalar(query)

    def finish(
        self,
        claim: Claim,
        worker_id: str,
        measured: Measured,
        rules: AlertRules,
        follow: FollowUp = follow_nothing,
        keep: KeepRule = keep_nothing,
    ) -> Finished | None:
        """End a job with its result, the run's status, the status change and the alerts it raises.

        Args:
            rules: called inside the transaction; must not block.
            follow: called inside the transaction after a quick result; what it demands is queued.
            keep: called inside the transaction after any result; says why it is to be kept.

        Returns:
            None: the lease was lost, nothing was written.
        """
        with self._database.begin() as connection:
            lock_runs(connection, [claim.run_id])
            now = self._clock()  # after the wait for others, so that times follow one another
            if not change_leased(connection, claim.job_id, worker_id, updated_at=now):
                return None
            result_id = store_result(connection, claim, measured)
            return _end(connection, claim, worker_id, result_id, rules, now, follow, keep)

    def finish_known(
        self,
        claim: Claim,
        worker_id: str,
        result_id: int,
        rules: AlertRules,
        follow: FollowUp = follow_nothing,
        keep: KeepRule = keep_nothing,
    ) -> Finished | None:
        """End a job with a result that another job has measured; otherwise as `finish`.

        Returns:
            None also where the result was forgotten meanwhile: then the job is queued again.
        """
        with self._database.begin() as connection:
            lock_runs(connection, [claim.run_id])
            now = self._clock()  # after the wait for others, so that times follow one another
            if not change_leased(connection, claim.job_id, worker_id, updated_at=now):
                return None
            if not keep_result(connection, result_id):
                requeue(connection, claim.job_id, worker_id, RESULT_FORGOTTEN, now)
                return None
            return _end(connection, claim, worker_id, result_id, rules, now, follow, keep)

    def fail(
        self,
        claim: Claim,
        worker_id: str,
        *,
        cause: str,
        error: str,
        max_attempts: int,
        retry_delay_seconds: float,
    ) -> JobState | None:
        """Count a failure: QUEUED again after a doubling pause, or FAILED at `max_attempts`.

        Args:
            cause: a word to count by, e.g. "crash".
            error: what happened, for people.

        Returns:
            None: the lease was lost, nothing was written.
        """
        failure = Failure(
            cause=cause,
            error=error,
            max_attempts=max_attempts,
            retry_delay_seconds=retry_delay_seconds,
        )
        with self._database.begin() as connection:
            return count_failure(connection, claim.job_id, worker_id, failure, now=self._clock())

    def release(
        self, job: Claim | int, worker_id: str, *, reason: str, delay_seconds: float = 0
    ) -> bool:
        """Hand a job back uncounted: nobody's fault (out of memory, stop); False: lease lost."""
        with self._database.begin() as connection:
            now = self._clock()
            released = change_leased(
                connection,
                job if isinstance(job, int) else job.job_id,
                worker_id,
                state=JobState.QUEUED,
                reason=reason,
                available_at=now + timedelta(seconds=delay_seconds),
                updated_at=now,
            )
            if released and not delay_seconds:
                tell_workers(connection)
            return released

    def close(
        self,
        job_id: int,
        worker_id: str,
        state: JobState,
        reason: str,
        *,
        looked_at: Collection[str] | None = None,
    ) -> JobState | None:
        """End a job without a result: DELETED, SUPERSEDED or UNLOADABLE.

        Args:
            looked_at: paths that were tried. Where any other whole file has the content the job
                is queued again: the checkpoint moved or was copied meanwhile. None: no matter.

        Returns:
            The state it has now; None: the lease was lost, nothing was written.
        """
        if state not in _ENDS_BY_OWNER:
            raise ValueError(f"close takes one of {sorted(_ENDS_BY_OWNER)}, got {state}")
        with self._database.begin() as connection:
            now = self._clock()
            return close_leased(
                connection, job_id, worker_id, state, reason, looked_at=looked_at, now=now
            )

    def ask_again(self, job_id: int, worker_id: str, request: Request) -> bool:
        """End a job as SUPERSEDED and ask for the same by the settings in force.

        Args:
            request: the job's profile, as it is measured now.

        Returns:
            False: the lease was lost, nothing was written.
        """
        with self._database.begin() as connection:
            now = self._clock()
            lock_runs(connection, select(Job.run_id).where(Job.id == job_id))
            ended = change_leased(
                connection,
                job_id,
                worker_id,
                state=JobState.SUPERSEDED,
                reason=OTHER_SETTINGS,
                updated_at=now,
            )
            if not ended:
                return False
            ask_by(connection, job_id, request, now)
            return True

    def release_worker(
        self,
        worker_id: str,
        *,
        cause: str,
        error: str,
        max_attempts: int,
        retry_delay_seconds: float,
    ) -> list[int]:
        """Take all jobs from a worker whose process ended, each counted like `fail`.

        Not counted where the worker was loading a base model: see `take_back`.

        Returns:
            The jobs it had.
        """
        failure = Failure(
            cause=cause,
            error=error,
            max_attempts=max_attempts,
            retry_delay_seconds=retry_delay_seconds,
        )
        its = (Job.state == JobState.LEASED, Job.worker_id == worker_id)
        with self._database.begin() as connection:
            now = self._clock()
            lock_runs(connection, select(Job.run_id).where(*its))
            held = select(Job.id).where(*its).order_by(Job.id)
            taken = [
                job_id
                for job_id in connection.scalars(held).all()
                if take_back(connection, job_id, worker_id, failure, now=now)
            ]
            _mark_lost(connection, worker_id)
            return taken

    def release_held(self, worker_id: str, *, reason: str) -> list[int]:
        """Hand back uncounted all that a worker has which was told to stop; give which."""
        now = self._clock()
        statement = (
            update(Job)
            .where(Job.state == JobState.LEASED, Job.worker_id == worker_id)
            .values(
                state=JobState.QUEUED,
                reason=reason,
                worker_id=None,
                leased_until=None,
                available_at=now,
                updated_at=now,
            )
            .returning(Job.id)
        )
        with self._database.begin() as connection:
            released = list(connection.scalars(statement).all())
            if released:
                tell_workers(connection)
            return released

    def expire(self, *, max_attempts: int, retry_delay_seconds: float) -> list[int]:
        """Take back jobs whose lease is past its time, counted as `lease_expired`.

        Not counted where the worker was loading a base model: see `take_back`.

        Returns:
            The jobs taken back.
        """
        now = self._clock()
        is_late = (Job.state == JobState.LEASED, Job.leased_until <= now)
        late = select(Job.id, Job.worker_id).where(*is_late).order_by(Job.id)
        failure = Failure(
            cause="lease_expired",
            error="its worker was not heard of in time",
            max_attempts=max_attempts,
            retry_delay_seconds=retry_delay_seconds,
        )
        with self._database.begin() as connection:
            lock_runs(connection, select(Job.run_id).where(*is_late))
            return [
                job_id
                for job_id, worker_id in connection.execute(late).all()
                if worker_id is not None  # a leased job has one: the schema says so
                and take_back(connection, job_id, worker_id, failure, now=now, only_expired_at=now)
            ]

    def cancel(self, job_ids: Collection[int] | None = None) -> int:
        """Cancel queued jobs (None: all); give how many. A running job is left to end."""
        chosen = [Job.state == JobState.QUEUED, *_among(job_ids)]
        values = {
            "state": JobState.CANCELLED,
            "reason": "cancelled by a person",
            "updated_at": self._clock(),
        }
        with self._database.begin() as connection:
            lock_runs(connection, select(Job.run_id).where(*chosen))
            cancelled = update(Job).where(*chosen).values(**values).returning(Job.id)
            return len(connection.scalars(cancelled).all())

    def retry(self, job_ids: Collection[int] | None = None) -> int:
        """Queue jobs again with no failures counted; give how many.

        Args:
            job_ids: of jobs that ended without a result; None: all failed ones.
        """
        now = self._clock()
        states = [JobState.FAILED]
        if job_ids is not None:
            states += [JobState.CANCELLED, *_ENDS_BY_OWNER]
        chosen = [Job.state.in_(states), *_among(job_ids)]
        again = (
            update(Job)
            .where(*chosen)
            .values(
                state=JobState.QUEUED,
                reason="retried by a person",
                attempts=0,
                attempts_by_cause={},
                available_at=now,
                updated_at=now,
            )
            .returning(Job.id)
        )
        with self._database.begin() as connection:
            lock_runs(connection, select(Job.run_id).where(*chosen))
            retried = connection.scalars(again).all()
            for job_id in retried:
                flag_newest(connection, job_id)
            if retried:
                tell_workers(connection)
            return len(retried)

    def ask(self, path_or_id: str, request: Request, *, because: str) -> Asked:
        """Ask for a known checkpoint's measurement at once; what is measured is not repeated.

        Args:
            path_or_id: weights file, its folder, or the number of a job of it.
            because: who or what asks, for people.

        Raises:
            ConfigError: nothing is known of it, or its files are gone.
        """
        with self._database.begin() as connection:
            return ask(connection, path_or_id, request, because, self._clock())

    def depth(self) -> dict[JobState, int]:
        """Count the jobs in each state, zeros included."""
        with self._database.read() as connection:
            return job_counts(connection)

    def waiting(self) -> list[Waiting]:
        """Count the queued jobs by what they need of a worker."""
        with self._database.read() as connection:
            return waiting_jobs(connection)

    def oldest_queued_at(self) -> datetime | None:
        """Give when the job that waits longest was made."""
        query = select(func.min(Job.created_at)).where(Job.state == JobState.QUEUED)
        with self._database.read() as connection:
            return connection.scalar(query)

    def jobs(
        self,
        *,
        states: Collection[JobState] | None = None,
        run: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[JobRow]:
        """List jobs, last changed first.

        Args:
            run: name or path of a run, exactly.
            before: only those that follow this one in the list, as `JobRow.key` gives it.

        Raises:
            ConfigError: `before` is no key.
        """
        with self._database.read() as connection:
            return job_rows(connection, states=states, run=run, limit=limit, before=before)


def _end(
    connection: Connection,
    claim: Claim,
    worker_id: str,
    result_id: int,
    rules: AlertRules,
    now: datetime,
    follow: FollowUp,
    keep: KeepRule,
) -> Finished:
    ended = change_leased(
        connection,
        claim.job_id,
        worker_id,
        state=JobState.DONE,
        result_id=result_id,
        mse=comparable_mse(result_id),
        ordinal=next_ordinal(claim.run_id),
        reason=select(Result.error).where(Result.id == result_id).scalar_subquery(),
        updated_at=now,
    )
    assert ended, "the lease was held a statement ago, in this transaction"  # noqa: S101
    count_done(connection, claim.run_id, claim.checkpoint_id, claim.job_id)
    return record_outcome(connection, claim.job_id, result_id, rules, now, follow, keep)


def _mark_lost(connection: Connection, worker_id: str) -> None:
    connection.execute(
        update(Worker)
        .where(Worker.worker_id == worker_id, Worker.state != WorkerState.STOPPED)
        .values(state=WorkerState.LOST, job_id=None)
    )


def _among(job_ids: Collection[int] | None) -> Sequence[ColumnElement[bool]]:
    if job_ids is None:
        return []
    return [Job.id.in_([job_id for job_id in job_ids if job_id <= MAX_ID])]
