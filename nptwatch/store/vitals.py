"""The signs of life of a run: when checkpoints came, and whether they could be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from nptwatch.store.events import told_of
from nptwatch.store.news import Arrival, Ended, Vitals
from nptwatch.store.records import FileState, JobState
from nptwatch.store.standing import RECENT, written_time
from nptwatch.store.tables import Checkpoint, File, Job, Result, Run

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Connection

FINAL = "final"
"""Trainers call so the folder of their last checkpoint."""

GAPS = 20
"""The usual gap is that of the newest so many checkpoints."""


def vitals_of(connection: Connection, run_id: int) -> Vitals:
    """Gather them."""
    run = connection.execute(
        select(Run.name, Run.path, Run.created_at).where(Run.id == run_id)
    ).one()
    written = (
        select(Checkpoint.mtime_ns)
        .where(Checkpoint.run_id == run_id)
        .order_by(Checkpoint.mtime_ns.desc())
        .limit(GAPS + 1)
    )
    return Vitals(
        run_id=run_id,
        run_name=run.name,
        run_path=run.path,
        known_at=run.created_at,
        last=_last(connection, run_id),
        written=tuple(written_time(mtime_ns) for mtime_ns in connection.scalars(written)),
        final_written_at=_final(connection, run_id),
        ended=_ended(connection, run_id),
        told=told_of(connection, run_id),
    )


def _last(connection: Connection, run_id: int) -> Arrival | None:
    row = connection.execute(
        select(
            Checkpoint.fingerprint,
            Checkpoint.path,
            Checkpoint.step,
            Checkpoint.first_seen_at.label("seen_at"),
        )
        .where(Checkpoint.run_id == run_id)
        .order_by(Checkpoint.first_seen_at.desc(), Checkpoint.mtime_ns.desc(), Checkpoint.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else Arrival(**row._mapping)  # noqa: SLF001 - its public name


def _final(connection: Connection, run_id: int) -> datetime | None:
    """Give when the last file in a folder called final was written."""
    newest = connection.scalar(
        select(func.max(File.mtime_ns)).where(
            File.run_id == run_id,
            File.state == FileState.WHOLE,
            File.path.contains(f"/{FINAL}/", autoescape=True),
        )
    )
    return None if newest is None else written_time(newest)


def _ended(connection: Connection, run_id: int) -> tuple[Ended, ...]:
    rows = connection.execute(
        select(
            Job.id,
            Job.state,
            Job.reason,
            Checkpoint.path,
            Checkpoint.step,
            Checkpoint.mtime_ns,
            Result.grade,
        )
        .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
        .outerjoin(Result, Result.id == Job.result_id)
        .where(
            Job.run_id == run_id,
            Job.state.in_([JobState.DONE, JobState.FAILED, JobState.UNLOADABLE]),
        )
        .order_by(Job.updated_at.desc(), Job.id.desc())
        .limit(RECENT)
    )
    return tuple(
        Ended(
            job_id=row.id,
            ok=row.state is JobState.DONE and row.grade != "UNLOADABLE",
            reason=row.reason,
            path=row.path,
            step=row.step,
            written_at=written_time(row.mtime_ns),
        )
        for row in rows
    )
