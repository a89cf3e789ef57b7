"""What the database does for a question: which statements it gets and how it finds their rows."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection

    from nptwatch.store.engine import Database

LARGE = frozenset({"checkpoints", "files", "jobs", "results"})
"""Tables that grow with every checkpoint."""

OF_WAITING_JOBS = {"ix_jobs_claim_base"}
"""Indexes of queued jobs alone: as long as the queue, not as the history."""

_MAY_BE_SCANNED = re.compile(
    r"runs|workers|kept|outbox|events|status_changes|changes|anon_\d+|CONSTANT|\(.*"
)
"""On SQLite, which gives aliases: few rows, or read backwards as far as is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement as the driver got it."""

    sql: str
    parameters: Any


@contextmanager
def listening(database: Database) -> Iterator[list[Statement]]:
    """Collect the statements that go to the database."""
    heard: list[Statement] = []

    def hear(
        _c: object, _cursor: object, sql: str, parameters: Any, _x: object, _m: object
    ) -> None:
        if sql.lstrip().upper().startswith(("SELECT", "UPDATE", "WITH", "DELETE")):
            heard.append(Statement(sql=sql, parameters=parameters))

    event.listen(database.engine, "before_cursor_execute", hear)
    yield heard
    event.remove(database.engine, "before_cursor_execute", hear)


def scans(database: Database, statement: Statement, *, small: bool) -> list[str]:
    """Give where a large table is read from end to end.

    Args:
        small: the tables are too small for a server to take an index of its own accord.
    """
    if database.path is not None:
        return [
            line
            for line in _sqlite_plan(database, statement)
            if line.startswith("SCAN ")
            and not _MAY_BE_SCANNED.fullmatch(line.split()[1])
            and line.split()[-1] not in OF_WAITING_JOBS
        ]
    return list(_full_scans(_postgres_plan(database, statement, small=small)))


def plan(database: Database, statement: Statement, *, small: bool = False) -> list[str]:
    """Give a plan for people, one step a line."""
    if database.path is not None:
        return _sqlite_plan(database, statement)
    with database.begin() as connection:
        _only_indexes(connection, small=small)
        told = connection.exec_driver_sql(f"EXPLAIN {statement.sql}", statement.parameters)
        return [row[0] for row in told]


def _sqlite_plan(database: Database, statement: Statement) -> list[str]:
    with database.read() as connection:
        sql = f"EXPLAIN QUERY PLAN {statement.sql}"
        return [row[3] for row in connection.exec_driver_sql(sql, statement.parameters)]


def _postgres_plan(database: Database, statement: Statement, *, small: bool) -> dict[str, Any]:
    with database.begin() as connection:
        _only_indexes(connection, small=small)
        sql = f"EXPLAIN (FORMAT JSON) {statement.sql}"
        told = connection.exec_driver_sql(sql, statement.parameters).scalar_one()
        root: dict[str, Any] = told[0]["Plan"]
        return root


def _only_indexes(connection: Connection, *, small: bool) -> None:
    """Have a server take the way that it takes through large tables."""
    for way in ("seqscan", "hashjoin", "mergejoin") if small else ():
        connection.execute(text(f"SET LOCAL enable_{way} = off"))


def _full_scans(node: dict[str, Any]) -> Iterator[str]:
    """Walk a plan: a scan of a large table without a condition on an index reads all of it."""
    table = node.get("Relation Name")
    kind = node["Node Type"]
    ordered = kind.startswith("Index") and "Index Cond" not in node
    waiting = node.get("Index Name") in OF_WAITING_JOBS
    if table in LARGE and not waiting and (kind.endswith("Seq Scan") or ordered):
        yield f"{kind} on {table} {node.get('Index Name', '')}".strip()
    for child in node.get("Plans", []):
        yield from _full_scans(child)
