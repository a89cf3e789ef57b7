"""How the database is opened, and what is said when it cannot be used."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import OperationalError
from stocking import QUICK, whole

from nptwatch import filesystem
from nptwatch.errors import ConfigError, DatabaseError, SchemaError
from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database, utc_now
from nptwatch.store.faults import explain
from nptwatch.store.queue import Queue
from nptwatch.store.tables import Run

if TYPE_CHECKING:
    from conftest import FakeClock


def fill(catalog: Catalog) -> None:
    """Queue more than a few pages hold."""
    for step in range(500):
        catalog.admit(whole(step=1000 + step), QUICK)


def pragma(database: Database, name: str) -> object:
    """Ask SQLite for a setting."""
    with database.read() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_sqlite_is_set_up_at_connect(database: Database) -> None:
    """WAL, foreign keys, normal syncing and the busy time-out hold on each connection."""
    assert pragma(database, "journal_mode") == "wal"
    assert pragma(database, "foreign_keys") == 1
    assert pragma(database, "synchronous") == 1
    assert pragma(database, "busy_timeout") == 15_000


def test_times_come_back_aware(database: Database) -> None:
    """Any zone goes in, UTC comes out; a naive time is refused."""
    offset = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    with database.begin() as connection:
        connection.execute(insert(Run).values(path="/p", name="p", root="/", created_at=offset))
        stored = connection.scalar(select(Run.created_at))
    assert stored == offset
    assert stored is not None
    assert stored.tzinfo is UTC
    with pytest.raises(DatabaseError, match="naive datetime"), database.begin() as connection:
        connection.execute(
            insert(Run).values(
                path="/q", name="q", root="/", created_at=offset.replace(tzinfo=None)
            )
        )


def test_now_is_aware() -> None:
    """The default clock fits the store."""
    assert utc_now().utcoffset() == timedelta(0)


def test_missing_folder_is_made(tmp_path: Path) -> None:
    """The state folder need not exist."""
    Database(f"sqlite:///{tmp_path}/deep/er/nptwatch.db").close()
    assert (tmp_path / "deep" / "er").is_dir()


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """The message names the folder and the setting."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/state.*state_dir"):
        Database(f"sqlite:///{tmp_path}/file/state/nptwatch.db")


@pytest.mark.parametrize(
    "url",
    ["nonsense", "sqlite://", "sqlite:///:memory:", "mysql://host/db", "postgresql+none://h/d"],
)
def test_unusable_urls_are_refused(url: str) -> None:
    """Only files on SQLite, and Postgres."""
    with pytest.raises(ConfigError, match="database"):
        Database(url)


def test_password_is_masked() -> None:
    """No message shows it, not even that of a missing driver."""
    try:
        text = Database("postgresql://me:secret@nowhere/db").safe_url
    except ConfigError as exc:
        text = str(exc)
    assert "secret" not in text
    assert "postgresql+psycopg://me:***@nowhere/db" in text


@pytest.mark.parametrize(
    ("magic", "name"),
    [(0x6969, "nfs"), (0x0BD00BD0, "lustre"), (0xFF534D42, "cifs"), (0x65735546, "fuse")],
)
def test_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, magic: int, name: str
) -> None:
    """SQLite's locks do not hold there: refused with the reason and the way out."""
    Database(f"sqlite:///{tmp_path}/nptwatch.db").close()
    # no network mount to be had in a test: have statfs say so
    monkeypatch.setattr(filesystem, "statfs_kind", lambda _: magic)
    with pytest.raises(ConfigError, match=rf"network file system \({name}\), .*locks.*Postgres"):
        Database(f"sqlite:///{tmp_path}/nptwatch.db")


def test_locked_database_says_so(database: Database, clock: FakeClock) -> None:
    """After the busy time-out the message names the file, the cause and the setting."""
    impatient = Database(f"sqlite:///{database.path}", busy_timeout_seconds=0.05)
    with (
        database.begin(),
        pytest.raises(DatabaseError, match=r"nptwatch\.db.*busy_timeout_seconds") as caught,
    ):
        Catalog(impatient, clock=clock).admit(whole(), QUICK)
    assert caught.value.retryable
    impatient.close()


def test_readers_do_not_wait_for_a_writer(database: Database, clock: FakeClock) -> None:
    """`nptwatch status` answers while a worker writes."""
    impatient = Database(f"sqlite:///{database.path}", busy_timeout_seconds=0.05)
    with database.begin() as connection:
        connection.execute(insert(Run).values(path="/p", name="p", root="/", created_at=clock()))
        assert Queue(impatient, clock=clock).oldest_queued_at() is None
    impatient.close()


def test_deleted_file_is_noticed(database: Database, clock: FakeClock) -> None:
    """An open handle would go on writing into nothing: an error instead, no new empty file."""
    catalog = Catalog(database, clock=clock)
    catalog.admit(whole(), QUICK)
    assert database.path is not None
    for name in ("nptwatch.db", "nptwatch.db-wal", "nptwatch.db-shm"):
        (database.path.parent / name).unlink(missing_ok=True)
    with pytest.raises(DatabaseError, match=r"file is not there.*nptwatch db upgrade"):
        catalog.admit(whole(step=2), QUICK)
    assert not database.path.exists()


def test_restored_file_is_used(database: Database, clock: FakeClock, migrated_file: Path) -> None:
    """After a copy was put in its place the daemon goes on with that one."""
    catalog, queue = Catalog(database, clock=clock), Queue(database, clock=clock)
    catalog.admit(whole(), QUICK)
    assert database.path is not None
    fresh = database.path.with_name("restored.db")
    fresh.write_bytes(migrated_file.read_bytes())
    for name in ("nptwatch.db-wal", "nptwatch.db-shm"):
        (database.path.parent / name).unlink(missing_ok=True)
    fresh.replace(database.path)
    assert queue.oldest_queued_at() is None
    catalog.admit(whole(), QUICK)
    assert queue.oldest_queued_at() == clock()


def test_garbage_file_says_so(tmp_path: Path) -> None:
    """A file that is no database is not overwritten."""
    file = tmp_path / "nptwatch.db"
    file.write_bytes(b"garbage " * 1000)
    garbage = Database(f"sqlite:///{file}")
    with pytest.raises(DatabaseError, match="no SQLite database"), garbage.read():
        pass
    garbage.close()


@pytest.mark.parametrize(
    ("text", "error", "advice"),
    [
        ("database or disk is full", DatabaseError, "free some space"),
        ("attempt to write a readonly database", DatabaseError, "write permission"),
        ("unable to open database file", DatabaseError, "folder exists"),
        ("disk I/O error", DatabaseError, "check the disk"),
        ("no such table: jobs", SchemaError, "nptwatch db upgrade"),
        ("no such column: jobs.x", SchemaError, "nptwatch db upgrade"),
        ("something else", DatabaseError, "something else"),
    ],
)
def test_errors_say_what_to_do(text: str, error: type[DatabaseError], advice: str) -> None:
    """Each known fault has its advice; the database's own words are kept."""
    foreign = OperationalError("SELECT secret", {}, sqlite3.OperationalError(text))
    ours = explain(foreign, "sqlite:///x.db")
    assert type(ours) is error
    assert advice in str(ours)
    assert "sqlite:///x.db" in str(ours)
    assert text in str(ours)
    assert "SELECT" not in str(ours)


def test_full_disk_loses_nothing(database: Database, clock: FakeClock) -> None:
    """When no page can be added the call fails as a whole; with room again it goes through."""
    catalog, queue = Catalog(database, clock=clock), Queue(database, clock=clock)
    catalog.admit(whole(), QUICK)
    pages = pragma(database, "page_count")
    pragma(database, f"max_page_count = {pages}")
    with pytest.raises(DatabaseError, match="free some space"):
        fill(catalog)
    pragma(database, "max_page_count = 1073741823")
    queued = sum(queue.depth().values())
    assert catalog.admit(whole(step=5000), QUICK) == "queued"
    assert sum(queue.depth().values()) == queued + 1


def test_what_is_in_use_at_a_close_is_closed_after_it(database: Database) -> None:
    """No connection is left that would keep the file as it was, and none is closed under its user."""
    with database.read() as connection:
        database.close()
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        with database.read():  # its own thread does not wait for itself
            assert open_handles(database)
    assert open_handles(database) == []


def test_connections_are_closed_under_nobody(database: Database) -> None:
    """Threads that use the database notice nothing of others that close it all the time."""
    errors: list[BaseException] = []
    done = threading.Event()

    def use() -> None:
        try:
            while not done.is_set():
                with database.begin() as connection:
                    connection.exec_driver_sql("UPDATE runs SET name = name")
                with database.read() as connection:
                    connection.exec_driver_sql("SELECT count(*) FROM runs").scalar()
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            errors.append(error)

    threads = [threading.Thread(target=use, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        database.close()
        with database.read():
            pass
    done.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert errors == []


def open_handles(database: Database) -> list[str]:
    """Give the database's files that this process has open."""
    found = []
    for link in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):  # the listing's own
            found.append(str(link.readlink()))
    return [file for file in found if file.startswith(str(database.path))]


@pytest.mark.parametrize(
    "module", ["nptwatch.store", "nptwatch.store.history", "nptwatch.store.queue"]
)
def test_reading_the_store_imports_no_alembic(module: str) -> None:
    """`nptwatch status` must start fast: neither alembic nor torch comes with the store."""
    code = f"import sys, {module}; print({{'alembic', 'torch', 'mako'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_store_package_is_light() -> None:
    """Importing the package alone loads not even SQLAlchemy."""
    code = "import sys, nptwatch.store; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
