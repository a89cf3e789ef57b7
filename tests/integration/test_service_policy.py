"""The real daemon measures all quickly, some fully, and what a person asks for first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from serving import DaemonProcess, Place, times_measured
from watching import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = 40.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A fresh place."""
    place = Place(tmp_path)
    yield place
    place.close()


def nptwatch(place: Place, *arguments: str) -> Any:
    """Run the real command on the place's database; give its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "nptwatch", *arguments, "--json", "--state-dir", place.state_dir],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HOME": str(place.state_dir)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fully(place: Place, run: str = "run1") -> dict[int | None, str | None]:
    """Why, by step, a full diagnostic was made."""
    rows = place.history(run)
    return {step: row.full_because for step, row in rows.items() if row.full_state == "done"}


def settled(place: Place, count: int) -> bool:
    """All so many checkpoints have a result, and nothing waits."""
    rows = [row for run in place.stores.history.runs() for row in place.history(run.run).values()]
    return len([row for row in rows if row.grade]) == count and all(
        job.state == "done" for job in place.stores.queue.jobs()
    )


def test_quick_for_all_full_where_the_policy_says(place: Place) -> None:
    """Every third, on reaching GOOD, on new best; not in the run that is left out; each once."""
    rules = {"every": 3, "on_grade": "GOOD", "on_new_best": "GOOD"}
    rules["runs"] = [{"run": "debug-*", "every": 0, "on_grade": "never", "on_new_best": "never"}]  # type: ignore[assignment]
    daemon = DaemonProcess(place, place.settings(full=rules))
    try:
        weights = {}
        mses = {100: 0.7, 200: 0.4, 300: 0.3, 400: 0.09, 500: 0.095, 600: 0.08, 700: 0.2}
        for number, (step, mse) in enumerate(mses.items(), 1):
            weights[step] = place.checkpoint(step, mse=mse)
            until(lambda wanted=number: settled(place, wanted), seconds=LONG)
        place.checkpoint(100, run="debug-1", mse=0.05)
        until(lambda: settled(place, len(mses) + 1), seconds=LONG)
        assert fully(place) == {
            300: "every 3rd checkpoint",
            400: "reached GOOD",
            600: "new best",
        }
        assert fully(place, "debug-1") == {}
        assert {step: times_measured(path) for step, path in weights.items()} == {
            step: 2 if step in {300, 400, 600} else 1 for step in mses
        }
        rows = place.history()
        assert {row.profile for row in rows.values()} == {"quick", "quick+full"}
        changes = place.stores.history.changes("run1")
        assert [(change.step, change.new) for change in reversed(changes)] == [
            (100, "POOR"),
            (200, "FAIR"),
            (400, "GOOD"),
            (700, "FAIR"),
        ]
        asked = daemon.log("full_asked")
        assert [(event["step"], event["because"]) for event in asked] == [
            (300, "every 3rd checkpoint"),
            (400, "reached GOOD"),
            (600, "new best"),
        ]
        status = nptwatch(place, "status")
        assert {run["run"]: run["done"] for run in status["runs"]} == {"run1": 7, "debug-1": 1}
        assert daemon.stop() == 0
    finally:
        daemon.close()


def test_a_wish_by_other_settings_is_granted_by_those_in_force(place: Place) -> None:
    """The command may not know the daemon's settings: its job is asked for again, and measured."""
    weights = place.checkpoint(100, mse=0.3)
    daemon = DaemonProcess(place, place.settings(diagnostic={"seed": 7}))
    try:
        until(lambda: settled(place, 1), seconds=LONG)
        nptwatch(place, "rerun", str(weights))
        until(lambda: fully(place) == {100: "asked with rerun"}, seconds=LONG)
        daemon.wait_for("asked_again")
        states = sorted(job.state for job in place.stores.queue.jobs())
        assert states == ["done", "done", "superseded"]
        assert times_measured(weights) == 2
        assert daemon.stop() == 0
    finally:
        daemon.close()


def test_rerun_has_the_full_diagnostic_made(place: Place) -> None:
    """By path, through the real command; a second time it only tells what is known."""
    weights = place.checkpoint(100, mse=0.3)
    daemon = DaemonProcess(place, place.settings())
    try:
        until(lambda: settled(place, 1), seconds=LONG)
        (asked,) = nptwatch(place, "rerun", str(weights.parent), "--profile", "full")
        assert (asked["did"], asked["profile"], asked["step"]) == ("queued", "full", 100)
        until(lambda: fully(place) == {100: "asked with rerun"}, seconds=LONG)
        assert times_measured(weights) == 2
        (again,) = nptwatch(place, "rerun", str(weights))
        assert (again["did"], again["grade"]) == ("known", "FAIR")
        (quick,) = nptwatch(place, "rerun", str(weights), "--profile", "quick")
        assert (quick["did"], quick["grade"]) == ("known", "FAIR")
        assert daemon.stop() == 0
        assert times_measured(weights) == 2
    finally:
        daemon.close()
