"""The order of the queue: each run's newest checkpoint first, older ones fill in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, and_, exists, literal, or_, select, update

from nptwatch.store.records import JobState
from nptwatch.store.tables import UNKNOWN_STEP, Job

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection


def is_older(step: int | None, mtime_ns: int, *, than_step: int | None, than_mtime_ns: int) -> bool:
    """Compare two checkpoints of a run: by step where both are known, else by time of writing."""
    if step is not None and than_step is not None:
        return step < than_step
    return mtime_ns < than_mtime_ns


def flag_newest(connection: Connection, job_id: int) -> None:
    """Flag a job that was just queued if no queued one of its run and profile is newer.

    The others of the run and profile lose the flag.

    Leased ones lose the flag too: should they come back, they are no longer the newest.
    """
    job = connection.execute(
        select(Job.run_id, Job.profile, Job.order_step, Job.mtime_ns).where(Job.id == job_id)
    ).one()
    newer = exists().where(
        Job.run_id == job.run_id,
        Job.profile == job.profile,
        Job.state == JobState.QUEUED,
        Job.id != job_id,
        _newer_than(job.order_step, job.mtime_ns),
    )
    if connection.scalar(select(newer)):
        connection.execute(update(Job).where(Job.id == job_id).values(newest=False))
        return
    connection.execute(
        update(Job)
        .where(
            Job.run_id == job.run_id,
            Job.profile == job.profile,
            Job.state.in_([JobState.QUEUED, JobState.LEASED]),
            or_(Job.newest, Job.id == job_id),
        )
        .values(newest=Job.id == job_id)
    )


def _newer_than(order_step: int, mtime_ns: int) -> ColumnElement[bool]:
    """`is_older` turned round, as SQL."""
    both_known = and_(
        Job.order_step != UNKNOWN_STEP, literal(order_step, BigInteger) != UNKNOWN_STEP
    )
    return or_(
        and_(both_known, Job.order_step > order_step),
        and_(~both_known, Job.mtime_ns > mtime_ns),
    )
