"""What the watcher tells the database: files seen, contents found, jobs that follow from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, select, update

from nptwatch.store.asking import Wish, put_job, revive_followers, supersede_others
from nptwatch.store.engine import insert_into, utc_now
from nptwatch.store.names import numbered_step, rename
from nptwatch.store.newest import flag_newest
from nptwatch.store.postgres import lock_runs
from nptwatch.store.records import Admission, FileState, JobState, KnownFile
from nptwatch.store.tables import UNKNOWN_STEP, Checkpoint, File, Job, Run

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy.engine import Connection

    from nptwatch.store.engine import Database
    from nptwatch.store.records import Clock, Request, SeenFile, WholeFile

_CHUNK = 500
"""SQLite takes a limited number of values in one statement."""

_WITHOUT_CONTENT = frozenset({FileState.SETTLING, FileState.UNLOADABLE, FileState.ABANDONED})


class Catalog:
    """Files and their contents. Every method is one transaction.

    Raises (every method):
        DatabaseError: the database cannot be used.
    """

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def known_files(self, root: str) -> dict[str, KnownFile]:
        """Give what is remembered of the files below a root, by path; deleted ones left out."""
        query = (
            select(
                File.path,
                Run.path.label("run_path"),
                File.state,
                File.signature,
                Checkpoint.fingerprint,
                File.reason,
            )
            .join(Run, Run.id == File.run_id)
            .outerjoin(Checkpoint, Checkpoint.id == File.checkpoint_id)
            .where(File.root == root, File.state != FileState.DELETED)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).mappings()
            return {row["path"]: KnownFile(**row) for row in rows}

    def note(self, file: SeenFile, state: FileState, reason: str) -> None:
        """Remember a file that is not whole.

        What the path held before is no longer there: a queued job for it is superseded, unless
        another file has the same content. Should the content prove unchanged, `admit` revives it.

        Args:
            file: what was seen.
            state: SETTLING, UNLOADABLE or ABANDONED.
            reason: why, for people.
        """
        if state not in _WITHOUT_CONTENT:
            raise ValueError(f"note takes one of {sorted(_WITHOUT_CONTENT)}, got {state}")
        now = self._clock()
        with self._database.begin() as connection:
            run_id = _put_run(connection, file, now)  # first: it locks the run
            before, _ = _remembered(connection, file.path)
            _put_file(connection, file, run_id, now, state=state, reason=reason, checkpoint_id=None)
            if before is not None:
                _left(connection, before, file.path, now)

    def admit(self, whole: WholeFile, request: Request) -> Admission:
        """Take in a whole file: its run, path, content and the job that is asked of it.

        A job that was closed because its content was gone is queued again, one whose files were
        all damaged only for a file that is new or rewritten; so is the job of its full diagnostic.
        Content that the path held before and no other file holds is superseded while it is only
        queued, and so is a job that asks for the same profile with other settings.
        """
        now = self._clock()
        file = whole.file
        with self._database.begin() as connection:
            run_id = _put_run(connection, file, now)  # first: it locks the run
            before, signature = _remembered(connection, file.path)
            checkpoint_id, fresh = _put_checkpoint(connection, whole, run_id, now)
            _put_file(
                connection,
                file,
                run_id,
                now,
                state=FileState.WHOLE,
                reason=None,
                checkpoint_id=checkpoint_id,
            )
            if not fresh:
                rename(connection, checkpoint_id)
            if before is not None and before != checkpoint_id:
                _left(connection, before, file.path, now)
            again = [JobState.DELETED, JobState.SUPERSEDED]
            if (before, signature) != (checkpoint_id, file.signature):
                again.append(JobState.UNLOADABLE)
            queued = put_job(connection, checkpoint_id, request, now, Wish(again=again))
            supersede_others(connection, checkpoint_id, request, now)
            revive_followers(connection, checkpoint_id, request, again, now)
            if queued is not None:
                return Admission.QUEUED
            if before == checkpoint_id or not _held_elsewhere(connection, checkpoint_id, file.path):
                return Admission.KNOWN
            return Admission.TWIN

    def gone(self, paths: Collection[str]) -> int:
        """Mark files as deleted and close queued jobs whose content no file holds any more.

        Returns:
            How many jobs were closed.
        """
        now = self._clock()
        every = list(paths)
        chunks = [every[start : start + _CHUNK] for start in range(0, len(every), _CHUNK)]
        closed = 0
        with self._database.begin() as connection:
            runs = [select(File.run_id).where(File.path.in_(chunk)) for chunk in chunks]
            lock_runs(connection, {run for each in runs for run in connection.scalars(each)})
            for chunk in chunks:
                left = connection.scalars(
                    update(File)
                    .where(
                        File.path.in_(chunk),
                        File.state != FileState.DELETED,
                    )
                    .values(state=FileState.DELETED, reason="gone from disk", updated_at=now)
                    .returning(File.checkpoint_id)
                ).all()
                for checkpoint_id in {content for content in left if content is not None}:
                    rename(connection, checkpoint_id)
                    reason = "deleted from disk before it was measured"
                    closed += _close_orphan(
                        connection, checkpoint_id, JobState.DELETED, reason, now
                    )
        return closed


def _remembered(connection: Connection, path: str) -> tuple[int | None, str | None]:
    """Give the checkpoint that a path held when it was last whole, and its last signature."""
    row = connection.execute(
        select(File.checkpoint_id, File.signature).where(File.path == path)
    ).one_or_none()
    return (None, None) if row is None else (row.checkpoint_id, row.signature)


def _put_run(connection: Connection, file: SeenFile, now: datetime) -> int:
    names = {"name": file.run_name, "root": file.root}
    return connection.execute(
        insert_into(connection, Run)
        .values(path=file.run_path, created_at=now, **names)
        .on_conflict_do_update(index_elements=["path"], set_=names)
        .returning(Run.id)
    ).scalar_one()


def _put_file(
    connection: Connection, file: SeenFile, run_id: int, now: datetime, **about: object
) -> None:
    values: dict[str, Any] = {  # Any: as SQLAlchemy takes it
        "run_id": run_id,
        "root": file.root,
        "signature": file.signature,
        "mtime_ns": file.mtime_ns,
        "size_bytes": file.size_bytes,
        "updated_at": now,
        **about,
    }
    connection.execute(
        insert_into(connection, File)
        .values(path=file.path, first_seen_at=now, **values)
        .on_conflict_do_update(index_elements=["path"], set_=values)
    )


def _put_checkpoint(
    connection: Connection, whole: WholeFile, run_id: int, now: datetime
) -> tuple[int, bool]:
    """Enter a content, or learn from one more path that has it; say if it is new."""
    inserted: int | None = connection.scalar(
        insert_into(connection, Checkpoint)
        .values(
            run_id=run_id,
            fingerprint=whole.fingerprint,
            path=whole.file.path,
            step=whole.step,
            mtime_ns=whole.file.mtime_ns,
            size_bytes=whole.file.size_bytes,
            base_model=whole.base_model,
            first_seen_at=now,
        )
        .on_conflict_do_nothing()
        .returning(Checkpoint.id)
    )
    if inserted is not None:
        return inserted, True
    return _refine_checkpoint(connection, whole, run_id, now), False


def _refine_checkpoint(connection: Connection, whole: WholeFile, run_id: int, now: datetime) -> int:
    """Learn from one more path with known content.

    A numbered folder's step beats a guess, and is never replaced; the earliest mtime is when the
    content was written, later ones are copies. The base is as it was named last: people correct
    it, and what waits for the wrong one need not wait any more.
    """
    old = connection.execute(
        select(Checkpoint.id, Checkpoint.step, Checkpoint.mtime_ns, Checkpoint.base_model)
        .where(Checkpoint.run_id == run_id, Checkpoint.fingerprint == whole.fingerprint)
        .with_for_update(key_share=True)
    ).one()
    paths = connection.scalars(select(File.path).where(File.checkpoint_id == old.id)).all()
    settled = old.step is not None and any(numbered_step(path) is not None for path in paths)
    step = old.step
    if not settled and (step is None or numbered_step(whole.file.path) is not None):
        step = step if whole.step is None else whole.step
    mtime_ns = min(old.mtime_ns, whole.file.mtime_ns)
    connection.execute(
        update(Checkpoint)
        .where(Checkpoint.id == old.id)
        .values(step=step, mtime_ns=mtime_ns, base_model=whole.base_model or old.base_model)
    )
    if whole.base_model not in {None, old.base_model}:
        connection.execute(
            update(Job)
            .where(Job.checkpoint_id == old.id, Job.state == JobState.QUEUED)
            .values(available_at=now)
        )
    if (step, mtime_ns) != (old.step, old.mtime_ns):
        moved = connection.execute(
            update(Job)
            .where(Job.checkpoint_id == old.id)
            .values(order_step=_order_step(step), mtime_ns=mtime_ns)
            .returning(Job.id, Job.state)
        ).all()
        for job in moved:
            if job.state is JobState.QUEUED:
                flag_newest(connection, job.id)
    return int(old.id)


def _order_step(step: int | None) -> int:
    return UNKNOWN_STEP if step is None else step


def _held_elsewhere(connection: Connection, checkpoint_id: int, path: str) -> bool:
    query = exists().where(
        File.checkpoint_id == checkpoint_id, File.state == FileState.WHOLE, File.path != path
    )
    return bool(connection.scalar(select(query)))


def _left(connection: Connection, checkpoint_id: int, path: str, now: datetime) -> None:
    """Draw the conclusions of a path having other content than this checkpoint's now."""
    rename(connection, checkpoint_id)
    reason = f"overwritten before it was measured: {path}"
    _close_orphan(connection, checkpoint_id, JobState.SUPERSEDED, reason, now)


def _close_orphan(
    connection: Connection, checkpoint_id: int, state: JobState, reason: str, now: datetime
) -> int:
    """Close a checkpoint's queued jobs if no file holds its content; give how many."""
    held = exists().where(File.checkpoint_id == checkpoint_id, File.state == FileState.WHOLE)
    closed = connection.scalars(
        update(Job)
        .where(Job.checkpoint_id == checkpoint_id, Job.state == JobState.QUEUED, ~held)
        .values(state=state, reason=reason, updated_at=now)
        .returning(Job.id)
    ).all()
    return len(closed)
