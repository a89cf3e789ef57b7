"""A whole database moved into another one, row by row, and read back: SQLite and Postgres alike.

While it goes on the target's revision says that it is a copy of this source (`migrate.COPYING`), so
that no daemon takes half a history for a whole one, and the same copy can be gone on with.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, bindparam, delete, func, insert, select, text, update

from nptwatch.errors import ConfigError, DatabaseError
from nptwatch.store import migrate
from nptwatch.store.postgres import is_postgres
from nptwatch.store.tables import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection

    from nptwatch.store.engine import Database

BATCH_ROWS = 500

_STATUS = ("status", "status_job_id", "status_since")
"""Of runs: points at jobs, which point at runs, so it is written when both are there."""

Values = dict[str, Any]  # Any: a row's columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy did.

    Attributes:
        rows: in the target now, by table; each was read back and compared.
        before: of these, copied by an earlier, interrupted try.
    """

    rows: dict[str, int]
    before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One database to be copied into another.

    Args:
        source: at this version's schema; only read.
        target: migrated and empty, or the same copy, interrupted.
        progress: told the step ("copy" or "compare"), the table, and rows done and in all.
        batch_rows: copied in one transaction; reports of the full diagnostic are some 20 kB each.
    """

    source: Database
    target: Database
    progress: Callable[[str, str, int, int], None] = lambda *_: None
    batch_rows: int = BATCH_ROWS

    def run(self, *, restart: bool = False) -> Copied:
        """Copy what is not there yet, compare everything, and open the target for use.

        Args:
            restart: empty an interrupted copy first, of whatever source.

        Raises:
            SchemaError: the source has another schema, or the target a newer one.
            ConfigError: the target has rows of its own, or is a copy of another source.
            DatabaseError: one of them cannot be used, or they differ: names the first difference.
        """
        migrate.check(self.source)
        before = self._begin(restart=restart)
        tables = Base.metadata.sorted_tables
        rows = {table.name: self._count(self.source, table) for table in tables}
        for table in tables:
            self._copy(table, rows[table.name])
        self._copy_statuses()
        for table in tables:
            self._compare(table, rows[table.name])
        self._end()
        return Copied(rows=rows, before=before)

    @property
    def _mark(self) -> str:
        """Give the revision of an unfinished copy of this source."""
        name = self.source.engine.url.render_as_string(hide_password=True)
        return migrate.COPYING + hashlib.sha256(name.encode()).hexdigest()[:16]

    def _begin(self, *, restart: bool) -> int:
        """Mark the target as a copy; give how many rows it has."""
        found = migrate.current(self.target)
        if found is None:
            migrate.upgrade(self.target)
        elif not found.startswith(migrate.COPYING):
            migrate.check(self.target)
        elif found != self._mark and not restart:
            raise ConfigError(
                f"{self.target.safe_url} is an unfinished copy of another database than"
                f" {self.source.safe_url}: name that one, or say --restart to empty it"
            )
        tables = Base.metadata.sorted_tables
        with self.target.begin() as connection:
            is_copy = found is not None and found.startswith(migrate.COPYING)
            if restart and is_copy:
                connection.execute(update(Base.metadata.tables["runs"]).values(_nothing()))
                for table in reversed(tables):
                    connection.execute(delete(table))
            held = sum(_count(connection, table) for table in tables)
            if held and not is_copy:
                raise ConfigError(
                    f"{self.target.safe_url} holds a history of its own: copy into an empty one"
                )
            _set_revision(connection, self._mark)
        return held

    def _copy(self, table: Table, total: int) -> None:
        """Add the rows after the last one that is there."""
        key = _key(table)
        if key is None:  # workers: few, and no number says which are there
            with self.target.begin() as connection:
                connection.execute(delete(table))
        last = None if key is None else self._last(key)
        done = self._count(self.target, table)
        for rows in self._batches(self.source, table, after=last):
            values = [_stored(row) for row in rows]
            if table.name == "runs":
                values = [row | _nothing() for row in values]
            with self.target.begin() as connection:
                connection.execute(insert(table), values)
            done += len(rows)
            self.progress("copy", table.name, done, total)

    def _copy_statuses(self) -> None:
        """Let the runs point at the jobs that gave them their status."""
        runs = Base.metadata.tables["runs"]
        statement = (
            update(runs)
            .where(runs.c.id == bindparam("this"))
            .values({name: bindparam(f"new_{name}") for name in _STATUS})
        )
        for rows in self._batches(self.source, runs):
            with self.target.begin() as connection:
                connection.execute(
                    statement,
                    [
                        {"this": row["id"], **{f"new_{name}": row[name] for name in _STATUS}}
                        for row in rows
                    ],
                )

    def _compare(self, table: Table, total: int) -> None:
        """Hold that both sides have the same rows.

        Raises:
            DatabaseError: they do not; names the first one and its column.
        """
        if _key(table) is None:
            ours, theirs = (
                sorted(
                    (_stored(row) for rows in self._batches(side, table) for row in rows), key=str
                )
                for side in (self.source, self.target)
            )
            self._hold_equal(table, ours, theirs)
            return
        done = 0
        last: int | None = None
        while True:
            ours = [_stored(row) for row in self._batch(self.source, table, last)]
            theirs = self._batch(self.target, table, last)
            self._hold_equal(table, ours, theirs)
            if not ours:
                return
            last = ours[-1]["id"]
            done += len(ours)
            self.progress("compare", table.name, done, total)

    def _hold_equal(self, table: Table, ours: Sequence[Values], theirs: Sequence[Values]) -> None:
        for number in range(max(len(ours), len(theirs))):
            mine = ours[number] if number < len(ours) else {}
            other = theirs[number] if number < len(theirs) else {}
            wrong = [name for name in mine | other if mine.get(name) != other.get(name)]
            if wrong:
                key = next(iter(table.primary_key)).name
                raise DatabaseError(
                    f"{table.name} {(mine or other)[key]}: {', '.join(wrong)} differ between"
                    f" {self.source.safe_url} and {self.target.safe_url}; if the source was in"
                    " use meanwhile stop it, then copy again with --restart"
                )

    def _end(self) -> None:
        """Let ids go on where the source's ended, and say that the copy is whole."""
        with self.target.begin() as connection:
            if is_postgres(connection):
                for table in Base.metadata.sorted_tables:
                    if _key(table) is not None:
                        connection.execute(
                            text(
                                f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'),"  # noqa: S608 - our own names
                                f" (SELECT max(id) FROM {table.name}))"
                            )
                        )
            _set_revision(connection, migrate.head())

    def _batches(
        self, side: Database, table: Table, after: int | None = None
    ) -> Iterator[list[Values]]:
        while rows := self._batch(side, table, after):
            yield rows
            if _key(table) is None:
                return
            after = rows[-1]["id"]

    def _batch(self, side: Database, table: Table, after: int | None) -> list[Values]:
        """Read the rows after a key, in its order; all of a table that has no number."""
        key = _key(table)
        query = select(table)
        if key is not None:
            query = query.order_by(key).limit(self.batch_rows)
            if after is not None:
                query = query.where(key > after)
        with side.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _last(self, key: ColumnElement[int]) -> int | None:
        with self.target.read() as connection:
            return connection.scalar(select(func.max(key)))

    def _count(self, side: Database, table: Table) -> int:
        with side.read() as connection:
            return _count(connection, table)


def _key(table: Table) -> ColumnElement[int] | None:
    """Give the number that a table's rows are read by; None: it has none."""
    return table.c.get("id")


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _nothing() -> Values:
    return dict.fromkeys(_STATUS)


def _stored(row: Values) -> Values:
    """Give a row as the other side has it: Postgres has no NUL in texts."""
    return {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
        for name, value in row.items()
    }


def _set_revision(connection: Connection, revision: str) -> None:
    connection.execute(
        text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision}
    )
