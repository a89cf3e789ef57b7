"""The queue with real processes on one database, killed with SIGKILL where it hurts."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bookkeeping import check_messages, check_results, check_story
from stocking import QUICK, whole

from nptwatch.store.catalog import Catalog
from nptwatch.store.queue import Queue
from nptwatch.store.tables import Job

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.store.engine import Database

pytestmark = pytest.mark.both_engines


WORKER = Path(__file__).with_name("store_worker.py")


def start(database: Database, worker_id: str, *deaths: str) -> subprocess.Popen[str]:
    """Start a worker process."""
    url = database.engine.url.render_as_string(hide_password=False)
    flags = [word for death in deaths for word in ("--die-at", death)]
    return subprocess.Popen(
        [sys.executable, str(WORKER), url, worker_id, *flags],
        stdout=subprocess.PIPE,
        text=True,
    )


def ended_by(process: subprocess.Popen[str]) -> list[int]:
    """Wait for a process; give the jobs that it ended."""
    output, _ = process.communicate(timeout=120)
    lines = [line.split() for line in output.splitlines()]
    assert all(outcome == "done" for _, outcome in lines)
    return [int(job) for job, _ in lines]


def fill(database: Database, jobs: int, runs: int = 1) -> None:
    """Queue so many jobs, each of its own content."""
    catalog = Catalog(database)
    for number in range(jobs):
        catalog.admit(whole(f"run-{number % runs}", number), QUICK)


def take_back(database: Database, worker_id: str) -> list[int]:
    """Free a dead worker's jobs as the supervisor does."""
    return Queue(database).release_worker(
        worker_id, cause="worker_died", error="signal 9", max_attempts=99, retry_delay_seconds=0
    )


def check_books(database: Database, jobs: int) -> None:
    """Hold that each job is done once and everything fits together."""
    check_results(database, jobs)
    check_story(database)
    check_messages(database, lambda _old, _new: "changed")


def test_processes_share_the_queue(database: Database) -> None:
    """Four processes empty 600 jobs: none is handed out twice, none is lost."""
    fill(database, 600, runs=5)
    workers = [start(database, f"w{number}") for number in range(4)]
    ended = Counter(job for worker in workers for job in ended_by(worker))
    assert len(ended) == 600
    assert set(ended.values()) == {1}
    check_books(database, 600)


def test_killed_between_the_steps(database: Database) -> None:
    """Killed after the claim, inside the finish, after it: nothing is lost or done twice."""
    jobs = 9
    fill(database, jobs, runs=3)
    steps = ("claimed", "in-finish", "finished")
    deaths = [f"{steps[job % 3]}:{job}" for job in range(1, jobs + 1)]
    ended: Counter[int] = Counter()
    killed = 0
    while True:
        worker = start(database, f"w{killed}", *deaths)
        ended.update(ended_by(worker))
        if worker.returncode == 0:
            break
        assert worker.returncode == -signal.SIGKILL
        killed += 1
        held = take_back(database, f"w{killed - 1}")
        # one that died after the finish holds nothing; the others must not die of it again
        deaths = [death for death in deaths if int(death.split(":")[1]) not in held]
    assert killed >= jobs // 2
    assert set(ended.values()) == {1}
    assert len(ended) == jobs
    check_books(database, jobs)


def test_killed_at_any_moment(database: Database) -> None:
    """Three workers, one of them killed over and over at random moments."""
    jobs = 300
    fill(database, jobs, runs=4)
    chance = random.Random(7)  # noqa: S311 - when to kill is no secret
    steady = [start(database, name) for name in ("steady-1", "steady-2")]
    ended: Counter[int] = Counter()
    for number in range(6):
        worker = start(database, f"victim-{number}")
        assert worker.stdout is not None
        seen = [worker.stdout.readline() for _ in range(chance.randrange(1, 12))]
        os.kill(worker.pid, signal.SIGKILL)
        rest, _ = worker.communicate(timeout=60)
        whole_lines = [
            line for line in [*seen, *rest.splitlines(keepends=True)] if line[-1:] == "\n"
        ]
        ended.update(int(line.split()[0]) for line in whole_lines)
        take_back(database, f"victim-{number}")
    for worker in [*steady, start(database, "last")]:
        ended.update(ended_by(worker))
    assert max(ended.values()) == 1
    # a victim may die between its commit and its print: done, though nobody said so
    assert jobs - 6 <= len(ended) <= jobs
    check_books(database, jobs)


def test_lease_lost_to_another_process(database: Database, clock: FakeClock) -> None:
    """A worker that slept through its lease comes back to a job that another one has done."""
    fill(database, 1)
    queue = Queue(database, clock=clock)
    clock.now = clock.now.replace(year=2020)
    with database.begin() as connection:
        connection.execute(Job.__table__.update().values(available_at=clock()))  # type: ignore[attr-defined]
    lost = queue.claim("sleeper", lease_seconds=10)
    assert lost is not None
    clock.advance(11)
    assert queue.expire(max_attempts=3, retry_delay_seconds=0) == [lost.job_id]
    assert ended_by(start(database, "other")) == [lost.job_id]
    before = queue.jobs()
    assert not queue.heartbeat(lost.job_id, "sleeper", lease_seconds=10)
    failed = queue.fail(
        lost, "sleeper", cause="crash", error="", max_attempts=1, retry_delay_seconds=0
    )
    assert (failed, queue.jobs()) == (None, before)
