"""What `nptwatch status` shows, read straight from an SQLite file.

Importing SQLAlchemy and its mappings takes longer than `status` may take in all, so this one
question is asked in plain SQL. The answers are those of Queue, Workers, History and Outbox
(a test compares them); whatever is wrong with the file is left for those to explain.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from nptwatch.store.chore_records import ChoreRecord, lately
from nptwatch.store.labels import Waiting, offer_of
from nptwatch.store.migrate import head
from nptwatch.store.records import ChangeRow, JobState, RunRow, WorkerRow, WorkerState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nptwatch.paths import PathMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """The state of things at one moment; `workers` are those at work."""

    queue: Mapping[JobState, int]
    oldest_queued_at: datetime | None
    waiting: list[Waiting]
    workers: list[WorkerRow]
    runs: list[RunRow]
    changes: list[ChangeRow]
    pending_alerts: int
    chores: list[ChoreRecord]


_DONE = "SELECT coalesce(sum(done_job_count), 0) FROM runs"

_DEPTH = """
    SELECT state, count(*) FROM jobs WHERE state IN
        ('queued', 'leased', 'failed', 'deleted', 'unloadable', 'superseded', 'cancelled')
    GROUP BY state
"""
"""All but done ones, which are most: those their runs have counted."""

_OLDEST = "SELECT min(created_at) FROM jobs WHERE state = 'queued'"

_PENDING = "SELECT count(*) FROM outbox WHERE state IN ('pending', 'sending')"

_WORKERS = """
    SELECT worker_id, host, pid, device, state, job_id, base_model, offer, jobs_done, memory_bytes,
        started_at, seen_at
    FROM workers WHERE state IN ('starting', 'idle', 'loading', 'busy') AND seen_at >= ?
    ORDER BY started_at DESC, worker_id
"""

_WAITING = """
    SELECT jobs.base_model, jobs.min_gpu_mib, runs.path AS run_path, runs.root AS run_root,
        count(*) AS jobs, min(jobs.created_at) AS oldest_at
    FROM jobs JOIN runs ON runs.id = jobs.run_id WHERE jobs.state = 'queued'
    GROUP BY jobs.base_model, jobs.min_gpu_mib, runs.path, runs.root
    ORDER BY jobs.base_model, jobs.min_gpu_mib, runs.path, runs.root
"""

_CHORES = """
    SELECT daemon, name, started_at, duration_seconds, failures, failing_since, failed_at, error
    FROM chores WHERE started_at >= ? ORDER BY daemon, name
"""

_RUNS = """
    SELECT run, run_path AS path, status, status_since, checkpoints, done, open_jobs, failed, step,
        path AS checkpoint_path, state, profile, grade, mse, cosine, measured_at, best_mse,
        best_step
    FROM v_latest ORDER BY run, run_path
"""

_CHANGES = """
    SELECT changes.id AS change_id, runs.name AS run, changes.step, changes.path, changes.old,
        changes.new, changes.mse, changes.cosine, changes.at
    FROM status_changes AS changes JOIN runs ON runs.id = changes.run_id
    ORDER BY changes.id DESC LIMIT ?
"""


def glance_at(
    file: Path,
    *,
    now: datetime,
    silent_seconds: float,
    changes: int,
    busy_seconds: float,
    paths: PathMap,
) -> Glance | None:
    """Read an SQLite database in one snapshot; None: it cannot be read so, ask the stores.

    Args:
        silent_seconds: a worker not heard of for so long is not at work.
        changes: how many status changes to give, the last one first.
        busy_seconds: how long a locked database is waited for.
        paths: what this host calls the database's folders.
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
            depth[JobState.DONE] = connection.execute(_DONE).fetchone()[0]
            return Glance(
                queue={state: depth.get(state.value, 0) for state in JobState},
                oldest_queued_at=_time(connection.execute(_OLDEST).fetchone()[0]),
                waiting=[Waiting(**_typed(row, paths)) for row in connection.execute(_WAITING)],
                workers=[
                    _worker(row, paths)
                    for row in connection.execute(_WORKERS, [since.strftime(_STORED)])
                ],
                runs=[RunRow(**_typed(row, paths)) for row in connection.execute(_RUNS)],
                changes=[
                    ChangeRow(**_typed(row, paths))
                    for row in connection.execute(_CHANGES, [changes])
                ],
                pending_alerts=connection.execute(_PENDING).fetchone()[0],
                chores=[
                    ChoreRecord(**_typed(row, paths))
                    for row in connection.execute(_CHORES, [lately(now).strftime(_STORED)])
                ],
            )
    except sqlite3.Error:
        return None


_STORED = "%Y-%m-%d %H:%M:%S.%f"
"""How SQLAlchemy writes times on SQLite; sorts as text."""

_TIMES = frozenset(
    {"status_since", "measured_at", "started_at", "seen_at", "at", "oldest_at", "failing_since"}
    | {"failed_at"}
)
_PATHS = frozenset({"path", "run_path", "run_root", "checkpoint_path", "base_model"})


def _worker(row: sqlite3.Row, paths: PathMap) -> WorkerRow:
    offer = offer_of(json.loads(row["offer"]), paths.here)
    about = {"state": WorkerState(row["state"]), "offer": offer}
    return WorkerRow(**_typed(row, paths) | about)


def _typed(row: sqlite3.Row, paths: PathMap) -> dict[str, Any]:  # Any: columns
    values = {key: row[key] for key in row.keys()}  # noqa: SIM118 - a Row iterates over values
    for key, value in values.items():
        if key in _TIMES:
            values[key] = _time(value)
        elif key in _PATHS and value is not None:
            values[key] = paths.here(value)
    return values


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)
