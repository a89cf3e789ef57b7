"""The first tables.

Revision: 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create all tables."""
    _runs()
    _checkpoints()
    _files()
    _results()
    _jobs()
    _status_changes()
    _outbox()
    _workers()
    _status_pointer()


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=True),
        sa.Column("status_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status_job_id", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("path", name="uq_runs_path"),
    )


def _checkpoints() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(length=128), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("base_model", sa.Text(), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_checkpoints_run_id_runs"),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoints"),
        sa.UniqueConstraint("run_id", "fingerprint", name="uq_checkpoints_run_id_fingerprint"),
    )


def _files() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("checkpoint_id", sa.Integer(), nullable=True),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("signature", sa.String(length=128), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state <> 'whole' OR checkpoint_id IS NOT NULL", name=op.f("ck_files_whole_has_content")
        ),
        sa.CheckConstraint(
            "state IN ('settling', 'whole', 'unloadable', 'abandoned', 'deleted')",
            name=op.f("ck_files_state_known"),
        ),
        sa.CheckConstraint(
            "state IN ('whole', 'deleted') OR checkpoint_id IS NULL",
            name=op.f("ck_files_unready_has_no_content"),
        ),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_files_checkpoint_id_checkpoints"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_files_run_id_runs"),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.UniqueConstraint("path", name="uq_files_path"),
    )
    op.create_index("ix_files_checkpoint_id_state", "files", ["checkpoint_id", "state"])
    op.create_index("ix_files_run_id_state", "files", ["run_id", "state"])


def _results() -> None:
    op.create_table(
        "results",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(length=128), nullable=False),
        sa.Column("profile", sa.String(length=32), nullable=False),
        sa.Column("settings_hash", sa.String(length=128), nullable=False),
        sa.Column("base_revision", sa.String(length=255), nullable=False),
        sa.Column("diagnostics_version", sa.Integer(), nullable=False),
        sa.Column("grade", sa.String(length=16), nullable=False),
        sa.Column("mse", sa.Double(), nullable=True),
        sa.Column("cosine", sa.Double(), nullable=True),
        sa.Column("kl", sa.Double(), nullable=True),
        sa.Column("top1_agreement", sa.Double(), nullable=True),
        sa.Column("relative_mse", sa.Double(), nullable=True),
        sa.Column("perplexity_ratio", sa.Double(), nullable=True),
        sa.Column("residual", sa.String(length=16), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("duration_seconds", sa.Double(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_results"),
        sa.UniqueConstraint(
            "fingerprint",
            "profile",
            "settings_hash",
            "base_revision",
            name="uq_results_fingerprint_profile_settings_hash_base_revision",
        ),
    )
    op.create_index("ix_results_measured_at", "results", ["measured_at"])


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("checkpoint_id", sa.Integer(), nullable=False),
        sa.Column("profile", sa.String(length=32), nullable=False),
        sa.Column("settings_hash", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("newest", sa.Boolean(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("order_step", sa.BigInteger(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worker_id", sa.String(length=255), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("attempts_by_cause", sa.JSON(), nullable=False),
        sa.Column("result_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(state = 'done') = (result_id IS NOT NULL)", name=op.f("ck_jobs_done_has_result")
        ),
        sa.CheckConstraint(
            "(state = 'leased') = (worker_id IS NOT NULL)"
            " AND (state = 'leased') = (leased_until IS NOT NULL)",
            name=op.f("ck_jobs_leased_has_worker"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'leased', 'done') OR reason IS NOT NULL",
            name=op.f("ck_jobs_end_has_reason"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'leased', 'done', 'failed', 'deleted', 'unloadable', 'superseded',"
            " 'cancelled')",
            name=op.f("ck_jobs_state_known"),
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_jobs_attempts_counted")),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_jobs_checkpoint_id_checkpoints"
        ),
        sa.ForeignKeyConstraint(["result_id"], ["results.id"], name="fk_jobs_result_id_results"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_jobs_run_id_runs"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint(
            "checkpoint_id",
            "profile",
            "settings_hash",
            name="uq_jobs_checkpoint_id_profile_settings_hash",
        ),
    )
    op.create_index("ix_jobs_claim", "jobs", ["state", "newest", "mtime_ns", "order_step", "id"])
    op.create_index("ix_jobs_run_id_state", "jobs", ["run_id", "state"])
    op.create_index("ix_jobs_updated_at", "jobs", ["updated_at"])


def _status_changes() -> None:
    op.create_table(
        "status_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("old", sa.String(length=16), nullable=True),
        sa.Column("new", sa.String(length=16), nullable=False),
        sa.Column("mse", sa.Double(), nullable=True),
        sa.Column("cosine", sa.Double(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_status_changes_job_id_jobs"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_status_changes_run_id_runs"),
        sa.PrimaryKeyConstraint("id", name="pk_status_changes"),
        sa.UniqueConstraint("job_id", name="uq_status_changes_job_id"),
    )
    op.create_index("ix_status_changes_at", "status_changes", ["at"])
    op.create_index("ix_status_changes_run_id_at", "status_changes", ["run_id", "at"])


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("change_id", sa.Integer(), nullable=False),
        sa.Column("event_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("fingerprint", sa.String(length=128), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'sending') = (claimed_until IS NOT NULL)",
            name=op.f("ck_outbox_sending_is_claimed"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'sending', 'delivered', 'given_up')",
            name=op.f("ck_outbox_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["change_id"], ["status_changes.id"], name="fk_outbox_change_id_status_changes"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_outbox_run_id_runs"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint(
            "run_id",
            "kind",
            "fingerprint",
            "channel",
            name="uq_outbox_run_id_kind_fingerprint_channel",
        ),
    )
    op.create_index("ix_outbox_change_id", "outbox", ["change_id"])
    op.create_index("ix_outbox_state_available_at", "outbox", ["state", "available_at"])


def _workers() -> None:
    op.create_table(
        "workers",
        sa.Column("worker_id", sa.String(length=255), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("base_model", sa.Text(), nullable=True),
        sa.Column("jobs_done", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('starting', 'idle', 'loading', 'busy', 'stopped', 'lost')",
            name=op.f("ck_workers_state_known"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_workers_job_id_jobs"),
        sa.PrimaryKeyConstraint("worker_id", name="pk_workers"),
    )
    op.create_index("ix_workers_seen_at", "workers", ["seen_at"])


def _status_pointer() -> None:
    """Let runs point at jobs, which point at runs: possible only when both are there."""
    with op.batch_alter_table("runs") as batch:
        batch.create_foreign_key("fk_runs_status_job_id_jobs", "jobs", ["status_job_id"], ["id"])
        batch.create_check_constraint(
            op.f("ck_runs_status_has_job"),
            "(status IS NULL) = (status_job_id IS NULL)"
            " AND (status IS NULL) = (status_since IS NULL)",
        )
