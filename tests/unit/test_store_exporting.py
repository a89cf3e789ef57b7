"""How far runs are exported: nothing skipped, nothing in two hands."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from stocking import FULL, QUICK, claimed, measured, no_alerts, path_of, whole

from nptwatch.store import migrate
from nptwatch.store.catalog import Catalog
from nptwatch.store.exporting import Exports
from nptwatch.store.queue import Queue
from nptwatch.store.retention import Retention

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.store.engine import Database
    from nptwatch.store.exporting import Batch

pytestmark = pytest.mark.both_engines

TARGET = "jsonl:1"


@pytest.fixture
def exports(database: Database, clock: FakeClock) -> Exports:
    """Give the exports of a daemon."""
    return Exports(database, "one", clock=clock)


def record(database: Database, *steps: int, run: str = "a", root: str = "/exp") -> None:
    """Have a result recorded for each step."""
    catalog, queue = Catalog(database), Queue(database)
    for step in steps:
        catalog.admit(whole(run, step, root=root), QUICK)
        assert queue.finish(claimed(queue), "w", measured(), no_alerts)


def taken(exports: Exports, limit: int = 100) -> Batch | None:
    """Claim the news of the first run that has any."""
    runs = exports.behind(TARGET)
    return exports.claim(TARGET, runs[0], lease_seconds=60, limit=limit) if runs else None


def steps_of(batch: Batch | None) -> list[int | None]:
    """Give the steps of a claim."""
    return [] if batch is None else [point.step for point in batch.points]


def test_each_result_is_handed_out_until_it_is_noted(exports: Exports, database: Database) -> None:
    """In the order in which they were recorded; what is not noted comes again."""
    record(database, 300, 100)
    first = taken(exports, limit=1)
    assert first is not None
    assert steps_of(first) == [300]
    assert exports.release(first)
    again = taken(exports, limit=1)
    assert again is not None
    assert exports.done(again)
    record(database, 200)
    rest = taken(exports)
    assert rest is not None
    assert steps_of(rest) == [100, 200]
    assert [point.ordinal for point in rest.points] == [2, 3]
    assert exports.done(rest)
    assert exports.behind(TARGET) == []
    assert [run.run for run in exports.behind("jsonl:2")] == ["a"]


def test_a_claim_is_one_daemons_until_it_is_over(
    exports: Exports, database: Database, clock: FakeClock
) -> None:
    """Others see nothing to do; later they take over, and the first one's word is void."""
    record(database, 1)
    other = Exports(database, "two", clock=clock)
    seen = other.behind(TARGET)[0]
    mine = taken(exports)
    assert mine is not None
    assert other.behind(TARGET) == []
    assert other.claim(TARGET, seen, lease_seconds=60, limit=1) is None
    clock.advance(60)
    theirs = taken(other)
    assert steps_of(theirs) == [1]
    assert not exports.done(mine)
    assert not exports.release(mine)
    assert theirs is not None
    assert other.done(theirs)


def test_a_daemon_that_is_back_takes_up_its_own_claim(
    exports: Exports, database: Database, clock: FakeClock
) -> None:
    """It was killed with a claim in hand and need not wait for its end."""
    record(database, 1)
    assert taken(exports) is not None
    assert steps_of(taken(Exports(database, "one", clock=clock))) == [1]


def test_no_result_is_skipped_while_workers_record(database: Database, exports: Exports) -> None:
    """Whoever reads on from where it was, beside those who record, has each result once."""
    rounds, workers = 12, 3
    catalog = Catalog(database)
    for step in range(rounds * workers):
        catalog.admit(whole("a", step), QUICK)
    barrier = threading.Barrier(workers + 1)

    def work(name: str) -> None:
        queue = Queue(database)
        barrier.wait()
        for _ in range(rounds):
            claim = queue.claim(name, lease_seconds=60)
            assert claim is not None
            assert queue.finish(claim, name, measured(), no_alerts)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(workers)]
    for thread in threads:
        thread.start()
    barrier.wait()
    seen: list[int | None] = []
    while any(thread.is_alive() for thread in threads) or exports.behind(TARGET):
        batch = taken(exports)
        if batch is not None:
            seen += steps_of(batch)
            assert exports.done(batch)
    for thread in threads:
        thread.join()
    assert sorted(step or 0 for step in seen) == list(range(rounds * workers))


def test_a_full_result_comes_after_the_quick_one(exports: Exports, database: Database) -> None:
    """Both are exported, each with its profile."""
    record(database, 100)
    queue = Queue(database)
    queue.ask(path_of("a", "checkpoint-100"), FULL, because="me")
    full = measured(overall_status="READY", avg_score=0.86)
    assert queue.finish(claimed(queue), "w", full, no_alerts)
    batch = taken(exports)
    assert batch is not None
    assert [(point.profile, point.avg_score) for point in batch.points] == [
        ("quick", None),
        ("full", 0.86),
    ]


def test_runs_of_one_name_are_told_apart(exports: Exports, database: Database) -> None:
    """The run that was found first has the name, the other is its namesake."""
    record(database, 1, root="/exp")
    record(database, 2, root="/other")
    record(database, 3, run="b")
    found = {(run.root, run.run): run.is_namesake for run in exports.behind(TARGET)}
    assert found == {("/exp", "a"): False, ("/other", "a"): True, ("/exp", "b"): False}


def test_what_was_forgotten_is_not_waited_for(
    exports: Exports, database: Database, clock: FakeClock
) -> None:
    """A run whose last results are gone has nothing to export, and new ones go on counting."""
    record(database, 1, 2, 3)
    with database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM files")
    clock.advance(9 * 86400 + 1e9)
    Retention(database, clock=clock).forget(1, pause=lambda _seconds: False)
    kept = steps_of(taken(exports))
    assert 2 not in kept
    assert kept
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET ordinal = NULL")
    assert taken(exports) is None
    assert exports.behind(TARGET) == []
    record(database, 4)
    assert steps_of(taken(exports)) == [4]


@pytest.mark.changes_schema
def test_results_of_an_older_version_are_exported(exports: Exports, database: Database) -> None:
    """An upgraded database has an order for what is there, and goes on behind it."""
    record(database, 1, 2)
    migrate.downgrade(database, "0007")
    migrate.upgrade(database)
    record(database, 3)
    assert steps_of(taken(exports)) == [1, 2, 3]
