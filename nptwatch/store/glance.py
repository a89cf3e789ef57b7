"""What `nptwatch status` shows, read straight from an SQLite file.

Importing SQLAlchemy and its mappings takes longer than `status` may take in all, so this one
question is asked in plain SQL. The answers are those of Queue, Workers, History and Outbox
(a test compares them); whatever is wrong with the file is left for those to explain.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from nptwatch.store.migrate import head
from nptwatch.store.records import ChangeRow, JobState, RunRow, WorkerRow, WorkerState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """The state of things at one moment; `workers` are those at work."""

    queue: Mapping[JobState, int]
    oldest_queued_at: datetime | None
    workers: list[WorkerRow]
    runs: list[RunRow]
    changes: list[ChangeRow]
    pending_alerts: int


_DEPTH = "SELECT state, count(*) FROM jobs GROUP BY state"

_OLDEST = "SELECT min(created_at) FROM jobs WHERE state = 'queued'"

_PENDING = "SELECT count(*) FROM outbox WHERE state IN ('pending', 'sending')"

_WORKERS = """
    SELECT worker_id, host, pid, device, state, job_id, base_model, jobs_done, started_at, seen_at
    FROM workers WHERE state IN ('starting', 'idle', 'loading', 'busy') AND seen_at >= ?
    ORDER BY started_at DESC, worker_id
"""

_RUNS = """
    WITH counted AS (
        SELECT run_id, count(DISTINCT iif(state = 'done', checkpoint_id, NULL)) AS done,
            count(DISTINCT iif(state = 'failed', checkpoint_id, NULL)) AS failed,
            count(DISTINCT iif(state = 'queued', checkpoint_id, NULL))
            + count(DISTINCT iif(state = 'leased', checkpoint_id, NULL)) AS open_jobs
        FROM jobs GROUP BY run_id
    ), ranked AS (
        SELECT jobs.run_id, results.mse, checkpoints.step, row_number() OVER
            (PARTITION BY jobs.run_id ORDER BY results.mse, checkpoints.id) AS place
        FROM jobs JOIN results ON results.id = jobs.result_id
        JOIN checkpoints ON checkpoints.id = jobs.checkpoint_id
        WHERE results.mse IS NOT NULL
    )
    SELECT runs.name AS run, runs.path, runs.status, runs.status_since,
        (SELECT count(*) FROM checkpoints WHERE run_id = runs.id) AS checkpoints,
        coalesce(counted.done, 0) AS done, coalesce(counted.open_jobs, 0) AS open_jobs,
        coalesce(counted.failed, 0) AS failed, checkpoints.step,
        checkpoints.path AS checkpoint_path, jobs.state, jobs.profile, results.grade, results.mse,
        results.cosine, results.measured_at, ranked.mse AS best_mse, ranked.step AS best_step
    FROM runs
    LEFT JOIN jobs ON jobs.id = runs.status_job_id
    LEFT JOIN checkpoints ON checkpoints.id = jobs.checkpoint_id
    LEFT JOIN results ON results.id = jobs.result_id
    LEFT JOIN counted ON counted.run_id = runs.id
    LEFT JOIN ranked ON ranked.run_id = runs.id AND ranked.place = 1
    ORDER BY runs.name, runs.path
"""

_CHANGES = """
    SELECT runs.name AS run, c.step, c.path, c.old, c.new, c.mse, c.cosine, c.at
    FROM status_changes AS c JOIN runs ON runs.id = c.run_id
    ORDER BY c.id DESC LIMIT ?
"""


def glance_at(
    file: Path, *, now: datetime, silent_seconds: float, changes: int, busy_seconds: float
) -> Glance | None:
    """Read an SQLite database in one snapshot; None: it cannot be read so, ask the stores.

    Args:
        silent_seconds: a worker not heard of for so long is not at work.
        changes: how many status changes to give, the last one first.
        busy_seconds: how long a locked database is waited for.
    """
    since = (now - timedelta(seconds=silent_seconds)).astimezone(UTC)
    try:
        with closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=busy_seconds)
        ) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            if (
                connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
                != head()
            ):
                return None
            depth = dict(connection.execute(_DEPTH).fetchall())
            return Glance(
                queue={state: depth.get(state.value, 0) for state in JobState},
                oldest_queued_at=_time(connection.execute(_OLDEST).fetchone()[0]),
                workers=[
                    WorkerRow(**_typed(row) | {"state": WorkerState(row["state"])})
                    for row in connection.execute(_WORKERS, [since.strftime(_STORED)])
                ],
                runs=[RunRow(**_typed(row)) for row in connection.execute(_RUNS)],
                changes=[
                    ChangeRow(**_typed(row)) for row in connection.execute(_CHANGES, [changes])
                ],
                pending_alerts=connection.execute(_PENDING).fetchone()[0],
            )
    except sqlite3.Error:
        return None


_STORED = "%Y-%m-%d %H:%M:%S.%f"
"""How SQLAlchemy writes times on SQLite; sorts as text."""

_TIMES = frozenset({"status_since", "measured_at", "started_at", "seen_at", "at"})


def _typed(row: sqlite3.Row) -> dict[str, Any]:  # Any: columns
    values = {key: row[key] for key in row.keys()}  # noqa: SIM118 - a Row iterates over values
    return {key: _time(value) if key in _TIMES else value for key, value in values.items()}


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)
