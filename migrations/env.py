"""Alembic's entry: runs the migrations on the connection that nptwatch.store.migrate hands in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context

from nptwatch.store.tables import Base

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def run() -> None:
    """Migrate inside the caller's transaction, so that it is done whole or not at all.

    Raises:
        RuntimeError: called without a connection (`alembic` instead of `nptwatch db upgrade`).
    """
    connection: Connection | None = context.config.attributes.get("connection")
    if connection is None:
        msg = "no connection: use `nptwatch db upgrade`, or nptwatch.store.migrate from Python"
        raise RuntimeError(msg)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite cannot alter a table in place
        compare_type=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
