"""What the store takes and gives: frozen records and the states that things can be in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from nptwatch.store.keys import HistoryKey, JobKey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from nptwatch.store.labels import Offer

Clock: TypeAlias = "Callable[[], datetime]"
"""Gives the time now, aware and in UTC."""


NEVER_BEST = frozenset({"INVALID", "UNLOADABLE"})
"""Grades that say that the numbers beside them are not to be compared."""


class FileState(StrEnum):
    """What is known of the file at one path."""

    SETTLING = "settling"  # seen; not yet the same on two polls, or not a complete archive yet
    WHOLE = "whole"  # provably complete; its content is a checkpoint
    UNLOADABLE = "unloadable"  # never became whole and has not changed for long
    ABANDONED = "abandoned"  # never became whole, and a newer step of the run is whole
    DELETED = "deleted"  # gone from disk


class JobState(StrEnum):
    """Life of a job; all but queued and leased are ends; all ends but done store a reason."""

    QUEUED = "queued"  # waits for a worker (again after a delay: `available_at`)
    LEASED = "leased"  # a worker measures it and renews the lease
    DONE = "done"  # has a result
    FAILED = "failed"  # quarantined after `max_attempts`; `jobs retry` brings it back
    DELETED = "deleted"  # the checkpoint was rotated away before it was measured
    UNLOADABLE = "unloadable"  # every file of it is damaged; queued again when one is rewritten
    SUPERSEDED = "superseded"  # the file was overwritten by another version before it was measured
    CANCELLED = "cancelled"  # by a person


class OutboxState(StrEnum):
    """Life of one message to one channel."""

    PENDING = "pending"
    SENDING = "sending"  # claimed by one sender until `claimed_until`
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"  # after `max_attempts`
    SUPPRESSED = "suppressed"  # never to be sent; stores why


class KeptState(StrEnum):
    """Life of a wish to keep a checkpoint's weights."""

    WANTED = "wanted"  # not done yet; not to be done while no file of it is left
    KEPT = "kept"  # a file below the state folder has the content
    RELEASED = "released"  # by a person, or to make room


class WorkerState(StrEnum):
    """What a worker process is doing."""

    STARTING = "starting"  # has a process, and has not asked for a job yet
    IDLE = "idle"  # waits for a job
    LOADING = "loading"  # has a job and loads its base: to die now is not the checkpoint's fault
    BUSY = "busy"  # measures
    STOPPED = "stopped"  # said good-bye
    LOST = "lost"  # its process ended without a word


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFile:
    """A weights file as the watcher saw it.

    Attributes:
        run_path: real path of the run's directory; the run's identity.
        run_name: its path below the watched root, for people.
        root: real path of the watched root.
        path: real path of the weights file.
        signature: changes when the file does: "size:mtime_ns:inode".
        mtime_ns: of the weights file.
        size_bytes: of the weights file.
    """

    run_path: str
    run_name: str
    root: str
    path: str
    signature: str
    mtime_ns: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeFile:
    """A seen file that is provably complete.

    Attributes:
        file: what was seen.
        fingerprint: content identity, equal for copies.
        step: training step, or None where nobody says.
        base_model: name or folder of the base model, or None where nobody says.
        min_gpu_mib: GPU memory that a worker must have for it; None: any.
    """

    file: SeenFile
    fingerprint: str
    step: int | None
    base_model: str | None
    min_gpu_mib: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be measured of each new checkpoint.

    Attributes:
        profile: "quick" or "full".
        settings_hash: of everything that changes the numbers, diagnostics version included.
        base_model: what it is measured against, whatever the checkpoint names; None: that.
    """

    profile: str
    settings_hash: str
    base_model: str | None = None


class Urgency(IntEnum):
    """What a worker takes first, whatever its age."""

    POLICY = 0  # a full diagnostic that nobody waits for
    CHECKPOINT = 1  # a new checkpoint's quick one
    PERSON = 2  # somebody asked


class Asking(StrEnum):
    """What became of a person's wish."""

    QUEUED = "queued"  # by this
    WAITS = "waits"  # was queued already, and goes first now
    RUNS = "runs"  # a worker is at it
    KNOWN = "known"  # measured already: same content, same settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A wish and the job it led to; grade and time where it is known already."""

    did: Asking
    job_id: int
    run: str
    step: int | None
    path: str
    profile: str
    worker_id: str | None
    grade: str | None
    measured_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a policy may want to know of a checkpoint that was just measured quickly.

    Attributes:
        nth: its place among its run's checkpoints in step order, from 1; unknown steps last.
        old: the run's status before; status: now.
        late: an older step than the status stands on; it left the status alone.
        best_mse_before: the lowest MSE of the run's other checkpoints, None if there is none.
        asked_before: settings hashes by which a full diagnostic of it was asked already.
    """

    run_name: str
    step: int | None
    nth: int
    old: str | None
    status: str | None
    late: bool
    grade: str
    mse: float | None
    best_mse_before: float | None
    asked_before: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A further measurement of the same checkpoint, and why."""

    request: Request
    because: str


FollowUp: TypeAlias = Callable[[Facts], Demand | None]
"""Decides what follows a quick result; called inside `finish`'s transaction."""


KeepRule: TypeAlias = Callable[[Facts], str | None]
"""Says why a checkpoint is to be kept, if it is; called inside `finish`'s transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """What the database remembers of a path."""

    path: str
    state: FileState
    signature: str
    fingerprint: str | None
    reason: str | None


class Admission(StrEnum):
    """What became of a whole file."""

    QUEUED = "queued"  # new content: a job was made (or a deleted or superseded one revived)
    TWIN = "twin"  # the same content is known in this run under another path
    KNOWN = "known"  # this path and content already have their job


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job in the hands of one worker.

    Attributes:
        paths: existing paths with this content, the numbered step first.
        attempts: failures counted so far.
        run_root: the watched root that the run was found below.
        kept_by: the host that has the last of the paths in its state folder; None: none has.
    """

    job_id: int
    checkpoint_id: int
    run_id: int
    run_path: str
    run_name: str
    paths: tuple[str, ...]
    fingerprint: str
    step: int | None
    mtime_ns: int
    base_model: str | None
    profile: str
    settings_hash: str
    attempts: int
    run_root: str
    kept_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A result to be stored; None where something was not measured.

    Attributes:
        grade: EXCELLENT, GOOD, FAIR, POOR, INVALID or UNLOADABLE.
        base_revision: content identity of the base model ("" where it was never loaded).
        overall_status: of the full diagnostic: READY, PARTIALLY_READY or NOT_READY.
        avg_score: mean score of the full diagnostic's tests, 0 to 1.
        details: the JSON report.
    """

    grade: str
    base_revision: str
    diagnostics_version: int
    mse: float | None = None
    cosine: float | None = None
    kl: float | None = None
    top1_agreement: float | None = None
    relative_mse: float | None = None
    perplexity_ratio: float | None = None
    hidden_mse: float | None = None
    residual: str | None = None
    overall_status: str | None = None
    avg_score: float | None = None
    error: str | None = None
    duration_seconds: float
    measured_at: datetime
    details: Mapping[str, Any] = field(default_factory=dict)  # Any: free JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """The grade of a run's newest measured step became another one."""

    run_id: int
    run_name: str
    run_path: str
    checkpoint_path: str
    fingerprint: str
    step: int | None
    old: str | None
    new: str
    mse: float | None
    cosine: float | None
    previous_mse: float | None
    previous_cosine: float | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What `finish` did.

    Attributes:
        result_id: the stored (or already known) result.
        change: the status change it caused, if any.
        messages: how many outbox rows were written, suppressed ones included.
        late: the result is of an older step than the run's status and left it alone.
        asked: why a full diagnostic was asked for because of it; None: it was not.
        wanted: why the checkpoint is to be kept; None: it is not, or was before.
    """

    result_id: int
    change: StatusChange | None
    messages: int
    late: bool
    asked: str | None = None
    wanted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An outbox row in the hands of one sender."""

    outbox_id: int
    event_id: str
    channel: str
    kind: str
    payload: Mapping[str, Any]  # Any: free JSON
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """One checkpoint of a run with its job and result; None where there is none yet.

    `state` is the job's where there is one, else the file's. Where both profiles were asked, it and
    the numbers are of the one that was asked last and has numbers: the full one, but for a while
    after a change of settings. Both have the numbers of the same prompts.

    Attributes:
        also: other paths with the same content (best/, final/).
        profile: quick, full, or quick+full: what has a result; else what is asked.
        overall_status, avg_score: of the full diagnostic.
        full_state: of its full diagnostic's job, None where none was asked; full_because: why.
        kept_path: of the file that nptwatch keeps of it.
    """

    run: str
    run_path: str
    step: int | None
    path: str
    also: tuple[str, ...]
    fingerprint: str | None
    profile: str | None
    state: str
    reason: str | None
    grade: str | None
    mse: float | None
    cosine: float | None
    kl: float | None
    top1_agreement: float | None
    relative_mse: float | None
    perplexity_ratio: float | None
    hidden_mse: float | None
    residual: str | None
    overall_status: str | None
    avg_score: float | None
    full_state: str | None
    full_because: str | None
    kept_path: str | None
    attempts: int
    first_seen_at: datetime
    measured_at: datetime | None
    duration_seconds: float | None
    result_id: int | None
    job_id: int | None

    @property
    def key(self) -> HistoryKey:
        """Its place in the run's history."""
        return HistoryKey(step=self.step, first_seen_at=self.first_seen_at, path=self.path)

    @property
    def has_numbers(self) -> bool:
        """Whether it has an MSE that can be compared with others."""
        return self.mse is not None and self.grade not in NEVER_BEST


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """Where a kept file is and what it was when it was last looked at.

    Attributes:
        place: identity of the folder `kept/` that it is in, whatever host and path that has.
        host: name of its host, for people.
        path: of the weights file, on that host.
        how: reflink, link or copy.
        signature: changes when the file does: "size:mtime_ns:inode".
    """

    place: str
    host: str
    path: str
    how: str
    size_bytes: int
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRow:
    """A checkpoint that is, was or should be kept, with its newest numbers.

    Attributes:
        because: why it was wanted, e.g. "reached GOOD, new best".
        file: None where there is none (any more).
        size_bytes: of the checkpoint's file.
        error: why it is not kept (yet, or any more).
        original: its best name in the trainer's directories, there or gone.
        sources: the trainer's files that have the content, the numbered step first.
    """

    kept_id: int
    run: str
    run_path: str
    step: int | None
    state: KeptState
    because: str
    file: KeptFile | None
    size_bytes: int
    error: str | None
    original: str
    sources: tuple[str, ...]
    fingerprint: str
    grade: str | None
    mse: float | None
    cosine: float | None
    kl: float | None
    top1_agreement: float | None
    relative_mse: float | None
    perplexity_ratio: float | None
    residual: str | None
    overall_status: str | None
    avg_score: float | None
    measured_at: datetime | None
    base_model: str | None
    base_revision: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run with its status and its newest measured checkpoint."""

    run: str
    path: str
    status: str | None
    status_since: datetime | None
    checkpoints: int
    done: int
    open_jobs: int
    failed: int
    step: int | None
    checkpoint_path: str | None
    state: str | None
    profile: str | None
    grade: str | None
    mse: float | None
    cosine: float | None
    measured_at: datetime | None
    best_mse: float | None
    best_step: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A worker process as it last said of itself."""

    worker_id: str
    host: str
    pid: int
    device: str
    state: WorkerState
    job_id: int | None
    base_model: str | None
    offer: Offer
    jobs_done: int
    memory_bytes: int | None
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job as `nptwatch jobs` shows it."""

    job_id: int
    run: str
    step: int | None
    path: str
    profile: str
    asked_because: str
    state: JobState
    reason: str | None
    attempts: int
    attempts_by_cause: Mapping[str, int]
    available_at: datetime
    worker_id: str | None
    created_at: datetime
    updated_at: datetime
    base_model: str | None
    min_gpu_mib: int | None
    run_path: str
    run_root: str

    @property
    def key(self) -> JobKey:
        """Its place in the list."""
        return JobKey(updated_at=self.updated_at, job_id=self.job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRow:
    """A stored status change."""

    change_id: int
    run: str
    step: int | None
    path: str
    old: str | None
    new: str
    mse: float | None
    cosine: float | None
    at: datetime
