"""Many files taken in at once: the same as one after the other, with few statements."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import case, event, select, text
from stocking import QUICK, measured, no_alerts, path_of, seen, whole

from nptwatch.store.catalog import Catalog
from nptwatch.store.queue import Queue
from nptwatch.store.records import Admission, FileState, JobState, Request, WholeFile
from nptwatch.store.tables import Checkpoint, File, Job, Run

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.store.engine import Database

pytestmark = pytest.mark.both_engines

OTHER = Request(profile="quick", settings_hash="s2")


def batches(chance: random.Random) -> list[list[WholeFile]]:
    """Make up files of three runs: new ones, copies, overwritten and touched ones, again."""
    made = []
    for _ in range(4):
        batch = []
        for _ in range(chance.randrange(1, 25)):
            run, step = chance.choice("abc"), chance.randrange(12)
            folder = chance.choice([None, None, None, "best"])
            content = f"{step + chance.choice([0, 0, 0, 100])}"
            batch.append(
                whole(
                    run,
                    step,
                    content=content,
                    folder=folder,
                    signature=f"{content}:{chance.choice([1, 1, 2])}:1",
                    mtime_ns=3 * int(content) + "abc".index(run),
                )
            )
        made.append(batch)
    return made


def contents(database: Database) -> list[object]:
    """Give what is stored, by names instead of ids."""
    about_jobs = (
        select(
            Run.name,
            Checkpoint.fingerprint,
            Checkpoint.path,
            Checkpoint.step,
            Checkpoint.mtime_ns,
            Job.state,
            Job.reason,
            case((Job.state.in_([JobState.QUEUED, JobState.LEASED]), Job.newest)).label("newest"),
            Job.order_step,
            Job.mtime_ns.label("job_mtime_ns"),
            Job.settings_hash,
        )
        .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
        .join(Run, Run.id == Job.run_id)
        .order_by(Run.name, Checkpoint.fingerprint, Job.settings_hash)
    )
    about_files = (
        select(File.path, File.state, File.signature, File.mtime_ns, Checkpoint.fingerprint)
        .join(Checkpoint, Checkpoint.id == File.checkpoint_id)
        .order_by(File.path)
    )
    with database.read() as connection:
        return [
            tuple(row) for query in (about_jobs, about_files) for row in connection.execute(query)
        ]


def end_some(queue: Queue, chance: random.Random) -> None:
    """Let a worker end some jobs, whichever order it gets them in, and hand the others back."""
    claims = []
    while (claim := queue.claim("w", lease_seconds=60)) is not None:
        claims.append(claim)
    fate = chance.randrange(5)
    for claim in claims:
        what = (int(claim.fingerprint) + fate) % 5
        if what == 0:
            queue.close(claim.job_id, "w", JobState.UNLOADABLE, "damaged")
        elif what == 1:
            queue.finish(claim, "w", measured(), no_alerts)
        else:
            queue.release(claim, "w", reason="stop")


def play(database: Database, clock: FakeClock, seed: int, *, at_once: bool) -> list[object]:
    """Admit made-up files, some of which disappear, while a worker works."""
    chance = random.Random(seed)  # noqa: S311 - the same files in both ways
    catalog, queue = Catalog(database, clock=clock), Queue(database, clock=clock)
    told: list[object] = []
    for batch in batches(chance):
        request = chance.choice([QUICK, QUICK, OTHER])
        if at_once:
            told.append(catalog.admit_all(batch, request))
        else:
            told.append([catalog.admit(each, request) for each in batch])
        end_some(queue, chance)
        catalog.gone([path_of("a", f"checkpoint-{chance.randrange(12)}") for _ in range(3)])
        catalog.note(seen("b", "best"), FileState.SETTLING, "changed")
    return [*told, *contents(database)]


@pytest.mark.parametrize("seed", range(6))
def test_at_once_is_as_one_by_one(database: Database, clock: FakeClock, seed: int) -> None:
    """Whatever the files, the database and the answers are the same in both ways."""
    one_by_one = play(database, clock, seed, at_once=False)
    with database.schema_change() as connection:
        tables = ("outbox", "status_changes", "files", "jobs", "results", "checkpoints", "runs")
        connection.execute(
            text("UPDATE runs SET status = NULL, status_job_id = NULL, status_since = NULL")
        )
        for table in tables:
            connection.execute(text(f"DELETE FROM {table}"))
    assert contents(database) == []
    assert play(database, clock, seed, at_once=True) == one_by_one


def test_a_backlog_needs_few_statements(database: Database) -> None:
    """A thousand new files of fifty runs, then the same again: not some statements for each."""
    files = [whole(f"run-{number % 50}", number) for number in range(1000)]
    counted: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *about: counted.append(about[2]))
    catalog = Catalog(database)
    assert set(catalog.admit_all(files, QUICK)) == {Admission.QUEUED}
    assert len(counted) < 400
    counted.clear()
    assert set(catalog.admit_all(files, QUICK)) == {Admission.KNOWN}
    assert len(counted) < 40
    assert not [statement for statement in counted if statement.startswith(("INSERT", "UPDATE"))]
