"""A worker that is paused (SIGSTOP) past its lease: real workers, on SQLite and on Postgres."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from bookkeeping import check_results, check_story, check_told
from elsewhere import LoneWorker
from serving import Place, times_measured
from watching import until

from nptwatch.errors import DatabaseError
from nptwatch.service.build import build_watcher, open_stores
from nptwatch.store.engine import Database
from nptwatch.store.migrate import upgrade
from nptwatch.store.records import JobState
from nptwatch.store.tables import Base

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEASE_SECONDS = 1.0
LOCK_SECONDS = 0.5
IDLE_SECONDS = 2.0
"""Longer than a lock is waited for, so that both are seen."""
LONG = 30.0


class Stage:
    """A place on some database, and workers that wait briefly for its locks."""

    def __init__(self, folder: Path, url: str, stack: ExitStack) -> None:
        self.place = Place(folder, url)
        self._folder = folder
        self._stack = stack
        self.settings = self.place.settings(
            worker={"count": 0, "lease_seconds": LEASE_SECONDS, "poll_seconds": 0.1},
            database={
                "busy_timeout_seconds": LOCK_SECONDS,
                "statement_timeout_seconds": IDLE_SECONDS,
            },
        )
        self._stores = open_stores(self.settings)
        stack.callback(self._stores.close)
        stack.callback(self.place.close)

    def checkpoint(self, step: int, **plan: object) -> Path:
        """Write a checkpoint and have the watcher queue it."""
        weights = self.place.checkpoint(step, **plan)
        build_watcher(self.settings, self._stores, lambda: None).scan_once()
        return weights

    def worker(self, name: str) -> LoneWorker:
        """Start a worker."""
        worker = LoneWorker(name, self.settings, self._folder)
        self._stack.callback(worker.kill)
        return worker

    def pause(self, worker: LoneWorker) -> None:
        """Stop a worker that is in no transaction: its heartbeat writes now and then."""
        while True:
            worker.pause()
            try:
                with self._stores.database.begin() as connection:
                    connection.exec_driver_sql("UPDATE jobs SET id = id")
            except DatabaseError:
                worker.go_on()
            else:
                return

    def reap(self) -> list[int]:
        """Take back what is past its lease, as the daemon does."""
        return self._stores.queue.expire(max_attempts=9, retry_delay_seconds=0)

    def reap_if_possible(self) -> list[int]:
        """Do so unless somebody is in the way."""
        try:
            return self.reap()
        except DatabaseError:
            return []

    def is_done(self, step: int) -> bool:
        """Say if a step's job is done."""
        return self.place.job_state(step) == JobState.DONE

    def books(self) -> dict[str, list[tuple[Any, ...]]]:
        """Give all rows of all tables but the workers' own."""
        tables = [table for table in Base.metadata.sorted_tables if table.name != "workers"]
        with self.place.stores.database.read() as connection:
            return {
                table.name: [(*row,) for row in connection.execute(table.select())]
                for table in tables
            }


@pytest.fixture
def stage(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """Give a place on either engine."""
    url = f"sqlite:///{tmp_path / 'state/nptwatch.db'}"
    if engine == "postgres":
        url = request.getfixturevalue("postgres").new()
    database = Database(url)
    upgrade(database)
    database.close()
    with ExitStack() as stack:
        yield Stage(tmp_path, url, stack)


def replan(weights: Path, **plan: object) -> None:
    """Have the next measurement of a checkpoint do something else."""
    (weights.parent / "plan.json").write_text(json.dumps(plan))


def check_books(stage: Stage, grades: dict[int, str]) -> None:
    """Hold that each step has one result, of this grade, and all that belongs to it."""
    assert stage.place.graded() == grades
    check_results(stage.place.stores.database, len(grades))
    check_story(stage.place.stores.database)
    alerts = check_told(stage.place.stores.database)
    assert alerts == list(grades.values()).count("GOOD")


@pytest.mark.both_engines
def test_a_worker_paused_while_it_measures_cannot_overwrite_its_successor(stage: Stage) -> None:
    """It wakes up with a result for a job that another one has done: not a row changes."""
    weights = stage.checkpoint(1, do="block", mse=0.08)
    sleeper = stage.worker("sleeper")
    until(lambda: times_measured(weights) == 1, seconds=LONG)
    stage.pause(sleeper)
    until(stage.reap, seconds=LONG)
    replan(weights, mse=0.4)
    successor = stage.worker("successor")
    until(lambda: stage.is_done(1), seconds=LONG)
    assert successor.end() == 0
    before = stage.books()

    (weights.parent / "go").touch()
    sleeper.go_on()
    until(lambda: sleeper.log("lease_lost"), seconds=LONG)
    assert stage.books() == before
    stage.checkpoint(2)
    until(lambda: stage.is_done(2), seconds=LONG)
    assert sleeper.end() == 0

    assert [entry["step"] for entry in sleeper.log("job_done")] == [2]
    check_books(stage, {1: "FAIR", 2: "FAIR"})


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_a_worker_paused_inside_its_transaction_loses_it_on_postgres(stage: Stage) -> None:
    """The server undoes it after the idle time-out; until then others are told why they wait."""
    weights = stage.checkpoint(1, do="stop in finish", mse=0.08)
    sleeper = stage.worker("sleeper")
    until(sleeper.is_stopped, seconds=LONG)
    with pytest.raises(DatabaseError, match="another transaction held a lock too long"):
        until(stage.reap, seconds=LONG)
    until(stage.reap_if_possible, seconds=LONG)
    replan(weights, mse=0.4)
    successor = stage.worker("successor")
    until(lambda: stage.is_done(1), seconds=LONG)
    assert successor.end() == 0
    before = stage.books()

    sleeper.go_on()
    until(lambda: sleeper.log("lease_lost"), seconds=LONG)
    assert "stood still in the middle of a transaction" in sleeper.log("record_failed")[0]["error"]
    assert sleeper.end() == 0
    assert stage.books() == before
    check_books(stage, {1: "FAIR"})


@pytest.mark.parametrize("is_killed", [False, True], ids=["goes on", "is killed"])
def test_a_worker_paused_inside_its_transaction_holds_up_sqlite(
    stage: Stage, *, is_killed: bool
) -> None:
    """Others are told which process to wake or to kill, and go on after either; readers read."""
    weights = stage.checkpoint(1, do="stop in finish", mse=0.08)
    sleeper = stage.worker("sleeper")
    until(sleeper.is_stopped, seconds=LONG)
    replan(weights, mse=0.4)
    successor = stage.worker("successor")
    pid = sleeper.process.pid
    blame = rf"process {pid} \(.*worker_main.*\), which is stopped \(`kill -CONT {pid}` .* too long"
    with pytest.raises(DatabaseError, match=blame):
        stage.reap()
    assert stage.place.job_state(1) == JobState.LEASED, "readers do not wait"

    if is_killed:
        sleeper.kill()
    else:
        sleeper.go_on()
    until(stage.reap_if_possible if is_killed else lambda: stage.is_done(1), seconds=LONG)
    until(lambda: stage.is_done(1), seconds=LONG)
    stage.checkpoint(2)
    until(lambda: stage.is_done(2), seconds=LONG)
    assert successor.end() == 0
    check_books(stage, {1: "FAIR" if is_killed else "GOOD", 2: "FAIR"})
