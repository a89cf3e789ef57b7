"""The queue against a plain model: Hypothesis makes up what watchers, workers, people and time do."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from conftest import FakeClock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from queue_books import books_of
from queue_model import DELAY, ENDS, LEASE, MAX_ATTEMPTS, Content, Job, Model, Place
from stocking import FULL, QUICK, alert_good, ask_full, measured, path_of, seen, whole

from nptwatch.errors import ConfigError
from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database
from nptwatch.store.queue import Queue
from nptwatch.store.recording import follow_nothing
from nptwatch.store.records import (
    Asked,
    Claim,
    FileState,
    JobState,
    Request,
    Urgency,
    WorkerState,
)
from nptwatch.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

BASE = "base-1"
OTHER_QUICK = Request(profile="quick", settings_hash="s2")
AGES: dict[str, tuple[int | None, int]] = {
    "red": (100, 1_100),
    "green": (200, 1_200),
    "blue": (None, 1_150),
    "best": (200, 1_200),
    "final": (200, 1_200),
}
COUNTED = {"max_attempts": MAX_ATTEMPTS, "retry_delay_seconds": DELAY}

places = st.builds(Place, st.sampled_from("ab"), st.sampled_from(("checkpoint-1", "best")))
names = st.sampled_from(sorted(AGES))
quicks = st.sampled_from((QUICK, OTHER_QUICK))
requests = st.sampled_from((QUICK, OTHER_QUICK, FULL))
workers = st.sampled_from(("w1", "w2"))
grades = st.sampled_from(("GOOD", "POOR", "GOOD", "EXCELLENT", "UNLOADABLE"))
OFTEN = ("admit", "work", "fail")
AT_TIMES = (
    "claim",
    "delete",
    "heartbeat",
    "finish",
    "release",
    "close",
    "take_over",
    "retry",
    "ask",
    "end",
)
SELDOM = ("rewrite", "ask_again", "wait", "expire", "cancel")
ACTIONS = (*OFTEN, *OFTEN, *OFTEN, *AT_TIMES, *AT_TIMES, *SELDOM)

closings = st.sampled_from((JobState.DELETED, JobState.SUPERSEDED, JobState.UNLOADABLE))
delays = st.sampled_from((0.0, DELAY))


class QueueMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, the database has what the model has."""

    fresh: Callable[[], AbstractContextManager[Database]]

    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()
        self.database = self.open.enter_context(self.fresh())
        self.clock = FakeClock()
        self.start = self.clock.now
        self.catalog = Catalog(self.database, clock=self.clock)
        self.queue = Queue(self.database, clock=self.clock)
        self.workers = Workers(self.database, clock=self.clock)
        for worker in ("w1", "w2"):
            self.workers.register(worker, "host", 1, "cpu")
        self.model = Model(AGES)
        self.claims: list[tuple[str, Claim]] = []  # every claim ever made, lost ones included

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.open.close()

    # -- watchers ------------------------------------------------------------------------------

    @rule(data=st.data(), action=st.sampled_from(ACTIONS))
    def step(self, data: st.DataObject, action: str) -> None:
        """Something happens.

        One rule for all: of many, Hypothesis leaves about half out of each example, and few
        examples would come as far as a result.
        """
        getattr(self, action)(data)

    def admit(self, data: st.DataObject) -> None:
        """A whole file appears, stays, or is overwritten."""
        self.show(data.draw(places), data.draw(names), data.draw(quicks))

    def show(self, place: Place, name: str, request: Request) -> None:
        """Have a whole file admitted."""
        step, mtime_ns = AGES[name]
        file = whole(place.run, step, name, folder=place.folder, mtime_ns=mtime_ns)
        admitted = self.catalog.admit(file, request)
        assert admitted == self.model.admit(place, name, request)

    def rewrite(self, data: st.DataObject) -> None:
        """A trainer begins to write over a file."""
        place = data.draw(places)
        self.catalog.note(seen(*place), FileState.SETTLING, "changed")
        self.model.rewrite(place)

    def delete(self, data: st.DataObject) -> None:
        """Files disappear."""
        gone = data.draw(st.sets(places, max_size=2))
        self.catalog.gone([path_of(*place) for place in gone])
        self.model.delete(gone)

    def come_back(self, data: st.DataObject) -> None:
        """A file disappears and is there again, with all that was asked of it."""
        if self.model.files:
            place, name = data.draw(st.sampled_from(sorted(self.model.files.items())))
            self.catalog.gone([path_of(*place)])
            self.model.delete([place])
            self.show(place, name, data.draw(quicks))

    # -- workers -------------------------------------------------------------------------------

    def claim(self, data: st.DataObject) -> None:
        """A worker gets a job exactly if one is due, the most urgent first."""
        worker = data.draw(workers)
        due = self.model.due()
        claimed = self.queue.claim(worker, lease_seconds=LEASE)
        assert (claimed is None) == (not due)
        if claimed is None:
            return
        job = self.job_of(claimed)
        assert any(job is one for one in due)
        folders = self.model.held(job.content)
        assert set(claimed.paths) == {path_of(claimed.run_name, folder) for folder in folders}
        job.state, job.worker, job.lease_ends = JobState.LEASED, worker, self.model.now + LEASE
        self.claims.append((worker, claimed))

    def heartbeat(self, data: st.DataObject) -> None:
        """A worker says what it does, and keeps its lease if it still has it."""
        state = data.draw(st.sampled_from((WorkerState.LOADING, WorkerState.BUSY)))
        for worker, claimed, job in self.some_claim(data):
            renewed = self.queue.heartbeat(claimed.job_id, worker, lease_seconds=LEASE)
            assert renewed == (job is not None)
            if job is not None:
                job.lease_ends = self.model.now + LEASE
            self.workers.beat(worker, state=state, job_id=claimed.job_id)
            (self.model.loading.add if state == "loading" else self.model.loading.discard)(worker)

    def finish(self, data: st.DataObject) -> None:
        """A worker ends a job with what it measured, or with what is known already."""
        grade = data.draw(grades)
        follows = data.draw(st.booleans())
        for worker, claimed, job in self.some_claim(data):
            about = self.job_of(claimed)
            known = self.queue.known_result(claimed, base_revision=BASE)
            assert (known is not None) == (
                (claimed.fingerprint, about.request) in self.model.results
            )
            follow = ask_full if follows else follow_nothing
            if known is not None and data.draw(st.booleans()):
                done = self.queue.finish_known(claimed, worker, known, alert_good, follow)
            else:
                result = measured(grade, base_revision=BASE)
                done = self.queue.finish(claimed, worker, result, alert_good, follow)
            assert (done is not None) == (job is not None)
            if job is None:
                continue
            self.model.finish(job, grade)
            if follows and job.grade != "UNLOADABLE" and job.request.profile == "quick":
                self.model.put(job.content, FULL, Urgency.POLICY, ())

    def work(self, data: st.DataObject) -> None:
        """A worker does what workers mostly do."""
        self.work_for(data)
        self.claim(data)
        self.finish(data)

    def fail(self, data: st.DataObject) -> None:
        """A measurement fails, and is counted."""
        cause = data.draw(st.sampled_from(("crash", "error")))
        for worker, claimed, job in self.some_claim(data):
            state = self.queue.fail(claimed, worker, cause=cause, error="", **COUNTED)
            if job is not None:
                job.fail(cause, self.model.now)
            assert state == (job and job.state)

    def release(self, data: st.DataObject) -> None:
        """A worker hands a job back, uncounted."""
        delay = data.draw(delays)
        for worker, claimed, job in self.some_claim(data):
            released = self.queue.release(claimed, worker, reason="stop", delay_seconds=delay)
            assert released == (job is not None)
            if job is not None:
                job.wait(self.model.now + delay)

    def close(self, data: st.DataObject) -> None:
        """A worker finds nothing to measure; a file that it was not told of saves the job."""
        state = data.draw(closings)
        looks = data.draw(st.booleans())
        for worker, claimed, job in self.some_claim(data):
            looked_at = claimed.paths if looks else None
            ended = self.queue.close(claimed.job_id, worker, state, "why", looked_at=looked_at)
            if job is not None:
                held = {path_of(job.content.run, each) for each in self.model.held(job.content)}
                moved = looks and held - set(claimed.paths)
                job.let_go(JobState.QUEUED if moved else state)
            assert ended == (job and job.state)

    def ask_again(self, data: st.DataObject) -> None:
        """A worker was given what is measured otherwise now."""
        for worker, claimed, job in self.some_claim(data):
            request = self.job_of(claimed).request
            other = {QUICK: OTHER_QUICK, OTHER_QUICK: QUICK}.get(request, request)
            asked = self.queue.ask_again(claimed.job_id, worker, other)
            assert asked == (job is not None)
            if job is not None:
                job.let_go(JobState.SUPERSEDED)
                self.model.put(job.content, other, job.urgency, {JobState.SUPERSEDED})

    def end(self, data: st.DataObject) -> None:
        """A worker's process ends, told to or not; all that it had goes back."""
        worker = data.draw(workers)
        stopped = data.draw(st.booleans())
        held = self.model.held_by(worker)
        if stopped:
            back = self.queue.release_held(worker, reason="stop")
            for job in held:
                job.wait(self.model.now)
        else:
            back = self.queue.release_worker(worker, cause="crash", error="", **COUNTED)
            for job in held:
                self.model.take_back(job, "crash")
            self.model.loading.discard(worker)
        assert self.jobs_of(back) == ids(held)

    def take_over(self, data: st.DataObject) -> None:
        """What was in hand for too long is handed to another."""
        self.pass_time(LEASE)
        self.expire(data)
        self.pass_time(DELAY)
        self.claim(data)

    # -- time and people -----------------------------------------------------------------------

    def wait(self, data: st.DataObject) -> None:
        """Time passes."""
        self.pass_time(data.draw(st.sampled_from((1.0, DELAY, LEASE))))

    def pass_time(self, seconds: float) -> None:
        """Let the same time pass in both."""
        self.clock.advance(seconds)
        self.model.now += seconds

    def expire(self, _data: st.DataObject) -> None:
        """The reaper comes by."""
        back = self.queue.expire(**COUNTED)
        assert self.jobs_of(back) == ids(self.model.expire())

    def cancel(self, data: st.DataObject) -> None:
        """A person cancels all that waits, or named jobs of which some do."""
        chosen = self.some_jobs(data, {JobState.QUEUED})
        queued = [job for job in self.among(chosen) if job.state is JobState.QUEUED]
        assert self.queue.cancel(chosen) == len(queued)
        for job in queued:
            job.state = JobState.CANCELLED

    def retry(self, data: st.DataObject) -> None:
        """A person brings back all that failed, or named jobs that ended without a result."""
        chosen = self.some_jobs(data, ENDS)
        able = {JobState.FAILED} if chosen is None else ENDS
        again = [job for job in self.among(chosen) if job.state in able]
        assert self.queue.retry(chosen) == len(again)
        for job in again:
            job.wait(self.model.now)
            job.forgive()

    def ask(self, data: st.DataObject) -> None:
        """A person asks for a checkpoint, whose files may be gone."""
        if self.model.jobs:
            number = data.draw(st.integers(1, len(self.model.jobs)))
            self.wish(number, data.draw(requests))

    def measure_again(self, data: st.DataObject) -> None:
        """A person asks for what was measured by other settings, and gets it."""
        done = [at for at, job in enumerate(self.model.jobs, 1) if job.state is JobState.DONE]
        if done:
            number = data.draw(st.sampled_from(done[-2:]))
            other = {QUICK: OTHER_QUICK, OTHER_QUICK: QUICK}
            self.wish(number, other.get(self.model.jobs[number - 1].request, QUICK))
            self.claim(data)
            self.finish(data)

    def wish(self, number: int, request: Request) -> None:
        """Ask for the checkpoint of the nth job."""
        did = self.model.ask(self.model.jobs[number - 1].content, request)
        asked: Asked | None = None
        try:
            asked = self.queue.ask(str(self.numbers()[number - 1]), request, because="wish")
        except ConfigError as error:
            assert "its files are gone" in str(error)  # noqa: PT017 - both ends are right at times
        assert (asked and asked.did) == did

    # -- the comparison ------------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        """Jobs, leases, attempts, results, status, changes and alerts are those of the model."""
        assert books_of(self.database, self.start) == self.model.books()

    def numbers(self) -> list[int]:
        """Give the jobs' numbers in the order in which they were made."""
        return sorted(job.job_id for job in self.queue.jobs(limit=1000))

    def jobs_of(self, numbers: list[int]) -> set[int]:
        """Give the model's jobs of these numbers, by identity."""
        order = dict(zip(self.numbers(), self.model.jobs, strict=True))
        return ids([order[number] for number in numbers])

    def job_of(self, claimed: Claim) -> Job:
        """Give the model's job of a claim."""
        request = Request(profile=claimed.profile, settings_hash=claimed.settings_hash)
        job = self.model.find(Content(claimed.run_name, claimed.fingerprint), request)
        assert job is not None
        return job

    def some_claim(self, data: st.DataObject) -> Iterator[tuple[str, Claim, Job | None]]:
        """Draw a claim, a new one if nobody has any; with its job where its worker still has it."""
        if not any(job.state is JobState.LEASED for job in self.model.jobs):
            self.work_for(data)
            self.claim(data)
        by_now = [(worker, self.job_of(claimed).worker) for worker, claimed in self.claims]
        held = [it for it, (worker, now) in zip(self.claims, by_now, strict=True) if worker == now]
        lost = [it for it in self.claims if it not in held]
        taken = [it for it in lost if self.job_of(it[1]).worker is not None]
        if self.claims:
            worker, claimed = data.draw(st.sampled_from(4 * (held + taken) + lost[-2:]))
            job = self.job_of(claimed)
            yield worker, claimed, job if job.worker == worker else None

    def work_for(self, data: st.DataObject) -> None:
        """Have something due, if there is anything left."""
        if not self.model.due():
            self.admit(data)
            self.pass_time(DELAY)

    def some_jobs(self, data: st.DataObject, states: Collection[JobState]) -> list[int] | None:
        """Name jobs, mostly of these states, or all."""
        if data.draw(st.booleans()):
            return None
        jobs = list(zip(self.numbers(), self.model.jobs, strict=True))
        meant = [number for number, job in jobs if job.state in states]
        other = [number for number, job in jobs if job.state not in states]
        return meant[-2:] + data.draw(st.sampled_from(([], other[:1])))

    def among(self, chosen: list[int] | None) -> list[Job]:
        """Give the model's jobs that were named."""
        jobs = zip(self.numbers(), self.model.jobs, strict=True)
        return [job for number, job in jobs if chosen is None or number in chosen]


def ids(jobs: list[Job]) -> set[int]:
    """Compare jobs by identity."""
    return {id(job) for job in jobs}


@contextmanager
def copy_of(file: Path) -> Iterator[Database]:
    """Give a copy of a migrated SQLite database."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(file, f"{folder}/nptwatch.db")
        database = Database(f"sqlite:///{folder}/nptwatch.db")
        yield database
        database.close()


@pytest.mark.both_engines
@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_the_queue_does_what_the_model_does(engine: str, request: pytest.FixtureRequest) -> None:
    """No order of events makes the database and the model disagree."""
    if engine == "postgres":
        fresh = request.getfixturevalue("postgres").migrated
    else:
        fresh = partial(copy_of, request.getfixturevalue("migrated_file"))
    machine = type("Machine", (QueueMachine,), {"fresh": staticmethod(fresh)})
    fuzz = bool(os.environ.get("NPTWATCH_TEST_FUZZ"))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=500 if fuzz else 30 if engine == "sqlite" else 15,
            stateful_step_count=80 if fuzz else 40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
