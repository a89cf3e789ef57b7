"""Checkpoints at rest are told of no more, until something about them changes."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nptwatch.settings import WatchSettings
from nptwatch.store.records import SeenFile
from nptwatch.watch import listings
from nptwatch.watch.discovery import Finder
from nptwatch.watch.listings import Listing
from nptwatch.watch.resting import Resting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nptwatch.watch.sweep import Sweep

TICK_SECONDS = 0.03
"""Folders that changed so lately are read again; a tick of a file system's clock is shorter."""


@pytest.fixture(autouse=True)
def _soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "SETTLED_NS", int(TICK_SECONDS * 1e9))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run of three checkpoints, of which nothing changed just now."""
    root = tmp_path / "root"
    for step in (1, 2, 3):
        write(weights(root, step))
    time.sleep(2 * TICK_SECONDS)
    return root


@pytest.fixture
def finder(root: Path) -> Finder:
    """A finder to which all three are at rest."""
    finder = Finder(WatchSettings(roots=(root,)))
    (sweep,) = finder.sweep()
    assert [finder.rest(file) for file in sweep.files.values()] == [True] * 3
    return finder


def weights(root: Path, step: int, run: str = "run") -> Path:
    """Name a checkpoint's file."""
    return root / f"{run}/checkpoints/checkpoint-{step}/npt_weights.pt"


def write(file: Path, content: bytes = b"x") -> Path:
    """Write a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def told(finder: Finder) -> tuple[set[str], set[str]]:
    """Sweep; give the paths of files that it tells of, and of those that may be gone."""
    (sweep,) = finder.sweep()
    return set(sweep.files), sweep.missing


def test_of_what_rests_nothing_is_told(finder: Finder) -> None:
    """Neither as found nor as missing, however often."""
    for _ in range(70):  # at some of them everything is listed anew
        assert told(finder) == (set(), set())
    assert finder.resting == 3


def test_a_file_rewritten_in_place_is_told_of(finder: Finder, root: Path) -> None:
    """Its folder does not change by it."""
    (sweep,) = _after(finder, lambda: write(weights(root, 2), b"longer"))
    assert sweep.files.keys() == {str(weights(root, 2))}
    assert not any(map(sweep.is_unchanged, sweep.files.values()))
    assert finder.resting == 2


def test_a_folder_that_got_another_file_is_told_of(finder: Finder, root: Path) -> None:
    """What came may be a training state, or more weights; those that were there are as before."""
    other = weights(root, 2).with_name("other.pt")
    (sweep,) = _after(finder, lambda: write(other))
    assert str(weights(root, 2)) in sweep.files
    (sweep,) = _after(finder, lambda: write(weights(root, 3).with_name("training_state.pt")))
    assert sweep.is_unchanged(sweep.files[str(weights(root, 3))])
    assert finder.resting == 1


def test_what_is_deleted_is_missing(finder: Finder, root: Path) -> None:
    """The file, its folder, or the run."""
    weights(root, 1).unlink()
    assert told(finder) == (set(), {str(weights(root, 1))})
    shutil.rmtree(weights(root, 2).parent)
    assert told(finder) == (set(), {str(weights(root, 2))})
    shutil.move(root / "run", root / "moved")
    write(root / "keeps the root from being empty")
    assert told(finder) == (
        {str(weights(root, 3, "moved"))},
        {str(weights(root, 3))},
    )
    assert told(finder)[1] == set()


def test_a_look_into_a_folder_that_is_gone_tells_what_was_below(finder: Finder, root: Path) -> None:
    """An event names the run's folder; no sweep is waited for."""
    write(root / "keeps the root from being empty")
    shutil.rmtree(root / "run")
    sweep = finder.look_in(str(root / "run"), deep=True)
    assert sweep.missing == {str(weights(root, step)) for step in (1, 2, 3)}
    assert finder.resting == 0


def test_a_look_into_its_folder_wakes_a_file(finder: Finder, root: Path) -> None:
    """An event was heard there: a marker perhaps, that somebody waits for."""
    sweep = finder.look_in(str(weights(root, 2).parent), deep=False)
    assert list(map(sweep.is_unchanged, sweep.files.values())) == [True]
    assert told(finder) == ({str(weights(root, 2))}, set())


def test_a_root_that_is_away_wakes_nothing(finder: Finder, root: Path) -> None:
    """A share that is not mounted is empty, or cannot be listed."""
    away = root.with_name("away")
    root.rename(away)
    assert told(finder) == (set(), set())
    root.mkdir()
    assert told(finder) == (set(), set())
    assert finder.resting == 3
    root.rmdir()
    away.rename(root)
    assert told(finder) == (set(), set())
    assert finder.resting == 3


def test_links_to_what_rests_add_nothing(finder: Finder, root: Path) -> None:
    """Neither one to the folder nor one to the file."""
    (root / "run/latest").symlink_to(weights(root, 3).parent)
    (root / "run/npt_weights.pt").symlink_to(weights(root, 2))
    assert told(finder) == (set(), set())


def test_a_run_can_be_woken(finder: Finder, root: Path) -> None:
    """Each of its files is told of once more, and none of another run."""
    write(weights(root, 1, "other"))
    time.sleep(2 * TICK_SECONDS)
    (sweep,) = finder.sweep()
    assert [finder.rest(file) for file in sweep.files.values()] == [True]
    finder.wake(str(root / "run"))
    assert told(finder) == ({str(weights(root, step)) for step in (1, 2, 3)}, set())
    assert finder.resting == 1


def test_only_what_a_folder_alone_can_tell_of_rests(root: Path) -> None:
    """Not with a folder beside the file, not twice, not as it was seen before."""
    (weights(root, 1).parent / "logs").mkdir()
    time.sleep(2 * TICK_SECONDS)
    finder = Finder(WatchSettings(roots=(root,)))
    (sweep,) = finder.sweep()
    one, two, three = (sweep.files[str(weights(root, step))] for step in (1, 2, 3))
    assert not finder.rest(one)
    assert finder.rest(two)
    assert not finder.rest(two)
    write(weights(root, 3), b"longer")
    finder.sweep()
    assert not finder.rest(three)
    assert finder.resting == 1


def test_a_large_tree_is_told_of_in_portions(tmp_path: Path) -> None:
    """Each sweep tells of so many that are not tracked; none is left out, none is missing."""
    paths = {str(write(weights(tmp_path, step, f"run{step % 3}"))) for step in range(20)}
    finder = Finder(WatchSettings(roots=(tmp_path,)))
    tracked: set[str] = set()
    for _ in range(4):
        (sweep,) = finder.sweep(at_most=6, tracked=tracked)
        new = sweep.files.keys() - tracked
        assert len(new) == min(6, 20 - len(tracked))
        assert sweep.is_partial == (len(tracked) + len(new) < 20)
        assert not sweep.missing
        tracked |= new
    assert tracked == paths


def test_portions_of_what_goes_to_rest_come_to_an_end(tmp_path: Path) -> None:
    """Nothing needs to be tracked for it."""
    paths = {str(write(weights(tmp_path, step, f"run{step % 3}"))) for step in range(20)}
    time.sleep(2 * TICK_SECONDS)
    finder = Finder(WatchSettings(roots=(tmp_path,)))
    found: list[str] = []
    (sweep,) = finder.sweep(at_most=6)
    while sweep.is_partial:
        found += sweep.files
        assert all(map(finder.rest, sweep.files.values()))
        (sweep,) = finder.sweep(at_most=6, goes_on=True)
    assert sorted([*found, *sweep.files]) == sorted(paths)


def test_a_sweep_that_goes_on_does_not_forget_what_it_did_not_look_at(
    finder: Finder, root: Path
) -> None:
    """What vanished before is missing in the next sweep that looks at everything."""
    write(root / "keeps the root from being empty")
    shutil.rmtree(root / "run/checkpoints")
    (sweep,) = finder.sweep(goes_on=True)
    assert (sweep.files, sweep.missing) == ({}, set())
    assert len(told(finder)[1]) == 3


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_rows_stay_those_of_their_folders(changes: list[tuple[bool, int, int]]) -> None:
    """However folders come and go, each gives its own file and numbers."""
    resting, model = Resting(), dict[str, SeenFile]()
    for comes, run, step in changes:
        folder = f"/root/run{run}/checkpoint-{step}"
        if comes and folder not in model:
            model[folder] = _file(folder, number=len(model) + 10 * step)
            listing = Listing(1, step, run, folder, files=("w.pt",))
            resting.add(folder, listing, model[folder], 1)
        elif not comes and folder in model:
            file = model.pop(folder)
            assert resting.drop(folder) == (file.path, file.signature)
    assert len(resting) == len(model)
    assert set(resting.below("/root")) == set(model)
    for run in range(4):
        of_run = {folder for folder, file in model.items() if file.run_path == f"/root/run{run}"}
        assert set(resting.of_run(f"/root/run{run}")) == of_run
        assert {f"/root/run{run}/{n}" for n in resting.names_in(f"/root/run{run}")} == of_run
    for folder, file in model.items():
        assert resting.holds(file.path)
        assert resting.drop(folder) == (file.path, file.signature)


def _file(folder: str, *, number: int) -> SeenFile:
    return SeenFile(
        run_path=folder.rpartition("/")[0],
        run_name="run",
        root="/root",
        path=f"{folder}/w.pt",
        signature=f"{number}:{2 * number}:{2**63 + number}",  # some inodes are that large
        mtime_ns=2 * number,
        size_bytes=number,
    )


def _after(finder: Finder, change: Callable[[], object]) -> list[Sweep]:
    change()
    return finder.sweep()
