"""The state of everything in numbers, for who asks every few seconds: one snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import column, func, select, table

from nptwatch.store.engine import utc_now
from nptwatch.store.host_path import HostPath
from nptwatch.store.listing import job_counts
from nptwatch.store.outbox import message_counts
from nptwatch.store.records import JobState, WorkerState
from nptwatch.store.runs import run_rows
from nptwatch.store.tables import Job, KeptCheckpoint, Run, Worker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from nptwatch.store.engine import Database
    from nptwatch.store.records import Clock, OutboxState

_OPEN = (JobState.QUEUED, JobState.LEASED)

_BEST = table("v_best", column("run_path", HostPath()), *map(column, ("grade", "mse", "cosine")))

_GONE = (WorkerState.STOPPED, WorkerState.LOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What a checkpoint was measured to be."""

    grade: str | None
    mse: float | None
    cosine: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGauge:
    """A run; `last` is its newest measured checkpoint. Each is None where there is none."""

    run: str
    root: str
    checkpoints: int
    done: int
    failed: int
    last: Numbers | None
    last_at: datetime | None
    best: Numbers | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerGauge:
    """A worker at work."""

    worker_id: str
    state: WorkerState
    device: str
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """Everything.

    Attributes:
        attempts: failed ones of the jobs that wait or run.
        kept: how many checkpoints are to be kept, kept, released.
    """

    at: datetime
    runs: tuple[RunGauge, ...]
    jobs: Mapping[JobState, int]
    attempts: int
    oldest_queued_at: datetime | None
    workers: tuple[WorkerGauge, ...]
    messages: Mapping[tuple[str, OutboxState], int]
    kept: Mapping[str, int]


class GaugeReader:
    """Reads them.

    Args:
        silent_seconds: a worker not heard of for so long is not at work.
    """

    def __init__(
        self, database: Database, *, silent_seconds: float, clock: Clock = utc_now
    ) -> None:
        self._database = database
        self._silent = timedelta(seconds=silent_seconds)
        self._clock = clock

    def read(self) -> Gauges:
        """Take one snapshot.

        Raises:
            DatabaseError: the database cannot be used.
        """
        now = self._clock()
        with self._database.read() as connection:
            roots = dict(connection.execute(select(Run.path, Run.root)).tuples().all())
            bests = {
                row.run_path: Numbers(grade=row.grade, mse=row.mse, cosine=row.cosine)
                for row in connection.execute(select(_BEST))
            }
            runs = run_rows(connection)
            attempts = select(func.coalesce(func.sum(Job.attempts), 0)).where(Job.state.in_(_OPEN))
            oldest = select(func.min(Job.created_at)).where(Job.state == JobState.QUEUED)
            workers = (
                select(Worker.worker_id, Worker.state, Worker.device, Worker.memory_bytes)
                .where(Worker.seen_at >= now - self._silent, Worker.state.not_in(_GONE))
                .order_by(Worker.worker_id)
            )
            kept = select(KeptCheckpoint.state, func.count()).group_by(KeptCheckpoint.state)
            return Gauges(
                at=now,
                runs=tuple(
                    RunGauge(
                        run=row.run,
                        root=roots[row.path],
                        checkpoints=row.checkpoints,
                        done=row.done,
                        failed=row.failed,
                        last=None
                        if row.grade is None
                        else Numbers(grade=row.grade, mse=row.mse, cosine=row.cosine),
                        last_at=row.measured_at,
                        best=bests.get(row.path),
                    )
                    for row in runs
                ),
                jobs=job_counts(connection),
                attempts=int(connection.scalar(attempts) or 0),
                oldest_queued_at=connection.scalar(oldest),
                workers=tuple(WorkerGauge(**row) for row in connection.execute(workers).mappings()),
                messages=message_counts(connection),
                kept=dict(connection.execute(kept).tuples().all()),
            )
