"""The real daemon where SQLite's disk is full or read-only: told clearly, nothing lost, no restart."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest
from bookkeeping import check_results, check_story, check_told
from scarce import (
    MOUNTS,
    RIGHTS,
    ReadOnlyMount,
    ReadOnlyRights,
    SmallDisk,
    SmallFiles,
    again,
    is_within,
)
from serving import DaemonProcess, Place, times_measured
from watching import until

from nptwatch.errors import ConfigError
from nptwatch.store.records import JobState

if TYPE_CHECKING:
    from pathlib import Path

LONG = 60.0
ADVICE = "it is read-only: give this user write permission on the file and its folder"
FEW, MANY = 5, 60
OUTAGES = ("database_unavailable", "claim_failed", "record_failed", "heartbeat_failed")


def done_jobs(place: Place) -> int:
    """Count the jobs that are done."""
    return place.stores.queue.depth()[JobState.DONE]


def write(place: Place, first: int, count: int) -> list[Path]:
    """Write checkpoints that get better."""
    return [place.checkpoint(step, mse=0.08) for step in range(first, first + count)]


def errors(daemon: DaemonProcess) -> list[str]:
    """Give what the daemon and its workers said of the database, while it could not be used."""
    return [str(entry["error"]) for event in OUTAGES for entry in daemon.log(event)]


def check(place: Place, weights: list[Path]) -> None:
    """Hold that each checkpoint was measured once and all of it is written down."""
    check_results(place.stores.database, len(weights))
    check_story(place.stores.database)
    assert check_told(place.stores.database) > 0
    assert [times_measured(path) for path in weights] == [1] * len(weights)


@pytest.mark.parametrize("way", ["small disk", "small files"])
def test_a_full_disk_is_told_and_survived(
    way: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """While nothing can be written all wait and say why; with room again all is done, once."""
    if way == "small disk" and not is_within(MOUNTS):
        again(MOUNTS, request, tmp_path)
        return
    disk = SmallDisk(tmp_path / "state") if way == "small disk" else SmallFiles()
    advice = (
        "free some space" if way == "small disk" else "check the disk, its free space and its quota"
    )
    place = Place(tmp_path)
    settings = place.settings(worker={"count": 2})
    daemon = DaemonProcess(place, settings)
    try:
        pids = [daemon.process.pid, *(daemon.worker_pid(number) for number in (1, 2))]
        weights = write(place, 0, FEW)
        until(lambda: done_jobs(place) == FEW, seconds=LONG)
        disk.fill(pids)
        weights += write(place, FEW, MANY)
        until(lambda: any(advice in error for error in errors(daemon)), seconds=LONG)
        assert done_jobs(place) < len(weights)
        disk.free(pids)
        until(lambda: done_jobs(place) == len(weights), seconds=LONG)
        assert daemon.stop() == 0
    finally:
        daemon.close()
    assert all(advice in error for error in errors(daemon))
    assert daemon.log("worker_crashed") == []
    assert daemon.log("lease_lost") == []
    check(place, weights)
    place.close()


@pytest.mark.parametrize("way", ["remounted", "by rights"])
def test_a_read_only_database_is_told_and_survived(
    way: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Daemon and workers that find it read-only say so, and go on by themselves once it is not."""
    what = MOUNTS if way == "remounted" else RIGHTS
    if not is_within(what):
        again(what, request, tmp_path)
        return
    data = tmp_path / "data"
    data.mkdir()
    disk = ReadOnlyMount(data) if way == "remounted" else ReadOnlyRights(data)
    place = Place(tmp_path, f"sqlite:///{data / 'nptwatch.db'}")
    settings = place.settings(worker={"count": 2})
    daemon = DaemonProcess(place, settings)
    try:
        weights = write(place, 0, FEW)
        until(lambda: done_jobs(place) == FEW, seconds=LONG)
        disk.close()
        other = place.settings().model_copy(update={"state_dir": tmp_path / "other"})
        refused = DaemonProcess(place, other)
        assert refused.process.wait(LONG) == ConfigError.exit_code
        assert re.search("daemon.lock cannot be opened: (Read-only|Permission)", refused.text())
        daemon.write(settings)
        daemon.send(signal.SIGHUP)  # all is opened anew, and found read-only
        daemon.wait_for("settings_reloaded", seconds=LONG)
        weights += write(place, FEW, FEW)
        for event in ("database_unavailable", "worker_failed", "database_lost"):
            told = daemon.wait_for(event, seconds=LONG)
            assert ADVICE in told.get("error", ""), told
        assert done_jobs(place) == FEW
        disk.open()
        until(lambda: done_jobs(place) == len(weights), seconds=LONG)
        daemon.wait_for("database_back", seconds=LONG)
        assert daemon.stop() == 0
    finally:
        daemon.close()
    assert daemon.log("lease_lost") == []
    check(place, weights)
    place.close()
