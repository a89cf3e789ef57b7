"""Whole files taken in: run, path, content, and the job that is asked of it; many at a time.

What is new, and what is known as it is, goes by sets; only a file that replaces, joins or revives
something is looked at on its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import case, exists, func, insert, literal, select, update

from nptwatch.store.asking import (
    Wish,
    job_values,
    label_queued,
    put_job,
    revive_followers,
    supersede_others,
)
from nptwatch.store.engine import insert_into
from nptwatch.store.host_path import HostPath
from nptwatch.store.names import held, numbered_step, rename
from nptwatch.store.newest import flag_newest, is_older
from nptwatch.store.postgres import lock_runs, tell_workers
from nptwatch.store.records import Admission, FileState, JobState
from nptwatch.store.tables import UNKNOWN_STEP, Checkpoint, File, Job, Run
from nptwatch.store.tallies import count_checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection

    from nptwatch.store.records import Request, SeenFile, WholeFile

CHUNK = 500
"""SQLite takes a limited number of values in one statement."""

_REVIVED = (JobState.DELETED, JobState.SUPERSEDED)
_REVIVED_IF_REWRITTEN = (*_REVIVED, JobState.UNLOADABLE)


def admit_all(
    connection: Connection, wholes: Sequence[WholeFile], request: Request, now: datetime
) -> list[Admission]:
    """Take in whole files; give what became of each, in their order."""
    admissions: list[Admission] = []
    for chunk in _chunks(wholes):
        admissions += _admit_chunk(connection, chunk, request, now)
    return admissions


def _chunks(wholes: Sequence[WholeFile]) -> Iterator[list[WholeFile]]:
    """Split where one would be too long, or where a path comes again: the last word counts."""
    chunk: list[WholeFile] = []
    paths: set[str] = set()
    for whole in wholes:
        if len(chunk) == CHUNK or whole.file.path in paths:
            yield chunk
            chunk, paths = [], set()
        chunk.append(whole)
        paths.add(whole.file.path)
    if chunk:
        yield chunk


def _admit_chunk(
    connection: Connection, wholes: Sequence[WholeFile], request: Request, now: datetime
) -> list[Admission]:
    runs = put_runs(connection, [whole.file for whole in wholes], now)
    fresh = _fresh(connection, wholes, runs)
    _admit_fresh(connection, [wholes[place] for place in fresh], runs, request, now)
    rest = [whole for place, whole in enumerate(wholes) if place not in fresh]
    known = _known(connection, rest, request)
    return [
        Admission.QUEUED
        if place in fresh
        else Admission.KNOWN
        if whole.file.path in known
        else _admit_one(connection, whole, runs[whole.file.run_path], request, now)
        for place, whole in enumerate(wholes)
    ]


def put_runs(connection: Connection, files: Iterable[SeenFile], now: datetime) -> dict[str, int]:
    """Enter the runs of files, or their new names, and lock them in the order of ids.

    Returns:
        Their ids, by path.
    """
    named = {file.run_path: {"name": file.run_name, "root": file.root} for file in files}
    query = select(Run.id, Run.path, Run.name, Run.root).where(Run.path.in_(named))
    there = {row.path for row in connection.execute(query)}
    missing = [
        {"path": path, "created_at": now, **named[path]} for path in sorted(named.keys() - there)
    ]
    if missing:
        connection.execute(insert_into(connection, Run).on_conflict_do_nothing(), missing)
    rows = connection.execute(query).all()
    lock_runs(connection, [row.id for row in rows])
    for row in rows:
        if {"name": row.name, "root": row.root} != named[row.path]:
            connection.execute(update(Run).where(Run.id == row.id).values(**named[row.path]))
    return {row.path: row.id for row in rows}


def _fresh(
    connection: Connection, wholes: Sequence[WholeFile], runs: dict[str, int]
) -> dict[int, WholeFile]:
    """Choose the files whose path and whose content were never seen; by their place."""
    paths = [whole.file.path for whole in wholes]
    seen_paths = set(connection.scalars(select(File.path).where(File.path.in_(paths))))
    contents = connection.execute(
        select(Checkpoint.run_id, Checkpoint.fingerprint).where(
            Checkpoint.run_id.in_(runs.values()),
            Checkpoint.fingerprint.in_([whole.fingerprint for whole in wholes]),
        )
    )
    seen_contents = {(row.run_id, row.fingerprint) for row in contents}
    fresh: dict[int, WholeFile] = {}
    for place, whole in enumerate(wholes):
        content = (runs[whole.file.run_path], whole.fingerprint)
        if whole.file.path not in seen_paths and content not in seen_contents:
            fresh[place] = whole
        seen_contents.add(content)
    return fresh


def _admit_fresh(
    connection: Connection,
    wholes: Sequence[WholeFile],
    runs: dict[str, int],
    request: Request,
    now: datetime,
) -> None:
    """Enter new files with new contents, a job for each."""
    if not wholes:
        return
    contents = connection.execute(
        insert(Checkpoint).returning(Checkpoint.id, Checkpoint.run_id, Checkpoint.fingerprint),
        [_checkpoint_values(whole, runs[whole.file.run_path], now) for whole in wholes],
    )
    ids = {(row.run_id, row.fingerprint): int(row.id) for row in contents}
    count_checkpoints(connection, [run_id for run_id, _ in ids])
    files, jobs = [], []
    for whole in wholes:
        run_id = runs[whole.file.run_path]
        checkpoint_id = ids[run_id, whole.fingerprint]
        files.append(_file_values(whole.file, run_id, now, FileState.WHOLE, None, checkpoint_id))
        jobs.append(
            job_values(
                checkpoint_id,
                run_id=run_id,
                step=whole.step,
                mtime_ns=whole.file.mtime_ns,
                base_model=whole.base_model,
                min_gpu_mib=whole.min_gpu_mib,
                request=request,
                wish=Wish(),
                now=now,
            )
        )
    _put_files(connection, files)
    _put_jobs(connection, jobs, request)
    tell_workers(connection)


def _newest_of(
    jobs: Sequence[dict[str, Any]],  # Any: columns
) -> dict[int, dict[str, Any]]:
    """Give the newest of each run's new jobs."""
    newest: dict[int, dict[str, Any]] = {}
    for job in jobs:
        best = newest.get(job["run_id"])
        if best is None or _is_older(best["order_step"], best["mtime_ns"], job):
            newest[job["run_id"]] = job
    return newest


def _put_jobs(
    connection: Connection,
    jobs: Sequence[dict[str, Any]],  # Any: columns
    request: Request,
) -> None:
    """Enter new jobs, and flag each run's newest unless a queued one that is newer has the flag."""
    newest = _newest_of(jobs)
    its = (Job.run_id.in_(newest), Job.profile == request.profile)
    is_open = Job.state.in_([JobState.QUEUED, JobState.LEASED])
    busy = set(connection.scalars(select(Job.run_id).where(*its, is_open).distinct()))
    for run_id, job in newest.items():
        job["newest"] = run_id not in busy
    made = connection.execute(insert(Job).returning(Job.id, Job.checkpoint_id), list(jobs))
    job_ids = {row.checkpoint_id: int(row.id) for row in made}
    flagged = {
        row.run_id: row
        for row in connection.execute(
            select(Job.run_id, Job.order_step, Job.mtime_ns).where(
                *its, Job.state == JobState.QUEUED, Job.newest
            )
        )
    }
    for run_id in busy:
        job, other = newest[run_id], flagged.get(run_id)
        if other is None or _is_older(other.order_step, other.mtime_ns, job):
            flag_newest(connection, job_ids[job["checkpoint_id"]])


def _is_older(order_step: int, mtime_ns: int, job: dict[str, Any]) -> bool:  # Any: columns
    step, than_step = (
        None if each == UNKNOWN_STEP else each for each in (order_step, job["order_step"])
    )
    return is_older(step, mtime_ns, than_step=than_step, than_mtime_ns=job["mtime_ns"])


def _known(connection: Connection, wholes: Sequence[WholeFile], request: Request) -> set[str]:
    """Choose the paths of which everything is known: content, base, and a job that stands.

    A job stands that a file of its content coming back would leave as it is.
    """
    if not wholes:
        return set()
    asked = (Job.profile == request.profile) & (Job.settings_hash == request.settings_hash)
    others = (Job.profile == request.profile) & (Job.settings_hash != request.settings_hash)
    revived = Job.state.in_(_REVIVED_IF_REWRITTEN)
    base: ColumnElement[str | None] = Checkpoint.base_model.expression
    if request.base_model is not None:
        base = literal(request.base_model, HostPath)
    mislabelled = Job.base_model.is_distinct_from(base) | Job.min_gpu_mib.is_distinct_from(
        Checkpoint.min_gpu_mib
    )
    unsettled = revived | ((others | mislabelled) & (Job.state == JobState.QUEUED))
    rows = connection.execute(
        select(
            File.path,
            File.run_id,
            File.root,
            File.signature,
            Run.path.label("run_path"),
            Checkpoint.fingerprint,
            Checkpoint.step,
            Checkpoint.base_model,
            Checkpoint.min_gpu_mib,
        )
        .join(Checkpoint, Checkpoint.id == File.checkpoint_id)
        .join(Run, Run.id == File.run_id)
        .join(Job, Job.checkpoint_id == Checkpoint.id)
        .where(File.path.in_([whole.file.path for whole in wholes]), File.state == FileState.WHOLE)
        .group_by(File.id, Run.id, Checkpoint.id)
        .having(
            func.sum(case((unsettled, 1), else_=0)) == 0,
            func.sum(case((asked, 1), else_=0)) > 0,
        )
    )
    found = {row.path: row for row in rows}
    return {
        whole.file.path
        for whole in wholes
        if (row := found.get(whole.file.path)) is not None
        and (row.run_path, row.fingerprint) == (whole.file.run_path, whole.fingerprint)
        and (row.root, row.signature) == (whole.file.root, whole.file.signature)
        and whole.base_model in {None, row.base_model}
        and whole.min_gpu_mib == row.min_gpu_mib
        and whole.step in {None, row.step}
    }


def _admit_one(
    connection: Connection, whole: WholeFile, run_id: int, request: Request, now: datetime
) -> Admission:
    """Take in a file of which something is known: its path, its content, or both."""
    file = whole.file
    before, signature = remembered(connection, file.path)
    checkpoint_id, fresh = _put_checkpoint(connection, whole, run_id, now)
    put_file(
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
        left_path(connection, before, file.path, now)
    same = (before, signature) == (checkpoint_id, file.signature)
    again = _REVIVED if same else _REVIVED_IF_REWRITTEN
    queued = put_job(connection, checkpoint_id, request, now, Wish(again=again))
    supersede_others(connection, checkpoint_id, request, now)
    revive_followers(connection, checkpoint_id, request, again, now)
    if not fresh:
        label_queued(connection, checkpoint_id, request)
    if queued is not None:
        return Admission.QUEUED
    if before == checkpoint_id or not _held_elsewhere(connection, checkpoint_id, file.path):
        return Admission.KNOWN
    return Admission.TWIN


def _checkpoint_values(whole: WholeFile, run_id: int, now: datetime) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "fingerprint": whole.fingerprint,
        "path": whole.file.path,
        "step": whole.step,
        "mtime_ns": whole.file.mtime_ns,
        "size_bytes": whole.file.size_bytes,
        "base_model": whole.base_model,
        "min_gpu_mib": whole.min_gpu_mib,
        "first_seen_at": now,
    }


def _put_checkpoint(
    connection: Connection, whole: WholeFile, run_id: int, now: datetime
) -> tuple[int, bool]:
    """Enter a content, or learn from one more path that has it; say if it is new."""
    inserted: int | None = connection.scalar(
        insert_into(connection, Checkpoint)
        .values(**_checkpoint_values(whole, run_id, now))
        .on_conflict_do_nothing()
        .returning(Checkpoint.id)
    )
    if inserted is not None:
        count_checkpoints(connection, [run_id])
        return inserted, True
    return _refine_checkpoint(connection, whole, run_id, now), False


def put_file(
    connection: Connection,
    file: SeenFile,
    run_id: int,
    now: datetime,
    *,
    state: FileState,
    reason: str | None,
    checkpoint_id: int | None,
) -> None:
    """Write down what is at a path now."""
    row = _file_values(file, run_id, now, state, reason, checkpoint_id)
    _put_files(connection, [row])


def _file_values(
    file: SeenFile,
    run_id: int,
    now: datetime,
    state: FileState,
    reason: str | None,
    checkpoint_id: int | None,
) -> dict[str, Any]:  # Any: columns
    return {
        "path": file.path,
        "run_id": run_id,
        "root": file.root,
        "state": state,
        "reason": reason,
        "checkpoint_id": checkpoint_id,
        "signature": file.signature,
        "mtime_ns": file.mtime_ns,
        "size_bytes": file.size_bytes,
        "first_seen_at": now,
        "updated_at": now,
    }


def _put_files(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:  # Any: columns
    statement = insert_into(connection, File)
    kept = {"path", "first_seen_at"}
    changed = {name: statement.excluded[name] for name in rows[0] if name not in kept}
    connection.execute(
        statement.on_conflict_do_update(index_elements=["path"], set_=changed), list(rows)
    )


def remembered(connection: Connection, path: str) -> tuple[int | None, str | None]:
    """Give the checkpoint that a path held when it was last whole, and its last signature."""
    row = connection.execute(
        select(File.checkpoint_id, File.signature).where(File.path == path)
    ).one_or_none()
    return (None, None) if row is None else (row.checkpoint_id, row.signature)


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
        .values(
            step=step,
            mtime_ns=mtime_ns,
            base_model=whole.base_model or old.base_model,
            min_gpu_mib=whole.min_gpu_mib,
        )
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
            .values(order_step=UNKNOWN_STEP if step is None else step, mtime_ns=mtime_ns)
            .returning(Job.id, Job.state)
        ).all()
        for job in moved:
            if job.state is JobState.QUEUED:
                flag_newest(connection, job.id)
    return int(old.id)


def left_path(connection: Connection, checkpoint_id: int, path: str, now: datetime) -> None:
    """Draw the conclusions of a path having other content than this checkpoint's now."""
    rename(connection, checkpoint_id)
    reason = f"overwritten before it was measured: {path}"
    close_orphan(connection, checkpoint_id, JobState.SUPERSEDED, reason, now)


def close_orphan(
    connection: Connection, checkpoint_id: int, state: JobState, reason: str, now: datetime
) -> int:
    """Close a checkpoint's queued jobs if no file holds its content; give how many."""
    closed = connection.scalars(
        update(Job)
        .where(
            Job.checkpoint_id == checkpoint_id,
            Job.state == JobState.QUEUED,
            ~held(checkpoint_id),
        )
        .values(state=state, reason=reason, updated_at=now)
        .returning(Job.id)
    ).all()
    return len(closed)


def _held_elsewhere(connection: Connection, checkpoint_id: int, path: str) -> bool:
    query = exists().where(
        File.checkpoint_id == checkpoint_id, File.state == FileState.WHOLE, File.path != path
    )
    return bool(connection.scalar(select(query)))
