"""Checkpoints as people see them: content, job and result in one row."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, case, func, literal, select, type_coerce
from sqlalchemy.orm import aliased

from nptwatch.settings import FULL
from nptwatch.store.host_path import paths_of
from nptwatch.store.names import best_first, numbered_step
from nptwatch.store.records import FileState, HistoryRow, JobState, KeptState
from nptwatch.store.tables import MAX_ID, Checkpoint, File, Job, KeptCheckpoint, Result, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import InstrumentedAttribute

_NOT_WHOLE = (FileState.SETTLING, FileState.UNLOADABLE, FileState.ABANDONED)

_NO_RESULT: dict[str, Any] = {  # Any: the fields' types differ
    "also": (),
    "fingerprint": None,
    "profile": None,
    "grade": None,
    "mse": None,
    "cosine": None,
    "kl": None,
    "top1_agreement": None,
    "relative_mse": None,
    "perplexity_ratio": None,
    "hidden_mse": None,
    "residual": None,
    "overall_status": None,
    "avg_score": None,
    "full_state": None,
    "full_because": None,
    "kept_path": None,
    "attempts": 0,
    "measured_at": None,
    "duration_seconds": None,
    "result_id": None,
    "job_id": None,
}


def latest_job() -> ColumnElement[bool]:
    """Allow only the last job of each profile: earlier ones were asked with other settings.

    A superseded one only where there is no other: settings may have been changed and changed back.
    """
    other = aliased(Job, name="other")
    superseded = case((other.state == JobState.SUPERSEDED, 1), else_=0)
    return (
        Job.id
        == select(other.id)
        .where(other.checkpoint_id == Job.checkpoint_id, other.profile == Job.profile)
        .order_by(superseded, other.id.desc())
        .limit(1)
        .scalar_subquery()
    )


def checkpoint_rows(connection: Connection, *only: ColumnElement[bool]) -> list[HistoryRow]:
    """Give checkpoints, one row for each job that the conditions allow, with its result."""
    query = (
        select(
            Checkpoint.id.label("checkpoint_id"),
            Run.name.label("run"),
            Run.path.label("run_path"),
            Checkpoint.step,
            Checkpoint.path,
            Checkpoint.fingerprint,
            Job.profile,
            Job.state,
            Job.reason,
            Result.grade,
            Result.mse,
            Result.cosine,
            Result.kl,
            Result.top1_agreement,
            Result.relative_mse,
            Result.perplexity_ratio,
            Result.hidden_mse,
            Result.residual,
            Result.overall_status,
            Result.avg_score,
            case((Job.profile == FULL, Job.state)).label("full_state"),
            case((Job.profile == FULL, Job.asked_because)).label("full_because"),
            KeptCheckpoint.path.label("kept_path"),
            Job.attempts,
            Checkpoint.first_seen_at,
            Result.measured_at,
            Result.duration_seconds,
            Job.result_id,
            Job.id.label("job_id"),
        )
        .join(Run, Run.id == Checkpoint.run_id)
        .join(Job, Job.checkpoint_id == Checkpoint.id)
        .outerjoin(Result, Result.id == Job.result_id)
        .outerjoin(
            KeptCheckpoint,
            (KeptCheckpoint.checkpoint_id == Checkpoint.id)
            & (KeptCheckpoint.state == KeptState.KEPT),
        )
        .where(*only)
        .order_by(Job.id)
    )
    rows = [dict(row) for row in connection.execute(query).mappings()]
    also = _whole_paths(connection, *only)
    return [
        HistoryRow(
            **{key: value for key, value in row.items() if key != "checkpoint_id"},
            also=tuple(path for path in also.get(row["checkpoint_id"], ()) if path != row["path"]),
        )
        for row in rows
    ]


def one_per_content(rows: Sequence[HistoryRow]) -> list[HistoryRow]:
    """Join the rows of one content, which differ in profile; files without content stay."""
    joined: dict[object, HistoryRow] = {}
    for row in rows:
        key = (row.run_path, row.fingerprint) if row.fingerprint else row.path
        known = joined.get(key)
        joined[key] = row if known is None else _joined(known, row)
    return list(joined.values())


def _joined(one: HistoryRow, other: HistoryRow) -> HistoryRow:
    """Take the numbers of what was asked last, normally the full one, if it has any."""
    full, quick = (one, other) if one.profile == FULL else (other, one)
    measured = [row for row in (quick, full) if row.result_id is not None]
    shown = max(measured, key=lambda row: (row.has_numbers, row.job_id or 0), default=quick)
    return replace(
        shown,
        profile="+".join(row.profile or "" for row in measured) or shown.profile,
        overall_status=full.overall_status,
        avg_score=full.avg_score,
        full_state=full.full_state,
        full_because=full.full_because,
    )


def _whole_paths(connection: Connection, *only: ColumnElement[bool]) -> dict[int, list[str]]:
    query = (
        select(Checkpoint.id, File.path)
        .join(File, File.checkpoint_id == Checkpoint.id)
        .join(Job, Job.checkpoint_id == Checkpoint.id)
        .where(File.state == FileState.WHOLE, *only)
        .distinct()
    )
    paths: dict[int, list[str]] = {}
    for checkpoint_id, path in connection.execute(query):
        paths.setdefault(checkpoint_id, []).append(path)
    return {checkpoint_id: best_first(each) for checkpoint_id, each in paths.items()}


def bare_rows(connection: Connection, *only: ColumnElement[bool]) -> list[HistoryRow]:
    """Give files that have no content (yet): settling, unloadable, abandoned."""
    query = (
        select(
            Run.name.label("run"),
            Run.path.label("run_path"),
            File.path,
            File.state,
            File.reason,
            File.first_seen_at,
        )
        .join(Run, Run.id == File.run_id)
        .where(File.state.in_(_NOT_WHOLE), *only)
        .order_by(File.id)
    )
    return [
        HistoryRow(**row, **_NO_RESULT, step=numbered_step(row["path"]))
        for row in connection.execute(query).mappings()
    ]


def named_rows(connection: Connection, path_or_id: str) -> list[HistoryRow]:
    """Find rows by job number, else by a path that has the content or once named it."""
    if _is_id(path_or_id):
        return checkpoint_rows(connection, Job.id == int(path_or_id))
    real = os.path.realpath(path_or_id)
    name = paths_of(connection.dialect).stored(real)
    file = (File.run_id.in_(_runs_above(name)), _at(File.path, name))
    named = (Checkpoint.run_id.in_(_runs_above(name)), _at(Checkpoint.path, name))
    held = select(File.checkpoint_id).where(*file, File.checkpoint_id.is_not(None))
    rows = checkpoint_rows(connection, latest_job(), Checkpoint.id.in_(held))
    rows = rows or checkpoint_rows(connection, latest_job(), Checkpoint.id.in_(_kept_at(real)))
    rows = rows or bare_rows(connection, *file)
    return rows or checkpoint_rows(connection, latest_job(), *named)


def find_contents(connection: Connection, path_or_id: str) -> Sequence[int]:
    """Find checkpoints by job number, else by a path that has the content, a kept one included."""
    if _is_id(path_or_id):
        by_number = select(Job.checkpoint_id).where(Job.id == int(path_or_id))
        return connection.scalars(by_number).all()
    real = os.path.realpath(path_or_id)
    name = paths_of(connection.dialect).stored(real)
    at = (File.run_id.in_(_runs_above(name)), _at(File.path, name))
    by_path = select(File.checkpoint_id).where(*at, File.checkpoint_id.is_not(None)).distinct()
    found = [each for each in connection.scalars(by_path).all() if each is not None]
    return found or connection.scalars(_kept_at(real)).all()


def _kept_at(path: str) -> Select[int]:
    """Find the checkpoint that is kept at a path of this host."""
    return select(KeptCheckpoint.checkpoint_id).where(_at(KeptCheckpoint.path, path))


def _runs_above(stored: str) -> Select[int]:
    """Select the runs that a stored path can belong to: runs are few, files are many."""
    run_path = type_coerce(Run.path, Text)
    begins = func.substr(literal(stored), 1, func.length(run_path) + 1)
    return select(Run.id).where((run_path == stored) | (begins == run_path + "/"))


def _is_id(text: str) -> bool:
    return text.isdecimal() and int(text) <= MAX_ID


def _at(
    column: InstrumentedAttribute[str] | InstrumentedAttribute[str | None], stored: str
) -> ColumnElement[bool]:
    """Match a file, or the files directly in a folder, by what the column holds."""
    held, folder = type_coerce(column, Text), stored.rstrip("/") + "/"
    return (held == stored) | (
        held.startswith(folder, autoescape=True) & ~func.substr(held, len(folder) + 1).contains("/")
    )
