"""How far each run has been exported, and the order in which results came.

Revision: 0008, after 0007.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_KNOWN = sa.text("ordinal IS NOT NULL")


def upgrade() -> None:
    """Add the table, and number the results that are there; any order of theirs will do."""
    op.add_column("jobs", sa.Column("ordinal", sa.Integer(), nullable=True))
    op.add_column(
        "runs", sa.Column("last_ordinal", sa.Integer(), nullable=False, server_default="0")
    )
    op.execute("UPDATE jobs SET ordinal = id WHERE state = 'done'")
    op.create_index(
        "ix_jobs_run_id_ordinal",
        "jobs",
        ["run_id", "ordinal"],
        sqlite_where=_KNOWN,
        postgresql_where=_KNOWN,
    )
    op.execute(
        "UPDATE runs SET last_ordinal = coalesce((SELECT max(ordinal) FROM jobs"
        " WHERE jobs.run_id = runs.id AND ordinal IS NOT NULL), 0)"
    )
    op.create_table(
        "exports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(claimed_by IS NULL) = (claimed_until IS NULL)",
            name=op.f("ck_exports_claimed_by_somebody"),
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_exports_run_id_runs"),
        sa.PrimaryKeyConstraint("id", name="pk_exports"),
        sa.UniqueConstraint("target", "run_id", name="uq_exports_target_run_id"),
    )


def downgrade() -> None:
    """Take them away again. SQLite can drop columns since 3.35."""
    op.drop_table("exports")
    op.drop_index("ix_jobs_run_id_ordinal", table_name="jobs")
    op.drop_column("runs", "last_ordinal")
    op.drop_column("jobs", "ordinal")
