"""An event and its messages become two tables; messages can be suppressed.

Revision: 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEPT = "channel, state, attempts, available_at, claimed_until, error, created_at, delivered_at"
"""Columns of a message that both versions have."""


def upgrade() -> None:
    """Take out of the messages what they share; old ones keep their ids for receivers."""
    _set_aside()
    _events()
    _outbox()
    op.execute(
        "INSERT INTO events (event_id, kind, run_id, change_id, subject, payload, late, at)"
        " SELECT event_id, kind, run_id, change_id, fingerprint, payload, false, created_at"
        " FROM outbox_before"
        " WHERE id IN (SELECT min(id) FROM outbox_before GROUP BY event_id) ORDER BY id"
    )
    op.execute(
        f"INSERT INTO outbox (event_row_id, {_KEPT})"
        " SELECT (SELECT id FROM events WHERE events.event_id = outbox_before.event_id),"
        f" {_KEPT} FROM outbox_before ORDER BY id"
    )
    op.drop_table("outbox_before")


def downgrade() -> None:
    """Lose what has no place there: events that no change raised, suppressed messages."""
    _set_aside()
    _outbox_of_0001()
    kept = ", ".join(f"outbox_before.{column}" for column in _KEPT.split(", "))
    op.execute(
        f"INSERT INTO outbox (run_id, change_id, event_id, kind, fingerprint, payload, {_KEPT})"
        " SELECT events.run_id, events.change_id, events.event_id, events.kind, events.subject,"
        f" events.payload, {kept} FROM outbox_before"
        " JOIN events ON events.id = outbox_before.event_row_id"
        " WHERE events.change_id IS NOT NULL AND events.run_id IS NOT NULL"
        " AND outbox_before.state <> 'suppressed' ORDER BY outbox_before.id"
    )
    op.drop_table("outbox_before")
    op.drop_table("events")


def _set_aside() -> None:
    """Keep the rows without constraints, whose names the new table needs."""
    op.execute("CREATE TABLE outbox_before AS SELECT * FROM outbox")
    op.drop_table("outbox")


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("event_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("change_id", sa.Integer(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("acked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acked_by", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(acked_at IS NULL) = (acked_by IS NULL)", name=op.f("ck_events_acked_by_somebody")
        ),
        sa.ForeignKeyConstraint(
            ["change_id"], ["status_changes.id"], name="fk_events_change_id_status_changes"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_events_run_id_runs"),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.UniqueConstraint("event_id", name="uq_events_event_id"),
    )
    op.create_index("ix_events_run_id_kind", "events", ["run_id", "kind"])
    op.create_index("ix_events_change_id", "events", ["change_id"])
    op.create_index("ix_events_at", "events", ["at"])


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("event_row_id", sa.Integer(), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        *_progress(),
        _is_claimed(),
        sa.CheckConstraint(
            "state IN ('pending', 'sending', 'delivered', 'given_up', 'suppressed')",
            name=op.f("ck_outbox_state_known"),
        ),
        sa.CheckConstraint(
            "state <> 'suppressed' OR error IS NOT NULL",
            name=op.f("ck_outbox_suppressed_has_reason"),
        ),
        sa.ForeignKeyConstraint(
            ["event_row_id"], ["events.id"], name="fk_outbox_event_row_id_events"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("event_row_id", "channel", name="uq_outbox_event_row_id_channel"),
    )
    op.create_index("ix_outbox_state_available_at", "outbox", ["state", "available_at"])


def _outbox_of_0001() -> None:
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
        *_progress(),
        _is_claimed(),
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


def _progress() -> list[sa.Column[object]]:
    return [
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
    ]


def _is_claimed() -> sa.CheckConstraint:
    return sa.CheckConstraint(
        "(state = 'sending') = (claimed_until IS NOT NULL)",
        name=op.f("ck_outbox_sending_is_claimed"),
    )
