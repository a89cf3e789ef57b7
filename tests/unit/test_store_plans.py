"""Questions find their rows by index: no table that grows with every checkpoint is read through."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from large_history import Size, fill
from plans import Statement, listening, plan, scans
from sqlalchemy import text

from nptwatch.store import glance
from nptwatch.store.alarms import Alarms
from nptwatch.store.exporting import Exports
from nptwatch.store.history import History
from nptwatch.store.outbox import Outbox
from nptwatch.store.queue import Queue
from nptwatch.store.records import JobState
from nptwatch.store.retention import Retention
from nptwatch.store.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from conftest import FakeClock

    from nptwatch.store.engine import Database

pytestmark = pytest.mark.both_engines

RUN = "run-3"
SIZE = Size(runs=8, checkpoints_per_run=40, details_bytes=10, queued=4)
OF_A_SERVER = Size(runs=100, checkpoints_per_run=40, details_bytes=10, queued=400)
"""A server is not to be deceived: it looks how large its tables are."""

OF_A_MILLION = {
    "ix_checkpoints_run_id_step": "1141091 334 1",
    "sqlite_autoindex_checkpoints_1": "961632 334 1",
    "ix_files_checkpoint_id_state": "1116224 1 1",
    "ix_files_run_id_state": "1004080 334 201",
    "sqlite_autoindex_files_1": "975560 1",
    "ix_jobs_claim": "1466424 1000 1000 1000 2 2 1",
    "ix_jobs_result_id": "1260070 1",
    "ix_jobs_run_id_mse": "1170400 334 2",
    "ix_jobs_run_id_ordinal": "1170400 334 1",
    "ix_jobs_run_id_state_updated_at": "765600 334 334 2",
    "ix_jobs_state_updated_at": "410688 1000 2",
    "sqlite_autoindex_jobs_1": "1197840 2 1 1",
    "ix_results_measured_at": "1067325 2",
    "sqlite_autoindex_results_1": "718848 2 1 1 1",
    "ix_runs_name": "1816 1",
    "ix_runs_status_job_id": "936 1",
    "sqlite_autoindex_runs_1": "2304 1",
    "ix_status_changes_at": "10137 1",
    "ix_status_changes_run_id_at": "9696 5 1",
}
"""What SQLite notes of a million results in 2,000 runs (tests/benchmarks/bench_history.py)."""


@pytest.fixture
def database(database: Database) -> Database:
    """Give a filled database; a server's is analyzed, as autovacuum does, a file's is not."""
    fill(database, SIZE if database.path is not None else OF_A_SERVER)
    if database.path is None:
        Upkeep(database).analyze()
    return database


def middle(history: History) -> str:
    """Give the key of a row in the middle of a run."""
    rows = history.history(RUN)
    assert len(rows) == SIZE.checkpoints_per_run
    return str(rows[20].key)


def all_questions(database: Database, clock: FakeClock) -> dict[str, Callable[[], object]]:
    """Give what people and the daemon ask."""
    history, queue = History(database), Queue(database, clock=clock)
    key, since = middle(history), clock() - timedelta(days=300)
    file = history.history(RUN)[5].path
    after = queue.jobs(limit=3)[-1].key
    exports = Exports(database, "d", clock=clock)
    news = exports.behind("jsonl:1")[3]
    return {
        "history": lambda: history.history(RUN),
        "last page": lambda: history.history(RUN, limit=5),
        "page before": lambda: history.history(RUN, limit=5, before=key),
        "page after": lambda: history.history(RUN, limit=5, after=key),
        "since": lambda: history.history(RUN, since_step=1000, limit=5),
        "best": lambda: history.best(RUN),
        "best by kl": lambda: history.best(RUN, "kl"),
        "runs": history.runs,
        "run": lambda: history.run(RUN),
        "changes since": lambda: history.changes(since=since),
        "changes": lambda: history.changes(RUN, before=10),
        "events": Alarms(database).events,
        "jobs": lambda: queue.jobs(limit=5),
        "next jobs": lambda: queue.jobs(limit=5, before=str(after)),
        "failed jobs": lambda: queue.jobs(states=[JobState.FAILED]),
        "jobs of a run": lambda: queue.jobs(run=RUN, limit=5),
        "show": lambda: history.show(file),
        "depth": queue.depth,
        "oldest": queue.oldest_queued_at,
        "waiting": queue.waiting,
        "pending": Outbox(database).pending,
        "claim": lambda: queue.claim("w", lease_seconds=60),
        "not exported": lambda: exports.behind("jsonl:1"),
        "export": lambda: exports.claim("jsonl:1", news, lease_seconds=0, limit=5),
        "old": lambda: Retention(database).forget(1, pause=lambda _seconds: False, dry_run=True),
    }


@pytest.mark.parametrize("known", [{}, OF_A_MILLION], ids=["unknown", "a_million"])
def test_no_question_reads_a_large_table_through(
    database: Database, clock: FakeClock, known: Mapping[str, str]
) -> None:
    """Whether SQLite's planner knows how much there is or not; a server's always does."""
    if known:
        if database.path is None:
            pytest.skip("a server's statistics are its own")
        pretend(database, known)
    found = {}
    for name, ask in all_questions(database, clock).items():
        with listening(database) as heard:
            ask()
        assert heard, name
        found[name] = [scan for each in heard for scan in scans(database, each, small=True)]
    assert {name: scanned for name, scanned in found.items() if scanned} == {}


def pretend(database: Database, statistics: Mapping[str, str]) -> None:
    """Have SQLite believe that its tables are as large as these statistics say."""
    Upkeep(database).analyze()
    with database.begin() as connection:
        for index, counts in statistics.items():
            changed = connection.execute(
                text("UPDATE sqlite_stat1 SET stat = :counts WHERE idx = :index"),
                {"counts": counts, "index": index},
            )
            assert changed.rowcount == 1, index
    database.close()  # connections read them when they are opened


def test_reports_are_read_for_show_only(database: Database, clock: FakeClock) -> None:
    """`details` is most of a result: no other question asks for it."""
    asking = set()
    for name, ask in all_questions(database, clock).items():
        with listening(database) as heard:
            ask()
        if any("details" in each.sql for each in heard):
            asking.add(name)
    assert asking == {"show"}


def test_a_missing_index_is_noticed(database: Database) -> None:
    """The tests above can fail: without its index the best of a run is a scan."""
    history = History(database)
    with listening(database) as heard:
        history.best(RUN)
    with database.begin() as connection:
        connection.execute(text("DROP INDEX ix_jobs_run_id_mse"))
        connection.execute(text("DROP INDEX ix_jobs_run_id_state_updated_at"))
    try:
        assert [scan for each in heard for scan in scans(database, each, small=True)]
    finally:
        with database.begin() as connection:
            there = "(run_id, mse) WHERE mse IS NOT NULL"
            connection.execute(text(f"CREATE INDEX ix_jobs_run_id_mse ON jobs {there}"))
            columns = "(run_id, state, updated_at)"
            connection.execute(
                text(f"CREATE INDEX ix_jobs_run_id_state_updated_at ON jobs {columns}")
            )


GRAFANA = (
    "SELECT run, step, mse FROM v_history WHERE measured_at"
    " BETWEEN '2026-01-01 01:00:00' AND '2026-01-01 01:09:59' ORDER BY measured_at"
)


def test_a_time_range_of_all_runs_begins_with_the_times(database: Database) -> None:
    """A Grafana panel asks v_history for minutes of all runs, and the results' times lead there."""
    asked = Statement(sql=GRAFANA, parameters=())
    assert scans(database, asked, small=True) == []
    assert any("ix_results_measured_at" in line for line in plan(database, asked, small=True))
    with database.read() as connection:
        found = connection.execute(text(GRAFANA)).all()
    assert len(found) == 20  # one each 30 seconds


def test_glance_reads_no_large_table_through(database: Database) -> None:
    """What `status` asks of a file in plain SQL, which is right on both engines."""
    asked = [
        Statement(sql=sql.replace("?", "5"), parameters=())
        for sql in (glance._DEPTH, glance._DONE, glance._OLDEST, glance._RUNS, glance._CHANGES)
    ]
    assert [scan for each in asked for scan in scans(database, each, small=True)] == []
