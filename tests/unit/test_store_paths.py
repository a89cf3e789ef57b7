"""One tree under two names: two hosts share one database, each by its own paths."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from stocking import QUICK, event, measured, no_alerts, path_of, seen, whole

from nptwatch.paths import PathMap
from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database
from nptwatch.store.events import event_id
from nptwatch.store.history import History
from nptwatch.store.news import Verdict
from nptwatch.store.outbox import Outbox
from nptwatch.store.queue import Queue
from nptwatch.store.records import Admission, FileState, JobState
from nptwatch.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import FakeClock

    from nptwatch.store.news import Standing
    from nptwatch.store.records import SeenFile, WholeFile

pytestmark = pytest.mark.both_engines

LAB = "/mnt/lab"


@pytest.fixture
def lab(database: Database) -> Iterator[Database]:
    """Give the database as a host has it that calls /exp /mnt/lab."""
    url = database.engine.url.render_as_string(hide_password=False)
    opened = Database(url, paths=PathMap([("/exp", LAB)]))
    yield opened
    opened.close()


def in_lab(file: SeenFile) -> SeenFile:
    """Give the same file as that host sees it."""
    names = {name: getattr(file, name) for name in ("run_path", "root", "path")}
    return replace(file, **{name: there(path) for name, path in names.items()})


def there(path: str) -> str:
    """Give that host's name of a path."""
    return path.replace("/exp", LAB, 1)


def lab_whole(step: int) -> WholeFile:
    """Give a whole file as that host sees it."""
    each = whole("a", step)
    return replace(each, file=in_lab(each.file))


def tell(standing: Standing) -> Verdict:
    """Raise a message that says where the checkpoint is."""
    where = {"run_path": standing.run_path, "path": standing.point.path}
    return Verdict(events=(event("k", "s", "log", **where),))


def test_two_watchers_make_one_run_and_one_job(
    database: Database, lab: Database, clock: FakeClock
) -> None:
    """The same tree under different roots is one run, one checkpoint, one job."""
    ours, theirs = Catalog(database, clock=clock), Catalog(lab, clock=clock)
    assert ours.admit(whole("a", 1), QUICK) is Admission.QUEUED
    assert theirs.admit(lab_whole(1), QUICK) is Admission.KNOWN
    assert theirs.admit(lab_whole(2), QUICK) is Admission.QUEUED
    assert ours.admit(whole("a", 2), QUICK) is Admission.KNOWN
    assert [(row.path, row.checkpoints) for row in History(database).runs()] == [("/exp/a", 2)]
    assert [row.path for row in History(lab).runs()] == [f"{LAB}/a"]
    assert len(Queue(database).jobs()) == 2
    assert ours.known_files("/exp").keys() == {path_of("a", f"checkpoint-{n}") for n in (1, 2)}
    assert theirs.known_files(LAB).keys() == {
        there(path_of("a", f"checkpoint-{n}")) for n in (1, 2)
    }


def test_a_worker_gets_its_own_hosts_paths(
    database: Database, lab: Database, clock: FakeClock
) -> None:
    """Of checkpoint, run, root and base; and what it looked at is understood."""
    Catalog(database, clock=clock).admit(
        replace(whole("a", 1), base_model="/exp/models/base"), QUICK
    )
    queue = Queue(lab, clock=clock)
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None
    assert claim.paths == (there(path_of("a", "checkpoint-1")),)
    assert (claim.run_path, claim.run_root) == (f"{LAB}/a", LAB)
    assert claim.base_model == f"{LAB}/models/base"
    state = queue.close(claim.job_id, "w", JobState.DELETED, "gone", looked_at=claim.paths)
    assert state is JobState.DELETED


def test_a_file_gone_there_is_gone(database: Database, lab: Database, clock: FakeClock) -> None:
    """What one host's watcher notes of a path is of the same file for all."""
    ours, theirs = Catalog(database, clock=clock), Catalog(lab, clock=clock)
    ours.admit(whole("a", 1), QUICK)
    theirs.note(in_lab(seen("a", "checkpoint-1")), FileState.SETTLING, "changed")
    (job,) = Queue(database).jobs()
    assert job.state is JobState.SUPERSEDED
    ours.admit(whole("a", 1), QUICK)
    assert theirs.gone([there(path_of("a", "checkpoint-1"))]) == 1


@pytest.mark.parametrize("named", ["file", "folder", "run", "stored"])
def test_people_type_their_own_hosts_paths(
    database: Database, lab: Database, clock: FakeClock, named: str
) -> None:
    """And see them; a name copied from an alert, which is the database's, is understood too."""
    Catalog(database, clock=clock).admit(whole("a", 1), QUICK)
    queue, history = Queue(lab, clock=clock), History(lab)
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None
    report = {"checkpoint": claim.paths[0], "grade": "GOOD"}
    queue.finish(claim, "w", measured(details=report), no_alerts)
    file = there(path_of("a", "checkpoint-1"))
    if named == "run":
        assert history.history(f"{LAB}/a")[0].path == file
        assert history.run("/exp/a").path == f"{LAB}/a"
        return
    typed = {
        "file": file,
        "folder": file.rpartition("/")[0],
        "stored": path_of("a", "checkpoint-1"),
    }[named]
    row, shown = history.show(typed)
    assert (row.path, shown) == (file, report)
    _, ours = History(database).show(path_of("a", "checkpoint-1"))
    assert ours == report | {"checkpoint": path_of("a", "checkpoint-1")}
    assert queue.ask(typed, QUICK, because="me").path == file


def test_alerts_name_the_databases_paths(
    database: Database, lab: Database, clock: FakeClock
) -> None:
    """Whichever host measured: receivers are anywhere, and an event has one id."""
    Catalog(database, clock=clock).admit(whole("a", 1), QUICK)
    queue = Queue(lab, clock=clock)
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None
    done = queue.finish(claim, "w", measured(), tell)
    assert done is not None
    assert done.change is not None
    assert done.change.run_path == f"{LAB}/a"
    of_stored = event_id("/exp/a", "k", "s")
    delivery = Outbox(database, clock=clock).claim(lease_seconds=60)
    assert delivery is not None
    assert delivery.payload["path"] == path_of("a", "checkpoint-1")
    assert (delivery.payload["run_path"], delivery.event_id) == ("/exp/a", of_stored)
    assert History(lab).changes()[0].path == there(path_of("a", "checkpoint-1"))


def test_a_base_is_one_base_under_both_names(
    database: Database, lab: Database, clock: FakeClock
) -> None:
    """A worker's loaded base and its offer are written down so that other hosts read them."""
    workers = Workers(lab, clock=clock)
    workers.register("w", "host", 1, "cpu")
    workers.beat("w", state="idle", base_model=f"{LAB}/models/base")
    assert Workers(database, clock=clock).rows()[0].base_model == "/exp/models/base"
    assert workers.rows()[0].base_model == f"{LAB}/models/base"
