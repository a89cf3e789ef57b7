"""Workers that are killed at random under a full load: real watchers, real workers, one database.

`make chaos` runs the whole load with a seed of its own, which it prints; `make chaos SEED=7`
repeats one.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from bookkeeping import audit, audited, check_results, check_story, check_told
from elsewhere import LoneCrew, LoneWorker
from serving import Place, times_measured

from nptwatch.store.engine import Database
from nptwatch.store.migrate import upgrade
from nptwatch.store.records import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHOLE = bool(os.environ.get("NPTWATCH_TEST_CHAOS"))
SEED = int(os.environ.get("NPTWATCH_TEST_SEED") or (secrets.randbelow(10**6) if WHOLE else 5))
RUNS = 25
STEPS = 80 if WHOLE else 10
WORKERS = 8
MEASURING_SECONDS = 0.25
"""How long a measurement takes: most workers are killed in the middle of one."""
LEASE_SECONDS = 2.0
PAUSE_SECONDS = 3 * LEASE_SECONDS
"""Longer than the silence after which a worker is written off."""
PAUSE_EVERY = 4
"""One worker is paused for so many that are killed."""
PATIENCE_SECONDS = 1500.0 if WHOLE else 240.0
AHEAD = 300
"""So many checkpoints are written before they are measured: training goes on under the load."""

MSES = (0.4, 0.08, 0.3, 0.01, 0.07)
"""FAIR, GOOD, FAIR, EXCELLENT, GOOD: statuses go up and down."""

BAD = ("warning", "error", "critical")
EXPECTED = {"alert_raised", "lease_lost", "outcome_dropped", "leases_expired", "worker_lost"}
"""All that may be warned of where workers are killed and paused."""


class Load:
    """Two crews and eight workers, and whoever kills them."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._place = place
        self._folder = folder
        self._chance = random.Random(SEED)  # noqa: S311 - whom to kill is no secret
        self._settings = place.settings(
            watch={"rescan_seconds": 10.0},
            worker={
                "count": 0,
                "lease_seconds": LEASE_SECONDS,
                "poll_seconds": 0.2,
                "max_attempts": 99,
                "retry_delay_seconds": 0.1,
            },
        )
        self._number = 0
        self._strike_at = time.monotonic() + 2.0
        self.workers: list[LoneWorker] = []
        self.crews: list[LoneCrew] = []
        self.dead: list[LoneWorker] = []

    def start(self) -> None:
        """Start all processes."""
        for number in range(2):
            state_dir = self._folder / f"state-{number}"
            settings = self._settings.model_copy(update={"state_dir": state_dir})
            self.crews.append(LoneCrew(settings, self._folder))
        self.workers = [self._worker() for _ in range(WORKERS)]

    def _worker(self) -> LoneWorker:
        self._number += 1
        return LoneWorker(f"worker-{self._number}", self._settings, self._folder)

    def strike(self) -> None:
        """If it is time, kill a worker and start another; now and then one is paused for a while."""
        if time.monotonic() < self._strike_at:
            return
        self._strike_at = time.monotonic() + self._chance.uniform(0.5, 1.5)
        able = [at for at, worker in enumerate(self.workers) if worker.log("job_claimed")]
        if len(able) <= WORKERS // 2:  # a busy machine: starting takes longer than killing
            return
        at = self._chance.choice(able)
        victim = self.workers[at]
        assert victim.process.poll() is None, "a worker ended by itself"
        victim.kill()
        self.dead.append(victim)
        self.workers[at] = self._worker()
        if len(self.dead) % PAUSE_EVERY == 0:
            sleeper = self._chance.choice(self.workers)
            sleeper.send(signal.SIGSTOP)
            threading.Timer(PAUSE_SECONDS, sleeper.go_on).start()

    def stop(self) -> None:
        """End all processes in good order."""
        assert {process.end() for process in [*self.workers, *self.crews]} == {0}

    def close(self) -> None:
        """End whatever is left."""
        for process in [*self.workers, *self.crews]:
            process.kill()

    def log(self) -> list[dict[str, Any]]:
        """Give what all processes logged."""
        every = [*self.workers, *self.crews, *self.dead]
        assert not [process.text() for process in every if "Traceback" in process.text()]
        return [entry for process in every for entry in process.log()]


@pytest.fixture
def place(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give a place whose database notes every step of a job."""
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path / 'chaos.db'}"
        if engine == "postgres":
            url = request.getfixturevalue("postgres").new()
        database = Database(url)
        upgrade(database)
        audit(database)
        database.close()
        place = Place(tmp_path, url)
        stack.callback(place.close)
        yield place


@contextmanager
def load_on(place: Place, folder: Path) -> Iterator[Load]:
    """Run the load's processes."""
    folder.mkdir()
    load = Load(place, folder)
    try:
        load.start()
        yield load
    finally:
        load.close()


def train(place: Place, load: Load) -> list[Path]:
    """Write checkpoints of all runs, step by step, and strike all the while; wait until all are done."""
    weights: list[Path] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (done := (depth := place.stores.queue.depth())[JobState.DONE]) < RUNS * STEPS:
        assert time.monotonic() < deadline, depth
        if len(weights) < RUNS * STEPS and len(weights) < done + AHEAD:
            step = len(weights) // RUNS
            weights += [
                place.checkpoint(
                    step,
                    run=f"run{run}",
                    mse=MSES[(step + run) % len(MSES)],
                    seconds=MEASURING_SECONDS,
                )
                for run in range(RUNS)
            ]
        if depth[JobState.QUEUED]:
            load.strike()
        time.sleep(0.02)
    return weights


@pytest.mark.both_engines
def test_workers_killed_at_random_lose_and_repeat_nothing(place: Place, tmp_path: Path) -> None:
    """Two watchers, eight workers, one killed each second: every job ends once, with its alert once."""
    print(f"seed {SEED}, {RUNS * STEPS} checkpoints")
    began = time.monotonic()
    with load_on(place, tmp_path / "load") as load:
        weights = train(place, load)
        load.stop()
    database, jobs = place.stores.database, len(weights)
    seconds = time.monotonic() - began

    check_results(database, jobs)
    check_story(database)
    alerts = check_told(database)
    steps = audited(database)
    went = Counter((step.old, step.new) for step in steps)
    back = [step for step in steps if (step.old, step.new) == ("leased", "queued")]
    of_the_dead = [step for step in back if step.worker in {worker.name for worker in load.dead}]
    counted = [step for step in back if step.counted]
    print(
        f"{seconds:.0f} s, {len(load.dead)} workers killed, {len(back)} leases came back,"
        f" {len(of_the_dead)} of them of the dead, {len(counted)} counted, {alerts} alerts,"
        f" {sum(map(times_measured, weights)) - jobs} measured again"
    )
    usual = {("queued", "leased"), ("leased", "queued"), ("leased", "done")}
    assert [step for step in steps if (step.old, step.new) not in usual] == []
    assert went["leased", "done"] == jobs, "each ended once"
    assert went["queued", "leased"] == jobs + len(back), "each lease ended or came back"
    assert len(of_the_dead) > len(load.dead) // 10, "most are killed at work"
    assert len(counted) == sum(job.attempts for job in place.stores.queue.jobs(limit=jobs))
    assert all(
        step.counted or "while the base model was loaded" in (step.reason or "") for step in back
    )
    log = load.log()
    said = Counter(entry["job_id"] for entry in log if entry["event"] == "job_done")
    assert set(said.values()) == {1}, "nobody says that he did what another did"
    told = Counter(entry["event_id"] for entry in log if entry["event"] == "alert_delivered")
    assert len(told) == alerts
    assert set(told.values()) == {1}
    assert {entry["event"] for entry in log if entry["level"] in BAD} <= EXPECTED
