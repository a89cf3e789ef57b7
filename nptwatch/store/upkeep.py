"""What keeps a large database quick: statistics for its planner, counts made anew, space freed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select, text

from nptwatch.store.postgres import lock_runs
from nptwatch.store.tables import Base, Run
from nptwatch.store.tallies import recount

if TYPE_CHECKING:
    from nptwatch.store.engine import Database

_RUNS_AT_ONCE = 100

_ROWS_LOOKED_AT = 1000
"""Of each index, by SQLite's ANALYZE: some ten milliseconds, however large the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vacuumed:
    """What `vacuum` did.

    Attributes:
        before_bytes, after_bytes: size of the database.
    """

    before_bytes: int
    after_bytes: int


class Upkeep:
    """Chores on the whole database.

    Raises (every method):
        DatabaseError: the database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def recount(self) -> int:
        """Make the counts of all runs right; give how many were wrong."""
        with self._database.read() as connection:
            runs = connection.scalars(select(Run.id).order_by(Run.id)).all()
        wrong = 0
        for start in range(0, len(runs), _RUNS_AT_ONCE):
            some = runs[start : start + _RUNS_AT_ONCE]
            with self._database.begin() as connection:
                lock_runs(connection, some)
                wrong += recount(connection, some)
        return wrong

    def analyze(self) -> None:
        """Let the planner know how much there is; a server does so by itself, SQLite does not."""
        if self._database.path is None:
            with self._database.no_transaction() as connection:
                connection.execute(text("ANALYZE"))
            return
        with self._database.begin() as connection:
            connection.execute(text(f"PRAGMA analysis_limit = {_ROWS_LOOKED_AT}"))
            connection.execute(text("ANALYZE"))

    def vacuum(self) -> Vacuumed:
        """Give the space of deleted rows back, and look how much there is.

        SQLite writes its file anew: it needs as much free space again, and nobody else can write
        meanwhile. A server only makes the space its own again, and disturbs nobody.
        """
        before = self._size_bytes()
        with self._database.no_transaction() as connection:
            if self._database.path is None:
                for table in Base.metadata.tables:
                    connection.execute(text(f"VACUUM (ANALYZE) {table}"))
            else:
                connection.execute(text("VACUUM"))
                connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        if self._database.path is not None:
            self.analyze()
        return Vacuumed(before_bytes=before, after_bytes=self._size_bytes())

    def _size_bytes(self) -> int:
        query = "SELECT pg_database_size(current_database())"
        if self._database.path is not None:
            query = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        with self._database.read() as connection:
            return connection.scalar(text(query)) or 0
