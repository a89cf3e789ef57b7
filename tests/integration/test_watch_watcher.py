"""The watcher on real files that a real process writes, with and without events."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import watching as w
from watching import Spy, archive, checkpoint, logged, settings, until, watching, writing

from nptwatch.errors import DatabaseError, SchemaError
from nptwatch.store.records import Admission, FileState, Request
from nptwatch.watch import listings, watcher
from nptwatch.watch.discovery import Finder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watching import Logs

    from nptwatch.watch.sweep import Sweep


@pytest.fixture(params=["inotify", "none", "polling"])
def observer(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """Settings for each kind of wake-up; without events scans or polls must do."""
    return w.kind_of_observer(request.param, tmp_path, monkeypatch)


@pytest.fixture(params=["inotify", "polling"])
def waking(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """Settings for both kinds of wake-up of which scans are no part."""
    return w.kind_of_observer(request.param, tmp_path, monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An experiments folder that is never empty."""
    folder = tmp_path / "experiments"
    (folder / "notes").mkdir(parents=True)
    return folder


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nptwatch's own folder, not where the experiments are."""
    return tmp_path_factory.mktemp("local") / "state"


@pytest.fixture
def catalog(state: Path) -> Iterator[Spy]:
    """A catalog on SQLite that remembers what it was told."""
    with w.spied_catalog(state) as spy:
        yield spy


def test_new_checkpoint_is_queued_soon_after_it_settled(
    catalog: Spy, root: Path, state: Path, observer: dict[str, object], logs: Logs
) -> None:
    """A file that becomes whole is queued within settle_seconds and one second, with its facts."""
    with watching(catalog, settings(root, **observer), state):
        logged(logs, "scan_finished")  # what comes now comes while it watches
        weights = checkpoint(root / "deep/run1", "checkpoint-500")
        took = until(catalog.queued)
    whole, admission = catalog.admitted[0]
    assert 0.2 <= took < 0.2 + 1.0
    assert admission is Admission.QUEUED
    assert (whole.file.path, whole.step, whole.base_model) == (str(weights), 500, "base")
    assert whole.file.run_name == "deep/run1"
    assert whole.file.run_path == str(root / "deep/run1")


def test_stalled_writer_is_waited_for(
    catalog: Spy, root: Path, state: Path, observer: dict[str, object]
) -> None:
    """A writer stopped mid-save holds its checkpoint back; when it goes on, it is queued once."""
    target = root / "run/checkpoints/checkpoint-1/npt_weights.pt"
    with (
        watching(catalog, settings(root, **observer), state),
        writing(archive("a"), target) as writer,
    ):
        writer.process.send_signal(signal.SIGSTOP)
        until(lambda: catalog.notes)
        time.sleep(1.0)  # five times as long as a whole file takes
        assert catalog.admitted == []
        assert catalog.notes[0][:2] == (str(target), FileState.SETTLING)
        assert "half-written" in catalog.notes[-1][2]  # the first may have seen zero bytes
        writer.process.send_signal(signal.SIGCONT)
        writer.finish()
        until(catalog.queued)
    assert catalog.queued() == [str(target)]


def test_killed_writer_is_abandoned_when_its_run_goes_on(
    catalog: Spy, root: Path, state: Path, observer: dict[str, object]
) -> None:
    """A half file stays settling until a newer step is whole; a later rewrite brings it back."""
    target = root / "run/checkpoints/checkpoint-1/npt_weights.pt"
    with watching(catalog, settings(root, **observer), state):
        with writing(archive("a"), target) as writer:
            writer.process.kill()
        until(lambda: catalog.notes)
        time.sleep(2.5)
        assert {s for _, s, _ in catalog.notes} == {FileState.SETTLING}
        newer = checkpoint(root / "run", "checkpoint-2")
        until(lambda: catalog.notes[-1][1] is FileState.ABANDONED)
        assert "step 2 is whole" in catalog.notes[-1][2]
        target.write_bytes(archive("b"))
        until(lambda: len(catalog.queued()) == 2)
    assert catalog.queued() == [str(newer), str(target)]


def test_partial_file_becomes_unloadable_and_comes_back(
    catalog: Spy, root: Path, state: Path, observer: dict[str, object]
) -> None:
    """Unchanged for long and not whole: unloadable with the reason, until the file changes."""
    target = root / "run/checkpoints/checkpoint-1/npt_weights.pt"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"")
    config = settings(root, unloadable_after_seconds=1.0, **observer)
    with watching(catalog, config, state):
        until(lambda: any(s is FileState.UNLOADABLE for _, s, _ in catalog.notes))
        assert "zero bytes" in catalog.notes[-1][2]
        target.write_bytes(archive("a"))
        until(catalog.queued)
    assert catalog.state_of(target) is FileState.WHOLE


def test_overwrite_in_place_waits_for_the_new_marker(
    catalog: Spy, root: Path, state: Path, observer: dict[str, object]
) -> None:
    """While weights are newer than the training state beside them nothing is admitted."""
    weights = checkpoint(root / "run", "best", seed="old")
    marker = weights.with_name("training_state.pt")
    with watching(catalog, settings(root, **observer), state):
        until(catalog.queued)
        time.sleep(0.05)
        with writing(archive("new"), weights) as writer:
            writer.finish()
        time.sleep(1.0)
        assert len(catalog.admitted) == 1
        shutil.copyfile(w.GOLDEN_RUN / "checkpoints/checkpoint-400/training_state.pt", marker)
        until(lambda: len(catalog.queued()) == 2)
    first, second = (whole for whole, _ in catalog.admitted)
    assert first.fingerprint != second.fingerprint
    assert (first.step, second.step) == (300, 400)


def test_marker_that_stays_behind_hides_nothing_for_ever(
    catalog: Spy, root: Path, state: Path
) -> None:
    """A complete file whose marker is older is taken once it is old itself."""
    weights = checkpoint(root / "run", "checkpoint-1")
    os.utime(weights.with_name("training_state.pt"), (1, 1))
    config = settings(root, unloadable_after_seconds=1.2, observer="none")
    with watching(catalog, config, state):
        took = until(catalog.queued)
    assert took > 0.9
    assert catalog.notes[0][2] == "training_state.pt beside it is older"


def test_unnumbered_checkpoint_waits_for_the_state_that_gives_its_step(
    catalog: Spy, root: Path, state: Path, waking: dict[str, object]
) -> None:
    """`best/` is not admitted with an unknown step while its training state is being written."""
    weights = checkpoint(root / "run", "best", state=False)
    source = w.GOLDEN_RUN / "checkpoints/checkpoint-300/training_state.pt"
    with (
        writing(source.read_bytes(), weights.with_name("training_state.pt")) as writer,
        watching(catalog, settings(root, **waking), state),
    ):
        until(lambda: catalog.notes)
        time.sleep(0.6)
        assert catalog.admitted == []
        writer.finish()
        until(catalog.queued, seconds=4)
    assert catalog.admitted[0][0].step == 300


def test_deleted_checkpoint_is_reported(
    catalog: Spy, root: Path, state: Path, observer: dict[str, object]
) -> None:
    """A rotated checkpoint is told to the catalog; a new one of the same name is admitted."""
    weights = checkpoint(root / "run", "checkpoint-1", seed="a")
    with watching(catalog, settings(root, **observer), state):
        until(catalog.queued)
        shutil.rmtree(weights.parent)
        until(lambda: catalog.deleted == [str(weights)])
        checkpoint(root / "run", "checkpoint-1", seed="b")
        until(lambda: len(catalog.queued()) == 2)


def test_rename_and_replace_are_seen(
    catalog: Spy, root: Path, state: Path, observer: dict[str, object]
) -> None:
    """A folder renamed into place and a file replaced atomically are each admitted once."""
    with watching(catalog, settings(root, **observer), state):
        staged = checkpoint(root / "run", "checkpoint-1.tmp", seed="a")
        time.sleep(0.6)
        assert catalog.admitted == []
        staged.parent.rename(staged.parent.with_name("checkpoint-1"))
        final = staged.parent.with_name("checkpoint-1") / "npt_weights.pt"
        until(lambda: catalog.queued() == [str(final)])
        temporary = final.with_name(".npt_weights.pt.part")
        temporary.write_bytes(archive("b"))
        temporary.replace(final)
        final.with_name("training_state.pt").touch()
        until(lambda: len(catalog.queued()) == 2)
    assert {whole.file.path for whole, _ in catalog.admitted} == {str(final)}


def test_backlog_is_admitted_and_a_restart_repeats_nothing(
    catalog: Spy, root: Path, state: Path, observer: dict[str, object]
) -> None:
    """What lay there at start is queued; the next start opens no weights file and queues none."""
    files = [checkpoint(root / "run", f"checkpoint-{n}") for n in (1, 2, 3)]
    with watching(catalog, settings(root, **observer), state):
        until(lambda: len(catalog.queued()) == 3)
    stamps = {f: f.stat().st_atime_ns for f in files}
    for file in files:  # an unreadable file would be noticed if it were opened
        os.utime(file, ns=(1, file.stat().st_mtime_ns))
    with watching(catalog, settings(root, **observer), state):
        until(lambda: len(catalog.admitted) == 6)
        time.sleep(0.5)
    assert [a for _, a in catalog.admitted[3:]] == [Admission.KNOWN] * 3
    assert all(f.stat().st_atime_ns == 1 for f in files), stamps


def test_a_poll_before_the_first_walk_ends_knows_what_the_database_knows(
    catalog: Spy, root: Path, state: Path
) -> None:
    """Known files are not looked at anew, as if they were just being written."""
    for step in (1, 2, 3):
        checkpoint(root / "run", f"checkpoint-{step}")
    with watching(catalog, settings(root), state):
        until(lambda: len(catalog.queued()) == 3)
    again = w.Watcher(catalog=catalog, request=w.REQUEST, settings=settings(root), canary_dir=state)
    again._look_in(str(root), deep=True, heard=False)
    states = [track.state for track in again._ledger.tracks.values()]
    assert states == [FileState.WHOLE] * 3


def test_new_settings_hash_admits_known_files_again(catalog: Spy, root: Path, state: Path) -> None:
    """A start with another request queues what is known as whole once more."""
    checkpoint(root / "run", "checkpoint-1")
    with watching(catalog, settings(root), state):
        until(catalog.queued)
    other = Request(profile="quick", settings_hash="h2")
    with watching(catalog, settings(root), state, other):
        until(lambda: len(catalog.queued()) == 2)


def test_deletion_while_down_is_noticed_at_start(
    catalog: Spy, root: Path, state: Path, waking: dict[str, object]
) -> None:
    """A checkpoint that went away between two runs of the daemon is reported deleted."""
    gone = checkpoint(root / "run", "checkpoint-1")
    checkpoint(root / "run", "checkpoint-2")
    with watching(catalog, settings(root, **waking), state):
        until(lambda: len(catalog.queued()) == 2)
    shutil.rmtree(gone.parent)
    with watching(catalog, settings(root, **waking), state):
        until(lambda: catalog.deleted)
    assert catalog.deleted == [str(gone)]


def test_deletion_is_noticed_when_a_root_that_was_away_at_start_is_back(
    catalog: Spy, root: Path, state: Path, waking: dict[str, object]
) -> None:
    """Nothing is said of a share's files until it is mounted; then of what went meanwhile."""
    gone = checkpoint(root / "run", "checkpoint-1")
    checkpoint(root / "run", "checkpoint-2")
    config = settings(root, **waking | {"rescan_seconds": 0.2})
    with watching(catalog, config, state):
        until(lambda: len(catalog.queued()) == 2)
    away = root.with_name("away")
    root.rename(away)
    root.mkdir()
    with watching(catalog, config, state) as watcher_on_it:
        until(lambda: watcher_on_it.last_scan is not None)
        time.sleep(0.5)
        assert catalog.deleted == []
        root.rmdir()
        shutil.rmtree((away / gone.relative_to(root)).parent)
        away.rename(root)
        until(lambda: catalog.deleted)
    assert catalog.deleted == [str(gone)]
    assert len(catalog.queued()) == 2


def test_a_database_that_is_away_at_start_repeats_and_loses_nothing(
    catalog: Spy, root: Path, state: Path, waking: dict[str, object], logs: Logs
) -> None:
    """What it knew is asked for when it is back: no second job, and a deletion is noticed."""
    gone = checkpoint(root / "run", "checkpoint-1")
    checkpoint(root / "run", "checkpoint-2")
    config = settings(root, **waking | {"rescan_seconds": 0.2})
    with watching(catalog, config, state):
        until(lambda: len(catalog.queued()) == 2)
    shutil.rmtree(gone.parent)
    catalog.broken = DatabaseError("locked")
    with watching(catalog, config, state):
        logged(logs, "database_unavailable")
        catalog.broken = None
        until(lambda: catalog.deleted and len(catalog.admitted) >= 3)
    assert catalog.deleted == [str(gone)]
    assert {admission for _, admission in catalog.admitted[2:]} == {Admission.KNOWN}


def test_touched_file_is_known(
    catalog: Spy, root: Path, state: Path, observer: dict[str, object]
) -> None:
    """New times on the same content make no new job, but the new signature is stored."""
    weights = checkpoint(root / "run", "checkpoint-1", state=False)
    with watching(catalog, settings(root, **observer), state) as watcher:
        until(catalog.queued)
        weights.touch()
        watcher.rescan()
        until(lambda: len(catalog.admitted) == 2)
    assert catalog.admitted[1][1] is Admission.KNOWN
    assert catalog.admitted[1][0].file.mtime_ns == weights.stat().st_mtime_ns


@pytest.mark.parametrize("way", ["moved away", "emptied"])
def test_unreachable_root_deletes_nothing(
    catalog: Spy, root: Path, state: Path, way: str, waking: dict[str, object]
) -> None:
    """A root that vanishes or is empty, as an unmounted share is, leaves its files alone."""
    checkpoint(root / "run", "checkpoint-1")
    away = root.with_name("away")
    config = settings(root, **waking | {"rescan_seconds": 0.2})
    with watching(catalog, config, state):
        until(catalog.queued)
        root.rename(away)
        if way == "emptied":
            root.mkdir()
        time.sleep(0.8)
        assert catalog.deleted == []
        if way == "emptied":
            root.rmdir()
        away.rename(root)
        checkpoint(root / "run", "checkpoint-2")
        until(lambda: len(catalog.queued()) == 2)
    assert catalog.deleted == []


def test_root_that_appears_later_is_watched(
    catalog: Spy, tmp_path: Path, state: Path, observer: dict[str, object], logs: Logs
) -> None:
    """A root missing at start is taken up when it is there."""
    root = tmp_path / "later"
    with watching(catalog, settings(root, **observer), state):
        logged(logs, "scan_finished")
        checkpoint(root / "run", "checkpoint-1")
        until(catalog.queued)


def test_symlinked_root_gets_events(
    catalog: Spy, root: Path, state: Path, tmp_path: Path, logs: Logs, waking: dict[str, object]
) -> None:
    """Below a root that is a symlink events come too, and paths are real."""
    link = tmp_path / "link"
    link.symlink_to(root)
    with watching(catalog, settings(link, **waking), state):
        logged(logs, "scan_finished")
        weights = checkpoint(root / "run", "checkpoint-1")
        until(catalog.queued, seconds=3)
    assert catalog.queued() == [str(weights)]


def test_two_roots_and_exclude(
    catalog: Spy, tmp_path: Path, state: Path, waking: dict[str, object]
) -> None:
    """Each root's runs are found; excluded folders and files are not."""
    one, two = tmp_path / "one", tmp_path / "two"
    wanted = {
        str(checkpoint(one / "run", "checkpoint-1")),
        str(checkpoint(two / "nested/layer_3/run", "checkpoint-1")),
    }
    checkpoint(one / "debug_x", "checkpoint-1")
    config = settings(one, two, exclude=("debug_*", "two_old/**"), **waking)
    with watching(catalog, config, state):
        until(lambda: len(catalog.queued()) == 2)
        checkpoint(one / "debug_y", "checkpoint-1")
        wanted.add(str(checkpoint(one / "run", "checkpoint-2")))
        until(lambda: len(catalog.queued()) == 3)
        time.sleep(0.3)
    assert set(catalog.queued()) == wanted
    assert {whole.file.root for whole, _ in catalog.admitted} == {str(one), str(two)}


def test_linked_folder_is_followed_with_events(
    catalog: Spy, root: Path, state: Path, tmp_path: Path, logs: Logs, waking: dict[str, object]
) -> None:
    """Checkpoints behind a symlinked folder belong to the run that links to it, and wake us."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (root / "run").mkdir()
    (root / "run/checkpoints").symlink_to(scratch)
    (root / "run/loop").symlink_to(root)
    with watching(catalog, settings(root, **waking), state) as watcher:
        logged(logs, "scan_finished")
        watcher.rescan()  # what the first scan found is watched before the second begins
        logged(logs, "scan_finished", times=2)
        folder = scratch / "checkpoint-7"
        folder.mkdir()
        (folder / "npt_weights.pt").write_bytes(archive("a"))
        until(catalog.queued, seconds=5)
    file = catalog.admitted[0][0].file
    assert file.path == str(scratch / "checkpoint-7/npt_weights.pt")
    assert (file.run_name, file.run_path) == ("run", str(root / "run"))


def test_lost_database_is_retried_and_nothing_forgotten(
    catalog: Spy, root: Path, state: Path, waking: dict[str, object]
) -> None:
    """Whatever happens while the database is away is stored when it is back."""
    first = checkpoint(root / "run", "checkpoint-1")
    with watching(catalog, settings(root, **waking), state):
        until(catalog.queued)
        catalog.broken = DatabaseError("locked")
        second = checkpoint(root / "run", "checkpoint-2")
        shutil.rmtree(first.parent)
        time.sleep(1.5)
        catalog.broken = None
        until(lambda: len(catalog.queued()) == 2 and catalog.deleted)
    assert catalog.queued()[1] == str(second)
    assert catalog.deleted == [str(first)]


def test_a_deletion_seen_while_the_database_is_away_is_not_forgotten(
    catalog: Spy, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    """One walk finds that a file at rest is gone and that another came; neither can be stored."""
    config = settings(root, **w.kind_of_observer("none", root, monkeypatch))
    gone = checkpoint(root / "run", "checkpoint-1")
    with watching(catalog, config, state) as watcher_on_it:
        until(lambda: watcher_on_it._finder.is_resting(str(gone.parent)))
        catalog.broken = DatabaseError("locked")
        shutil.rmtree(gone.parent)
        new = checkpoint(root / "run", "checkpoint-2")
        logged(logs, "database_unavailable")
        catalog.broken = None
        until(lambda: len(catalog.queued()) == 2 and catalog.deleted)
    assert catalog.queued()[1] == str(new)
    assert catalog.deleted == [str(gone)]


def test_wrong_schema_ends_the_watcher(catalog: Spy, root: Path, state: Path, logs: Logs) -> None:
    """A schema that retrying cannot mend is raised."""
    catalog.broken = SchemaError("run `nptwatch db upgrade`")
    with (
        pytest.raises(AssertionError, match="SchemaError"),
        watching(catalog, settings(root), state),
    ):
        logged(logs, "watcher_stopped")


def test_scan_once_takes_what_is_whole_and_notes_the_rest(
    catalog: Spy, root: Path, state: Path
) -> None:
    """One scan admits whole files, calls old garbage unloadable and leaves young files noted."""
    whole = checkpoint(root / "run", "checkpoint-1")
    young = root / "run/checkpoints/checkpoint-2/npt_weights.pt"
    young.parent.mkdir()
    young.write_bytes(archive("a")[:2000])
    watcher = w.Watcher(
        catalog=catalog, request=w.REQUEST, settings=settings(root), canary_dir=state
    )
    report = watcher.scan_once()
    assert (report.queued, report.waiting, report.unloadable) == (1, 1, 0)
    assert catalog.queued() == [str(whole)]
    assert catalog.notes[-1][:2] == (str(young), FileState.SETTLING)
    assert watcher.scan_once().queued == 0


def test_golden_run_as_the_trainer_left_it(
    catalog: Spy, root: Path, state: Path, waking: dict[str, object]
) -> None:
    """Six files are four contents: best/ and final/ are twins of step 400, with its step."""
    shutil.copytree(w.GOLDEN_RUN, root / "equivalence")
    with watching(catalog, settings(root, **waking), state):
        until(lambda: len(catalog.admitted) == 6)
    assert len(catalog.queued()) == 4
    steps = {Path(x.file.path).parent.name: x.step for x, _ in catalog.admitted}
    assert steps["best"] == steps["final"] == steps["checkpoint-400"] == 400
    assert {x.base_model for x, _ in catalog.admitted} == {"base"}
    assert not list((root / "equivalence").rglob("*canary*"))


def test_a_note_beside_an_old_checkpoint_is_no_missed_event(
    catalog: Spy,
    root: Path,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    logs: Logs,
) -> None:
    """It is looked at again, since its folder changed; that no event came of *it* is no wonder."""
    monkeypatch.setattr(listings, "SETTLED_NS", 10_000_000)
    monkeypatch.setattr(watcher, "_LATE_EVENT_SECONDS", 0.1)
    with watching(catalog, settings(root), state) as watching_it:
        logged(logs, "scan_finished")
        began = time.time()
        until(lambda: time.time() > began + 0.3)  # what it writes now, an event should tell of
        weights = checkpoint(root / "run", "checkpoint-1")
        until(lambda: len(catalog.admitted) == 1)
        until(lambda: time.time() - weights.stat().st_ctime > 0.2)
        watching_it.rescan()
        logged(logs, "scan_finished", times=2)
        (weights.parent / "notes.txt").write_text("a fine one")
        watching_it.rescan()
        until(lambda: len(catalog.admitted) == 2)
        logged(logs, "scan_finished", times=3)
        time.sleep(1.2)  # two checks of the observer
    assert catalog.admitted[1][1] is Admission.KNOWN
    assert not [entry for entry in logs if entry["event"] == "observer_rebuilt"]


def test_a_checkpoint_at_rest_is_forgotten_and_its_end_is_not(
    catalog: Spy, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    """The watcher has no track of it left; that it is deleted is stored all the same."""
    monkeypatch.setattr(listings, "SETTLED_NS", 10_000_000)
    with watching(catalog, settings(root, observer="none", rescan_seconds=0.2), state) as it:
        weights = checkpoint(root / "run", "checkpoint-1")
        until(lambda: catalog.admitted)
        until(lambda: not it._ledger.tracks and it._finder.resting == 1)
        shutil.rmtree(weights.parent)
        until(lambda: catalog.deleted == [str(weights)])


def test_a_checkpoint_at_rest_needs_no_watch(
    catalog: Spy, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder above is heard of, in which the next one comes; the numbers do not add up."""
    monkeypatch.setattr(listings, "SETTLED_NS", 10_000_000)
    with watching(catalog, settings(root, rescan_seconds=0.3), state) as it:
        for step in range(3):
            checkpoint(root / "run", f"checkpoint-{step}")
            until(lambda n=step: len(catalog.queued()) == n + 1)
        until(lambda: it._finder.resting == 3)
        heard = it._waking.events._emitter._descriptors
        checkpoints = str(root / "run/checkpoints")
        until(lambda: not any(path.startswith(checkpoints + "/") for path in list(heard)))
        assert checkpoints in heard


def test_a_folder_made_between_the_walk_and_the_watch_is_found_soon(
    catalog: Spy, root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At start a run's folder is listed before it is heard of: what comes then sends no event."""
    checkpoint(root / "run", "checkpoint-1")
    walk, walks = Finder.sweep, list[int]()

    def sweep(finder: Finder, **how: Any) -> list[Sweep]:
        found = walk(finder, **how)
        if not walks:
            checkpoint(root / "run", "checkpoint-500")
        walks.append(1)
        return found

    monkeypatch.setattr(Finder, "sweep", sweep)
    with watching(catalog, settings(root, observer="inotify"), state):
        until(lambda: len(catalog.queued()) == 2)


def test_a_file_that_cannot_be_stored_stops_nothing(
    catalog: Spy, root: Path, state: Path, observer: dict[str, object], logs: Logs
) -> None:
    """Its time is beyond what a database holds: the log says so once, the others are queued."""
    odd = checkpoint(root / "run", "checkpoint-1")
    os.utime(odd, ns=(2**63, 2**63))
    if odd.stat().st_mtime_ns < 2**63:
        pytest.skip("this file system has no such times")
    with watching(catalog, settings(root, **observer), state) as watcher_on_it:
        fine = checkpoint(root / "run", "checkpoint-2")
        until(lambda: catalog.queued() == [str(fine)])
        for file in (odd, odd.with_name("training_state.pt")):  # the marker last
            os.utime(file)
        watcher_on_it.rescan()
        until(lambda: len(catalog.queued()) == 2)
    assert len([e for e in logs if e["event"] == "checkpoint_left_out"]) == 1
