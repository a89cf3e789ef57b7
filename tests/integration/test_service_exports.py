"""The real daemon and its exports: whatever dies, each result is there once."""

from __future__ import annotations

import json
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from serving import DaemonProcess, Place
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from watching import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Start = Callable[..., DaemonProcess]

LONG = 60.0
ON = {"on": True}


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

    def start(**exports: dict[str, Any]) -> DaemonProcess:
        daemons.append(DaemonProcess(place, place.settings(exports=exports)))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


def exported(place: Place, run: str = "run1") -> list[int]:
    """Give the steps of a run's file, as they stand; a half line is none yet."""
    path = place.state_dir / f"exports/jsonl/{run}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith(b"\n")]


def drawn(place: Place, run: str = "run1") -> list[int]:
    """Give the steps of a run that TensorBoard reads."""
    read = EventAccumulator(str(place.state_dir / "exports/tensorboard" / run))
    read.Reload()
    return [point.step for point in read.Scalars("nptwatch/mse")]


def test_daemons_killed_at_random_export_each_result_once(place: Place, start: Start) -> None:
    """Between any two steps of an export; the next daemon goes on."""
    chance = random.Random(7)  # noqa: S311 - a moment
    steps: list[int] = []
    for turn in range(2):
        steps += [step := 100 * (turn + 1), step + 1000]
        for each in steps[-2:]:
            place.checkpoint(each, mse=1 / each)
        daemon = start(jsonl=ON, tensorboard=ON)
        daemon.wait_for("worker_ready")
        until(lambda: exported(place), seconds=LONG)
        time.sleep(chance.uniform(0, 0.7))  # the moment of its death is what is tested
        daemon.send(signal.SIGKILL)
        daemon.close()
    daemon = start(jsonl=ON, tensorboard=ON)
    until(lambda: len(exported(place)) == len(steps), seconds=LONG)
    until(lambda: len(drawn(place)) == len(steps), seconds=LONG)
    assert daemon.stop() == 0
    assert sorted(exported(place)) == sorted(steps)
    assert drawn(place) == sorted(steps)


def test_an_export_that_fails_holds_nothing_up(place: Place, start: Start) -> None:
    """Others go on, and so does the main job; it is told why, and goes on when it can."""
    (place.state_dir / "exports").mkdir(parents=True)
    (place.state_dir / "exports/tensorboard").touch()
    place.checkpoint(100, mse=0.08)
    daemon = start(jsonl=ON, tensorboard=ON)
    until(lambda: exported(place) == [100], seconds=LONG)
    failed = daemon.wait_for("chore_failed")
    assert failed["chore"] == "export_tensorboard"
    assert "cannot be used" in failed["error"]
    assert place.graded() == {100: "GOOD"}
    (place.state_dir / "exports/tensorboard").unlink()
    daemon.wait_for("chore_works_again")
    until(lambda: drawn(place) == [100], seconds=LONG)
    assert daemon.stop() == 0
