"""What a large history is asked by index: counts of runs, the MSE beside the job, and SQL views.

Revision: 0004, after 0003.

A later migration that rebuilds a table (batch mode on SQLite) or changes a column that a view names
drops the views first and creates them again: copy `drop_views` and `create_views`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COUNTS = ("checkpoint_count", "done_count", "done_job_count")


def upgrade() -> None:
    """Add columns, fill them from what is there, index them; then the views."""
    for name in _COUNTS:
        op.add_column("runs", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("mse", sa.Double(), nullable=True))
    for statement in _FILL:
        op.execute(statement)
    op.create_index("ix_runs_name", "runs", ["name"])
    op.create_index("ix_runs_status_job_id", "runs", ["status_job_id"])
    op.create_index("ix_checkpoints_run_id_step", "checkpoints", ["run_id", "step"])
    op.drop_index("ix_jobs_updated_at", table_name="jobs")
    op.create_index("ix_jobs_state_updated_at", "jobs", ["state", "updated_at"])
    op.drop_index("ix_jobs_run_id_state", table_name="jobs")
    op.create_index(_BY_RUN, "jobs", ["run_id", "state", "updated_at"])
    for name, columns in (("ix_jobs_run_id_mse", ["run_id", "mse"]), _BY_RESULT):
        there = sa.text(f"{columns[-1]} IS NOT NULL")
        op.create_index(name, "jobs", columns, sqlite_where=there, postgresql_where=there)
    create_views()


def downgrade() -> None:
    """Take all of it away again: nothing is lost that is not derived."""
    drop_views()
    for name in (_BY_RESULT[0], "ix_jobs_run_id_mse", "ix_jobs_state_updated_at"):
        op.drop_index(name, table_name="jobs")
    op.create_index("ix_jobs_updated_at", "jobs", ["updated_at"])
    op.drop_index(_BY_RUN, table_name="jobs")
    op.create_index("ix_jobs_run_id_state", "jobs", ["run_id", "state"])
    op.drop_index("ix_checkpoints_run_id_step", table_name="checkpoints")
    op.drop_index("ix_runs_status_job_id", table_name="runs")
    op.drop_index("ix_runs_name", table_name="runs")
    op.drop_column("jobs", "mse")
    for name in _COUNTS:
        op.drop_column("runs", name)


def create_views() -> None:
    """Create the views."""
    postgres = op.get_bind().dialect.name == "postgresql"
    for name, query in views(postgres=postgres):
        op.execute(f"CREATE VIEW {name} AS {query}")


def drop_views() -> None:
    """Drop the views."""
    for name in ("v_latest", "v_best", "v_history"):
        op.execute(f"DROP VIEW {name}")


_BY_RUN = "ix_jobs_run_id_state_updated_at"

_BY_RESULT = ("ix_jobs_result_id", ["result_id"])

_FILL = (
    """UPDATE runs SET checkpoint_count = counted.found FROM
        (SELECT run_id, count(*) AS found FROM checkpoints GROUP BY run_id) AS counted
        WHERE counted.run_id = runs.id""",
    """UPDATE runs SET done_count = counted.found, done_job_count = counted.jobs FROM
        (SELECT run_id, count(DISTINCT checkpoint_id) AS found, count(*) AS jobs FROM jobs
            WHERE state = 'done' GROUP BY run_id) AS counted
        WHERE counted.run_id = runs.id""",
    """UPDATE jobs SET mse = results.mse FROM results
        WHERE results.id = jobs.result_id AND results.grade NOT IN ('INVALID', 'UNLOADABLE')""",
)


def _last_job(profile: str) -> str:
    """Select the last job of a checkpoint's profile; a superseded one only if there is no other."""
    return f"""(SELECT k.id FROM jobs AS k
            WHERE k.checkpoint_id = c.id AND k.profile = '{profile}'
            ORDER BY CASE WHEN k.state = 'superseded' THEN 1 ELSE 0 END, k.id DESC LIMIT 1)"""


_QUICK_AND_FULL = f"""LEFT JOIN jobs AS q ON q.id = {_last_job("quick")}
        LEFT JOIN jobs AS f ON f.id = {_last_job("full")}"""

_SHOWN = """CASE
            WHEN f.result_id IS NULL THEN coalesce(q.id, f.id)
            WHEN q.result_id IS NULL THEN f.id
            WHEN q.mse IS NULL AND f.mse IS NOT NULL THEN f.id
            WHEN q.mse IS NOT NULL AND f.mse IS NULL THEN q.id
            WHEN q.id > f.id THEN q.id
            ELSE f.id END"""
"""Of which job a checkpoint's numbers are: `store/checkpoints.py` says the same in Python."""

_BEST_JOB = """SELECT b.id, b.checkpoint_id, b.result_id, b.mse, b.order_step FROM jobs AS b
        WHERE b.run_id = runs.id AND b.mse IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM jobs AS k
            WHERE k.checkpoint_id = b.checkpoint_id AND k.id > b.id AND k.state <> 'superseded'
                AND (k.profile = b.profile OR k.mse IS NOT NULL AND NOT EXISTS (
                    SELECT 1 FROM jobs AS o
                    WHERE o.checkpoint_id = k.checkpoint_id AND o.profile = k.profile
                        AND o.id > k.id AND o.state <> 'superseded')))
        ORDER BY b.mse, CASE WHEN b.order_step = -1 THEN 1 ELSE 0 END, b.order_step,
            b.checkpoint_id
        LIMIT 1"""
"""The index on (run_id, mse) gives candidates in order; nearly always the first one is shown.

That it is shown is said once more, without asking for the job that is: for 2,000 runs Postgres
would think that too dear to look up.
"""


def _best(join: str, *, postgres: bool) -> str:
    """Join a run's best job. SQLite has no LATERAL; Postgres would hash all jobs without it."""
    if postgres:
        return f"{join} LATERAL ({_BEST_JOB}) AS best ON true"
    only_id = _BEST_JOB.replace(
        "b.id, b.checkpoint_id, b.result_id, b.mse, b.order_step", "b.id", 1
    )
    return f"{join} jobs AS best ON best.id = ({only_id})"


_MEASURED = """results.grade, results.mse, results.cosine, results.kl, results.top1_agreement,
        results.relative_mse, results.perplexity_ratio, results.hidden_mse, results.residual,
        full_results.overall_status, full_results.avg_score"""

_FULL = "LEFT JOIN results AS full_results ON full_results.id = f.result_id"

_HISTORY = f"""
    SELECT runs.name AS run, runs.path AS run_path, c.step, c.path, c.fingerprint,
        CASE WHEN q.result_id IS NOT NULL AND f.result_id IS NOT NULL
            THEN 'quick+full' ELSE jobs.profile END AS profile,
        jobs.state, jobs.reason, {_MEASURED}, jobs.attempts, c.first_seen_at, results.measured_at,
        results.duration_seconds, c.size_bytes, c.base_model, c.run_id, c.id AS checkpoint_id,
        jobs.id AS job_id, jobs.result_id
    FROM checkpoints AS c
        JOIN runs ON runs.id = c.run_id
        JOIN jobs ON jobs.checkpoint_id = c.id
        LEFT JOIN results ON results.id = jobs.result_id
        {_QUICK_AND_FULL}
        {_FULL}
    WHERE jobs.id = {_SHOWN}
"""
"""Joined by checkpoint as well as by job, so that a time of measuring can be where it starts."""

_BEST = f"""
    SELECT runs.name AS run, runs.path AS run_path, c.step, c.path, c.fingerprint, {_MEASURED},
        c.first_seen_at, results.measured_at, c.size_bytes, c.base_model, runs.id AS run_id,
        c.id AS checkpoint_id, best.id AS job_id, best.result_id
    FROM runs
        <JOIN BEST>
        JOIN checkpoints AS c ON c.id = best.checkpoint_id
        JOIN results ON results.id = best.result_id
        LEFT JOIN jobs AS f ON f.id = {_last_job("full")}
        {_FULL}
"""

_LATEST = """
    SELECT runs.name AS run, runs.path AS run_path, runs.root, runs.status, runs.status_since,
        runs.checkpoint_count AS checkpoints, runs.done_count AS done,
        (SELECT count(DISTINCT k.checkpoint_id) FROM jobs AS k
            WHERE k.run_id = runs.id AND k.state = 'queued')
        + (SELECT count(DISTINCT k.checkpoint_id) FROM jobs AS k
            WHERE k.run_id = runs.id AND k.state = 'leased') AS open_jobs,
        (SELECT count(DISTINCT k.checkpoint_id) FROM jobs AS k
            WHERE k.run_id = runs.id AND k.state = 'failed') AS failed,
        checkpoints.step, checkpoints.path, jobs.state, jobs.profile, results.grade, results.mse,
        results.cosine, results.kl, results.measured_at, best.mse AS best_mse,
        nullif(best.order_step, -1) AS best_step, runs.id AS run_id, jobs.checkpoint_id,
        jobs.id AS job_id, jobs.result_id
    FROM runs
    LEFT JOIN jobs ON jobs.id = runs.status_job_id
    LEFT JOIN checkpoints ON checkpoints.id = jobs.checkpoint_id
    LEFT JOIN results ON results.id = jobs.result_id
    <LEFT JOIN BEST>
"""


def views(*, postgres: bool) -> list[tuple[str, str]]:
    """Give the views by name."""
    best = _BEST.replace("<JOIN BEST>", _best("JOIN", postgres=postgres))
    latest = _LATEST.replace("<LEFT JOIN BEST>", _best("LEFT JOIN", postgres=postgres))
    return [("v_history", _HISTORY), ("v_best", best), ("v_latest", latest)]
