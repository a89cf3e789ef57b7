"""Runs as people see them, how one is found by what people type, and its best checkpoint."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, TypeAlias

from sqlalchemy import Text, case, column, func, select, table, type_coerce

from nptwatch.errors import ConfigError
from nptwatch.store.checkpoints import checkpoint_rows, latest_job, one_per_content
from nptwatch.store.host_path import HostPath
from nptwatch.store.records import NEVER_BEST, RunRow
from nptwatch.store.tables import Checkpoint, Run, UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection

    from nptwatch.store.records import HistoryRow

Measure: TypeAlias = Literal["mse", "cosine", "kl"]

MEASURES: tuple[Measure, ...] = ("mse", "cosine", "kl")

_LATEST = table(
    "v_latest",
    *(column(name) for name in ("run_id", "run", "status", "checkpoints", "done")),
    *(column(name) for name in ("open_jobs", "failed", "step", "state", "profile")),
    *(column(name) for name in ("grade", "mse", "cosine", "best_mse", "best_step")),
    column("run_path", HostPath()),
    column("path", HostPath()),
    column("status_since", UtcDateTime()),
    column("measured_at", UtcDateTime()),
)
"""The views that people have too (docs/views.md): what is shown and what they query is the same."""

_BEST = table("v_best", column("run_id"), column("checkpoint_id"))

_HISTORY = table(
    "v_history",
    *(column(name) for name in ("run_id", "checkpoint_id", "step", "grade", "cosine", "kl")),
)


def find_run(connection: Connection, wanted: str) -> int:
    """Find a run by its name, its path, or the end of its path where that is unique.

    The path as this host calls it, or as the database does: alerts name it so.

    Raises:
        ConfigError: there is none, or several; lists names that come close.
    """
    tail = "/" + wanted.strip("/")
    path = type_coerce(Run.path, Text)
    ends = func.substr(path, func.length(path) - len(tail) + 1) == tail
    for test in (Run.name == wanted, Run.path.in_([wanted, os.path.realpath(wanted)]), ends):
        query = select(Run.id, Run.path).where(test).order_by(Run.name, Run.path)
        found = connection.execute(query).all()
        if len(found) == 1:
            return int(found[0].id)
        if found:
            which = ", ".join(run.path for run in found)
            raise ConfigError(f"{wanted!r} names several runs: {which}; give one's path")
    names = connection.scalars(select(Run.name).order_by(Run.name)).all()
    raise ConfigError(f"no run {wanted!r}; {_similar(wanted, names)}")


def _similar(wanted: str, names: Sequence[str]) -> str:
    from difflib import get_close_matches

    if not names:
        return "no run is known yet: `nptwatch run` or `nptwatch scan --once` finds them"
    close = [name for name in names if wanted in name] or get_close_matches(wanted, names, n=5)
    return f"did you mean {', '.join(close[:5])}?" if close else f"known: {', '.join(names[:10])}"


def run_rows(connection: Connection, run_id: int | None = None) -> list[RunRow]:
    """Give runs with counts, newest measured and best checkpoint, by name.

    Args:
        run_id: only this one.
    """
    query = select(_LATEST).order_by(_LATEST.c.run, _LATEST.c.run_path)
    if run_id is not None:
        query = query.where(_LATEST.c.run_id == run_id)
    rows = []
    for row in connection.execute(query).mappings():
        about = {key: value for key, value in row.items() if key not in {"run_id", "run_path"}}
        checkpoint_path = about.pop("path")
        rows.append(RunRow(**about, path=row["run_path"], checkpoint_path=checkpoint_path))
    return rows


def best_row(connection: Connection, run_id: int, by: Measure) -> HistoryRow | None:
    """Give a run's best checkpoint as the history shows it; of equals the earliest step.

    Args:
        by: lowest mse or kl, or highest cosine.
    """
    checkpoint_id = best_checkpoint(connection, run_id, by)
    if checkpoint_id is None:
        return None
    rows = checkpoint_rows(connection, latest_job(), Checkpoint.id == checkpoint_id)
    (row,) = one_per_content(rows)
    return row


def best_checkpoint(connection: Connection, run_id: int, by: Measure) -> int | None:
    """Find a run's best checkpoint: by MSE an index has them in order, else all are compared."""
    if by == "mse":
        best = select(_BEST.c.checkpoint_id).where(_BEST.c.run_id == run_id)
        return connection.scalar(best)
    numbers, step = _HISTORY.c[by], _HISTORY.c.step
    order = (case((step.is_(None), 1), else_=0), step, _HISTORY.c.checkpoint_id)
    query = (
        select(_HISTORY.c.checkpoint_id)
        .where(
            _HISTORY.c.run_id == run_id,
            numbers.is_not(None),
            _HISTORY.c.grade.not_in(NEVER_BEST),
        )
        .order_by(numbers.desc() if by == "cosine" else numbers, *order)
        .limit(1)
    )
    return connection.scalar(query)
