"""Checkpoints that are kept from the trainer's rotation.

Revision: 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ONE_FILE = " AND ".join(
    f"(path IS NULL) = ({column} IS NULL)"
    for column in ("place", "host", "how", "size_bytes", "signature")
)


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "kept",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("checkpoint_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("because", sa.Text(), nullable=False),
        sa.Column("place", sa.String(length=36), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("how", sa.String(length=16), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("signature", sa.String(length=128), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('wanted', 'kept', 'released')", name=op.f("ck_kept_state_known")
        ),
        sa.CheckConstraint(_ONE_FILE, name=op.f("ck_kept_file_is_whole")),
        sa.CheckConstraint(
            "state <> 'kept' OR path IS NOT NULL", name=op.f("ck_kept_kept_has_file")
        ),
        sa.CheckConstraint(
            "state <> 'wanted' OR path IS NULL", name=op.f("ck_kept_wanted_has_no_file")
        ),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_kept_checkpoint_id_checkpoints"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_kept"),
        sa.UniqueConstraint("checkpoint_id", name="uq_kept_checkpoint_id"),
    )
    op.create_index("ix_kept_state", "kept", ["state"])


def downgrade() -> None:
    """Take the table away; the files that it knew of stay where they are."""
    op.drop_index("ix_kept_state", table_name="kept")
    op.drop_table("kept")
