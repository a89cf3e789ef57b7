"""How a job comes to be: asked for a new checkpoint, by the policy, or by a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from nptwatch.errors import ConfigError
from nptwatch.store.checkpoints import find_contents
from nptwatch.store.engine import insert_into
from nptwatch.store.names import held
from nptwatch.store.newest import flag_newest
from nptwatch.store.postgres import lock_runs, tell_workers
from nptwatch.store.records import Asked, Asking, JobState, Urgency
from nptwatch.store.tables import UNKNOWN_STEP, Checkpoint, Job, Result, Run

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection

    from nptwatch.store.records import Request

NEW_CHECKPOINT = "new checkpoint"
FILE_IS_BACK = "the file is back"
OTHER_SETTINGS = "was asked for with other settings than those in force"
SETTINGS_ARE_BACK = "the settings were changed back"

_OPEN_OR_DONE = (JobState.QUEUED, JobState.LEASED, JobState.DONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How urgently a job is asked for, and why.

    Attributes:
        again: ends from which the job is queued again if there is one already.
        why_again: the reason it then has.
    """

    urgency: Urgency = Urgency.CHECKPOINT
    because: str = NEW_CHECKPOINT
    again: Collection[JobState] = ()
    why_again: str = FILE_IS_BACK


def job_values(
    checkpoint_id: int,
    *,
    run_id: int,
    step: int | None,
    mtime_ns: int,
    base_model: str | None,
    min_gpu_mib: int | None,
    request: Request,
    wish: Wish,
    now: datetime,
) -> dict[str, Any]:  # Any: columns
    """Give a new job's row; that it is its run's newest is found out later.

    Args:
        base_model: what the checkpoint names; the request may know better.
        min_gpu_mib: what a worker must have for it.
    """
    return {
        "run_id": run_id,
        "checkpoint_id": checkpoint_id,
        "profile": request.profile,
        "settings_hash": request.settings_hash,
        "state": JobState.QUEUED,
        "urgency": wish.urgency,
        "asked_because": wish.because,
        "newest": False,
        "mtime_ns": mtime_ns,
        "order_step": UNKNOWN_STEP if step is None else step,
        "base_model": request.base_model or base_model,
        "min_gpu_mib": min_gpu_mib,
        "available_at": now,
        "attempts": 0,
        "attempts_by_cause": {},
        "created_at": now,
        "updated_at": now,
    }


def put_job(
    connection: Connection, checkpoint_id: int, request: Request, now: datetime, wish: Wish
) -> int | None:
    """Make the job of a checkpoint, or queue an ended one again.

    Returns:
        The job, if it is queued by this; None: there is one already, and it stays as it is.
    """
    checkpoint = connection.execute(
        select(
            Checkpoint.run_id,
            Checkpoint.step,
            Checkpoint.mtime_ns,
            Checkpoint.base_model,
            Checkpoint.min_gpu_mib,
        ).where(Checkpoint.id == checkpoint_id)
    ).one()
    job_id: int | None = connection.scalar(
        insert_into(connection, Job)
        .values(
            job_values(
                checkpoint_id,
                run_id=checkpoint.run_id,
                step=checkpoint.step,
                mtime_ns=checkpoint.mtime_ns,
                base_model=checkpoint.base_model,
                min_gpu_mib=checkpoint.min_gpu_mib,
                request=request,
                wish=wish,
                now=now,
            )
        )
        .on_conflict_do_nothing()
        .returning(Job.id)
    )
    if job_id is None:
        job_id = connection.scalar(
            update(Job)
            .where(
                Job.checkpoint_id == checkpoint_id,
                Job.profile == request.profile,
                Job.settings_hash == request.settings_hash,
                Job.state.in_(list(wish.again)),
            )
            .values(
                state=JobState.QUEUED,
                reason=wish.why_again,
                urgency=wish.urgency,
                asked_because=wish.because,
                base_model=request.base_model or checkpoint.base_model,
                min_gpu_mib=checkpoint.min_gpu_mib,
                available_at=now,
                updated_at=now,
            )
            .returning(Job.id)
        )
    if job_id is not None:
        flag_newest(connection, job_id)
        tell_workers(connection)
    return job_id


def label_queued(connection: Connection, checkpoint_id: int, request: Request) -> None:
    """Let what waits of a checkpoint need what it needs now: names and settings are corrected."""
    checkpoint = connection.execute(
        select(Checkpoint.base_model, Checkpoint.min_gpu_mib).where(Checkpoint.id == checkpoint_id)
    ).one()
    connection.execute(
        update(Job)
        .where(Job.checkpoint_id == checkpoint_id, Job.state == JobState.QUEUED)
        .values(
            base_model=request.base_model or checkpoint.base_model,
            min_gpu_mib=checkpoint.min_gpu_mib,
        )
    )


def supersede_others(
    connection: Connection, checkpoint_id: int, request: Request, now: datetime
) -> None:
    """Close what waits to be measured by other settings: they are not in force any more."""
    connection.execute(
        update(Job)
        .where(
            Job.checkpoint_id == checkpoint_id,
            Job.profile == request.profile,
            Job.settings_hash != request.settings_hash,
            Job.state == JobState.QUEUED,
        )
        .values(state=JobState.SUPERSEDED, reason=OTHER_SETTINGS, updated_at=now)
    )


def revive_followers(
    connection: Connection,
    checkpoint_id: int,
    request: Request,
    again: Collection[JobState],
    now: datetime,
) -> None:
    """Queue again what else was asked of a content whose file is back: its full diagnostic.

    Only the last job that counts: others were asked for with settings that are no more.
    """
    jobs = connection.execute(
        select(Job.id, Job.state).where(
            Job.checkpoint_id == checkpoint_id, Job.profile != request.profile
        )
    ).all()
    counting = [job for job in jobs if job.state is not JobState.SUPERSEDED] or jobs
    last = max(counting, key=lambda job: int(job.id), default=None)
    if last is not None and last.state in again:
        connection.execute(
            update(Job)
            .where(Job.id == last.id)
            .values(state=JobState.QUEUED, reason=FILE_IS_BACK, available_at=now, updated_at=now)
        )
        flag_newest(connection, last.id)
        tell_workers(connection)


def ask_by(connection: Connection, job_id: int, request: Request, now: datetime) -> None:
    """Ask by the settings in force for what a superseded job asked for."""
    job = connection.execute(
        select(Job.checkpoint_id, Job.urgency, Job.asked_because).where(Job.id == job_id)
    ).one()
    wish = Wish(
        urgency=Urgency(job.urgency),
        because=job.asked_because,
        again=[JobState.SUPERSEDED],
        why_again=SETTINGS_ARE_BACK,
    )
    put_job(connection, job.checkpoint_id, request, now, wish)


def ask(
    connection: Connection, path_or_id: str, request: Request, because: str, now: datetime
) -> Asked:
    """Ask for a checkpoint's measurement at once.

    Raises:
        ConfigError: nothing is known of it, several contents are meant, or its files are gone.
    """
    checkpoint_id = _one_content(connection, path_or_id)
    lock_runs(connection, select(Checkpoint.run_id).where(Checkpoint.id == checkpoint_id))
    supersede_others(connection, checkpoint_id, request, now)
    ends = [state for state in JobState if state not in _OPEN_OR_DONE]
    wish = Wish(urgency=Urgency.PERSON, because=because, again=ends, why_again=because)
    job_id = put_job(connection, checkpoint_id, request, now, wish)
    did = Asking.QUEUED
    if job_id is None:
        did = _what_it_does(connection, checkpoint_id, request)
    if did in {Asking.QUEUED, Asking.WAITS}:
        connection.execute(
            update(Job)
            .where(*_key(checkpoint_id, request), Job.state == JobState.QUEUED)
            .values(
                urgency=Urgency.PERSON,
                asked_because=because,
                available_at=now,
                attempts=0,
                attempts_by_cause={},
                updated_at=now,
            )
        )
        tell_workers(connection)
    row = connection.execute(
        select(
            Job.id.label("job_id"),
            Run.name.label("run"),
            Checkpoint.step,
            Checkpoint.path,
            Job.profile,
            Job.worker_id,
            Result.grade,
            Result.measured_at,
        )
        .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
        .join(Run, Run.id == Job.run_id)
        .outerjoin(Result, Result.id == Job.result_id)
        .where(*_key(checkpoint_id, request))
    ).one()
    return Asked(did=did, **row._mapping)  # noqa: SLF001 - SQLAlchemy's public name


def _key(checkpoint_id: int, request: Request) -> tuple[ColumnElement[bool], ...]:
    return (
        Job.checkpoint_id == checkpoint_id,
        Job.profile == request.profile,
        Job.settings_hash == request.settings_hash,
    )


def _what_it_does(connection: Connection, checkpoint_id: int, request: Request) -> Asking:
    state = connection.scalars(select(Job.state).where(*_key(checkpoint_id, request))).one()
    known = {JobState.DONE: Asking.KNOWN, JobState.LEASED: Asking.RUNS}
    return known.get(state, Asking.WAITS)


def _one_content(connection: Connection, path_or_id: str) -> int:
    found = find_contents(connection, path_or_id)
    if not found:
        raise ConfigError(
            f"nothing is known of {path_or_id!r}: expected a weights file, its folder, or a job"
            f" number. `nptwatch scan --once` takes in what is new; `nptwatch full {path_or_id}`"
            " measures without the database"
        )
    there = connection.scalars(
        select(Checkpoint.id).where(Checkpoint.id.in_(found), held(Checkpoint.id))
    ).all()
    if not there:
        raise ConfigError(f"{path_or_id}: its files are gone; only its history is left")
    if len(there) > 1:
        raise ConfigError(f"{path_or_id} names {len(there)} checkpoints: name one file")
    return there[0]
