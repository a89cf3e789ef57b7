"""What is forgotten after `keep_days`, and what never is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select
from stocking import FULL, QUICK, alert_good, claimed, measured, path_of, seen, whole

from nptwatch.store.checking import findings
from nptwatch.store.records import FileState
from nptwatch.store.retention import Forgotten, Retention
from nptwatch.store.tables import Checkpoint, File, Job, Result
from nptwatch.store.upkeep import Upkeep

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.store.catalog import Catalog
    from nptwatch.store.engine import Database
    from nptwatch.store.history import History
    from nptwatch.store.queue import Queue

pytestmark = pytest.mark.both_engines

DAY = 24 * 3600.0
KEEP = 30


def no_pause(_seconds: float) -> bool:
    """Go on at once."""
    return False


@pytest.fixture
def retention(database: Database, clock: FakeClock) -> Retention:
    """Give the retention of the same database."""
    return Retention(database, clock=clock)


class Trainer:
    """Makes checkpoints of run a that are measured at once, and rotates them away."""

    def __init__(self, catalog: Catalog, queue: Queue) -> None:
        self.catalog = catalog
        self.queue = queue

    def save(self, step: int, mse: float, grade: str = "FAIR", **numbers: float) -> None:
        """Save and measure."""
        self.catalog.admit(whole("a", step), QUICK)
        result = measured(grade, mse, **numbers)
        assert self.queue.finish(claimed(self.queue), "w", result, alert_good)

    def rotate(self, *steps: int) -> None:
        """Delete files."""
        self.catalog.gone([path_of("a", f"checkpoint-{step}") for step in steps])


@pytest.fixture
def trainer(catalog: Catalog, queue: Queue) -> Trainer:
    """Give a trainer."""
    return Trainer(catalog, queue)


def steps(history: History) -> list[int | None]:
    """Give the steps that are remembered."""
    return [row.step for row in history.history("a")]


def test_old_and_gone_is_forgotten_whole(
    database: Database,
    trainer: Trainer,
    retention: Retention,
    history: History,
    clock: FakeClock,
) -> None:
    """Checkpoint, job, result and file; the first change, the best and the newest stay."""
    for step in range(1, 7):
        trainer.save(step, 0.5 if step != 4 else 0.2)
    trainer.rotate(1, 2, 3, 4, 5, 6)
    clock.advance((KEEP + 1) * DAY)
    foretold = retention.forget(KEEP, pause=no_pause, dry_run=True)
    assert steps(history) == [1, 2, 3, 4, 5, 6]
    forgotten = retention.forget(KEEP, pause=no_pause)
    assert forgotten == foretold == Forgotten(checkpoints=3, jobs=3, results=3, files=3)
    assert steps(history) == [1, 4, 6]  # the first set the status
    with database.read() as connection:
        for table in (Checkpoint, Job, Result, File):
            assert connection.scalar(select(func.count()).select_from(table)) == 3
    assert (history.run("a").checkpoints, history.run("a").done) == (3, 3)
    assert [row.step for row in history.changes()] == [1]
    assert all(finding.ok for finding in findings(database))
    assert retention.forget(KEEP, pause=no_pause) == Forgotten()


def test_what_is_young_or_on_disk_stays(
    trainer: Trainer, retention: Retention, history: History, clock: FakeClock
) -> None:
    """Of what is on disk a later start would measure every file again."""
    for step in (1, 2, 3):
        trainer.save(step, 0.5)
    clock.advance((KEEP - 1) * DAY)
    trainer.rotate(2)  # gone today
    trainer.save(4, 0.4)
    clock.advance(2 * DAY)
    assert retention.forget(KEEP, pause=no_pause) == Forgotten()
    assert steps(history) == [1, 2, 3, 4]
    clock.advance(KEEP * DAY)
    assert retention.forget(KEEP, pause=no_pause).checkpoints == 1
    assert steps(history) == [1, 3, 4]


def test_best_by_every_measure_stays(
    trainer: Trainer, retention: Retention, history: History, clock: FakeClock
) -> None:
    """`best --by cosine` and `--by kl` have an answer for ever, and the same one."""
    trainer.save(1, 0.5, kl=3.0, cosine=0.8)
    trainer.save(2, 0.3, kl=3.0, cosine=0.8)
    trainer.save(3, 0.5, kl=1.0, cosine=0.8)
    trainer.save(4, 0.5, kl=3.0, cosine=0.9)
    trainer.save(5, 0.5, kl=3.0, cosine=0.8)
    trainer.save(6, 0.5, kl=3.0, cosine=0.8)
    trainer.rotate(1, 2, 3, 4, 5, 6)
    clock.advance((KEEP + 1) * DAY)
    best = [history.best("a", by) for by in ("mse", "kl", "cosine")]
    assert retention.forget(KEEP, pause=no_pause).checkpoints == 1
    assert [history.best("a", by) for by in ("mse", "kl", "cosine")] == best
    assert steps(history) == [1, 2, 3, 4, 6]


def test_every_status_change_keeps_what_it_tells_of(
    trainer: Trainer, retention: Retention, history: History, clock: FakeClock
) -> None:
    """Change, checkpoint and result."""
    for step, grade in ((1, "POOR"), (2, "POOR"), (3, "GOOD"), (4, "GOOD"), (5, "FAIR")):
        trainer.save(step, 0.5 - step / 100, grade)
    trainer.save(6, 0.1, "FAIR")
    trainer.rotate(*range(1, 7))
    clock.advance((KEEP + 1) * DAY)
    told = history.changes()
    retention.forget(KEEP, pause=no_pause)
    assert history.changes() == told
    assert steps(history) == [1, 3, 5, 6]


def test_open_jobs_stay(
    trainer: Trainer, queue: Queue, retention: Retention, history: History, clock: FakeClock
) -> None:
    """What waits for its full diagnostic is not old."""
    trainer.save(1, 0.5)
    trainer.save(2, 0.6)
    trainer.save(3, 0.1)
    queue.ask(path_of("a", "checkpoint-2"), FULL, because="me")
    claim = claimed(queue)
    trainer.rotate(1, 2, 3)
    clock.advance((KEEP + 1) * DAY)
    queue.heartbeat(claim.job_id, "w", lease_seconds=60)
    assert retention.forget(KEEP, pause=no_pause) == Forgotten()
    assert steps(history) == [1, 2, 3]


def test_a_result_of_two_runs_stays_while_one_needs_it(
    trainer: Trainer,
    catalog: Catalog,
    queue: Queue,
    retention: Retention,
    history: History,
    clock: FakeClock,
) -> None:
    """The same content in a run that is still on disk."""
    for step in (1, 2, 3):
        trainer.save(step, 0.5 - step / 10)
    catalog.admit(whole("b", 2, content="content-a-2"), QUICK)
    claim = claimed(queue)
    result = queue.known_result(claim, base_revision="base-1")
    assert result is not None
    assert queue.finish_known(claim, "w", result, alert_good)
    trainer.rotate(1, 2, 3)
    clock.advance((KEEP + 1) * DAY)
    foretold = retention.forget(KEEP, pause=no_pause, dry_run=True)
    assert retention.forget(KEEP, pause=no_pause) == foretold
    assert (foretold.checkpoints, foretold.results) == (1, 0)
    assert history.best("b") is not None


def test_a_known_result_that_was_forgotten_is_measured_anew(
    trainer: Trainer,
    catalog: Catalog,
    queue: Queue,
    retention: Retention,
    history: History,
    clock: FakeClock,
) -> None:
    """Between looking a result up and using it, it may be forgotten: the job waits again."""
    for step in (1, 2, 3):
        trainer.save(step, 0.5 - step / 10)
    trainer.rotate(1, 2, 3)
    clock.advance((KEEP + 1) * DAY)
    catalog.admit(whole("b", 2, content="content-a-2"), QUICK)
    claim = claimed(queue)
    result = queue.known_result(claim, base_revision="base-1")
    assert result is not None
    assert retention.forget(KEEP, pause=no_pause).results == 1
    assert queue.finish_known(claim, "w", result, alert_good) is None
    again = claimed(queue)
    assert (again.job_id, again.attempts) == (claim.job_id, 0)
    assert queue.finish(again, "w", measured("FAIR", 0.4), alert_good)
    assert history.run("b").best_mse == 0.4


def test_content_that_comes_back_is_measured_anew(
    trainer: Trainer, retention: Retention, history: History, clock: FakeClock
) -> None:
    """Nothing is left in the way of it."""
    for step in (1, 2, 3):
        trainer.save(step, 0.5 - step / 10)
    trainer.rotate(1, 2, 3)
    clock.advance((KEEP + 1) * DAY)
    retention.forget(KEEP, pause=no_pause)
    trainer.save(2, 0.4)
    assert steps(history) == [1, 2, 3]


def test_it_goes_in_batches_and_stops_when_told(
    database: Database, trainer: Trainer, clock: FakeClock
) -> None:
    """Each batch is a transaction of its own; a stop is heard between two."""
    batch, count = 5, 14
    retention = Retention(database, clock=clock, batch_size=batch)
    for step in range(count):
        trainer.save(step, 1.0 + step)
    trainer.rotate(*range(count))
    clock.advance((KEEP + 1) * DAY)
    pauses: list[float] = []

    def stop(seconds: float) -> bool:
        pauses.append(seconds)
        return True

    first = retention.forget(KEEP, pause=stop)
    assert first.checkpoints == batch
    assert len(pauses) == 1
    rest = retention.forget(KEEP, pause=no_pause)
    assert first.checkpoints + rest.checkpoints == count - 2  # the first, best; the newest
    assert all(finding.ok for finding in findings(database))


def test_files_without_content_are_forgotten_too(
    database: Database, catalog: Catalog, retention: Retention, clock: FakeClock
) -> None:
    """One that never became whole and is gone; what still lies there stays."""
    catalog.note(seen(folder="checkpoint-1"), FileState.UNLOADABLE, "cut")
    catalog.note(seen(folder="checkpoint-2"), FileState.UNLOADABLE, "cut")
    catalog.gone([path_of("a", "checkpoint-1")])
    clock.advance((KEEP + 1) * DAY)
    assert retention.forget(KEEP, pause=no_pause) == Forgotten(files=1)
    with database.read() as connection:
        (left,) = connection.scalars(select(File.path)).all()
    assert left == path_of("a", "checkpoint-2")


def test_vacuum_gives_space_back_and_counts_anew(
    database: Database, trainer: Trainer, history: History
) -> None:
    """A SQLite file becomes smaller; counts that somebody spoiled are right again."""
    for step in range(3):
        trainer.save(step, 0.5)
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE ballast (it TEXT)")
        connection.exec_driver_sql(f"INSERT INTO ballast VALUES ('{'x' * 1_000_000}')")
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE ballast")
        connection.exec_driver_sql("UPDATE runs SET checkpoint_count = 77, done_count = 0")
    upkeep = Upkeep(database)
    assert upkeep.recount() == 1
    assert upkeep.recount() == 0
    assert (history.run("a").checkpoints, history.run("a").done) == (3, 3)
    vacuumed = upkeep.vacuum()
    if database.path is not None:
        assert vacuumed.after_bytes < vacuumed.before_bytes - 900_000
    assert vacuumed.after_bytes > 0
    assert all(finding.ok for finding in findings(database))
