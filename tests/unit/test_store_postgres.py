"""What only a server can do wrong, and how connections to it are set up."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import DBAPIError
from stocking import QUICK, alert_good, measured, whole

from nptwatch.errors import ConfigError, DatabaseError
from nptwatch.store import postgres as postgres_module
from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database, utc_now
from nptwatch.store.history import History
from nptwatch.store.queue import Queue
from nptwatch.store.records import JobState
from nptwatch.store.tables import MAX_ID, Job, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postgres import Postgres


@pytest.fixture
def server(postgres: Postgres) -> Iterator[Database]:
    """Give an empty migrated database on the server."""
    with postgres.migrated() as database:
        yield database


@pytest.fixture
def again(server: Database) -> Iterator[Callable[..., Database]]:
    """Connect to the same database with other arguments."""
    opened: list[Database] = []

    def connect(more: str = "", **arguments: float | str) -> Database:
        opened.append(Database(url_of(server) + more, **arguments))  # type: ignore[arg-type]
        return opened[-1]

    yield connect
    for database in opened:
        database.close()


def url_of(database: Database) -> str:
    """Give a database's URL, password included."""
    return database.engine.url.render_as_string(hide_password=False)


def shown(database: Database, name: str) -> object:
    """Ask the server for a setting of this connection."""
    with database.begin() as connection:
        return connection.scalar(text(f"SHOW {name}"))


def test_a_connection_is_set_up(again: Callable[..., Database]) -> None:
    """Time-outs and the name that administrators see are those asked for."""
    database = again(
        busy_timeout_seconds=3, statement_timeout_seconds=7, application="nptwatch worker w1"
    )
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    assert [shown(database, name) for name in names] == ["3s", "7s", "7s"]
    assert shown(database, "application_name") == "nptwatch worker w1"
    assert shown(database, "transaction_isolation") == "read committed"


def test_the_urls_own_options_are_stronger(again: Callable[..., Database]) -> None:
    """Whoever writes them into the URL means them; the others stay."""
    database = again("&application_name=mine&options=-c%20statement_timeout%3D1234")
    assert shown(database, "application_name") == "mine"
    assert shown(database, "statement_timeout") == "1234ms"
    assert shown(database, "lock_timeout") == "15s"


def test_a_read_is_one_snapshot_that_cannot_write(server: Database) -> None:
    """What is committed meanwhile is not seen; a write is refused."""
    with server.read() as connection:
        before = connection.scalars(select(Job.id)).all()
        Catalog(server).admit(whole(), QUICK)
        assert connection.scalars(select(Job.id)).all() == before == []
    run = insert(Run).values(path="/p", name="p", root="/", created_at=utc_now())
    with pytest.raises(DatabaseError, match="read-only"), server.read() as connection:
        connection.execute(run)


def test_who_waits_too_long_for_a_lock_is_told(
    server: Database, again: Callable[..., Database]
) -> None:
    """The message names the setting; the transaction is undone."""
    catalog = Catalog(server)
    catalog.admit(whole(), QUICK)
    impatient = Catalog(again(busy_timeout_seconds=0.1))
    with server.begin() as connection:
        connection.execute(update(Run).values(root="/held"))
        with pytest.raises(DatabaseError, match=r"busy_timeout_seconds.*lock timeout"):
            impatient.admit(whole(step=200), QUICK)
    assert Queue(server).depth()[JobState.QUEUED] == 1


def test_a_slow_statement_is_ended(again: Callable[..., Database]) -> None:
    """The message names the setting."""
    database = again(statement_timeout_seconds=0.1)
    with (
        pytest.raises(DatabaseError, match="statement_timeout_seconds"),
        database.begin() as connection,
    ):
        connection.execute(text("SELECT pg_sleep(30)"))


def test_a_transaction_that_was_left_open_gives_its_locks_back(
    server: Database, again: Callable[..., Database]
) -> None:
    """A process that is stopped in the middle of one does not hold up the others for ever."""
    Catalog(server).admit(whole(), QUICK)
    with again(statement_timeout_seconds=0.2).engine.connect() as stopped:
        stopped.execute(update(Run).values(root="/held"))
        with server.begin() as connection:
            connection.execute(update(Run).values(root="/other"))
        with pytest.raises(DBAPIError, match="idle-in-transaction"):
            stopped.execute(text("SELECT 1"))


@pytest.mark.parametrize("idle_seconds", [0.0, 60.0])
def test_connections_that_the_server_cut_are_replaced(
    server: Database,
    again: Callable[..., Database],
    monkeypatch: pytest.MonkeyPatch,
    idle_seconds: float,
) -> None:
    """A restart of the server costs the transactions of that moment, no later one."""
    monkeypatch.setattr(postgres_module, "IDLE_SECONDS", idle_seconds)
    queue = Queue(again())
    assert queue.claim("w", lease_seconds=60) is None
    with server.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    if idle_seconds:  # used just now, so that it was not tried
        with pytest.raises(DatabaseError):
            queue.claim("w", lease_seconds=60)
    assert queue.claim("w", lease_seconds=60) is None


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("postgresql+psycopg://u@/x?host=/nowhere/at/all", "cannot be reached: check database.url"),
        ("postgresql+psycopg://u:pw@127.0.0.1:1/x", "cannot be reached: check database.url"),
    ],
)
def test_an_unreachable_server_is_told(url: str, advice: str) -> None:
    """The message says what to check, and hides the password."""
    database = Database(url)
    with pytest.raises(DatabaseError, match=advice) as caught:
        Queue(database).depth()
    assert "pw" not in str(caught.value)
    database.close()


def test_a_database_that_is_not_there_is_told(server: Database) -> None:
    """The server's own words name it."""
    absent = Database(server.engine.url.set(database="absent").render_as_string())
    with pytest.raises(DatabaseError, match=r"check database.url.*absent"):
        Queue(absent).depth()
    absent.close()


def test_large_numbers_are_only_not_there(server: Database) -> None:
    """An id beyond the column's range is nothing that is known, as on SQLite."""
    queue = Queue(server)
    with pytest.raises(ConfigError, match="nothing is known"):
        History(server).show(str(MAX_ID + 1))
    assert queue.cancel([MAX_ID + 1]) == queue.retry([MAX_ID + 1]) == 0


def test_steps_beyond_32_bits_have_their_order(server: Database) -> None:
    """A step may count tokens."""
    catalog, queue = Catalog(server), Queue(server)
    for step in (5_000_000_000, 7_000_000_000, 6_000_000_000):
        catalog.admit(whole(step=step), QUICK)
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None
    assert claim.step == 7_000_000_000


def test_text_that_postgres_cannot_store_is_stored_nearly(server: Database) -> None:
    """A NUL in an error's words must not keep its job from ending."""
    catalog, queue = Catalog(server), Queue(server)
    catalog.admit(whole(), QUICK)
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None
    bad = measured("INVALID", None, error="bad\0name", details={"text": "a\0b"})
    assert queue.finish(claim, "w", bad, alert_good) is not None
    row, report = History(server).show(str(claim.job_id))
    assert (row.reason, report) == ("bad\ufffdname", {"text": "a\0b"})


def test_nobody_waits_for_each_other(server: Database) -> None:
    """Watchers, workers and reapers of one run take their locks in one order: no deadlock."""
    rounds = 25
    started = threading.Barrier(6)

    def watch(first: int) -> None:
        catalog = Catalog(server)
        started.wait()
        for number in range(rounds):
            catalog.admit(whole(step=first + number), QUICK)
            catalog.admit(whole("b", step=first + number), QUICK)

    def work(name: str) -> None:
        queue = Queue(server)
        started.wait()
        for _ in range(rounds):
            claim = queue.claim(name, lease_seconds=0)
            if claim is not None:
                queue.finish(claim, name, measured("GOOD"), alert_good)

    def reap() -> None:
        queue = Queue(server)
        started.wait()
        for _ in range(rounds):
            queue.expire(max_attempts=99, retry_delay_seconds=0)
            queue.retry([*range(1, 200)])

    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(watch, first) for first in (0, 1000)]
        jobs += [pool.submit(work, name) for name in ("w1", "w2", "w3")]
        jobs += [pool.submit(reap)]
        for job in jobs:
            job.result()
    assert sum(Queue(server).depth().values()) == 4 * rounds
