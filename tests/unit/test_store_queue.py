"""Order of the queue, leases, failures and their ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stocking import QUICK, measured, no_alerts, path_of, whole

from nptwatch.store.leases import retry_after
from nptwatch.store.records import Admission, Claim, JobRow, JobState, WorkerState
from nptwatch.store.workers import Workers

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.store.catalog import Catalog
    from nptwatch.store.engine import Database
    from nptwatch.store.queue import Queue


pytestmark = pytest.mark.both_engines


def claim(queue: Queue, worker: str = "w1", lease_seconds: float = 60) -> Claim:
    """Claim a job that must be there."""
    claimed = queue.claim(worker, lease_seconds=lease_seconds)
    assert claimed is not None
    return claimed


def drain(queue: Queue) -> list[tuple[str, int | None]]:
    """Claim everything; give run and step in the order they came."""
    order = []
    while (claimed := queue.claim("w1", lease_seconds=60)) is not None:
        order.append((claimed.run_name, claimed.step))
    return order


def fail(queue: Queue, claimed: Claim, worker: str = "w1", cause: str = "crash") -> JobState | None:
    """Fail a job as the worker would."""
    return queue.fail(
        claimed, worker, cause=cause, error="boom", max_attempts=3, retry_delay_seconds=10
    )


def only_job(queue: Queue) -> JobRow:
    """Give the one job there is."""
    (job,) = queue.jobs()
    return job


def test_newest_of_each_run_goes_first(catalog: Catalog, queue: Queue) -> None:
    """A run's newest is never behind another run's backlog; then the rest, latest written first."""
    for step in (100, 300, 200):
        catalog.admit(whole("late", step, mtime_ns=10_000 + step), QUICK)
    for step in (10, 20):
        catalog.admit(whole("early", step, mtime_ns=step), QUICK)
    assert drain(queue) == [
        ("late", 300),
        ("early", 20),
        ("late", 200),
        ("late", 100),
        ("early", 10),
    ]


def test_step_beats_time_of_writing(catalog: Catalog, queue: Queue) -> None:
    """A resumed run rewrites an old step late: it is still not the newest."""
    catalog.admit(whole(step=300, mtime_ns=1_000), QUICK)
    catalog.admit(whole(step=100, mtime_ns=2_000), QUICK)
    assert drain(queue) == [("a", 300), ("a", 100)]


def test_unknown_steps_are_ordered_by_time(catalog: Catalog, queue: Queue) -> None:
    """Where a step is not known the time of writing decides."""
    catalog.admit(whole(step=300, mtime_ns=2_000), QUICK)
    catalog.admit(whole(step=None, folder="x", content="x", mtime_ns=3_000), QUICK)
    catalog.admit(whole(step=None, folder="y", content="y", mtime_ns=1_000), QUICK)
    assert [claim(queue).fingerprint for _ in range(3)] == ["x", "content-a-300", "y"]


def test_returned_job_is_no_longer_newest(catalog: Catalog, queue: Queue) -> None:
    """A job handed back lets one that became newest meanwhile go first, of any run."""
    catalog.admit(whole("a", 100, mtime_ns=9_000), QUICK)
    held = claim(queue)
    catalog.admit(whole("a", 200, mtime_ns=9_100), QUICK)
    catalog.admit(whole("b", 1, mtime_ns=1), QUICK)
    queue.release(held, "w1", reason="stopping")
    assert drain(queue) == [("a", 200), ("b", 1), ("a", 100)]


def test_claim_tells_the_worker_everything(catalog: Catalog, queue: Queue) -> None:
    """Paths that exist come with the claim, the numbered one first."""
    catalog.admit(whole(step=100, folder="best", content="c"), QUICK)
    catalog.admit(whole(step=100, content="c", mtime_ns=5), QUICK)
    claimed = claim(queue)
    assert claimed.paths == (path_of("a", "checkpoint-100"), path_of("a", "best"))
    assert (claimed.run_path, claimed.step, claimed.fingerprint) == ("/exp/a", 100, "c")
    assert (claimed.profile, claimed.settings_hash, claimed.mtime_ns) == ("quick", "s1", 5)


def test_claim_of_a_returned_job_whose_file_is_gone_has_no_paths(
    catalog: Catalog, queue: Queue
) -> None:
    """The worker is told that nothing is left, and closes the job as deleted."""
    catalog.admit(whole(), QUICK)
    held = claim(queue)
    catalog.gone([path_of("a", "checkpoint-100")])
    queue.release(held, "w1", reason="stopping")
    again = claim(queue)
    assert again.paths == ()
    assert queue.close(again.job_id, "w1", JobState.DELETED, "gone from disk")
    assert only_job(queue).state is JobState.DELETED


def test_leased_job_is_not_claimed_again(catalog: Catalog, queue: Queue) -> None:
    """One job, one worker."""
    catalog.admit(whole(), QUICK)
    claim(queue, "w1")
    assert queue.claim("w2", lease_seconds=60) is None


@pytest.mark.parametrize(
    "action", ["finish", "finish_known", "fail", "heartbeat", "release", "close"]
)
def test_worker_without_the_lease_can_do_nothing(
    catalog: Catalog, queue: Queue, clock: FakeClock, action: str
) -> None:
    """After the lease went to another worker, the first one's word changes nothing at all."""
    catalog.admit(whole("other"), QUICK)
    done = queue.finish(claim(queue, "w0"), "w0", measured(), no_alerts)
    assert done is not None
    catalog.admit(whole(), QUICK)
    lost = claim(queue, "w1", lease_seconds=10)
    clock.advance(11)
    assert queue.expire(max_attempts=3, retry_delay_seconds=0) == [lost.job_id]
    claim(queue, "w2")
    before = queue.jobs()
    answers = {
        "finish": lambda: queue.finish(lost, "w1", measured("POOR"), no_alerts),
        "finish_known": lambda: queue.finish_known(lost, "w1", done.result_id, no_alerts),
        "fail": lambda: fail(queue, lost),
        "heartbeat": lambda: queue.heartbeat(lost.job_id, "w1", lease_seconds=60) or None,
        "release": lambda: queue.release(lost, "w1", reason="x") or None,
        "close": lambda: queue.close(lost.job_id, "w1", JobState.DELETED, "x") or None,
    }
    assert answers[action]() is None
    assert queue.jobs() == before
    assert queue.known_result(lost, base_revision="base-1") is None


def test_heartbeat_keeps_the_lease(catalog: Catalog, queue: Queue, clock: FakeClock) -> None:
    """A renewed lease does not expire; a silent one does and counts as lease_expired."""
    catalog.admit(whole(), QUICK)
    held = claim(queue, lease_seconds=10)
    clock.advance(9)
    assert queue.heartbeat(held.job_id, "w1", lease_seconds=10)
    clock.advance(9)
    assert queue.expire(max_attempts=3, retry_delay_seconds=10) == []
    clock.advance(1)
    assert queue.expire(max_attempts=3, retry_delay_seconds=10) == [held.job_id]
    job = only_job(queue)
    assert (job.state, job.attempts_by_cause) == (JobState.QUEUED, {"lease_expired": 1})


def test_failures_wait_twice_as_long_and_end_in_quarantine(
    catalog: Catalog, queue: Queue, clock: FakeClock
) -> None:
    """Attempts are counted by cause; the last allowed one quarantines, with the error kept."""
    catalog.admit(whole(), QUICK)
    assert fail(queue, claim(queue)) is JobState.QUEUED
    clock.advance(9)
    assert queue.claim("w1", lease_seconds=60) is None
    clock.advance(1)
    assert fail(queue, claim(queue), cause="hang") is JobState.QUEUED
    clock.advance(19)
    assert queue.claim("w1", lease_seconds=60) is None
    clock.advance(1)
    assert fail(queue, claim(queue)) is JobState.FAILED
    job = only_job(queue)
    assert (job.state, job.attempts, job.reason) == (JobState.FAILED, 3, "crash: boom")
    assert job.attempts_by_cause == {"crash": 2, "hang": 1}
    clock.advance(10_000)
    assert queue.claim("w1", lease_seconds=60) is None


def test_release_is_not_a_failure(catalog: Catalog, queue: Queue, clock: FakeClock) -> None:
    """Out of memory is nobody's fault: the job waits, uncounted, the cause kept."""
    catalog.admit(whole(), QUICK)
    held = claim(queue)
    assert queue.release(held.job_id, "w1", reason="out of memory", delay_seconds=5)
    job = only_job(queue)
    assert (job.state, job.attempts, job.reason) == (JobState.QUEUED, 0, "out of memory")
    assert queue.claim("w1", lease_seconds=60) is None
    clock.advance(5)
    assert claim(queue).job_id == held.job_id


def test_dead_workers_jobs_are_taken_back(
    catalog: Catalog, queue: Queue, database: Database, clock: FakeClock
) -> None:
    """The supervisor frees what a dead process held, counted, and leaves other workers alone."""
    workers = Workers(database, clock=clock)
    workers.register("w1", "host", 1, "cpu")
    for step in (1, 2, 3):
        catalog.admit(whole(step=step), QUICK)
    held = {claim(queue, "w1").job_id, claim(queue, "w1").job_id}
    kept = claim(queue, "w2").job_id
    taken = queue.release_worker(
        "w1", cause="worker_died", error="signal 9", max_attempts=3, retry_delay_seconds=0
    )
    assert set(taken) == held
    states = {job.job_id: (job.state, job.attempts) for job in queue.jobs()}
    assert states == {kept: (JobState.LEASED, 0)} | dict.fromkeys(held, (JobState.QUEUED, 1))
    assert workers.rows()[0].state is WorkerState.LOST


@pytest.mark.parametrize("taken_by", ["release_worker", "expire"])
def test_dying_while_the_base_is_loaded_is_not_counted(
    catalog: Catalog, queue: Queue, database: Database, clock: FakeClock, taken_by: str
) -> None:
    """The checkpoint was not touched yet: its job waits a little, unblamed."""
    workers = Workers(database, clock=clock)
    workers.register("w1", "host", 1, "cpu")
    catalog.admit(whole(), QUICK)
    held = claim(queue, "w1", lease_seconds=10)
    workers.beat("w1", state=WorkerState.LOADING, job_id=held.job_id)
    clock.advance(10)
    if taken_by == "expire":
        taken = queue.expire(max_attempts=1, retry_delay_seconds=5)
    else:
        taken = queue.release_worker(
            "w1", cause="crash", error="SIGKILL", max_attempts=1, retry_delay_seconds=5
        )
    assert taken == [held.job_id]
    job = only_job(queue)
    assert (job.state, job.attempts, job.attempts_by_cause) == (JobState.QUEUED, 0, {})
    assert "while the base model was loaded" in (job.reason or "")
    assert queue.claim("w2", lease_seconds=60) is None
    clock.advance(5)
    assert claim(queue, "w2").job_id == held.job_id


def test_a_stopped_workers_jobs_are_released_however_many_others_are_leased(
    catalog: Catalog, queue: Queue, clock: FakeClock
) -> None:
    """All of its jobs, none of another's, nothing counted."""
    for step in range(60):
        catalog.admit(whole(step=step), QUICK)
    held = {claim(queue, "w1").job_id for _ in range(2)}
    clock.advance(1)
    while queue.claim("w2", lease_seconds=60):
        pass
    assert set(queue.release_held("w1", reason="stopped")) == held
    assert queue.depth()[JobState.LEASED] == 58
    waiting = queue.jobs(states=[JobState.QUEUED])
    assert {(job.job_id, job.attempts, job.reason) for job in waiting} == {
        (job_id, 0, "stopped") for job_id in held
    }


def test_workers_that_ended_long_ago_are_forgotten(database: Database, clock: FakeClock) -> None:
    """Each process has a row of its own; those at work and those of late stay."""
    workers = Workers(database, clock=clock)
    for name in ("ended", "lost", "busy"):
        workers.register(name, "host", 1, "cpu")
    workers.stopped("ended")
    workers.beat("lost", state=WorkerState.LOST)
    workers.beat("busy", state=WorkerState.BUSY)
    clock.advance(100)
    workers.register("late", "host", 1, "cpu")
    workers.stopped("late")
    assert workers.forget(after_seconds=100) == 0
    clock.advance(1)
    assert workers.forget(after_seconds=100) == 2
    assert {row.worker_id for row in workers.rows()} == {"busy", "late"}


def test_close_takes_only_ends_of_the_owner(catalog: Catalog, queue: Queue) -> None:
    """DONE needs a result, FAILED a count: those have methods of their own."""
    catalog.admit(whole(), QUICK)
    held = claim(queue)
    with pytest.raises(ValueError, match="close takes one of"):
        queue.close(held.job_id, "w1", JobState.DONE, "x")


@pytest.mark.parametrize("end", [JobState.DELETED, JobState.SUPERSEDED, JobState.UNLOADABLE])
def test_content_that_moved_while_its_job_was_held_is_queued_again(
    catalog: Catalog, queue: Queue, end: JobState
) -> None:
    """The watcher saw it leave and arrive under another name: the new file is still to be read."""
    catalog.admit(whole(content="c"), QUICK)
    held = claim(queue)
    catalog.gone([path_of("a", "checkpoint-100")])
    moved = whole(content="c", step=100, folder="kept")
    assert catalog.admit(moved, QUICK) is Admission.KNOWN
    assert queue.close(held.job_id, "w1", end, "gone", looked_at=held.paths) is JobState.QUEUED
    assert only_job(queue).reason == "gone; another file has the same content"
    again = claim(queue)
    assert again.paths == (path_of("a", "kept"),)
    assert queue.close(again.job_id, "w1", end, "gone", looked_at=again.paths) is end


def test_damaged_checkpoints_are_retried_by_name(catalog: Catalog, queue: Queue) -> None:
    """A file repaired without a trace (`cp -p` over it) needs a person's word."""
    catalog.admit(whole(), QUICK)
    held = claim(queue)
    queue.close(held.job_id, "w1", JobState.UNLOADABLE, "CRC", looked_at=held.paths)
    assert queue.retry() == 0
    assert queue.retry([held.job_id]) == 1
    assert claim(queue).job_id == held.job_id


def test_people_cancel_and_retry(catalog: Catalog, queue: Queue) -> None:
    """Cancel touches queued jobs only; retry brings back failed ones, or those it is given."""
    for step in (1, 2, 3):
        catalog.admit(whole(step=step), QUICK)
    running = claim(queue)
    assert queue.cancel([running.job_id]) == 0
    assert queue.cancel() == 2
    assert queue.retry() == 0
    poison = running
    queue.fail(poison, "w1", cause="crash", error="", max_attempts=1, retry_delay_seconds=0)
    assert queue.retry() == 1
    job = next(job for job in queue.jobs() if job.job_id == poison.job_id)
    assert (job.state, job.attempts, job.attempts_by_cause) == (JobState.QUEUED, 0, {})
    cancelled = [job.job_id for job in queue.jobs(states=[JobState.CANCELLED])]
    assert queue.retry(cancelled) == 2
    assert drain(queue) == [("a", 3), ("a", 2), ("a", 1)]


def test_depth_and_waiting_time(catalog: Catalog, queue: Queue, clock: FakeClock) -> None:
    """All states are counted, absent ones as zero; the longest wait is told."""
    assert queue.oldest_queued_at() is None
    began = clock()
    catalog.admit(whole(step=1), QUICK)
    clock.advance(60)
    catalog.admit(whole(step=2), QUICK)
    assert queue.oldest_queued_at() == began
    claim(queue)
    assert queue.depth() == dict.fromkeys(JobState, 0) | {JobState.QUEUED: 1, JobState.LEASED: 1}


def test_jobs_are_listed_by_run_and_state(catalog: Catalog, queue: Queue, clock: FakeClock) -> None:
    """The list is filtered and cut, last changed first."""
    for run, step in (("a", 1), ("a", 2), ("b", 3)):
        catalog.admit(whole(run, step), QUICK)
        clock.advance(1)
    assert [job.step for job in queue.jobs()] == [3, 2, 1]
    assert [job.step for job in queue.jobs(limit=1)] == [3]
    assert [job.step for job in queue.jobs(run="a")] == [2, 1]
    assert [job.step for job in queue.jobs(run="/exp/b")] == [3]
    assert queue.jobs(states=[JobState.DONE]) == []


@pytest.mark.parametrize(
    ("attempts", "first", "seconds"),
    [(1, 10, 10), (2, 10, 20), (4, 10, 80), (99, 10, 3600), (3, 0, 0)],
)
def test_pauses_double_up_to_an_hour(attempts: int, first: float, seconds: float) -> None:
    """A job that failed often still comes back within the hour."""
    assert retry_after(attempts, first).total_seconds() == seconds
