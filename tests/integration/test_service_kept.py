"""The real daemon keeps good checkpoints: beside its workers, and after them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from serving import DaemonProcess, Place
from watching import until

from nptwatch.store.records import KeptState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nptwatch.settings import Settings

    Start = Callable[..., DaemonProcess]

LONG = 60.0
KEPT = {"kept": {"reserve_gib": 0.0}}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A fresh place."""
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.fixture
def start(place: Place) -> Iterator[Start]:
    """Starts daemons in that place and ends them after the test."""
    daemons: list[DaemonProcess] = []

    def start(settings: Settings | None = None) -> DaemonProcess:
        daemons.append(DaemonProcess(place, settings or place.settings(**KEPT)))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


def states(place: Place) -> dict[int | None, KeptState]:
    """Give what is wanted, kept and released, by step."""
    return {row.step: row.state for row in place.stores.kept.rows()}


def nptwatch(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the place."""
    return subprocess.run(
        [sys.executable, "-m", "nptwatch", *arguments, "--state-dir", str(place.state_dir)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_worker_keeps_what_is_good_and_the_trainer_may_rotate(
    place: Place, start: Start, tmp_path: Path
) -> None:
    """Found, measured, kept at once, listed, pointed at, copied out, released; all by commands."""
    place.checkpoint(100, mse=0.7, cosine=0.7)
    daemon = start()
    good = place.checkpoint(200, mse=0.08)
    content = good.read_bytes()
    kept = daemon.wait_for("kept")
    assert (kept["step"], kept["how"]) == (200, "link")
    assert "worker" in kept, "the worker, not the daemon's next turn"
    good.unlink()

    (row,) = json.loads(nptwatch(place, "kept", "list", "--json").stdout)
    assert (row["run"], row["step"], row["grade"], row["state"]) == ("run1", 200, "GOOD", "kept")
    (pointer,) = (place.state_dir / "kept").glob("run1-*/GOOD.json")
    assert json.loads(pointer.read_text())["path"] == row["path"]
    out = tmp_path / "out"
    exported = nptwatch(place, "kept", "export", "run1", str(out))
    assert (exported.returncode, exported.stderr) == (0, "")
    assert (out / "npt_weights.pt").read_bytes() == content
    assert json.loads((out / "card.json").read_text())["mse"] == 0.08
    assert nptwatch(place, "kept", "export", "run1", str(out)).returncode == 2
    assert nptwatch(place, "kept", "release", str(row["kept_id"])).returncode == 0
    assert not list((place.state_dir / "kept").rglob("npt_weights.pt"))
    assert daemon.stop() == 0


def test_a_worker_killed_between_result_and_pin_loses_nothing(place: Place, start: Start) -> None:
    """SIGKILL while it waits for its turn: the daemon's turn makes it good."""
    (place.state_dir / "kept").mkdir(parents=True)
    with (place.state_dir / "kept" / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place.checkpoint(200, mse=0.08)
        daemon = start()
        until(lambda: states(place) == {200: KeptState.WANTED}, seconds=LONG)
        os.kill(daemon.worker_pid(), signal.SIGKILL)
        daemon.wait_for("worker_crashed")
        assert states(place) == {200: KeptState.WANTED}
    until(lambda: states(place) == {200: KeptState.KEPT}, seconds=LONG)
    assert daemon.stop() == 0


def test_a_pin_that_hangs_holds_up_no_measurement(place: Place, start: Start) -> None:
    """Nor the worker's end: what it waits for is somebody else's then."""
    (place.state_dir / "kept").mkdir(parents=True)
    with (place.state_dir / "kept" / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        daemon = start()
        for step, mse in ((200, 0.08), (300, 0.07), (400, 0.06)):
            place.checkpoint(step, mse=mse)
            until(lambda step=step: place.graded().get(step) == "GOOD", seconds=LONG)
        assert set(states(place).values()) == {KeptState.WANTED}
        assert daemon.stop() == 0
    assert place.job(400).attempts == 0


def test_a_daemon_killed_before_the_pin_makes_it_at_its_next_start(
    place: Place, start: Start
) -> None:
    """SIGKILL of everything: half-made pins are swept, and what was wanted is kept."""
    (place.state_dir / "kept" / ".making-left").mkdir(parents=True)
    (place.state_dir / "kept" / ".making-left" / "npt_weights.pt").write_bytes(b"half")
    with (place.state_dir / "kept" / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place.checkpoint(200, mse=0.08)
        daemon = start()
        until(lambda: states(place) == {200: KeptState.WANTED}, seconds=LONG)
        daemon.close()
    start()
    until(lambda: states(place) == {200: KeptState.KEPT}, seconds=LONG)
    assert not (place.state_dir / "kept" / ".making-left").exists()


def test_a_folder_that_cannot_be_used_costs_no_result(place: Place, start: Start) -> None:
    """The main job goes on; the failure is in the log and in the list."""
    place.state_dir.mkdir()
    (place.state_dir / "kept").write_text("a file where the folder should be")
    daemon = start()
    place.checkpoint(200, mse=0.08)
    daemon.wait_for("keeping_failed", seconds=LONG)
    place.checkpoint(300, mse=0.07)
    until(lambda: place.graded() == {200: "GOOD", 300: "GOOD"}, seconds=LONG)
    until(lambda: all(row.error for row in place.stores.kept.rows()), seconds=LONG)
    shown = nptwatch(place, "kept")
    assert "wanted" in shown.stdout
    assert "kept: " in shown.stdout
    assert daemon.stop() == 0
