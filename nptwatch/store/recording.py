"""What a finished measurement leaves behind: result, run status, status change, events.

All functions write on the caller's connection: `Queue.finish` makes them one transaction.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from nptwatch.settings import FULL, QUICK
from nptwatch.store.asking import Wish, put_job, supersede_others
from nptwatch.store.engine import insert_into
from nptwatch.store.events import raise_event
from nptwatch.store.host_path import report_stored
from nptwatch.store.jsons import finite, json_of
from nptwatch.store.kept import want
from nptwatch.store.newest import is_older
from nptwatch.store.records import NEVER_BEST, Facts, Finished, Measured, StatusChange, Urgency
from nptwatch.store.standing import standing_of
from nptwatch.store.tables import Checkpoint, Job, Result, Run, StatusChangeRow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Row, ScalarSelect, Select
    from sqlalchemy.engine import Connection

    from nptwatch.store.news import AlertRules, Event
    from nptwatch.store.records import Claim, Demand, FollowUp, KeepRule

_NO_STATUS = "UNLOADABLE"
"""A file that cannot be read says nothing of the run's weights."""


def store_result(connection: Connection, claim: Claim, measured: Measured) -> int:
    """Insert a result, or give the one that is already there for the same key."""
    details = report_stored(connection, json_of(measured.details))
    key = {
        "fingerprint": claim.fingerprint,
        "profile": claim.profile,
        "settings_hash": claim.settings_hash,
        "base_revision": measured.base_revision,
    }
    values = {item.name: finite(getattr(measured, item.name)) for item in fields(Measured)}
    insert = (
        insert_into(connection, Result)
        .values(**{**values, **key, "details": details})
        .on_conflict_do_nothing()
        .returning(Result.id)
    )
    while True:
        result_id: int | None = connection.scalar(insert)
        if result_id is None:
            result_id = connection.scalar(_kept(select(Result.id).filter_by(**key)))
        if result_id is not None:  # else it was forgotten between the two
            return result_id


def keep_result(connection: Connection, result_id: int) -> bool:
    """Hold on to a result until the end of this transaction; False: it is not there any more."""
    return connection.scalar(_kept(select(Result.id).where(Result.id == result_id))) is not None


def _kept(query: Select[int]) -> Select[int]:
    """Lock as a row that points at it would, so that nobody deletes it first."""
    return query.with_for_update(read=True, key_share=True)


def comparable_mse(result_id: int) -> ScalarSelect[float | None]:
    """Select what a job keeps of its result: the MSE, unless the grade says not to compare it."""
    return (
        select(Result.mse)
        .where(Result.id == result_id, Result.grade.not_in(NEVER_BEST))
        .scalar_subquery()
    )


def follow_nothing(_facts: Facts) -> None:
    """Demand nothing further."""


def keep_nothing(_facts: Facts) -> None:
    """Have nothing kept."""


def record_outcome(
    connection: Connection,
    job_id: int,
    result_id: int,
    rules: AlertRules,
    now: datetime,
    follow: FollowUp = follow_nothing,
    keep: KeepRule = keep_nothing,
) -> Finished:
    """Let the run's status follow a job's result, and ask for what follows from it."""
    job = connection.execute(
        select(
            Job.id,
            Job.run_id,
            Job.checkpoint_id,
            Job.profile,
            Checkpoint.path,
            Checkpoint.step,
            Checkpoint.mtime_ns,
            Checkpoint.fingerprint,
            Result.id.label("result_id"),
            Result.grade,
            Result.mse,
            Result.cosine,
            Result.overall_status,
        )
        .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
        .join(Result, Result.id == result_id)
        .where(Job.id == job_id)
    ).one()
    if job.grade == _NO_STATUS:
        return Finished(result_id=result_id, change=None, messages=0, late=False)
    run = _status(connection, job.run_id)
    finished, change_id = _move_status(connection, job, run, now)
    verdict = rules(standing_of(connection, job, run, late=finished.late, now=now))
    finished = replace(
        finished, messages=_raise(connection, verdict.events, job.run_id, change_id, now)
    )
    facts = facts_of(connection, job, run, late=finished.late)
    because = keep(facts)
    if because is not None and want(connection, job.checkpoint_id, because, now):
        finished = replace(finished, wanted=because)
    demand = verdict.demand
    if job.profile == QUICK:
        demand = follow(facts) or demand
    return replace(finished, asked=_ask(connection, job.checkpoint_id, demand, now))


def _ask(
    connection: Connection, checkpoint_id: int, demand: Demand | None, now: datetime
) -> str | None:
    """Queue what is demanded; give why. None: nothing is, or it was queued before."""
    if demand is None:
        return None
    wish = Wish(urgency=Urgency.POLICY, because=demand.because)
    supersede_others(connection, checkpoint_id, demand.request, now)
    asked = put_job(connection, checkpoint_id, demand.request, now, wish)
    return None if asked is None else demand.because


def _move_status(
    connection: Connection,
    job: Row[*tuple[Any, ...]],  # Any: named columns
    run: Row[*tuple[Any, ...]],
    now: datetime,
) -> tuple[Finished, int | None]:
    """Move the run's status if the result is of its newest measured step; give the change's id."""
    unmoved = Finished(result_id=job.result_id, change=None, messages=0, late=False)
    if run.status is not None and is_older(
        job.step, job.mtime_ns, than_step=run.step, than_mtime_ns=run.mtime_ns
    ):
        return replace(unmoved, late=True), None
    changed = job.grade != run.status
    connection.execute(
        update(Run)
        .where(Run.id == job.run_id)
        .values(
            status=job.grade,
            status_job_id=job.id,
            status_since=now if changed else run.status_since,
        )
    )
    if not changed:
        return unmoved, None
    change = _change(job, run, now)
    return replace(unmoved, change=change), _store_change(connection, change, job.id)


def _raise(
    connection: Connection,
    events: Sequence[Event],
    run_id: int,
    change_id: int | None,
    now: datetime,
) -> int:
    """Store events; give the number of their messages."""
    return sum(
        raise_event(connection, event, run_id=run_id, at=now, change_id=change_id) or 0
        for event in events
    )


def facts_of(
    connection: Connection,
    job: Row[*tuple[Any, ...]],  # Any: named columns
    run: Row[*tuple[Any, ...]],
    *,
    late: bool,
) -> Facts:
    """Gather what a policy may want to know; `run` is as it was before the result."""
    others = (
        select(Job.mse)
        .where(
            Job.run_id == job.run_id,
            Job.checkpoint_id != job.checkpoint_id,
            Job.mse.is_not(None),
        )
        .order_by(Job.mse)
        .limit(1)
    )
    asked = select(Job.settings_hash).where(
        Job.checkpoint_id == job.checkpoint_id, Job.profile == FULL
    )
    return Facts(
        run_name=run.name,
        step=job.step,
        nth=_place(connection, job),
        old=run.status,
        status=run.status if late else job.grade,
        late=late,
        grade=job.grade,
        mse=job.mse,
        best_mse_before=connection.scalar(others),
        asked_before=frozenset(connection.scalars(asked).all()),
    )


def _place(connection: Connection, job: Row[*tuple[Any, ...]]) -> int:  # Any: named columns
    """Count the run's checkpoints up to this one, in step order; unknown steps come last."""
    earlier = Checkpoint.id <= job.checkpoint_id
    if job.step is None:
        before = Checkpoint.step.is_not(None) | earlier
    else:
        before = (Checkpoint.step < job.step) | ((Checkpoint.step == job.step) & earlier)
    query = select(func.count()).where(Checkpoint.run_id == job.run_id, before)
    return connection.scalars(query).one()


def _status(connection: Connection, run_id: int) -> Row[*tuple[Any, ...]]:  # Any: named columns
    """Read a run with what its status stands on; locked, so that statuses follow one another.

    `key_share`: on Postgres rows that point at the run (our job) have share-locked it by now; the
    stronger lock would have two finishing workers wait for each other.
    """
    return connection.execute(
        select(
            Run.name,
            Run.path,
            Run.created_at,
            Run.status,
            Run.status_since,
            Checkpoint.step,
            Checkpoint.mtime_ns,
            Result.mse,
            Result.cosine,
        )
        .outerjoin(Job, Job.id == Run.status_job_id)
        .outerjoin(Checkpoint, Checkpoint.id == Job.checkpoint_id)
        .outerjoin(Result, Result.id == Job.result_id)
        .where(Run.id == run_id)
        .with_for_update(of=Run, key_share=True)
    ).one()


def _change(
    job: Row[*tuple[Any, ...]],
    run: Row[*tuple[Any, ...]],
    now: datetime,  # Any: columns
) -> StatusChange:
    return StatusChange(
        run_id=job.run_id,
        run_name=run.name,
        run_path=run.path,
        checkpoint_path=job.path,
        fingerprint=job.fingerprint,
        step=job.step,
        old=run.status,
        new=job.grade,
        mse=job.mse,
        cosine=job.cosine,
        previous_mse=run.mse,
        previous_cosine=run.cosine,
        at=now,
    )


def _store_change(connection: Connection, change: StatusChange, job_id: int) -> int:
    change_id: int = connection.execute(
        insert_into(connection, StatusChangeRow)
        .values(
            run_id=change.run_id,
            job_id=job_id,
            path=change.checkpoint_path,
            step=change.step,
            old=change.old,
            new=change.new,
            mse=change.mse,
            cosine=change.cosine,
            at=change.at,
        )
        .returning(StatusChangeRow.id)
    ).scalar_one()
    return change_id
