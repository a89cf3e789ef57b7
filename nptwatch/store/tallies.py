"""Counts that runs carry: what is asked often and would be counted over a million rows each time.

All functions write on the caller's connection, which has the run locked (`lock_runs`, or because
it has just written the run's row). `recount` makes them right again whatever happened.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sqlalchemy import func, or_, select, update

from nptwatch.store.records import JobState
from nptwatch.store.tables import Checkpoint, Job, Run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import ColumnElement, ScalarSelect
    from sqlalchemy.engine import Connection


def count_checkpoints(connection: Connection, run_ids: Iterable[int]) -> None:
    """Count checkpoints that were just entered, given by their runs."""
    for run_id, found in sorted(Counter(run_ids).items()):
        connection.execute(
            update(Run)
            .where(Run.id == run_id)
            .values(checkpoint_count=Run.checkpoint_count + found)
        )


def next_ordinal(run_id: int) -> ScalarSelect[int]:
    """Give the number of a run's next result; `count_done` notes that it is taken."""
    return select(Run.last_ordinal + 1).where(Run.id == run_id).scalar_subquery()


def count_done(connection: Connection, run_id: int, checkpoint_id: int, job_id: int) -> None:
    """Count a job that has just got its result, and its checkpoint if that is the first one."""
    before = select(func.count()).where(
        Job.checkpoint_id == checkpoint_id, Job.state == JobState.DONE, Job.id != job_id
    )
    first = not connection.scalar(before)
    connection.execute(
        update(Run)
        .where(Run.id == run_id)
        .values(
            done_job_count=Run.done_job_count + 1,
            done_count=Run.done_count + int(first),
            last_ordinal=Run.last_ordinal + 1,
        )
    )


def counted() -> dict[str, ColumnElement[int]]:
    """Give each count of a run as it is made from the rows; correlated with `Run`."""
    done = (Job.run_id == Run.id, Job.state == JobState.DONE)
    queries = {
        "checkpoint_count": select(func.count()).where(Checkpoint.run_id == Run.id),
        "done_count": select(func.count(Job.checkpoint_id.distinct())).where(*done),
        "done_job_count": select(func.count()).select_from(Job).where(*done),
    }
    return {name: query.correlate(Run).scalar_subquery() for name, query in queries.items()}


def miscounted() -> ColumnElement[bool]:
    """Allow only runs with a count that is wrong."""
    return or_(*(getattr(Run, name) != count for name, count in counted().items()))


def recount(connection: Connection, run_ids: Collection[int]) -> int:
    """Count anew; give how many of these runs were wrong."""
    wrong = update(Run).where(Run.id.in_(run_ids), miscounted()).values(counted())
    return len(connection.scalars(wrong.returning(Run.id)).all())
