"""The life of a job against a plain model: Hypothesis makes up what watcher, workers and time do."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest
from conftest import FakeClock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from stocking import QUICK, measured, no_alerts, path_of, seen, whole

from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database
from nptwatch.store.leases import retry_after
from nptwatch.store.queue import Queue
from nptwatch.store.records import Claim, FileState, JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

MAX_ATTEMPTS = 2
DELAY = 10.0
LEASE = 30.0
FOLDERS = ("checkpoint-1", "checkpoint-2", "best")
CONTENTS = ("red", "green", "blue")
WORKERS = ("w1", "w2")
ENDS = {"finish": JobState.DONE, "close": JobState.DELETED, "damaged": JobState.UNLOADABLE}
ACTIONS = (*ENDS, "fail", "release", "beat")


@dataclass
class Job:
    """What a job should look like."""

    state: JobState = JobState.QUEUED
    attempts: int = 0
    due: float = 0.0
    lease_ends: float = 0.0
    worker: str | None = None


@dataclass
class Model:
    """All that should be in the database."""

    now: float = 0.0
    files: dict[str, str] = field(default_factory=dict)  # folder -> content, whole ones
    gone: dict[str, str] = field(default_factory=dict)  # folder -> content when it was deleted
    jobs: dict[str, Job] = field(default_factory=dict)  # content -> job

    def leave(self, folder: str, end: JobState) -> None:
        """A folder loses its content; a queued job that no file backs any more ends."""
        content = self.files.pop(folder, None)
        if end is JobState.DELETED and content is not None:
            self.gone[folder] = content
        elif end is JobState.SUPERSEDED:
            content = self.gone.pop(folder, None) or content
        if content is None or content in self.files.values():
            return
        job = self.jobs[content]
        if job.state is JobState.QUEUED:
            job.state = end

    def fail(self, job: Job) -> None:
        """Count a failure."""
        job.attempts += 1
        job.worker = None
        failed = job.attempts >= MAX_ATTEMPTS
        job.state = JobState.FAILED if failed else JobState.QUEUED
        job.due = self.now + retry_after(job.attempts, DELAY).total_seconds()


class LifeOfJobs(RuleBasedStateMachine):
    """Whatever happens, jobs are as the model says."""

    fresh: Callable[[], AbstractContextManager[Database]]

    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()
        self.database = self.open.enter_context(self.fresh())
        self.clock = FakeClock()
        self.catalog = Catalog(self.database, clock=self.clock)
        self.queue = Queue(self.database, clock=self.clock)
        self.model = Model()
        self.claims: list[tuple[str, Claim]] = []  # every claim ever made, lost ones included

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.open.close()

    @rule(folder=st.sampled_from(FOLDERS), content=st.sampled_from(CONTENTS))
    def admit(self, folder: str, content: str) -> None:
        """A whole file appears, stays, or is overwritten."""
        self.catalog.admit(whole(folder=folder, step=None, content=content), QUICK)
        fresh = content not in {self.model.files.get(folder), self.model.gone.get(folder)}
        if fresh:
            self.model.leave(folder, JobState.SUPERSEDED)
        self.model.files[folder] = content
        self.model.gone.pop(folder, None)
        job = self.model.jobs.setdefault(content, Job(due=self.model.now))
        again = {JobState.DELETED, JobState.SUPERSEDED} | (
            {JobState.UNLOADABLE} if fresh else set()
        )
        if job.state in again:
            job.state, job.due = JobState.QUEUED, self.model.now

    @rule(folder=st.sampled_from(FOLDERS))
    def rewrite(self, folder: str) -> None:
        """A trainer begins to write over a file."""
        self.catalog.note(seen(folder=folder), FileState.SETTLING, "changed")
        self.model.leave(folder, JobState.SUPERSEDED)

    @rule(folders=st.sets(st.sampled_from(FOLDERS)))
    def rotate(self, folders: set[str]) -> None:
        """Files disappear."""
        self.catalog.gone([path_of("a", folder) for folder in folders])
        for folder in sorted(folders):
            self.model.leave(folder, JobState.DELETED)

    @rule(worker=st.sampled_from(WORKERS))
    def claim(self, worker: str) -> None:
        """A worker gets a job exactly if one is due."""
        due = {
            content
            for content, job in self.model.jobs.items()
            if job.state is JobState.QUEUED and job.due <= self.model.now
        }
        claimed = self.queue.claim(worker, lease_seconds=LEASE)
        assert (claimed is None) == (not due)
        if claimed is None:
            return
        assert claimed.fingerprint in due
        backed = {
            folder for folder, held in self.model.files.items() if held == claimed.fingerprint
        }
        assert set(claimed.paths) == {path_of("a", folder) for folder in backed}
        job = self.model.jobs[claimed.fingerprint]
        job.state, job.worker = JobState.LEASED, worker
        job.lease_ends = self.model.now + LEASE
        self.claims.append((worker, claimed))

    @rule(data=st.data(), action=st.sampled_from(ACTIONS))
    def act(self, data: st.DataObject, action: str) -> None:
        """A worker does something with a claim of its own, which it may have lost long ago."""
        if not self.claims:
            return
        worker, claimed = data.draw(st.sampled_from(self.claims))
        job = self.model.jobs[claimed.fingerprint]
        holds = job.state is JobState.LEASED and job.worker == worker
        assert self.try_to(action, worker, claimed) == holds
        if not holds:
            return
        if action == "beat":
            job.lease_ends = self.model.now + LEASE
        elif action == "fail":
            self.model.fail(job)
        else:
            job.state, job.worker = ENDS.get(action, JobState.QUEUED), None
            if action in {"close", "damaged"} and self.is_beside(claimed):
                job.state = JobState.QUEUED
            if action == "release":
                job.due = self.model.now

    def is_beside(self, claimed: Claim) -> bool:
        """Say if a file has the claim's content that the worker was not told of."""
        return any(
            held == claimed.fingerprint and path_of("a", folder) not in claimed.paths
            for folder, held in self.model.files.items()
        )

    def try_to(self, action: str, worker: str, claimed: Claim) -> bool:
        """Do it; say whether the store let it happen."""
        if action == "finish":
            return self.queue.finish(claimed, worker, measured(), no_alerts) is not None
        if action == "fail":
            failed = self.queue.fail(
                claimed,
                worker,
                cause="crash",
                error="",
                max_attempts=MAX_ATTEMPTS,
                retry_delay_seconds=DELAY,
            )
            return failed is not None
        if action == "release":
            return self.queue.release(claimed, worker, reason="stop")
        if action in {"close", "damaged"}:
            closed = self.queue.close(
                claimed.job_id, worker, ENDS[action], "gone", looked_at=claimed.paths
            )
            return closed is not None
        return self.queue.heartbeat(claimed.job_id, worker, lease_seconds=LEASE)

    @rule(seconds=st.sampled_from([1.0, DELAY, LEASE]))
    def wait(self, seconds: float) -> None:
        """Time passes and the reaper comes by."""
        self.clock.advance(seconds)
        self.model.now += seconds
        self.queue.expire(max_attempts=MAX_ATTEMPTS, retry_delay_seconds=DELAY)
        for job in self.model.jobs.values():
            if job.state is JobState.LEASED and job.lease_ends <= self.model.now:
                self.model.fail(job)

    @rule()
    def cancel(self) -> None:
        """A person cancels what waits."""
        queued = [job for job in self.model.jobs.values() if job.state is JobState.QUEUED]
        assert self.queue.cancel() == len(queued)
        for job in queued:
            job.state = JobState.CANCELLED

    @rule()
    def retry(self) -> None:
        """A person brings quarantined jobs back."""
        failed = [job for job in self.model.jobs.values() if job.state is JobState.FAILED]
        assert self.queue.retry() == len(failed)
        for job in failed:
            job.state, job.attempts, job.due = JobState.QUEUED, 0, self.model.now

    @invariant()
    def agree(self) -> None:
        """State, worker and attempts of every job are those of the model."""
        ids = {claimed.job_id: claimed.fingerprint for _, claimed in self.claims}
        found = {ids.get(job.job_id): job for job in self.queue.jobs()}
        for content, job in found.items():
            if content is not None:
                wanted = self.model.jobs[content]
                assert (job.state, job.worker_id, job.attempts) == (
                    wanted.state,
                    wanted.worker,
                    wanted.attempts,
                )
        states = [job.state for job in self.model.jobs.values()]
        assert self.queue.depth() == {state: states.count(state) for state in JobState}


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
def test_jobs_live_as_the_model_says(engine: str, request: pytest.FixtureRequest) -> None:
    """No order of events makes the database and the model disagree."""
    if engine == "postgres":
        fresh = request.getfixturevalue("postgres").migrated
    else:
        fresh = partial(copy_of, request.getfixturevalue("migrated_file"))
    machine = type("Machine", (LifeOfJobs,), {"fresh": staticmethod(fresh)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20 if engine == "postgres" else 40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
