"""Watcher and real SQLite store together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import watching as w
from watching import archive, checkpoint, settings, until, watching

from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database
from nptwatch.store.migrate import upgrade
from nptwatch.store.queue import Queue
from nptwatch.store.records import FileState, JobState, Request
from nptwatch.watch.registrar import BATCH
from nptwatch.watch.watcher import Action, survey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A migrated SQLite database."""
    database = Database(f"sqlite:///{tmp_path / 'state/nptwatch.db'}")
    upgrade(database)
    yield database
    database.close()


@pytest.fixture(params=["inotify", "polling"])
def waking(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """Settings for both kinds of wake-up; the database is on a local disk."""
    return w.kind_of_observer(request.param, tmp_path / "experiments", monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An experiments folder with the golden run in it."""
    folder = tmp_path / "experiments"
    shutil.copytree(w.GOLDEN_RUN, folder / "equivalence")
    return folder


def jobs(database: Database) -> dict[JobState, int]:
    """Count jobs by state, without the states that have none."""
    return {state: n for state, n in Queue(database).depth().items() if n}


def test_golden_run_is_queued_once_each(
    database: Database, root: Path, tmp_path: Path, waking: dict[str, object]
) -> None:
    """Four contents in six files make four jobs; a restart makes none."""
    catalog = Catalog(database)
    for _ in range(2):
        spy = w.Spy(catalog)
        with watching(spy, settings(root, **waking), tmp_path / "state"):
            until(lambda seen=spy: len(seen.admitted) == 6)
        assert jobs(database) == {JobState.QUEUED: 4}
    claims = [Queue(database).claim("me", lease_seconds=60) for _ in range(5)]
    assert [c.step for c in claims if c is not None] == [400, 300, 200, 100]
    assert claims[0] is not None
    assert len(claims[0].paths) == 3
    assert "checkpoint-400" in claims[0].paths[0]
    assert claims[0].base_model == "base"


def test_touched_file_refreshes_its_row(database: Database, root: Path, tmp_path: Path) -> None:
    """New times on old content: the row has the new signature and there is no new job."""
    catalog = Catalog(database)
    spy = w.Spy(catalog)
    weights = root / "equivalence/checkpoints/checkpoint-100/npt_weights.pt"
    with watching(spy, settings(root), tmp_path / "state") as watcher:
        until(lambda: len(spy.admitted) == 6)
        os.utime(weights, ns=(10**18, 10**18))
        watcher.rescan()
        until(lambda: len(spy.admitted) == 7)
    assert catalog.known_files(str(root))[str(weights)].signature.split(":")[1] == str(10**18)
    assert jobs(database) == {JobState.QUEUED: 4}


def test_overwritten_and_deleted_checkpoints_close_their_jobs(
    database: Database, root: Path, tmp_path: Path, waking: dict[str, object]
) -> None:
    """A queued version that was overwritten is superseded, one that went away is deleted."""
    run = root / "equivalence/checkpoints"
    spy = w.Spy(Catalog(database))
    with watching(spy, settings(root, **waking), tmp_path / "state"):
        until(lambda: len(spy.admitted) == 6)
        (run / "checkpoint-200/npt_weights.pt").write_bytes(archive("again"))
        (run / "checkpoint-200/training_state.pt").touch()
        shutil.rmtree(run / "checkpoint-100")
        until(lambda: len(spy.admitted) == 7 and spy.deleted)
    assert jobs(database) == {
        JobState.QUEUED: 3,
        JobState.SUPERSEDED: 1,
        JobState.DELETED: 1,
    }


def test_partial_file_has_a_row_with_its_reason(
    database: Database, root: Path, tmp_path: Path
) -> None:
    """A half file is in the database as unloadable with the reason, and has no job."""
    half = root / "run/checkpoints/checkpoint-1/npt_weights.pt"
    half.parent.mkdir(parents=True)
    half.write_bytes(archive("a")[:3000])
    catalog = Catalog(database)

    def state() -> FileState | None:
        row = catalog.known_files(str(root)).get(str(half))
        return row.state if row is not None else None

    config = settings(root, unloadable_after_seconds=1.0)
    with watching(catalog, config, tmp_path / "state"):
        until(lambda: state() is FileState.UNLOADABLE)
    reason = catalog.known_files(str(root))[str(half)].reason
    assert reason is not None
    assert "3000 bytes, no ZIP directory at the end: half-written" in reason


def test_new_request_queues_known_files(database: Database, root: Path, tmp_path: Path) -> None:
    """Another settings hash makes a job for each content, once, in place of those that wait."""
    catalog = Catalog(database)
    for _ in range(2):
        for number in (1, 2):
            spy = w.Spy(catalog)
            request = Request(profile="quick", settings_hash=f"h{number}")
            with watching(spy, settings(root), tmp_path / "state", request):
                until(lambda seen=spy: len(seen.admitted) == 6)
    assert jobs(database) == {JobState.QUEUED: 4, JobState.SUPERSEDED: 4}


def test_survey_says_what_would_be_done_and_writes_nothing(
    database: Database, root: Path, tmp_path: Path
) -> None:
    """A dry run names an action and a reason for each file and leaves the database empty."""
    catalog = Catalog(database)
    half = root / "run/checkpoints/checkpoint-1/npt_weights.pt"
    half.parent.mkdir(parents=True)
    half.write_bytes(archive("a")[:3000])
    config = settings(root, tmp_path / "absent", exclude=("best",))
    verdicts = survey(config, catalog.known_files)
    by_action = {action: [v for v in verdicts if v.action is action] for action in Action}
    assert len(by_action[Action.QUEUE]) == 5
    assert [v.path for v in by_action[Action.WAIT]] == [str(half)]
    assert "half-written" in by_action[Action.WAIT][0].reason
    assert {v.reason for v in by_action[Action.SKIP]} == {
        "excluded by watch.exclude",
        "root cannot be listed: No such file or directory",
    }
    assert jobs(database) == {}
    watcher = w.Watcher(
        catalog=catalog, request=w.REQUEST, settings=config, canary_dir=tmp_path / "state"
    )
    assert watcher.scan_once().queued == 4
    again = [v.action for v in survey(config, catalog.known_files)]
    assert again.count(Action.KNOWN) == 5


_DAEMON = """
import sys, threading
from pathlib import Path
from nptwatch.logs import configure_logs
from nptwatch.settings import WatchSettings
from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database
from nptwatch.store.records import Request
from nptwatch.watch.watcher import Watcher
configure_logs()
root, state = Path(sys.argv[1]), Path(sys.argv[2])
Watcher(
    catalog=Catalog(Database(f"sqlite:///{state / 'nptwatch.db'}")),
    request=Request(profile="quick", settings_hash="h1"),
    settings=WatchSettings(roots=(root,), settle_seconds=0.2), canary_dir=state,
    on_queued=lambda: print("queued", flush=True),
).run(threading.Event())
"""


def test_killed_watcher_loses_and_repeats_nothing(database: Database, tmp_path: Path) -> None:
    """SIGKILL amid a backlog, several times: in the end each checkpoint has one job."""
    root = tmp_path / "many"
    files = 3 * BATCH + 50
    for step in range(files):
        checkpoint(root / "run", f"checkpoint-{step}")
    before = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _DAEMON, str(root), str(tmp_path / "state")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "queued"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert jobs(database)[JobState.QUEUED] > before
        before = jobs(database)[JobState.QUEUED]
    spy = w.Spy(Catalog(database))
    with watching(spy, settings(root), tmp_path / "state"):
        until(lambda: len(spy.admitted) == files)
    assert jobs(database) == {JobState.QUEUED: files}
    assert len(spy.queued()) == files - before


def test_corrected_config_of_a_run_corrects_its_waiting_jobs(
    database: Database, root: Path, tmp_path: Path
) -> None:
    """The base that a run's config.json names is read again when that file changes."""
    run = root / "other"
    checkpoint(run, "checkpoint-100", state=False)
    config = run / "config.json"
    config.write_text(json.dumps({"model_name": "lama"}))
    catalog, queue = Catalog(database), Queue(database)

    def base() -> str | None:
        claim = queue.claim("me", lease_seconds=60)
        assert claim is not None
        queue.release(claim, "me", reason="looked")
        return claim.base_model

    shutil.rmtree(root / "equivalence")
    with watching(catalog, settings(root, rescan_seconds=0.3), tmp_path / "state"):
        until(lambda: jobs(database) == {JobState.QUEUED: 1})
        assert base() == "lama"
        config.write_text(json.dumps({"model_name": "llama"}))
        until(lambda: base() == "llama")
    assert jobs(database) == {JobState.QUEUED: 1}
