"""What is particular to Postgres: how it is connected to, and which locks are taken first."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, func, select, text
from sqlalchemy.exc import InvalidatePoolError

from nptwatch.store.tables import Run

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Select
    from sqlalchemy.engine import URL, Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

CHANNEL = "nptwatch_jobs"
"""What workers listen to: something was queued."""

IDLE_SECONDS = 1.0
"""A connection that was used so lately is taken to be good."""

_MIGRATING = 0x6E7074  # "npt"
"""Key of the advisory lock that upgrades take turns by."""

_KEEPALIVES = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""A server whose machine or network is gone is noticed within a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        connect_seconds: for a connection.
        lock_seconds: for a lock that another transaction holds.
        statement_seconds: for any statement, and for the next one of an open transaction, so that
            a process that was stopped in the middle of one does not hold its locks for ever.
    """

    connect_seconds: float
    lock_seconds: float
    statement_seconds: float


def connect_arguments(url: URL, patience: Patience, application: str) -> dict[str, Any]:
    """Give psycopg's arguments; what the URL itself says is stronger."""
    statement_ms = _ms(patience.statement_seconds)
    options = (
        f"-c statement_timeout={statement_ms} -c lock_timeout={_ms(patience.lock_seconds)}"
        f" -c idle_in_transaction_session_timeout={statement_ms}"
        " -c jit=off"  # our questions are short: compiling one took longer than answering it
    )
    given = url.query.get("options", "")
    wanted: dict[str, Any] = {  # Any: as psycopg takes them
        "connect_timeout": max(1, round(patience.connect_seconds)),
        "application_name": application,
        **_KEEPALIVES,
    }
    wanted = {key: value for key, value in wanted.items() if key not in url.query}
    return {**wanted, "options": f"{options} {given if isinstance(given, str) else ''}".strip()}


def ping_idle(engine: Engine) -> None:
    """Try a connection before it is used again after a pause; one in steady use costs no ping.

    A server that was restarted meanwhile is so found out before anything is lost; within
    `IDLE_SECONDS` a transaction may fail, as any may when a server goes away.
    """

    @event.listens_for(engine, "checkin")
    def _left(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["left_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _taken(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        left_at = record.info.get("left_at")
        if left_at is None or time.monotonic() - left_at < IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error


def is_postgres(connection: Connection) -> bool:
    """Whether the connection leads to a Postgres server."""
    return connection.dialect.name == "postgresql"


def lock_runs(connection: Connection, runs: Collection[int] | Select[int]) -> None:
    """Have runs to oneself, in the order of their ids.

    Whoever changes several jobs of a run, or a job and its run, does this first: watchers, workers
    and reapers that took their rows in orders of their own would wait for each other. Claims and
    heartbeats touch one row and need not. SQLite has one writer at a time.
    """
    if is_postgres(connection):
        locked = select(Run.id).where(Run.id.in_(runs)).order_by(Run.id)
        connection.execute(locked.with_for_update(key_share=True)).all()


def tell_workers(connection: Connection) -> None:
    """Wake the workers that listen, on any host, when this transaction is committed."""
    if is_postgres(connection):
        connection.execute(select(func.pg_notify(CHANNEL, "")))


def take_turns_to_migrate(connection: Connection, patience: Patience) -> None:
    """Wait for other upgrades; then no statement is too slow, but one that waits for a lock is."""
    for statement in (
        "SET LOCAL statement_timeout = 0",
        "SET LOCAL lock_timeout = 0",
        f"SELECT pg_advisory_xact_lock({_MIGRATING})",
        f"SET LOCAL lock_timeout = {_ms(patience.lock_seconds)}",
    ):
        connection.execute(text(statement))


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
