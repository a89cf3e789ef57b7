"""How the daemons' chores went last, and how much memory workers take.

Revision: 0007, after 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table and the column."""
    op.create_table(
        "chores",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("daemon", sa.Text(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_seconds", sa.Double(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(failures > 0) = (failing_since IS NOT NULL)",
            name=op.f("ck_chores_failing_has_beginning"),
        ),
        sa.CheckConstraint(
            "(failed_at IS NULL) = (error IS NULL)", name=op.f("ck_chores_failed_has_error")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_chores"),
        sa.UniqueConstraint("daemon", "name", name="uq_chores_daemon_name"),
    )
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Take both away. SQLite can since 3.35."""
    op.drop_column("workers", "memory_bytes")
    op.drop_table("chores")
