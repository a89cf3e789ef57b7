"""`status` reads SQLite by itself; it must say what the stores say."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from stocking import FULL, QUICK, alert_good, claimed, measured, path_of, seen, whole

from nptwatch.paths import PathMap
from nptwatch.store.catalog import Catalog
from nptwatch.store.chore_records import ChoreRecord
from nptwatch.store.chores import Chores
from nptwatch.store.glance import Glance, glance_at
from nptwatch.store.history import History
from nptwatch.store.outbox import Outbox
from nptwatch.store.queue import Queue
from nptwatch.store.records import FileState, JobState, WorkerState
from nptwatch.store.workers import Workers

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from conftest import FakeClock

    from nptwatch.store.engine import Database


@pytest.fixture
def filled(database: Database, clock: FakeClock) -> Database:
    """Give a database with two runs, jobs in many states, changes, alerts and workers."""
    catalog, queue = Catalog(database, clock=clock), Queue(database, clock=clock)
    workers = Workers(database, clock=clock)
    workers.register("gone", "host", 1, "cpu")
    clock.advance(1000)
    workers.register("w", "host", 2, "cpu")
    grades = [("POOR", 0.9), ("GOOD", 0.07), ("INVALID", None), ("FAIR", 0.3)]
    for step, (grade, mse) in enumerate(grades):
        catalog.admit(whole("a", step), QUICK)
        claim = queue.claim("w", lease_seconds=60)
        assert claim is not None
        clock.advance(1)
        queue.finish(claim, "w", measured(grade, mse, measured_at=clock()), alert_good)
    for step in (1, 3):  # measured fully too, and asked to be
        queue.ask(path_of("a", f"checkpoint-{step}"), FULL, because="me")
        if step == 1:
            queue.finish(claimed(queue), "w", measured("GOOD", 0.07), alert_good)
    queue.ask(path_of("a", "checkpoint-2"), FULL, because="me")
    catalog.admit(whole("a", 50), QUICK)
    catalog.admit(whole("b", None, "odd", folder="best"), QUICK)
    catalog.admit(whole("b", 7), QUICK)
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None
    queue.fail(claim, "w", cause="crash", error="boom", max_attempts=1, retry_delay_seconds=1)
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None
    workers.beat("w", state=WorkerState.BUSY, job_id=claim.job_id, base_model="base", jobs_done=3)
    catalog.note(seen("c", "checkpoint-1"), FileState.SETTLING, "half")
    failing = {"failures": 3, "failing_since": clock(), "failed_at": clock(), "error": "no space"}
    chores = Chores(database, clock=clock)
    chores.note([chore("host:/a", clock(), failures=0), chore("host:/b", clock(), **failing)])
    chores.note([chore("gone:/c", clock() - timedelta(days=2))])
    return database


def chore(daemon: str, at: datetime, **changes: Any) -> ChoreRecord:  # Any: fields
    """Give the record of a chore that went well."""
    well = ChoreRecord(
        daemon=daemon,
        name="keep",
        started_at=at,
        duration_seconds=0.25,
        failures=0,
        failing_since=None,
        failed_at=None,
        error=None,
    )
    return replace(well, **changes)


def by_stores(database: Database, clock: FakeClock) -> Glance:
    """Ask the stores."""
    queue = Queue(database, clock=clock)
    return Glance(
        queue=queue.depth(),
        oldest_queued_at=queue.oldest_queued_at(),
        waiting=queue.waiting(),
        workers=Workers(database, clock=clock).alive(60),
        runs=History(database, clock=clock).runs(),
        changes=History(database, clock=clock).changes(limit=3),
        pending_alerts=Outbox(database, clock=clock).pending(),
        chores=Chores(database, clock=clock).lately(),
    )


def by_glance(file: Path, clock: FakeClock) -> Glance | None:
    """Ask the file."""
    return glance_at(
        file, now=clock(), silent_seconds=60, changes=3, busy_seconds=5, paths=PathMap()
    )


def test_glance_says_what_the_stores_say(filled: Database, clock: FakeClock) -> None:
    """Two ways to one answer, equal in every field."""
    expected = by_stores(filled, clock)
    assert filled.path is not None
    assert by_glance(filled.path, clock) == expected
    # the comparison is worth something only if there is something in each field
    assert [row.run for row in expected.runs] == ["a", "b", "c"]
    assert expected.runs[0].best_mse == 0.07
    assert [worker.worker_id for worker in expected.workers] == ["w"]
    assert expected.queue[JobState.FAILED] == expected.queue[JobState.LEASED] == 1
    assert (expected.runs[0].done, expected.runs[0].open_jobs) == (4, 2)  # not 5, nor twice
    assert len(expected.changes) == 3
    assert expected.pending_alerts == 1
    assert expected.oldest_queued_at is not None


def test_glance_of_an_empty_database(database: Database, clock: FakeClock) -> None:
    """Nothing is zeros and empty lists."""
    assert database.path is not None
    assert by_glance(database.path, clock) == by_stores(database, clock)


def test_silent_worker_is_not_at_work(filled: Database, clock: FakeClock) -> None:
    """A worker that was not heard of for long is not shown as alive."""
    clock.now += timedelta(seconds=61)
    assert filled.path is not None
    glance = by_glance(filled.path, clock)
    assert glance is not None
    assert glance.workers == [] == by_stores(filled, clock).workers


@pytest.mark.parametrize("fault", ["missing", "garbage", "empty", "other schema"])
def test_what_cannot_be_read_is_left_to_the_stores(
    fault: str, database: Database, tmp_path: Path, clock: FakeClock
) -> None:
    """They have the words for it; a missing file is not created."""
    file = tmp_path / "other.db"
    if fault == "garbage":
        file.write_bytes(b"no database" * 1000)
    elif fault == "empty":
        file.touch()
    elif fault == "other schema":
        assert database.path is not None
        file = database.path
        connection = sqlite3.connect(file)
        with connection:
            connection.execute("UPDATE alembic_version SET version_num = 'zzzz'")
        connection.close()
    assert by_glance(file, clock) is None
    assert file.exists() == (fault != "missing")
