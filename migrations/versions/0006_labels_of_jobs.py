"""What a job needs of the worker that takes it, and what a worker offers.

Revision: 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the labels; open jobs are of the base that their checkpoint names."""
    op.add_column("checkpoints", sa.Column("min_gpu_mib", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("base_model", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("min_gpu_mib", sa.Integer(), nullable=True))
    op.add_column("workers", sa.Column("offer", sa.JSON(), nullable=False, server_default="{}"))
    op.execute(
        "UPDATE jobs SET base_model ="
        " (SELECT base_model FROM checkpoints WHERE checkpoints.id = jobs.checkpoint_id)"
        " WHERE state <> 'done'"
    )
    op.create_index(
        "ix_jobs_claim_base",
        "jobs",
        ["base_model", "urgency", "newest", "mtime_ns", "order_step", "id"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )


def downgrade() -> None:
    """Take the columns away again, and what they hold. SQLite can since 3.35."""
    op.drop_index("ix_jobs_claim_base", table_name="jobs")
    op.drop_column("workers", "offer")
    for column in ("min_gpu_mib", "base_model"):
        op.drop_column("jobs", column)
    op.drop_column("checkpoints", "min_gpu_mib")
