"""What is noticed when nothing happens: silence and failures, once each, and their ends."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from stocking import QUICK, claimed, whole
from telling import Training, minutes

from nptwatch.store.records import JobState

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import FakeClock

    from nptwatch.alerts.watching import Lookout
    from nptwatch.store.engine import Database

pytestmark = pytest.mark.both_engines


@pytest.fixture
def training(database: Database, clock: FakeClock, tmp_path: Path) -> Training:
    """Give runs below a folder that is there."""
    return Training(database, clock, root=tmp_path)


def quietly(training: Training, lookout: Lookout, span: timedelta) -> list[str]:
    """Let nothing happen for so long, looking now and then; give what is raised."""
    pause = minutes(1 if span < timedelta(hours=1) else 4)
    for _ in range(int(span / pause)):
        training.clock.advance(pause.total_seconds())
        lookout.look()
    return training.news()


def every(training: Training, lookout: Lookout, gap: timedelta, count: int, first: int = 1) -> None:
    """Have a checkpoint written and measured every so often."""
    for step in range(first, first + count):
        quietly(training, lookout, gap - minutes(1))
        training.write(step)
        training.measure("FAIR", 1 / step)
        lookout.look()


def test_silence_is_three_times_the_usual_gap(training: Training) -> None:
    """Told once, however long it lasts, and once that it is over; then it can be told again."""
    lookout = training.lookout()
    every(training, lookout, minutes(10), 5)
    assert quietly(training, lookout, minutes(29)) == []
    assert quietly(training, lookout, minutes(3)) == ["silent"]
    told = training.last()
    assert told.payload["detail"] == "the last one came 31 min ago; one every 10 min was usual"
    assert (told.payload["step"], told.payload["run"]) == (5, "a")
    assert quietly(training, lookout, timedelta(hours=10)) == []
    training.write(6)
    assert quietly(training, lookout, minutes(1)) == ["recovered"]
    assert training.last().payload["of"] == "silent"
    assert quietly(training, lookout, timedelta(hours=2)) == ["silent"]


def test_a_fast_run_is_given_a_quarter_of_an_hour(training: Training) -> None:
    """A pause for an evaluation is no silence."""
    lookout = training.lookout()
    every(training, lookout, minutes(1), 20)
    assert quietly(training, lookout, minutes(15)) == []
    assert quietly(training, lookout, minutes(1)) == ["silent"]


def test_one_long_pause_does_not_change_what_is_usual(training: Training) -> None:
    """The median: a night without training is one gap of many."""
    lookout = training.lookout()
    every(training, lookout, minutes(10), 5)
    quietly(training, lookout, timedelta(hours=9))
    every(training, lookout, minutes(10), 3, first=6)
    training.news()
    assert quietly(training, lookout, minutes(32)) == ["silent"]


def test_a_daemon_that_was_down_calls_nothing_silent_at_its_start(training: Training) -> None:
    """It begins to wait anew; three gaps later it is right to tell."""
    every(training, training.lookout(), minutes(10), 5)
    training.clock.advance(24 * 3600)
    lookout = training.lookout()
    lookout.look()
    assert quietly(training, lookout, minutes(30)) == []
    assert quietly(training, lookout, minutes(2)) == ["silent"]


def test_a_machine_that_slept_waits_anew(training: Training) -> None:
    """A daemon that did not look for hours was not there, whatever its start."""
    lookout = training.lookout()
    every(training, lookout, minutes(10), 5)
    training.clock.advance(8 * 3600)
    lookout.look()
    assert training.news() == []
    assert quietly(training, lookout, minutes(29)) == []
    assert quietly(training, lookout, minutes(2)) == ["silent"]


def test_a_restart_does_not_repeat_a_silence(training: Training) -> None:
    """What was told stands in the database."""
    lookout = training.lookout()
    every(training, lookout, minutes(10), 5)
    assert quietly(training, lookout, minutes(40)) == ["silent"]
    assert quietly(training, training.lookout(), timedelta(hours=5)) == []


def test_runs_that_nobody_saw_alive_are_not_silent(training: Training) -> None:
    """Old runs found at the first start ended before."""
    for step in range(1, 20):
        training.clock.advance(0.01)
        written = training.clock() - timedelta(hours=20 - step)
        training.write(step, at=written)
    while training.queue.depth()[JobState.QUEUED]:
        training.measure("FAIR")
    training.news()
    assert quietly(training, training.lookout(), timedelta(hours=20)) == []


@pytest.mark.parametrize("how", ["final", "config", "trainer_state", "gone"])
def test_a_finished_run_is_not_silent(training: Training, tmp_path: Path, how: str) -> None:
    """Its final/ is there, its max_steps are reached, or its folder was taken away."""
    lookout = training.lookout()
    every(training, lookout, minutes(10), 5)
    run = tmp_path / "a"
    if how == "final":
        at = int(training.clock().timestamp() * 1e9)
        file = whole("a", 5, folder="final", root=training.root, mtime_ns=at)
        training.catalog.admit(file, QUICK)
    elif how == "config":
        (run / "config.json").write_text(json.dumps({"max_steps": 5}))
    elif how == "trainer_state":
        folder = run / "checkpoints/checkpoint-5"
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text(json.dumps({"max_steps": 5}))
    else:
        run.rmdir()
    assert quietly(training, lookout, timedelta(hours=5)) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"max_steps": "5"}', '{"max_steps": -1}', "[" * 9999])
def test_what_no_trainer_writes_says_nothing_of_the_end(
    training: Training, tmp_path: Path, text: str
) -> None:
    """HF trainers write -1 for no end; a broken file is no reason to keep quiet."""
    lookout = training.lookout()
    every(training, lookout, minutes(10), 4)
    (tmp_path / "a/config.json").write_text(text)
    assert quietly(training, lookout, minutes(40)) == ["silent"]


def test_a_resumed_run_is_not_finished_by_its_old_final(training: Training) -> None:
    """Checkpoints that are newer than final/ say that training goes on."""
    lookout = training.lookout()
    every(training, lookout, minutes(10), 5)
    at = int(training.clock().timestamp() * 1e9)
    file = whole("a", 5, folder="final", root=training.root, mtime_ns=at)
    training.catalog.admit(file, QUICK)
    every(training, lookout, minutes(10), 2, first=6)
    assert quietly(training, lookout, minutes(40)) == ["silent"]


def test_runs_of_other_daemons_are_left_to_them(training: Training, tmp_path: Path) -> None:
    """Another root is watched elsewhere: here it is always quiet."""
    other = training.lookout(root=tmp_path / "elsewhere")
    every(training, other, minutes(10), 5)
    assert quietly(training, other, timedelta(hours=5)) == []


def test_two_daemons_raise_each_thing_once(training: Training) -> None:
    """Both look at the same moment, again and again."""
    lookouts = [training.lookout() for _ in range(4)]
    for run in "abcdef":
        for step in range(1, 5):
            training.write(step, run)
            training.measure("FAIR", 1 / step)
    training.news()
    begin = threading.Barrier(4)

    def look(lookout: Lookout) -> None:
        begin.wait(10)
        lookout.look()

    for _ in range(30):
        training.clock.advance(60)
        threads = [threading.Thread(target=look, args=[lookout]) for lookout in lookouts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert training.news() == ["silent"] * 6
    assert training.outbox.pending() == 3 * 6


def fail(training: Training, step: int) -> None:
    """Have the measurement of one checkpoint fail for good."""
    training.write(step)
    claim = claimed(training.queue)
    training.queue.fail(
        claim, "w", cause="crash", error="boom", max_attempts=1, retry_delay_seconds=1
    )


def test_three_failures_in_a_row_are_told_once(training: Training) -> None:
    """Failed, damaged or refused; over when as many succeeded in a row."""
    lookout = training.lookout()
    told = []
    for step, ends in enumerate(
        [
            "ok",
            "fail",
            "fail",
            "ok",
            "fail",
            "unloadable",
            "refused",
            "fail",
            "ok",
            "ok",
            "fail",
            "ok",
            "ok",
            "ok",
        ]
    ):
        if ends == "ok":
            training.write(step)
            training.measure("FAIR", 1 / (step + 1))
        elif ends == "refused":
            training.write(step)
            training.measure("UNLOADABLE", 0.0, error="wrong base", cosine=None)
        elif ends == "unloadable":
            training.write(step)
            claim = claimed(training.queue)
            training.queue.close(claim.job_id, "w", JobState.UNLOADABLE, "damaged")
        else:
            fail(training, step)
        training.clock.advance(1)
        lookout.look()
        told.append((step, training.news()))
    assert [(step, kinds) for step, kinds in told if kinds] == [
        (6, ["diagnosis_failing"]),
        (13, ["recovered"]),
    ]
    first = training.events()[0]
    assert first.payload["detail"] == "3 in a row could not be, the last one because: wrong base"
    assert first.payload["step"] == 6


def test_old_checkpoints_that_cannot_be_measured_are_history(training: Training) -> None:
    """A tree of last year's runs of another base: nobody is told."""
    for step in range(1, 6):
        training.write(step, at=training.clock() - timedelta(days=300 - step))
    for _ in range(5):
        training.measure("UNLOADABLE", 0.0, error="wrong base", cosine=None)
    training.lookout().look()
    assert training.news() == []
