"""Forgetting what is old: in small batches, each a short transaction that the daemon can wait for.

Stays for ever: what lies on disk (it would be measured again), what is kept, what waits or runs,
what a status change tells of or a run's status stands on, each run's best by every measure, and
what is young.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, func, or_, select

from nptwatch.store.engine import utc_now
from nptwatch.store.postgres import lock_runs
from nptwatch.store.records import FileState, JobState
from nptwatch.store.runs import MEASURES, best_checkpoint
from nptwatch.store.tables import (
    Checkpoint,
    File,
    Job,
    KeptCheckpoint,
    Result,
    Run,
    StatusChangeRow,
    Worker,
)
from nptwatch.store.tallies import recount

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Delete
    from sqlalchemy.engine import Connection

    from nptwatch.store.engine import Database
    from nptwatch.store.records import Clock

BATCH = 200
"""So many checkpoints in one transaction: some ten milliseconds."""

PAUSE_SECONDS = 0.02
"""Between two batches, so that whoever waits for SQLite's write lock gets it."""

_OPEN = (JobState.QUEUED, JobState.LEASED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """How many rows were (or would be) deleted."""

    checkpoints: int = 0
    jobs: int = 0
    results: int = 0
    files: int = 0

    def __add__(self, other: Forgotten) -> Forgotten:
        """Add up."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        checkpoints, jobs, results, files = (one + two for one, two in pairs)
        return Forgotten(checkpoints=checkpoints, jobs=jobs, results=results, files=files)


class Retention:
    """Deletes old rows.

    Raises (every method):
        DatabaseError: the database cannot be used.
    """

    def __init__(
        self, database: Database, *, clock: Clock = utc_now, batch_size: int = BATCH
    ) -> None:
        self._database = database
        self._clock = clock
        self._batch_size = batch_size

    def forget(
        self, keep_days: int, *, pause: Callable[[float], bool], dry_run: bool = False
    ) -> Forgotten:
        """Delete what was last touched so many days ago and need not be kept.

        Args:
            keep_days: at least 1.
            pause: waits for so many seconds between batches; true: stop here.
            dry_run: only count.
        """
        assert keep_days > 0, "0 means never, and is not asked for"  # noqa: S101
        cutoff = self._clock() - timedelta(days=keep_days)
        with self._database.read() as connection:
            runs = connection.scalars(select(Run.id).order_by(Run.id)).all()
        total = Forgotten()
        for run_id in runs:
            for batch in self._batches(run_id, cutoff):
                total += self._count(batch) if dry_run else self._delete(run_id, batch, cutoff)
                if not dry_run and pause(PAUSE_SECONDS):
                    return total
            total += self._stray_files(run_id, cutoff, dry_run=dry_run)
            if pause(0):
                return total
        return total

    def _batches(self, run_id: int, cutoff: datetime) -> Iterator[Sequence[int]]:
        """Find a run's old checkpoints, some at a time, the best ones left out."""
        after = 0
        while True:
            with self._database.read() as connection:
                query = select(Checkpoint.id).where(*_old(run_id, cutoff), Checkpoint.id > after)
                found = connection.scalars(
                    query.order_by(Checkpoint.id).limit(self._batch_size)
                ).all()
                kept = _best(connection, run_id) if found else set()
            if not found:
                return
            after = found[-1]
            batch = [each for each in found if each not in kept]
            if batch:
                yield batch

    def _stray_files(self, run_id: int, cutoff: datetime, *, dry_run: bool) -> Forgotten:
        """Deal with files that are gone and never became whole."""
        stray = (
            File.run_id == run_id,
            File.state == FileState.DELETED,
            File.checkpoint_id.is_(None),
            File.updated_at < cutoff,
        )
        with self._database.read() as connection:
            files = connection.scalar(select(func.count()).where(*stray)) or 0
        if files and not dry_run:
            with self._database.begin() as connection:
                lock_runs(connection, [run_id])
                files = _rows(connection, delete(File).where(*stray))
        return Forgotten(files=files)

    def _count(self, batch: Sequence[int]) -> Forgotten:
        its, files = Job.checkpoint_id.in_(batch), File.checkpoint_id.in_(batch)
        theirs = select(Job.result_id).where(its)
        with self._database.read() as connection:
            return Forgotten(
                checkpoints=len(batch),
                jobs=connection.scalar(select(func.count()).where(its)) or 0,
                results=connection.scalar(
                    select(func.count()).where(Result.id.in_(theirs), ~_used_beside(batch))
                )
                or 0,
                files=connection.scalar(select(func.count()).where(files)) or 0,
            )

    def _delete(self, run_id: int, batch: Sequence[int], cutoff: datetime) -> Forgotten:
        """Delete what still is as it was found, now that nobody else changes the run."""
        with self._database.begin() as connection:
            lock_runs(connection, [run_id])
            still = select(Checkpoint.id).where(Checkpoint.id.in_(batch), *_old(run_id, cutoff))
            ids = set(connection.scalars(still).all()) - _best(connection, run_id)
            files = _rows(connection, delete(File).where(File.checkpoint_id.in_(ids)))
            connection.execute(delete(KeptCheckpoint).where(KeptCheckpoint.checkpoint_id.in_(ids)))
            gone = delete(Job).where(Job.checkpoint_id.in_(ids)).returning(Job.result_id)
            results = connection.scalars(gone).all()
            done = Forgotten(
                files=files,
                jobs=len(results),
                results=_delete_unused(connection, {each for each in results if each is not None}),
                checkpoints=_rows(connection, delete(Checkpoint).where(Checkpoint.id.in_(ids))),
            )
            recount(connection, [run_id])
            return done


def _old(run_id: int, cutoff: datetime) -> tuple[ColumnElement[bool], ...]:
    """Allow a run's checkpoints that nobody touched since and nothing points at."""
    told = exists().where(StatusChangeRow.job_id == Job.id)
    stood_on = exists().where(Run.status_job_id == Job.id)
    in_hand = exists().where(Worker.job_id == Job.id)
    young = or_(Job.state.in_(_OPEN), Job.updated_at >= cutoff)
    needed = exists().where(Job.checkpoint_id == Checkpoint.id, or_(young, told, stood_on, in_hand))
    on_disk = exists().where(
        File.checkpoint_id == Checkpoint.id,
        or_(File.state == FileState.WHOLE, File.updated_at >= cutoff),
    )
    kept = exists().where(
        KeptCheckpoint.checkpoint_id == Checkpoint.id, KeptCheckpoint.path.is_not(None)
    )
    return (
        Checkpoint.run_id == run_id,
        Checkpoint.first_seen_at < cutoff,
        ~needed.correlate(Checkpoint),
        ~on_disk.correlate(Checkpoint),
        ~kept.correlate(Checkpoint),
    )


def _best(connection: Connection, run_id: int) -> set[int]:
    """Give what is best: as the history has it, and by any settings it was ever measured with."""
    ever = select(Job.checkpoint_id).where(Job.run_id == run_id, Job.mse.is_not(None))
    best = {best_checkpoint(connection, run_id, by) for by in MEASURES}
    best.add(connection.scalar(ever.order_by(Job.mse).limit(1)))
    return {each for each in best if each is not None}


def _used_beside(batch: Collection[int]) -> ColumnElement[bool]:
    """Allow results that a job of another checkpoint has too."""
    return exists().where(Job.result_id == Result.id, Job.checkpoint_id.not_in(batch))


def _delete_unused(connection: Connection, results: Collection[int]) -> int:
    """Delete results that no job has any more; one that is being handed out stays.

    They are locked before it is asked who has them: by then, whoever was about to has it or not.
    """
    lock = select(Result.id).where(Result.id.in_(results)).order_by(Result.id)
    free = connection.scalars(lock.with_for_update(skip_locked=True)).all()
    used = exists().where(Job.result_id == Result.id)
    return _rows(connection, delete(Result).where(Result.id.in_(free), ~used))


def _rows(connection: Connection, statement: Delete) -> int:
    return connection.execute(statement).rowcount
