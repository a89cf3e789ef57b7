"""Whether a database is whole: its schema, its file, and rows that must agree. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, inspect, select

from nptwatch.errors import SchemaError
from nptwatch.store import migrate
from nptwatch.store.records import NEVER_BEST
from nptwatch.store.tables import VIEWS, Base, Checkpoint, File, Job, Result, Run, StatusChangeRow
from nptwatch.store.tallies import miscounted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Select
    from sqlalchemy.engine import Connection

    from nptwatch.store.engine import Database

_SHOWN = 5
"""So many faults of a kind are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: a word for it.
        faults: what is wrong, in words; empty: it is right.
        fix: what to do about them.
    """

    check: str
    faults: tuple[str, ...]
    fix: str

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def findings(database: Database) -> Iterator[Finding]:
    """Look at a database, one thing after the other; only the first if the schema is another's.

    A daemon may be at work in it: everything that belongs together is read in one snapshot.

    Raises:
        DatabaseError: it cannot be read.
    """
    schema = _schema(database)
    yield schema
    if not schema.ok:
        return
    with database.read() as connection:
        yield _tables(connection)
        if database.path is not None:
            yield _file(connection)
        yield _books(connection)


def _schema(database: Database) -> Finding:
    try:
        migrate.check(database)
    except SchemaError as error:
        return Finding(check="schema", faults=(str(error),), fix="")
    return Finding(check="schema", faults=(), fix="")


def _tables(connection: Connection) -> Finding:
    """Compare the tables with those that the migrations make, name by name."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"compare_type": True})
    faults = tuple(_named(difference) for difference in compare_metadata(context, Base.metadata))
    views = set(inspect(connection).get_view_names())
    faults += tuple(f"view {name} is missing" for name in VIEWS if name not in views)
    return Finding(
        check="tables",
        faults=faults,
        fix="somebody changed the schema by hand: undo it, or restore a copy",
    )


def _named(difference: Any) -> str:  # noqa: ANN401 - Alembic's tuples, nested for columns
    if isinstance(difference, list):
        return "; ".join(map(_named, difference))
    words = [getattr(part, "name", part) for part in difference if part is not None]
    return " ".join(str(word) for word in words if isinstance(word, str))


def _file(connection: Connection) -> Finding:
    """Let SQLite read its whole file."""
    told = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    faults = [line for line in told if line != "ok"]
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    faults += [f"{row[0]} row {row[1]} points at nothing in {row[2]}" for row in broken]
    return Finding(check="file", faults=tuple(faults), fix="restore the file from a copy")


def _books(connection: Connection) -> Finding:
    """Hold that what is written down twice agrees."""
    last = (
        select(StatusChangeRow.run_id, func.max(StatusChangeRow.id).label("id"))
        .group_by(StatusChangeRow.run_id)
        .subquery()
    )
    questions: tuple[tuple[str, Select[str]], ...] = (
        (
            "{}: its status is not the grade that its newest checkpoint got",
            select(Run.path)
            .outerjoin(Job, Job.id == Run.status_job_id)
            .outerjoin(Result, Result.id == Job.result_id)
            .where(Run.status.is_not(None), Run.status.is_distinct_from(Result.grade)),
        ),
        (
            "{}: its status is not what it last changed to",
            select(Run.path)
            .outerjoin(last, last.c.run_id == Run.id)
            .outerjoin(StatusChangeRow, StatusChangeRow.id == last.c.id)
            .where(Run.status.is_distinct_from(StatusChangeRow.new)),
        ),
        (
            "{}: a whole checkpoint that was never queued",
            select(File.path).where(
                File.state == "whole",
                ~select(Job.id).where(Job.checkpoint_id == File.checkpoint_id).exists(),
            ),
        ),
        (
            "{}: its counts are wrong (`nptwatch db vacuum` makes them right)",
            select(Run.path).where(miscounted()),
        ),
        (
            "{}: a job's MSE is not its result's",
            select(Checkpoint.path)
            .join(Job, Job.checkpoint_id == Checkpoint.id)
            .join(Result, Result.id == Job.result_id)
            .where(
                Job.mse.is_distinct_from(
                    case((Result.grade.not_in(NEVER_BEST), Result.mse), else_=None)
                )
            ),
        ),
    )
    faults = [
        text.format(path)
        for text, query in questions
        for path in connection.scalars(query.limit(_SHOWN))
    ]
    return Finding(
        check="books",
        faults=tuple(faults),
        fix="please report it; `nptwatch rerun PATH` measures a checkpoint again",
    )
