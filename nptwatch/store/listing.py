"""Jobs as people see them: how many there are in each state, and the last changed of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, func, or_, select, union_all

from nptwatch.store.keys import JobKey
from nptwatch.store.labels import Waiting
from nptwatch.store.records import JobRow, JobState
from nptwatch.store.tables import Checkpoint, Job, Run

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.engine import Connection

_COUNTED_ONE_BY_ONE = tuple(state for state in JobState if state is not JobState.DONE)

_JOB_ROWS = (
    select(
        Job.id.label("job_id"),
        Run.name.label("run"),
        Checkpoint.step,
        Checkpoint.path,
        Job.profile,
        Job.asked_because,
        Job.state,
        Job.reason,
        Job.attempts,
        Job.attempts_by_cause,
        Job.available_at,
        Job.worker_id,
        Job.created_at,
        Job.updated_at,
        Job.base_model,
        Job.min_gpu_mib,
        Run.path.label("run_path"),
        Run.root.label("run_root"),
    )
    .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
    .join(Run, Run.id == Job.run_id)
    .order_by(Job.updated_at.desc(), Job.id.desc())
)


def job_counts(connection: Connection) -> dict[JobState, int]:
    """Count the jobs in each state, zeros included; done ones, which are most, by their runs."""
    done = connection.scalar(select(func.coalesce(func.sum(Run.done_job_count), 0)))
    rows = connection.execute(
        select(Job.state, func.count())
        .where(Job.state.in_(_COUNTED_ONE_BY_ONE))
        .group_by(Job.state)
    )
    return {
        **dict.fromkeys(JobState, 0),
        JobState.DONE: int(done or 0),
        **{row[0]: row[1] for row in rows},
    }


def waiting_jobs(connection: Connection) -> list[Waiting]:
    """Count the queued jobs by what they need of a worker."""
    labels = (Job.base_model, Job.min_gpu_mib, Run.path, Run.root)
    query = (
        select(
            Job.base_model,
            Job.min_gpu_mib,
            Run.path.label("run_path"),
            Run.root.label("run_root"),
            func.count().label("jobs"),
            func.min(Job.created_at).label("oldest_at"),
        )
        .join(Run, Run.id == Job.run_id)
        .where(Job.state == JobState.QUEUED)
        .group_by(*labels)
        .order_by(*labels)
    )
    return [Waiting(**row) for row in connection.execute(query).mappings()]


def job_rows(
    connection: Connection,
    *,
    states: Collection[JobState] | None,
    run: str | None,
    limit: int,
    before: str | None,
) -> list[JobRow]:
    """Give jobs, last changed first.

    Each state is asked for by itself, as the index has them, and no more of it than is shown.
    """
    only: list[ColumnElement[bool]] = []
    if run is not None:
        runs = select(Run.id).where(or_(Run.name == run, Run.path == run))
        only.append(Job.run_id.in_(connection.scalars(runs).all()))
    if before is not None:
        only.append(_before(JobKey.parse(before)))
    each = [_last(state, only, limit) for state in (states or JobState)]
    ids = union_all(*(select(one.subquery().c.id) for one in each))
    query = _JOB_ROWS.where(Job.id.in_(ids)).limit(limit)
    return [JobRow(**row) for row in connection.execute(query).mappings()]


def _last(state: JobState, only: list[ColumnElement[bool]], limit: int) -> Select[int]:
    order = (Job.updated_at.desc(), Job.id.desc())
    return select(Job.id).where(Job.state == state, *only).order_by(*order).limit(limit)


def _before(key: JobKey) -> ColumnElement[bool]:
    earlier = and_(Job.updated_at == key.updated_at, Job.id < key.job_id)
    return and_(Job.updated_at <= key.updated_at, or_(Job.updated_at < key.updated_at, earlier))
