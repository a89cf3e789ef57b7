"""How a run stands after a result: what the alert rules are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, or_, select

from nptwatch.settings import QUICK
from nptwatch.store.events import told_of
from nptwatch.store.news import Point, Standing
from nptwatch.store.records import JobState
from nptwatch.store.tables import Checkpoint, Job, Result

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Row, Select
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import InstrumentedAttribute

RECENT = 50
"""So many grades are told; no setting may ask for more."""

_JOBS_EACH = 4
"""Jobs that a checkpoint may have, about: both profiles, and again after a change of settings."""

_NO_STATUS = ("INVALID", "UNLOADABLE")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def standing_of(
    connection: Connection,
    job: Row[*tuple[Any, ...]],  # Any: named columns
    run: Row[*tuple[Any, ...]],
    *,
    late: bool,
    now: datetime,
) -> Standing:
    """Gather it.

    Args:
        job: the job that was just done, with its checkpoint and result.
        run: as it was before the result.
    """
    details = connection.scalars(select(Result.details).where(Result.id == job.result_id)).one()
    best = _best(connection, job.run_id)
    return Standing(
        run_id=job.run_id,
        run_name=run.name,
        run_path=run.path,
        point=_point(job),
        profile=job.profile,
        overall_status=job.overall_status,
        findings=tuple(details.get("findings") or ()),
        written_at=written_time(job.mtime_ns),
        known_at=run.created_at,
        old=run.status,
        previous_mse=run.mse,
        previous_cosine=run.cosine,
        status=run.status if late else job.grade,
        late=late,
        caught_up=_caught_up(connection, job),
        recent=_recent(connection, job.run_id, by_step=job.step is not None),
        best=None if best is None else _point(best),
        newer_than_best=0 if best is None else _newer(connection, job.run_id, best),
        told=told_of(connection, job.run_id),
        at=now,
    )


def written_time(mtime_ns: int) -> datetime:
    """Turn a file's time into one of ours; one that no calendar has counts as long ago."""
    try:
        return _EPOCH + timedelta(microseconds=mtime_ns // 1000)
    except OverflowError:
        return _EPOCH


def _point(row: Row[*tuple[Any, ...]]) -> Point:  # Any: named columns
    return Point(
        path=row.path,
        fingerprint=row.fingerprint,
        step=row.step,
        grade=row.grade,
        mse=row.mse,
        cosine=row.cosine,
    )


def _measured(
    run_id: int, *columns: ColumnElement[Any] | InstrumentedAttribute[Any]
) -> Select[*tuple[Any, ...]]:  # Any: columns
    return (
        select(*columns)
        .select_from(Job)
        .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
        .join(Result, Result.id == Job.result_id)
        .where(Job.run_id == run_id, Result.grade != "UNLOADABLE")
    )


def _recent(connection: Connection, run_id: int, *, by_step: bool) -> tuple[str, ...]:
    """Give the newest checkpoints' grades, each by its last job."""
    query = _measured(run_id, Checkpoint.id, Result.grade)
    if by_step:
        query = query.where(Checkpoint.step.is_not(None)).order_by(Checkpoint.step.desc())
    newest = query.order_by(Checkpoint.mtime_ns.desc(), Checkpoint.id.desc(), Job.id.desc())
    grades: dict[int, str] = {}
    for checkpoint_id, grade in connection.execute(newest.limit(RECENT * _JOBS_EACH)):
        grades.setdefault(checkpoint_id, grade)
    return tuple(grades.values())[:RECENT]


def _best(connection: Connection, run_id: int) -> Row[*tuple[Any, ...]] | None:  # Any: columns
    """Give the checkpoint with the lowest MSE; of equals the earliest."""
    query = _measured(
        run_id,
        Checkpoint.path,
        Checkpoint.fingerprint,
        Checkpoint.step,
        Checkpoint.mtime_ns,
        Result.grade,
        Result.mse,
        Result.cosine,
    )
    sound = query.where(Result.mse.is_not(None), Result.grade.not_in(_NO_STATUS))
    return connection.execute(
        sound.order_by(Result.mse, Checkpoint.step, Checkpoint.mtime_ns, Checkpoint.id).limit(1)
    ).one_or_none()


def _newer(connection: Connection, run_id: int, best: Row[*tuple[Any, ...]]) -> int:  # Any: columns
    query = _measured(run_id, func.count(Checkpoint.id.distinct()))
    return int(connection.execute(query.where(_newer_than(best))).scalar_one())


def _newer_than(point: Row[*tuple[Any, ...]]) -> ColumnElement[bool]:  # Any: named columns
    later: ColumnElement[bool] = Checkpoint.mtime_ns > point.mtime_ns
    if point.step is None:
        return later
    return or_(Checkpoint.step > point.step, Checkpoint.step.is_(None) & later)


def _caught_up(connection: Connection, job: Row[*tuple[Any, ...]]) -> bool:  # Any: named columns
    waiting = (
        select(Job.id)
        .where(
            Job.run_id == job.run_id,
            Job.profile == QUICK,
            Job.state.in_([JobState.QUEUED, JobState.LEASED]),
        )
        .limit(1)
    )
    return connection.scalar(waiting) is None
