"""What the full diagnostic measures, which jobs are urgent, and why a job was asked for.

Revision: 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns to results and jobs; the claim's index begins with the urgency."""
    op.add_column("results", sa.Column("hidden_mse", sa.Double(), nullable=True))
    op.add_column("results", sa.Column("overall_status", sa.String(length=16), nullable=True))
    op.add_column("results", sa.Column("avg_score", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("urgency", sa.Integer(), nullable=False, server_default="1"))
    op.add_column(
        "jobs",
        sa.Column("asked_because", sa.Text(), nullable=False, server_default="new checkpoint"),
    )
    op.drop_index("ix_jobs_claim", table_name="jobs")
    op.create_index(
        "ix_jobs_claim", "jobs", ["state", "urgency", "newest", "mtime_ns", "order_step", "id"]
    )


def downgrade() -> None:
    """Take the columns away again, and what they hold. SQLite can since 3.35, with its checks."""
    op.drop_index("ix_jobs_claim", table_name="jobs")
    op.create_index("ix_jobs_claim", "jobs", ["state", "newest", "mtime_ns", "order_step", "id"])
    for column in ("asked_because", "urgency"):
        op.drop_column("jobs", column)
    for column in ("avg_score", "overall_status", "hidden_mse"):
        op.drop_column("results", column)
