"""The connection to the database: how it is opened and what a transaction is."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from sqlalchemy import create_engine, event
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from nptwatch.errors import ConfigError, DatabaseError
from nptwatch.filesystem import filesystem_of
from nptwatch.paths import PathMap
from nptwatch.store.faults import UPGRADE, explain, is_read_only
from nptwatch.store.handles import Handles
from nptwatch.store.host_path import translate_by
from nptwatch.store.postgres import (
    Patience,
    connect_arguments,
    is_postgres,
    ping_idle,
    take_turns_to_migrate,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from nptwatch.settings import Settings
    from nptwatch.store.tables import Base

_BEGIN = "nptwatch_begin"
"""Execution option: the statement that opens a transaction; "": none, each stands alone.

The drivers open none by themselves: to switch one between ways to do so costs more than BEGIN.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begins:
    """How an engine's transactions begin.

    Attributes:
        alone: of a few statements that are right however few of them come about.
    """

    writer: str
    reader: str
    alone: str


_ON_SQLITE = _Begins(writer="BEGIN IMMEDIATE", reader="BEGIN", alone="BEGIN IMMEDIATE")
_ON_A_SERVER = _Begins(
    writer="BEGIN ISOLATION LEVEL READ COMMITTED",
    reader="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    alone="",
)


def utc_now() -> datetime:
    """Give the time now, aware and in UTC."""
    return datetime.now(UTC)


class Database:
    """Owns the engine. One per process: an engine must not cross a fork.

    Args:
        url: SQLAlchemy URL; SQLite (a file) or Postgres.
        busy_timeout_seconds: how long another process's lock is waited for.
        statement_timeout_seconds: how long Postgres may take over one statement.
        connect_timeout_seconds: how long Postgres may take to answer.
        application: what its administrator sees in pg_stat_activity.
        paths: what this host calls the database's folders.

    Raises:
        ConfigError: the URL is not usable, the folder cannot be made or written to, or a SQLite
            file would lie on a network file system (where its locks do not hold).
    """

    def __init__(
        self,
        url: str,
        *,
        busy_timeout_seconds: float = 15.0,
        statement_timeout_seconds: float = 60.0,
        connect_timeout_seconds: float = 10.0,
        application: str = "nptwatch",
        paths: PathMap | None = None,
    ) -> None:
        parsed = _parse(url)
        self.safe_url = parsed.render_as_string(hide_password=True)
        self.path = _sqlite_file(parsed)
        self._busy_timeout_ms = int(busy_timeout_seconds * 1000)
        self._patience = Patience(
            connect_seconds=connect_timeout_seconds,
            lock_seconds=busy_timeout_seconds,
            statement_seconds=statement_timeout_seconds,
        )
        self.connect_arguments: dict[str, Any] = {}  # Any: as the driver takes them
        if self.path is None:
            self.connect_arguments = connect_arguments(parsed, self._patience, application)
        self._file_seen: tuple[int, int] | None = None
        if self.path is not None:
            _prepare_folder(self.path.parent, self.path)
        try:
            self.engine: Engine = create_engine(parsed, **self._server_arguments())
        except (SQLAlchemyError, ImportError) as exc:
            msg = f"database {self.safe_url}: its driver cannot be loaded: {exc}"
            raise ConfigError(msg) from exc
        self._handles = Handles(self.engine)
        self.paths = paths or PathMap()
        translate_by(self.engine.dialect, self.paths)
        if self.path is not None:
            event.listen(self.engine, "connect", self._set_up_sqlite)
        else:
            ping_idle(self.engine)
        event.listen(self.engine, "begin", _begin)
        begins = _ON_SQLITE if self.path is not None else _ON_A_SERVER
        self._writer, self._reader, self._alone, self._bare = (
            self.engine.execution_options(**{_BEGIN: begin})
            for begin in (begins.writer, begins.reader, begins.alone, "")
        )

    @classmethod
    def of(cls, settings: Settings, *, application: str = "nptwatch") -> Self:
        """Connect to the database of these settings."""
        return cls(
            settings.database_url,
            busy_timeout_seconds=settings.database.busy_timeout_seconds,
            statement_timeout_seconds=settings.database.statement_timeout_seconds,
            connect_timeout_seconds=settings.database.connect_timeout_seconds,
            application=application,
            paths=settings.paths,
        )

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a write transaction; commits at the end, rolls back on any exception.

        SQLite takes its write lock at once: a transaction that reads first and writes later would
        fail instead of waiting when another process wrote in between.

        Raises:
            DatabaseError: locked, gone, full, read-only, unreachable.
        """
        with self._transaction(self._writer) as connection:
            yield connection

    @contextmanager
    def each_alone(self) -> Iterator[Connection]:
        """On a server make each statement a transaction of its own, else open one for all.

        For what is right however few of the statements come about: a server is spared the way
        there and back that BEGIN and COMMIT cost each.

        Raises:
            DatabaseError: as `begin`.
        """
        with self._transaction(self._alone) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction: one consistent snapshot; waits for no writer on SQLite.

        Raises:
            DatabaseError: gone, damaged, unreachable.
        """
        with self._transaction(self._reader) as connection:
            yield connection

    @contextmanager
    def schema_change(self) -> Iterator[Connection]:
        """Open a write transaction that may rebuild tables, one such at a time.

        SQLite's foreign keys are off in it: batch migrations drop a table and rename its copy,
        which must not cascade. The pragma does nothing inside a transaction, so it goes first, on
        a connection that is then thrown away.

        Raises:
            DatabaseError: as `begin`; or rows break a foreign key afterwards.
        """
        self._check_file()
        try:
            with self._handles.used(), self._writer.connect() as connection:
                if self.path is not None:
                    connection.detach()
                    connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
                with connection.begin():
                    if self.path is None:
                        take_turns_to_migrate(connection, self._patience)
                    yield connection
                    if self.path is not None:
                        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                        if broken:
                            msg = f"database {self.safe_url}: broken foreign keys: {broken[:5]}"
                            raise DatabaseError(msg)
        except SQLAlchemyError as exc:
            raise explain(exc, self.safe_url, self.path) from exc

    @contextmanager
    def no_transaction(self) -> Iterator[Connection]:
        """Give a connection on which each statement stands alone: VACUUM insists on it.

        Raises:
            DatabaseError: as `begin`.
        """
        with self._transaction(self._bare) as alone:
            if self.path is not None:
                yield alone
                return
            alone.exec_driver_sql("SET statement_timeout = 0")
            try:
                yield alone
            finally:
                alone.exec_driver_sql("RESET statement_timeout")

    def create(self) -> None:
        """Create the SQLite file where there is none; a Postgres database must exist."""
        if self.path is not None:
            try:
                self.path.touch(exist_ok=True)
            except OSError as exc:
                msg = f"database {self.safe_url}: cannot create the file: {exc}"
                raise DatabaseError(msg) from exc

    def close(self) -> None:
        """Close all connections; those in use by other threads at the end of their transactions."""
        self._handles.close()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        self._check_file()
        with self._handles.used():
            try:
                with engine.begin() as connection:
                    yield connection
            except SQLAlchemyError as exc:
                if is_read_only(exc):
                    self._handles.close()  # the file may be writable again, they are not
                raise explain(exc, self.safe_url, self.path) from exc

    def _server_arguments(self) -> dict[str, Any]:  # Any: see there
        """Give what create_engine needs for a server."""
        if self.path is not None:
            return {}
        return {
            "isolation_level": "AUTOCOMMIT",  # we say BEGIN ourselves
            "connect_args": self.connect_arguments,
        }

    def _check_file(self) -> None:
        """Notice a deleted or replaced SQLite file: open handles would go on writing to the old."""
        if self.path is None:
            return
        try:
            found = self.path.stat()
        except OSError as exc:
            self._handles.close()
            msg = (
                f"database {self.safe_url}: the file is not there: restore it, or {UPGRADE} ({exc})"
            )
            raise DatabaseError(msg) from exc
        if (found.st_dev, found.st_ino) != self._file_seen:
            self._handles.close()
            self._file_seen = (found.st_dev, found.st_ino)

    def _set_up_sqlite(self, connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {self._busy_timeout_ms}",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()


def insert_into(connection: Connection, table: type[Base]) -> Insert:
    """Give an INSERT that knows ON CONFLICT, which SQLite and Postgres spell alike."""
    if is_postgres(connection):
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return cast("Insert", postgresql_insert(table))
    return insert(table)


def _begin(connection: Connection) -> None:
    if begin := connection.get_execution_options().get(_BEGIN, "BEGIN"):
        connection.exec_driver_sql(begin)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        msg = "database.url is not an SQLAlchemy URL; expected sqlite:////path or postgresql://..."
        raise ConfigError(msg) from exc
    if (
        parsed.drivername == "postgresql"
    ):  # the default driver differs between SQLAlchemy 2.0 and 2.1
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        msg = f"database.url: expected sqlite or postgresql, got {parsed.drivername!r}"
        raise ConfigError(msg)
    return parsed


def _sqlite_file(url: URL) -> Path | None:
    """Give the absolute path of a SQLite database, None for a server."""
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        msg = (
            "database.url: SQLite needs a plain file, e.g. sqlite:////var/lib/nptwatch/nptwatch.db"
        )
        raise ConfigError(msg)
    return Path(url.database).absolute()


def _prepare_folder(folder: Path, file: Path) -> None:
    found = filesystem_of(folder)
    if found is not None and found.network:
        msg = (
            f"database {file} is on a network file system ({found.name}), where SQLite's locks and"
            " shared memory do not hold: put state_dir on a local disk, or use Postgres"
            " (database.url)"
        )
        raise ConfigError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        msg = (
            f"cannot make the database's folder {folder}: {exc}; set state_dir to one you may write"
        )
        raise ConfigError(msg) from exc
    if not file.exists() and not os.access(folder, os.W_OK | os.X_OK):
        msg = f"cannot write to the database's folder {folder}; set state_dir to one you may write"
        raise ConfigError(msg)
