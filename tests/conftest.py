"""Fixtures for all tests: a migrated database and a clock that tests set."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import settings
from postgres import Postgres, postgres_server
from structlog.testing import capture_logs

from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database
from nptwatch.store.history import History
from nptwatch.store.migrate import upgrade
from nptwatch.store.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


# The suite must not turn red by chance: the same examples each time. `make fuzz` draws new ones.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile("fuzz", max_examples=2000, deadline=None)
settings.load_profile("fuzz" if os.environ.get("NPTWATCH_TEST_FUZZ") else "suite")


# Before torch is imported, here and in every process that tests start: on tiny models its threads
# only wait for one another, and several test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what is to run in the background with Ctrl-C ignored, and so are all its children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class FakeClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Give the time now."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """Undo what a command run in this process did to the process's logs."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def logs() -> Iterator[Sequence[Mapping[str, Any]]]:
    """Give the log events of this process, as they come."""
    with capture_logs() as entries:
        yield entries
    structlog.reset_defaults()


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock at a fixed time."""
    return FakeClock()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a migrated SQLite file, to be copied: migrating each time is slow."""
    file: Path = tmp_path_factory.mktemp("store") / "migrated.db"
    database = Database(f"sqlite:///{file}")
    upgrade(database)
    with database.read() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return file


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Give a Postgres server; started when the first test needs it."""
    with postgres_server() as server:
        yield server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `both_engines` on SQLite and on Postgres."""
    if metafunc.definition.get_closest_marker("both_engines") and "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """Name the engine of the test's database."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def database(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path, migrated_file: Path
) -> Iterator[Database]:
    """Give a fresh migrated database: a file in the test's folder, or on a Postgres server."""
    if engine == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        own = request.node.get_closest_marker("changes_schema") is not None
        with server.migrated(shared=not own) as opened:
            yield opened
        return
    file = tmp_path / "nptwatch.db"
    shutil.copy(migrated_file, file)
    opened = Database(f"sqlite:///{file}")
    yield opened
    opened.close()


@pytest.fixture
def catalog(database: Database, clock: FakeClock) -> Catalog:
    """Give what the watcher writes to."""
    return Catalog(database, clock=clock)


@pytest.fixture
def queue(database: Database, clock: FakeClock) -> Queue:
    """Give the queue of the same database."""
    return Queue(database, clock=clock)


@pytest.fixture
def history(database: Database, clock: FakeClock) -> History:
    """Give the history of the same database."""
    return History(database, clock=clock)
