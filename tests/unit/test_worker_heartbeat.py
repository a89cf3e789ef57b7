"""How long a job may be in hand, and what becomes of one that hangs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from stocking import QUICK, whole

from nptwatch.settings import WorkerSettings
from nptwatch.store.records import JobState, WorkerState
from nptwatch.store.workers import Workers
from nptwatch.worker.heartbeat import Heartbeat
from nptwatch.worker.wake import Wake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nptwatch.store.catalog import Catalog
    from nptwatch.store.engine import Database
    from nptwatch.store.queue import Queue

    Beat = Callable[..., Heartbeat]

pytestmark = pytest.mark.both_engines

SOON = 0.01
"""Minutes: 0.6 s, time enough for a test to say what it has to."""


@pytest.fixture
def ended() -> threading.Event:
    """Set when the process would end."""
    return threading.Event()


@pytest.fixture
def beat(
    database: Database, queue: Queue, catalog: Catalog, ended: threading.Event
) -> Iterator[Beat]:
    """Makes the heartbeat of the one job that there is, claimed by "w"."""
    wake = Wake()
    catalog.admit(whole(), QUICK)
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None

    def make(**settings: object) -> Heartbeat:
        return Heartbeat(
            claim,
            queue=queue,
            workers=Workers(database),
            worker_id="w",
            settings=WorkerSettings(**settings),
            wake=wake,
            abandon=ended.set,
        )

    yield make
    wake.close()


def test_a_job_that_hangs_is_counted_and_its_worker_ends(
    beat: Beat, queue: Queue, ended: threading.Event
) -> None:
    """It is queued again, and says why."""
    with beat(max_job_minutes=SOON) as heart:
        assert ended.wait(10)
        assert heart.over.is_set()
    (job,) = queue.jobs()
    assert (job.state, job.attempts) == (JobState.QUEUED, 1)
    assert job.reason == "timeout: not done after 0.01 min (worker.max_job_minutes)"


def test_a_base_that_takes_too_long_is_not_counted(
    beat: Beat, queue: Queue, ended: threading.Event
) -> None:
    """No checkpoint is to blame for it."""
    with beat(max_job_minutes=SOON) as heart:
        heart.tell(WorkerState.LOADING)
        assert ended.wait(10)
    (job,) = queue.jobs()
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    assert job.reason == "its base: not done after 0.01 min (worker.max_job_minutes)"


@pytest.mark.parametrize("minutes", [SOON, 0.0])
def test_an_outcome_waits_for_its_database_as_long_as_it_takes(
    beat: Beat, queue: Queue, ended: threading.Event, minutes: float
) -> None:
    """What was measured is not thrown away; nor does anything end where no limit is set."""
    with beat(max_job_minutes=minutes) as heart:
        if minutes:
            heart.measured()
        assert not ended.wait(1.5)
        assert not heart.over.is_set()
    assert queue.jobs()[0].state == JobState.LEASED


def test_a_hang_ends_although_its_lease_is_lost(
    beat: Beat, queue: Queue, ended: threading.Event
) -> None:
    """An outage took the job to another worker: that is no reason to hang for ever."""
    assert queue.release_held("w", reason="its lease expired") == [1]
    with beat(max_job_minutes=SOON) as heart:
        assert heart.over.wait(10)
        assert ended.wait(10)
    (job,) = queue.jobs()
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
