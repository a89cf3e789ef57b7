"""A history of any size, made by the database itself: runs whose checkpoints were found in turns.

Each checkpoint has a quick result, every tenth a full one as well; the last few still lie on disk.
Rows of one run are scattered over the tables, as they are where many runs train at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from nptwatch.store.upkeep import Upkeep

if TYPE_CHECKING:
    from nptwatch.store.engine import Database

SECONDS_APART = 30
BEGAN = 1_767_225_600
"""2026-01-01 in seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much there is.

    Attributes:
        details_bytes: of each result's report.
        on_disk: so many of each run's last checkpoints are.
        queued: so many of all runs' last checkpoints wait to be measured.
    """

    runs: int
    checkpoints_per_run: int
    details_bytes: int = 2000
    on_disk: int = 20
    queued: int = 0

    @property
    def checkpoints(self) -> int:
        """Of all runs."""
        return self.runs * self.checkpoints_per_run

    @property
    def results(self) -> int:
        """Of all runs and both profiles."""
        return self.checkpoints + self.runs * len(range(0, self.checkpoints_per_run, 10))


def fill(database: Database, size: Size) -> None:
    """Write it into an empty migrated database."""
    postgres = database.path is None
    values = {
        "R": size.runs,
        "N": size.checkpoints,
        "C": size.checkpoints_per_run,
        "GONE": (size.checkpoints_per_run - size.on_disk) * size.runs,
        "MEASURED": size.checkpoints - size.queued,
        "DETAILS": "x" * size.details_bytes,
        "JSON": "CAST(d AS JSON)" if postgres else "d",
    }
    values |= {f"AT {clock}": _at(clock, postgres=postgres) for clock in ("i", "i + 1")}
    for statement in _statements(size):
        filled = re.sub("<([^<>]+)>", lambda found: str(values[found[1]]), statement)
        with database.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0" if postgres else "SELECT 1"))
            connection.execute(text(filled.replace(":", r"\:")))
    if postgres:
        _advance_ids(database)


def analyze(database: Database) -> None:
    """Let the planner know how much there is, as the daemon's chore and autovacuum do."""
    Upkeep(database).analyze()


def _at(number: str, *, postgres: bool) -> str:
    seconds = f"{BEGAN} + ({number}) * {SECONDS_APART}"
    if postgres:
        return f"to_timestamp({seconds})"
    return f"strftime('%Y-%m-%d %H:%M:%S.000000', {seconds}, 'unixepoch')"


def _advance_ids(database: Database) -> None:
    with database.begin() as connection:
        for table in ("runs", "checkpoints", "files", "results", "jobs", "status_changes"):
            connection.execute(
                text(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'),"
                    f" (SELECT max(id) FROM {table}))"
                )
            )


_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < <{}>)"
_PATH = "'/exp/run-' || (i % <R>) || '/checkpoints/checkpoint-' || (i / <R> * 100)"
_FALLING = "(2.0 / (1 + i / <R>) + (i % 1000 * 7919 % 1000) / 100000.0)"
_GRADE = f"CASE WHEN {_FALLING} < 0.05 THEN 'GOOD' ELSE 'FAIR' END"

_RUNS = (
    _NUMBERS.format("R")
    + """
    INSERT INTO runs (id, path, name, root, created_at, checkpoint_count, done_count,
        done_job_count)
    SELECT i + 1, '/exp/run-' || i, 'run-' || i, '/exp', <AT i>, 0, 0, 0 FROM n"""
)
_CHECKPOINTS = (
    _NUMBERS.format("N")
    + f"""
    INSERT INTO checkpoints (id, run_id, fingerprint, path, step, mtime_ns, size_bytes,
        first_seen_at)
    SELECT i + 1, i % <R> + 1, 'sha256-00000000000000000000000000000000000000000000-' || i,
        {_PATH} || '/npt_weights.pt', i / <R> * 100, i, 1000, <AT i> FROM n"""
)
_FILES = (
    _NUMBERS.format("N")
    + f"""
    INSERT INTO files (run_id, checkpoint_id, path, root, state, signature, mtime_ns, size_bytes,
        first_seen_at, updated_at)
    SELECT i % <R> + 1, i + 1, {_PATH} || '/npt_weights.pt', '/exp',
        CASE WHEN i < <GONE> THEN 'deleted' ELSE 'whole' END, '1:1:1', i, 1000, <AT i>, <AT i>
    FROM n"""
)


def _results(profile: str, first: str, only: str) -> str:
    return (
        _NUMBERS.format("MEASURED")
        + f""", report(d) AS (SELECT '{{"report": "<DETAILS>"}}')
    INSERT INTO results (id, fingerprint, profile, settings_hash, base_revision,
        diagnostics_version, grade, mse, cosine, kl, residual, duration_seconds, measured_at,
        details)
    SELECT i{first} + 1, 'sha256-00000000000000000000000000000000000000000000-' || i, '{profile}',
        'settings-{profile}-0000000000000000000000000000000000', 'base-revision-000000000000', 1,
        {_GRADE}, {_FALLING}, 0.97, {_FALLING} / 2, 'drop', 1.5, <AT i + 1>, <JSON>
    FROM n, report WHERE {only}"""
    )


def _jobs(profile: str, first: str, only: str) -> str:
    done = "i < <MEASURED>"
    return (
        _NUMBERS.format("N")
        + f"""
    INSERT INTO jobs (id, run_id, checkpoint_id, profile, settings_hash, state, newest, mtime_ns,
        order_step, available_at, attempts, attempts_by_cause, result_id, mse, ordinal,
        created_at, updated_at)
    SELECT i{first} + 1, i % <R> + 1, i + 1, '{profile}', 'settings-{profile}',
        CASE WHEN {done} THEN 'done' ELSE 'queued' END, false, i, i / <R> * 100, <AT i>, 0, '{{}}',
        CASE WHEN {done} THEN i{first} + 1 END, CASE WHEN {done} THEN {_FALLING} END,
        CASE WHEN {done} THEN i{first} + 1 END, <AT i>, <AT i + 1>
    FROM n WHERE {only}"""
    )


_CHANGES = (
    _NUMBERS.format("N")
    + f"""
    INSERT INTO status_changes (run_id, job_id, path, step, old, new, mse, cosine, at)
    SELECT i % <R> + 1, i + 1, {_PATH}, i / <R> * 100, 'POOR', 'FAIR', 0.3, 0.97, <AT i + 1>
    FROM n WHERE i / <R> % 100 = 0 AND i < <MEASURED>"""
)

_STATUS = """
    UPDATE runs SET status_job_id = last.id, status = last.grade, status_since = last.measured_at
    FROM (
        SELECT jobs.id, jobs.run_id, results.grade, results.measured_at FROM jobs
        JOIN results ON results.id = jobs.result_id WHERE jobs.id IN
            (SELECT max(id) FROM jobs WHERE profile = 'quick' AND state = 'done' GROUP BY run_id)
    ) AS last WHERE last.run_id = runs.id"""

_COUNTS = """
    UPDATE runs SET checkpoint_count = <C>, done_count = counted.found,
        done_job_count = counted.jobs, last_ordinal = counted.last
    FROM (SELECT run_id, count(DISTINCT checkpoint_id) AS found, count(*) AS jobs,
            max(ordinal) AS last FROM jobs
        WHERE state = 'done' GROUP BY run_id) AS counted
    WHERE counted.run_id = runs.id"""


def _statements(size: Size) -> list[str]:
    tenth = "i / <R> % 10 = 0"
    full = f" + {size.checkpoints}"
    return [
        _RUNS,
        _CHECKPOINTS,
        _FILES,
        _results("quick", "", "1 = 1"),
        _results("full", full, tenth),
        _jobs("quick", "", "1 = 1"),
        _jobs("full", full, f"{tenth} AND i < <MEASURED>"),
        _CHANGES,
        _STATUS,
        _COUNTS,
    ]
