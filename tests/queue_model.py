"""What the queue should do, in plain Python: the model that tests hold the database against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from queue_books import Books, JobBook

from nptwatch.store.leases import retry_after
from nptwatch.store.records import Admission, Asking, JobState, Request, Urgency

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

MAX_ATTEMPTS = 2
DELAY = 10.0
LEASE = 30.0

DELETED, SUPERSEDED = JobState.DELETED, JobState.SUPERSEDED
OPEN_OR_DONE = {JobState.QUEUED, JobState.LEASED, JobState.DONE}
ENDS = set(JobState) - OPEN_OR_DONE


class Content(NamedTuple):
    """A checkpoint of one run: what may be measured."""

    run: str
    name: str


class Place(NamedTuple):
    """Where a weights file lies."""

    run: str
    folder: str


@dataclass
class Job:
    """What a job should look like; times in seconds since the beginning."""

    content: Content
    request: Request
    due: float
    urgency: Urgency
    state: JobState = JobState.QUEUED
    attempts: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    worker: str | None = None
    lease_ends: float | None = None
    grade: str | None = None

    def let_go(self, state: JobState) -> None:
        """End the lease."""
        self.state, self.worker, self.lease_ends = state, None, None

    def wait(self, now: float, urgency: Urgency | None = None) -> None:
        """Queue it again."""
        self.let_go(JobState.QUEUED)
        self.due = now
        self.urgency = self.urgency if urgency is None else urgency

    def fail(self, cause: str, now: float) -> None:
        """Count a failure."""
        self.attempts += 1
        self.causes[cause] = self.causes.get(cause, 0) + 1
        self.let_go(JobState.FAILED if self.attempts >= MAX_ATTEMPTS else JobState.QUEUED)
        self.due = now + retry_after(self.attempts, DELAY).total_seconds()

    def forgive(self) -> None:
        """Forget what was counted."""
        self.attempts, self.causes = 0, {}

    def book(self) -> JobBook:
        """Give it as it should be in the database."""
        return JobBook(
            run=self.content.run,
            name=self.content.name,
            request=self.request,
            state=self.state,
            urgency=self.urgency,
            attempts=self.attempts,
            causes=self.causes,
            worker=self.worker,
            lease_ends=self.lease_ends,
            due=self.due,
            grade=self.grade,
        )


class Model:
    """All that should be in the database.

    Args:
        ages: step (None: not known) and time of writing of each content, by name.
    """

    def __init__(self, ages: dict[str, tuple[int | None, int]]) -> None:
        self.ages = ages
        self.now = 0.0
        self.files: dict[Place, str] = {}  # whole ones
        self.gone: dict[Place, str] = {}  # what a deleted one held
        self.jobs: list[Job] = []  # as they were made
        self.results: dict[tuple[str, Request], str] = {}
        self.status: dict[str, tuple[str, str, float]] = {}  # run -> grade, content, since
        self.changes: list[tuple[str, str | None, str, str]] = []  # run, old, new, content
        self.alerts: set[tuple[str, str]] = set()
        self.loading: set[str] = set()

    # -- files ---------------------------------------------------------------------------------

    def held(self, content: Content) -> set[str]:
        """Give the folders that have a content."""
        return {
            place.folder
            for place, name in self.files.items()
            if Content(place.run, name) == content
        }

    def admit(self, place: Place, name: str, request: Request) -> Admission:
        """A whole file is there; what it held before may be lost."""
        content = Content(place.run, name)
        had = self.files.pop(place, None) or self.gone.pop(place, None)
        self.files[place] = name
        again = {DELETED, SUPERSEDED}
        if had != name:
            again.add(JobState.UNLOADABLE)
            self.orphan(place.run, had, SUPERSEDED)
        queued = self.put(content, request, Urgency.CHECKPOINT, again)
        self.supersede_others(content, request)
        others = [job for job in self.of(content) if job.request.profile != request.profile]
        counting = [job for job in others if job.state is not SUPERSEDED] or others
        if counting and counting[-1].state in again:
            counting[-1].wait(self.now)
        if queued:
            return Admission.QUEUED
        beside = self.held(content) - {place.folder}
        return Admission.TWIN if had != name and beside else Admission.KNOWN

    def rewrite(self, place: Place) -> None:
        """A file is not whole any more."""
        had = self.files.pop(place, None) or self.gone.pop(place, None)
        self.orphan(place.run, had, SUPERSEDED)

    def delete(self, places: Iterable[Place]) -> None:
        """Files are gone."""
        for place in places:
            had = self.files.pop(place, None)
            if had is not None:
                self.gone[place] = had
                self.orphan(place.run, had, DELETED)

    def orphan(self, run: str, name: str | None, end: JobState) -> None:
        """End what waits for a content that no file has."""
        if name is None or self.held(Content(run, name)):
            return
        for job in self.of(Content(run, name)):
            if job.state is JobState.QUEUED:
                job.state = end

    # -- jobs ----------------------------------------------------------------------------------

    def of(self, content: Content) -> list[Job]:
        """Give the jobs of a content."""
        return [job for job in self.jobs if job.content == content]

    def find(self, content: Content, request: Request) -> Job | None:
        """Give a job by its key."""
        return next((job for job in self.of(content) if job.request == request), None)

    def put(
        self, content: Content, request: Request, urgency: Urgency, again: Collection[JobState]
    ) -> bool:
        """Make a job or queue it again; say whether it is queued by this."""
        job = self.find(content, request)
        if job is None:
            self.jobs.append(Job(content, request, self.now, urgency))
            return True
        if job.state not in again:
            return False
        job.wait(self.now, urgency)
        return True

    def supersede_others(self, content: Content, request: Request) -> None:
        """End what waits to be measured by other settings."""
        for job in self.of(content):
            same = job.request.profile == request.profile and job.request != request
            if same and job.state is JobState.QUEUED:
                job.state = SUPERSEDED

    def due(self) -> list[Job]:
        """Give what a worker may get now: of the most urgent only."""
        able = [job for job in self.jobs if job.state is JobState.QUEUED and job.due <= self.now]
        most = max((job.urgency for job in able), default=None)
        return [job for job in able if job.urgency == most]

    def ask(self, content: Content, request: Request) -> Asking | None:
        """A person asks; None: the files are gone."""
        if not self.held(content):
            return None
        self.supersede_others(content, request)
        did = Asking.QUEUED if self.put(content, request, Urgency.PERSON, ENDS) else None
        job = self.find(content, request)
        assert job is not None
        if job.state is JobState.QUEUED:
            job.wait(self.now, Urgency.PERSON)
            job.forgive()
        known = {JobState.DONE: Asking.KNOWN, JobState.LEASED: Asking.RUNS}
        return did or known.get(job.state, Asking.WAITS)

    # -- leases --------------------------------------------------------------------------------

    def held_by(self, worker: str) -> list[Job]:
        """Give what a worker has in hand."""
        return [job for job in self.jobs if job.worker == worker]

    def take_back(self, job: Job, cause: str) -> None:
        """Take a job from a worker that is gone, blameless where it was loading its base."""
        if job.worker in self.loading:
            job.wait(self.now + DELAY)
        else:
            job.fail(cause, self.now)

    def expire(self) -> list[Job]:
        """Take back what is past its lease; give which."""
        late = [job for job in self.jobs if job.lease_ends and job.lease_ends <= self.now]
        for job in late:
            self.take_back(job, "lease_expired")
        return late

    # -- results -------------------------------------------------------------------------------

    def finish(self, job: Job, grade: str) -> None:
        """A job ends with a result: the first of its kind stays; the status may follow it."""
        job.let_go(JobState.DONE)
        job.grade = self.results.setdefault((job.content.name, job.request), grade)
        run, name = job.content
        old, of, since = self.status.get(run, (None, name, self.now))
        if job.grade == "UNLOADABLE" or (old is not None and self.is_older(name, of)):
            return
        self.status[run] = (job.grade, name, since if old == job.grade else self.now)
        if old != job.grade:
            self.changes.append((run, old, job.grade, name))
            if job.grade == "GOOD":
                self.alerts.add((run, name))

    def is_older(self, name: str, than: str) -> bool:
        """Compare by step where both are known, else by time."""
        (step, mtime), (than_step, than_mtime) = self.ages[name], self.ages[than]
        if step is None or than_step is None:
            return mtime < than_mtime
        return step < than_step

    def books(self) -> Books:
        """Give what the database should say."""
        return Books(
            jobs=[job.book() for job in self.jobs],
            results=sorted(
                (name, request.profile, request.settings_hash, grade)
                for (name, request), grade in self.results.items()
            ),
            status=[
                (run, grade, name, since)
                for run, (grade, name, since) in sorted(self.status.items())
            ],
            changes=self.changes,
            alerts=sorted(self.alerts),
        )
