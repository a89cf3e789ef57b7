"""What the database says, in the words of the model: to be compared with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

from nptwatch.store.records import JobState, Request, Urgency
from nptwatch.store.tables import Checkpoint, EventRow, Job, OutboxRow, Result, Run, StatusChangeRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Connection

    from nptwatch.store.engine import Database


class JobBook(NamedTuple):
    """A job; times in seconds since the beginning."""

    run: str
    name: str
    request: Request
    state: JobState
    urgency: Urgency
    attempts: int
    causes: dict[str, int]
    worker: str | None
    lease_ends: float | None
    due: float
    grade: str | None


class Books(NamedTuple):
    """All that counts, in the order in which it was written."""

    jobs: list[JobBook]
    results: list[tuple[str, str, str, str]]  # content, profile, settings hash, grade
    status: list[tuple[str, str, str, float]]  # run, grade, content, since
    changes: list[tuple[str, str | None, str, str]]  # run, old, new, content
    alerts: list[tuple[str, str]]  # run, content


def books_of(database: Database, start: datetime) -> Books:
    """Read the books of a database in one snapshot."""
    with database.read() as connection:
        return Books(
            jobs=_jobs(connection, start),
            results=sorted(_results(connection)),
            status=_status(connection, start),
            changes=_changes(connection),
            alerts=_alerts(connection),
        )


def _jobs(connection: Connection, start: datetime) -> list[JobBook]:
    rows = connection.execute(
        select(
            Run.name.label("run"),
            Checkpoint.fingerprint,
            Job.profile,
            Job.settings_hash,
            Job.state,
            Job.urgency,
            Job.attempts,
            Job.attempts_by_cause,
            Job.worker_id,
            Job.leased_until,
            Job.available_at,
            Result.grade,
        )
        .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
        .join(Run, Run.id == Job.run_id)
        .outerjoin(Result, Result.id == Job.result_id)
        .order_by(Job.id)
    ).all()
    return [
        JobBook(
            run=row.run,
            name=row.fingerprint,
            request=Request(profile=row.profile, settings_hash=row.settings_hash),
            state=row.state,
            urgency=Urgency(row.urgency),
            attempts=row.attempts,
            causes=row.attempts_by_cause,
            worker=row.worker_id,
            lease_ends=row.leased_until and (row.leased_until - start).total_seconds(),
            due=(row.available_at - start).total_seconds(),
            grade=row.grade,
        )
        for row in rows
    ]


def _results(connection: Connection) -> list[tuple[str, str, str, str]]:
    columns = (Result.fingerprint, Result.profile, Result.settings_hash, Result.grade)
    return [(*row,) for row in connection.execute(select(*columns)).all()]


def _status(connection: Connection, start: datetime) -> list[tuple[str, str, str, float]]:
    rows = connection.execute(
        select(Run.name, Run.status, Checkpoint.fingerprint, Run.status_since)
        .join(Job, Job.id == Run.status_job_id)
        .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
        .order_by(Run.name)
    ).all()
    return [
        (row.name, row.status, row.fingerprint, (row.status_since - start).total_seconds())
        for row in rows
    ]


def _changes(connection: Connection) -> list[tuple[str, str | None, str, str]]:
    rows = connection.execute(
        select(Run.name, StatusChangeRow.old, StatusChangeRow.new, Checkpoint.fingerprint)
        .join(Run, Run.id == StatusChangeRow.run_id)
        .join(Job, Job.id == StatusChangeRow.job_id)
        .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
        .order_by(StatusChangeRow.id)
    ).all()
    return [(*row,) for row in rows]


def _alerts(connection: Connection) -> list[tuple[str, str]]:
    rows = connection.execute(
        select(Run.name, EventRow.subject)
        .join(EventRow, EventRow.run_id == Run.id)
        .join(OutboxRow, OutboxRow.event_row_id == EventRow.id)
    )
    return sorted((*row,) for row in rows)
