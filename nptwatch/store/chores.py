"""How the daemons' chores went, as each daemon says of its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import delete, or_, select

from nptwatch.store.chore_records import ChoreRecord, lately
from nptwatch.store.engine import insert_into, utc_now
from nptwatch.store.tables import ChoreRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import ColumnElement

    from nptwatch.store.engine import Database
    from nptwatch.store.records import Clock


class Chores:
    """The book of chores. Every method is one transaction.

    Raises (every method):
        DatabaseError: the database cannot be used.
    """

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def lately(self) -> list[ChoreRecord]:
        """List the chores of all daemons that are there, by daemon and name."""
        return self._records(ChoreRow.started_at >= lately(self._clock()))

    def of(self, daemon: str) -> list[ChoreRecord]:
        """List a daemon's chores, however long ago they were done."""
        return self._records(ChoreRow.daemon == daemon)

    def note(self, records: Iterable[ChoreRecord]) -> None:
        """Write down how chores went."""
        with self._database.begin() as connection:
            for record in records:
                values = asdict(record)
                connection.execute(
                    insert_into(connection, ChoreRow)
                    .values(**values)
                    .on_conflict_do_update(index_elements=["daemon", "name"], set_=values)
                )

    def forget(self, daemon: str, names: Collection[str]) -> None:
        """Forget what a daemon does no longer, and daemons that are gone.

        Args:
            names: what it does.
        """
        ended = (ChoreRow.daemon == daemon) & ChoreRow.name.not_in(names)
        gone = ChoreRow.started_at < lately(self._clock())
        with self._database.begin() as connection:
            connection.execute(delete(ChoreRow).where(or_(ended, gone)))

    def _records(self, wanted: ColumnElement[bool]) -> list[ChoreRecord]:
        columns = [getattr(ChoreRow, name) for name in ChoreRecord.__slots__]
        query = select(*columns).where(wanted).order_by(ChoreRow.daemon, ChoreRow.name)
        with self._database.read() as connection:
            return [ChoreRecord(**row) for row in connection.execute(query).mappings()]
