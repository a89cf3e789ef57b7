"""`nptwatch worker` on this host: real processes, no daemon beside them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from serving import HostProcess, Place, times_measured
from watching import until

from nptwatch.service.build import build_watcher
from nptwatch.store.records import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nptwatch.settings import Settings
    from nptwatch.store.engine import Database


@pytest.fixture
def place(tmp_path: Path, database: Database, engine: str) -> Iterator[Place]:
    """Give a place whose database is of the test's engine."""
    url = database.engine.url.render_as_string(hide_password=False)
    place = Place(tmp_path, url)
    yield place
    place.close()


def enqueue(place: Place, settings: Settings) -> None:
    """Queue what is there, as `nptwatch scan --once` does."""
    place.state_dir.mkdir(exist_ok=True)
    build_watcher(settings, place.stores, lambda: None).scan_once()


@pytest.mark.both_engines
def test_a_host_works_the_queue_off_and_ends(place: Place) -> None:
    """With --until-empty: each job done once by several workers, a crash made good, exit code 0."""
    settings = place.settings(worker={"count": 2, "max_attempts": 1})
    weights = [place.checkpoint(step) for step in range(12)]
    place.checkpoint(12, do="crash")
    enqueue(place, settings)

    host = HostProcess(place, settings, "--until-empty")

    try:
        assert host.process.wait(60) == 0, host.text()
    finally:
        host.close()
    depth = place.stores.queue.depth()
    assert (depth[JobState.DONE], depth[JobState.FAILED]) == (12, 1)
    assert [times_measured(path) for path in weights] == [1] * 12
    assert len(host.log("worker_found_nothing_queued")) == 2
    assert place.stores.workers.alive(1000) == []


def test_a_job_that_waits_for_its_next_try_is_waited_for(place: Place) -> None:
    """--until-empty means nothing queued, not nothing due: a failed job is tried to its end."""
    settings = place.settings(worker={"max_attempts": 2, "retry_delay_seconds": 1.0})
    weights = place.checkpoint(1, do="raise")
    enqueue(place, settings)

    host = HostProcess(place, settings, "--until-empty")

    try:
        assert host.process.wait(60) == 0, host.text()
    finally:
        host.close()
    assert place.job_state(1) == JobState.FAILED
    assert times_measured(weights) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_host_that_is_stopped_hands_its_job_back(place: Place, number: signal.Signals) -> None:
    """Whichever way: the job is queued again, not counted, and the exit code is 0."""
    settings = place.settings(worker={"shutdown_seconds": 0.3})
    weights = place.checkpoint(1, do="block")
    enqueue(place, settings)
    host = HostProcess(place, settings)

    try:
        until(lambda: times_measured(weights) == 1, seconds=30)
        host.send(number)
        assert host.process.wait(30) == 0, host.text()
    finally:
        host.close()

    assert (place.job(1).state, place.job(1).attempts) == (JobState.QUEUED, 0)


def test_a_host_ends_when_its_time_is_up(place: Place) -> None:
    """With --max-minutes: exit code 0, and what it had in hand is queued."""
    settings = place.settings(worker={"shutdown_seconds": 0.3})
    place.checkpoint(1, do="block")
    enqueue(place, settings)

    host = HostProcess(place, settings, "--max-seconds", "4")

    try:
        assert host.process.wait(40) == 0, host.text()
    finally:
        host.close()
    assert host.log("worker_host_stopping")[0]["reason"] == "its time is up"
    assert (place.job(1).state, place.job(1).attempts) == (JobState.QUEUED, 0)


@pytest.mark.both_engines
def test_a_host_takes_back_what_another_left_behind(place: Place) -> None:
    """Where no daemon is left to see to it, a dead host's job comes back by its lease, counted."""
    settings = place.settings(worker={"lease_seconds": 1.0})
    weights = place.checkpoint(1)
    enqueue(place, settings)
    claim = place.stores.queue.claim("dead-0", lease_seconds=1.0)
    assert claim is not None

    host = HostProcess(place, settings)

    try:
        until(lambda: place.job_state(1) == JobState.DONE, seconds=30)
        assert host.stop() == 0
    finally:
        host.close()
    assert place.job(1).attempts_by_cause == {"lease_expired": 1}
    assert times_measured(weights) == 1
