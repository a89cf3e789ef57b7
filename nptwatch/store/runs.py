"""Runs as people see them, and how one is found by what people type."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from nptwatch.errors import ConfigError
from nptwatch.store.records import JobState, RunRow
from nptwatch.store.tables import Checkpoint, Job, Result, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.engine import Connection


def find_run(connection: Connection, wanted: str) -> int:
    """Find a run by its name, its path, or the end of its path where that is unique.

    Raises:
        ConfigError: there is none, or several; lists names that come close.
    """
    runs = connection.execute(select(Run.id, Run.name, Run.path).order_by(Run.name)).all()
    real = os.path.realpath(wanted)
    tail = "/" + wanted.strip("/")
    tests = (
        [run.id for run in runs if wanted == run.name],
        [run.id for run in runs if run.path in {wanted, real}],
        [run.id for run in runs if run.path.endswith(tail)],
    )
    found = next((ids for ids in tests if ids), [])
    if len(found) == 1:
        return int(found[0])
    if found:
        which = ", ".join(run.path for run in runs if run.id in found)
        raise ConfigError(f"{wanted!r} names several runs: {which}; give one's path")
    raise ConfigError(f"no run {wanted!r}; {_similar(wanted, [run.name for run in runs])}")


def _similar(wanted: str, names: Sequence[str]) -> str:
    from difflib import get_close_matches

    if not names:
        return "no run is known yet: `nptwatch run` or `nptwatch scan --once` finds them"
    close = [name for name in names if wanted in name] or get_close_matches(wanted, names, n=5)
    return f"did you mean {', '.join(close[:5])}?" if close else f"known: {', '.join(names[:10])}"


def run_rows(connection: Connection, *only: ColumnElement[bool]) -> list[RunRow]:
    """Give runs with counts, newest measured and best checkpoint, by name."""
    checkpoints = dict(
        connection.execute(
            select(Checkpoint.run_id, func.count()).group_by(Checkpoint.run_id)
        ).all()
    )
    jobs = {
        (run_id, state): count
        for run_id, state, count in connection.execute(
            select(Job.run_id, Job.state, func.count(Job.checkpoint_id.distinct())).group_by(
                Job.run_id, Job.state
            )
        )
    }
    best = {row.run_id: row for row in connection.execute(_best_query())}
    rows = []
    for row in connection.execute(_run_query(only)).mappings():
        about = dict(row)
        run_id = about.pop("run_id")
        rows.append(
            RunRow(
                **about,
                checkpoints=checkpoints.get(run_id, 0),
                done=jobs.get((run_id, JobState.DONE), 0),
                open_jobs=jobs.get((run_id, JobState.QUEUED), 0)
                + jobs.get((run_id, JobState.LEASED), 0),
                failed=jobs.get((run_id, JobState.FAILED), 0),
                best_mse=best[run_id].mse if run_id in best else None,
                best_step=best[run_id].step if run_id in best else None,
            )
        )
    return rows


def _run_query(only: Sequence[ColumnElement[bool]]) -> Select[*tuple[Any, ...]]:  # Any: columns
    return (
        select(
            Run.id.label("run_id"),
            Run.name.label("run"),
            Run.path,
            Run.status,
            Run.status_since,
            Checkpoint.step,
            Checkpoint.path.label("checkpoint_path"),
            Job.state,
            Job.profile,
            Result.grade,
            Result.mse,
            Result.cosine,
            Result.measured_at,
        )
        .outerjoin(Job, Job.id == Run.status_job_id)
        .outerjoin(Checkpoint, Checkpoint.id == Job.checkpoint_id)
        .outerjoin(Result, Result.id == Job.result_id)
        .where(*only)
        .order_by(Run.name, Run.path)
    )


def _best_query() -> Select[*tuple[Any, ...]]:  # Any: columns
    """Each run's checkpoint with the lowest MSE; of equals the one seen first."""
    rank = (
        func.row_number()
        .over(partition_by=Job.run_id, order_by=[Result.mse, Checkpoint.id])
        .label("rank")
    )
    ranked = (
        select(Job.run_id, Result.mse, Checkpoint.step, rank)
        .join(Result, Result.id == Job.result_id)
        .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
        .where(Result.mse.is_not(None))
        .subquery()
    )
    return select(ranked.c.run_id, ranked.c.mse, ranked.c.step).where(ranked.c.rank == 1)
