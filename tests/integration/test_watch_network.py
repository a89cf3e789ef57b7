"""Folders on network file systems are polled, others heard; statfs is told what to say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import watching as w
from watching import Spy, checkpoint, have_nfs, logged, settings, until, watching

from nptwatch.settings import WatchSettings
from nptwatch.watch.discovery import Finder
from nptwatch.watch.waking import NetworkFolders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watching import Logs

    from nptwatch.watch.watcher import Watcher

QUICK = {"poll_min_seconds": 0.1, "poll_max_seconds": 0.3}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Nptwatch's own folder."""
    return tmp_path / "state"


@pytest.fixture
def catalog(state: Path) -> Iterator[Spy]:
    """A catalog on SQLite that remembers what it was told."""
    with w.spied_catalog(state) as spy:
        yield spy


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders, each with something in it."""
    folders = tmp_path / "local", tmp_path / "shared"
    for folder in folders:
        (folder / "notes").mkdir(parents=True)
    return folders


def heard(watcher: Watcher, roots: tuple[Path, Path]) -> set[str]:
    """Give the roots at or below which inotify events are asked for."""
    folders = list(watcher._waking.events._emitter._descriptors)
    return {str(root) for root in roots if any(Path(f).is_relative_to(root) for f in folders)}


def polled(watcher: Watcher) -> set[str]:
    """Give the folders that are polled."""
    return set(watcher._waking._poller.due(float("inf")))


def test_each_folder_is_watched_as_its_file_system_needs(
    catalog: Spy,
    roots: tuple[Path, Path],
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    logs: Logs,
) -> None:
    """Of two roots the one on NFS is polled, the other heard; both give their checkpoints."""
    local, shared = roots
    have_nfs(shared, patch=monkeypatch)
    with watching(catalog, settings(*roots, **QUICK), state) as watcher:
        logged(logs, "scan_finished")
        until(lambda: polled(watcher))
        assert (heard(watcher, roots), polled(watcher)) == ({str(local)}, {str(shared)})
        files = {str(checkpoint(root / "run", "checkpoint-1")) for root in roots}
        until(lambda: set(catalog.queued()) == files, seconds=5)
    entry = next(e for e in logs if e["event"] == "folder_polled")
    assert (entry["folder"], entry["filesystem"]) == (str(shared), "nfs")
    assert not [e for e in logs if e["event"] == "observer_rebuilt"]


def test_a_link_onto_a_network_file_system_is_polled(
    catalog: Spy,
    roots: tuple[Path, Path],
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A local root whose run keeps its checkpoints on NFS: events there, polls here."""
    local, shared = roots
    have_nfs(shared, patch=monkeypatch)
    (local / "run").mkdir()
    (local / "run/checkpoints").symlink_to(shared)
    with watching(catalog, settings(local, **QUICK), state) as watcher:
        until(lambda: polled(watcher) == {str(shared)})
        assert heard(watcher, roots) == {str(local)}
        folder = shared / "checkpoint-7"
        folder.mkdir()
        (folder / "npt_weights.pt").write_bytes(w.archive("a"))
        until(catalog.queued, seconds=5)
    assert catalog.admitted[0][0].file.run_name == "run"


@pytest.mark.parametrize("observer", ["inotify", "polling"])
def test_the_settings_have_the_last_word(
    catalog: Spy,
    roots: tuple[Path, Path],
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    observer: str,
) -> None:
    """`inotify` and `polling` do as they say, whatever statfs does."""
    have_nfs(roots[1], patch=monkeypatch)
    with watching(catalog, settings(*roots, observer=observer, **QUICK), state) as watcher:
        files = {str(checkpoint(root / "run", "checkpoint-1")) for root in roots}
        until(lambda: set(catalog.queued()) == files, seconds=5)
        in_use = heard(watcher, roots) if observer == "inotify" else polled(watcher)
        assert in_use == set(map(str, roots))
        assert observer == "polling" or not polled(watcher)


def test_what_is_mounted_anew_is_asked_about_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that comes and goes at one place: heard while it is away, polled while it is there."""
    elsewhere = Path("/dev/shm")  # noqa: S108 - another device, only looked at
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here: /dev/shm is none")
    have_nfs(elsewhere, patch=monkeypatch)
    place, is_polled = tmp_path / "share", NetworkFolders()
    answers = [is_polled(str(place))]
    for mounted in (tmp_path, elsewhere, tmp_path):
        place.unlink(missing_ok=True)
        place.symlink_to(mounted)
        answers.append(is_polled(str(place)))
    assert answers == [False, False, True, False]


def test_mounts_below_a_root_are_noticed() -> None:
    """A walk tells where another file system begins, so that it can be polled."""
    devices = Path("/dev")
    if not (devices / "shm").is_mount():
        pytest.skip("no mount below another one here: /dev/shm is none")
    (sweep,) = Finder(WatchSettings(roots=(devices,))).sweep()
    assert str(devices / "shm") in sweep.mounts
    assert str(devices) not in sweep.mounts
