"""Taking a job from the queue: the one statement, and what the worker then needs to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import aliased

from nptwatch.store.names import best_first
from nptwatch.store.records import Claim, FileState, JobState, KeptState
from nptwatch.store.tables import Checkpoint, File, Job, KeptCheckpoint, Run

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.dml import ReturningUpdate


def claim_statement() -> ReturningUpdate[int]:
    """Build the claim: pick and take in one statement, so that no job is handed out twice.

    On Postgres SKIP LOCKED lets workers pick side by side; SQLite has one writer and no such
    clause (SQLAlchemy leaves it out there).
    """
    candidate = aliased(Job, name="candidate")
    chosen = (
        select(candidate.id)
        .where(candidate.state == JobState.QUEUED, candidate.available_at <= bindparam("now"))
        .order_by(
            candidate.urgency.desc(),
            candidate.newest.desc(),
            candidate.mtime_ns.desc(),
            candidate.order_step.desc(),
            candidate.id.desc(),
        )
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return (
        update(Job)
        .where(Job.id == chosen, Job.state == JobState.QUEUED)
        .values(
            state=JobState.LEASED,
            reason=None,
            worker_id=bindparam("worker"),
            leased_until=bindparam("until"),
            updated_at=bindparam("now"),
        )
        .returning(Job.id)
    )


_CLAIMED = (
    select(
        Job.id.label("job_id"),
        Job.checkpoint_id,
        Job.run_id,
        Run.path.label("run_path"),
        Run.name.label("run_name"),
        Checkpoint.fingerprint,
        Checkpoint.step,
        Checkpoint.mtime_ns,
        Checkpoint.base_model,
        Job.profile,
        Job.settings_hash,
        Job.attempts,
        File.path,
        KeptCheckpoint.path.label("kept_path"),
    )
    .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
    .join(Run, Run.id == Job.run_id)
    .outerjoin(File, (File.checkpoint_id == Checkpoint.id) & (File.state == FileState.WHOLE))
    .outerjoin(
        KeptCheckpoint,
        (KeptCheckpoint.checkpoint_id == Checkpoint.id) & (KeptCheckpoint.state == KeptState.KEPT),
    )
    .where(Job.id == bindparam("claimed"))
)


def claim_of(connection: Connection, job_id: int) -> Claim:
    """Read what a worker needs of a job, existing paths included, what is kept last."""
    rows = connection.execute(_CLAIMED, {"claimed": job_id}).mappings().all()
    about = {key: value for key, value in rows[0].items() if key not in {"path", "kept_path"}}
    paths = best_first(row["path"] for row in rows if row["path"] is not None)
    kept = rows[0]["kept_path"]
    return Claim(**about, paths=tuple(paths) if kept is None else (*paths, kept))
