"""A real Postgres for the tests: the one that NPTWATCH_TEST_POSTGRES_URL names, or one of their own.

Whoever cannot have either gets an error, not a skip: what runs on a server must be tested on one.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from postgres_keeper import FAULT_WORD
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

from nptwatch.store.engine import Database
from nptwatch.store.migrate import head, upgrade
from nptwatch.store.tables import Base

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

KEEPER = Path(__file__).with_name("postgres_keeper.py")
ANSWER_SECONDS = 120.0

_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
"""Processes that a test killed may have left something running."""


class OwnServer:
    """A server that runs while this process holds its life line; a context manager."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, str(KEEPER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C ends the tests, and they the server
        )
        self.url = self._read()

    def __enter__(self) -> Self:
        """Give the running server."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it and wait until its files are gone."""
        self._keeper.communicate(timeout=ANSWER_SECONDS)

    def stop(self) -> None:
        """End it as a crash would."""
        self._tell("stop")

    def start(self) -> None:
        """Start it again."""
        self._tell("start")

    def _tell(self, word: str) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{word}\n")
        self._keeper.stdin.flush()
        answer = self._read()
        assert answer == "ok"

    def _read(self) -> str:
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline().strip()
        if not line or line.startswith(FAULT_WORD):
            self._keeper.communicate(timeout=ANSWER_SECONDS)
            raise RuntimeError(line.removeprefix(FAULT_WORD) or "the Postgres keeper ended")
        return line


class Postgres:
    """Databases on one server, dropped at the end; a context manager.

    Args:
        url: of a database on the server whose user may create others.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._admin = create_engine(
            self._url, isolation_level="AUTOCOMMIT", pool_size=1, pool_pre_ping=True
        )
        self._made: list[str] = []
        self._shared: Database | None = None

    def __enter__(self) -> Self:
        """Connect."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop what was made."""
        if self._shared is not None:
            self._shared.close()
        with self._admin.connect() as connection:
            for name in self._made:
                connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        self._admin.dispose()

    def new(self) -> str:
        """Create an empty database; give its URL."""
        name = f"nptwatch_test_{secrets.token_hex(6)}"
        with self._admin.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE template0'))
        self._made.append(name)
        return _text(self._url.set(database=name))

    @contextmanager
    def migrated(self, *, shared: bool = True) -> Iterator[Database]:
        """Give a migrated, empty database.

        Args:
            shared: the session's, emptied, which is faster; what changes its tables needs its own.
        """
        if not shared:
            own = Database(self.new())
            upgrade(own)
            yield own
            own.close()
            return
        if self._shared is None:
            self._shared = Database(self.new())
            upgrade(self._shared)
        self.empty(self._shared)
        opened = Database(_text(self._shared.engine.url))
        yield opened
        opened.close()

    def empty(self, database: Database) -> None:
        """Make a migrated database as new: no rows, ids from 1, nobody else at work in it."""
        database.close()
        with self._admin.connect() as connection:
            connection.execute(text(_OTHERS), {"name": database.engine.url.database})
        tables = ", ".join(Base.metadata.tables)
        with database.begin() as connection:
            connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
            connection.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": head()})


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Give the server of this test session."""
    given = os.environ.get("NPTWATCH_TEST_POSTGRES_URL")
    if given:
        with Postgres(given) as postgres:
            yield postgres
        return
    with OwnServer() as own, Postgres(own.url) as postgres:
        yield postgres


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
