"""The tables, typed. Invariants are constraints here; the migrations hold the same, by hand.

Times are aware UTC. Enums are strings with a named CHECK, so that a new value is one migration on
SQLite and Postgres alike. `jobs` repeats what the claim sorts by and
chooses by, so that one index answers it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nptwatch.store.host_path import HostPath
from nptwatch.store.records import FileState, JobState, KeptState, OutboxState, WorkerState

if TYPE_CHECKING:
    from enum import StrEnum

    from sqlalchemy.engine import Dialect

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name: batch migrations on SQLite cannot drop a nameless one."""

MAX_ID = 2**31 - 1
"""Ids are 32 bit on Postgres, where a larger number is an error and not merely not there."""

UNKNOWN_STEP = -1
"""`jobs.order_step` where no step is known: sorts last on SQLite and Postgres alike."""


VIEWS = ("v_latest", "v_history", "v_best")
"""What people's own queries stand on (docs/views.md); made by a migration."""


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in and out; SQLite stores no zone and gives naive times back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Turn into UTC; a naive time is a bug of the caller."""
        if value is None:
            return None
        if value.tzinfo is None:
            msg = f"naive datetime {value!r}: the store takes aware ones only"
            raise ValueError(msg)
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class AnyText(TypeDecorator[str]):
    """Text of any length; NUL, which Postgres cannot store, becomes the replacement character."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Replace what cannot be stored: an error's words may quote a broken file."""
        return value if value is None else value.replace("\0", "\ufffd")


def _strings(states: type[StrEnum]) -> Enum:
    """Give the column type of an enum: its values as a plain string, the CHECK is written apart."""
    return Enum(
        states,
        native_enum=False,
        create_constraint=False,
        length=16,
        values_callable=lambda enum: [member.value for member in enum],
    )


def one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    """Allow only the enum's values."""
    values = ", ".join(f"'{member.value}'" for member in states)
    return CheckConstraint(f"{column} IN ({values})", name=f"{column}_known")


def _where_known(*columns: str) -> Index:
    """Index rows whose last column is not NULL only: others cost nothing, however often claimed."""
    there = text(f"{columns[-1]} IS NOT NULL")
    return Index(None, *columns, sqlite_where=there, postgresql_where=there)


class Base(DeclarativeBase):
    """What all tables share."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {  # Any: as SQLAlchemy declares it
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        str: AnyText(),
        FileState: _strings(FileState),
        JobState: _strings(JobState),
        KeptState: _strings(KeptState),
        OutboxState: _strings(OutboxState),
        WorkerState: _strings(WorkerState),
    }


class Run(Base):
    """A directory that one training run writes into, its status, and counts that are asked often.

    `done_count` counts checkpoints with a result, `done_job_count` jobs (`store/tallies.py`).
    `last_ordinal` is the highest of its jobs; it never falls.
    """

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("path"),
        CheckConstraint(
            "(status IS NULL) = (status_job_id IS NULL)"
            " AND (status IS NULL) = (status_since IS NULL)",
            name="status_has_job",
        ),
        Index(None, "name"),
        Index(None, "status_job_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(HostPath)
    name: Mapped[str]
    root: Mapped[str] = mapped_column(HostPath)
    created_at: Mapped[datetime]
    status: Mapped[str | None] = mapped_column(String(16))
    status_since: Mapped[datetime | None]
    status_job_id: Mapped[int | None] = mapped_column(
        ForeignKey("jobs.id", use_alter=True, name="fk_runs_status_job_id_jobs")
    )
    checkpoint_count: Mapped[int] = mapped_column(server_default="0")
    done_count: Mapped[int] = mapped_column(server_default="0")
    done_job_count: Mapped[int] = mapped_column(server_default="0")
    last_ordinal: Mapped[int] = mapped_column(server_default="0")


class Checkpoint(Base):
    """One content in one run, however many paths hold it.

    `path` is the best name it ever had: shown when no file holds the content any more.
    """

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("run_id", "fingerprint"), Index(None, "run_id", "step"))

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    fingerprint: Mapped[str] = mapped_column(String(128))
    path: Mapped[str] = mapped_column(HostPath)
    step: Mapped[int | None] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    base_model: Mapped[str | None] = mapped_column(HostPath)
    min_gpu_mib: Mapped[int | None]
    first_seen_at: Mapped[datetime]


class File(Base):
    """What was last seen at one path."""

    __tablename__ = "files"
    __table_args__ = (
        UniqueConstraint("path"),
        one_of("state", FileState),
        CheckConstraint("state <> 'whole' OR checkpoint_id IS NOT NULL", name="whole_has_content"),
        CheckConstraint(
            "state IN ('whole', 'deleted') OR checkpoint_id IS NULL", name="unready_has_no_content"
        ),
        Index(None, "run_id", "state"),
        Index(None, "checkpoint_id", "state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    checkpoint_id: Mapped[int | None] = mapped_column(ForeignKey("checkpoints.id"))
    path: Mapped[str] = mapped_column(HostPath)
    root: Mapped[str] = mapped_column(HostPath)
    state: Mapped[FileState]
    reason: Mapped[str | None]
    signature: Mapped[str] = mapped_column(String(128))
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    first_seen_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Result(Base):
    """What was measured of one content; shared by every job that asks the same of it."""

    __tablename__ = "results"
    __table_args__ = (
        UniqueConstraint("fingerprint", "profile", "settings_hash", "base_revision"),
        Index(None, "measured_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(128))
    profile: Mapped[str] = mapped_column(String(32))
    settings_hash: Mapped[str] = mapped_column(String(128))
    base_revision: Mapped[str] = mapped_column(String(255))
    diagnostics_version: Mapped[int]
    grade: Mapped[str] = mapped_column(String(16))
    mse: Mapped[float | None]
    cosine: Mapped[float | None]
    kl: Mapped[float | None]
    top1_agreement: Mapped[float | None]
    relative_mse: Mapped[float | None]
    perplexity_ratio: Mapped[float | None]
    hidden_mse: Mapped[float | None]
    residual: Mapped[str | None] = mapped_column(String(16))
    overall_status: Mapped[str | None] = mapped_column(String(16))
    avg_score: Mapped[float | None]
    error: Mapped[str | None]
    duration_seconds: Mapped[float]
    measured_at: Mapped[datetime]
    details: Mapped[dict[str, Any]]  # Any: free JSON


class Job(Base):
    """One profile to be measured of one checkpoint.

    `mse` is its result's, which never changes; NULL too where that is INVALID: an index has each
    run's best first. `ordinal` counts a run's results in the order in which they were committed:
    whoever has read up to one has missed none before it.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("checkpoint_id", "profile", "settings_hash"),
        one_of("state", JobState),
        CheckConstraint(
            "(state = 'leased') = (worker_id IS NOT NULL)"
            " AND (state = 'leased') = (leased_until IS NOT NULL)",
            name="leased_has_worker",
        ),
        CheckConstraint("(state = 'done') = (result_id IS NOT NULL)", name="done_has_result"),
        CheckConstraint(
            "state IN ('queued', 'leased', 'done') OR reason IS NOT NULL", name="end_has_reason"
        ),
        CheckConstraint("attempts >= 0", name="attempts_counted"),
        # read backwards
        Index("ix_jobs_claim", "state", "urgency", "newest", "mtime_ns", "order_step", "id"),
        Index(
            "ix_jobs_claim_base",
            *("base_model", "urgency", "newest", "mtime_ns", "order_step", "id"),
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        Index(None, "state", "updated_at"),
        Index(None, "run_id", "state", "updated_at"),
        _where_known("run_id", "mse"),
        _where_known("run_id", "ordinal"),
        _where_known("result_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    checkpoint_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id"))
    profile: Mapped[str] = mapped_column(String(32))
    settings_hash: Mapped[str] = mapped_column(String(128))
    state: Mapped[JobState]
    reason: Mapped[str | None]
    urgency: Mapped[int] = mapped_column(server_default="1")
    asked_because: Mapped[str] = mapped_column(server_default="new checkpoint")
    newest: Mapped[bool]
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    order_step: Mapped[int] = mapped_column(BigInteger)
    base_model: Mapped[str | None] = mapped_column(HostPath)
    min_gpu_mib: Mapped[int | None]
    available_at: Mapped[datetime]
    worker_id: Mapped[str | None] = mapped_column(String(255))
    leased_until: Mapped[datetime | None]
    attempts: Mapped[int]
    attempts_by_cause: Mapped[dict[str, Any]]  # Any: cause -> count, as JSON gives it
    result_id: Mapped[int | None] = mapped_column(ForeignKey("results.id"))
    mse: Mapped[float | None]
    ordinal: Mapped[int | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class StatusChangeRow(Base):
    """The run's status became another grade; written with the result that did it."""

    __tablename__ = "status_changes"
    __table_args__ = (UniqueConstraint("job_id"), Index(None, "run_id", "at"), Index(None, "at"))

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    path: Mapped[str] = mapped_column(HostPath)
    step: Mapped[int | None] = mapped_column(BigInteger)
    old: Mapped[str | None] = mapped_column(String(16))
    new: Mapped[str] = mapped_column(String(16))
    mse: Mapped[float | None]
    cosine: Mapped[float | None]
    at: Mapped[datetime]


class EventRow(Base):
    """Something that people may be told, once; `subject` says what makes it this one of its kind.

    Of a grade it is the checkpoint's content, of a recovery the event that is over.
    """

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("event_id"),
        CheckConstraint("(acked_at IS NULL) = (acked_by IS NULL)", name="acked_by_somebody"),
        Index(None, "run_id", "kind"),
        Index(None, "change_id"),
        Index(None, "at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(String(36))
    kind: Mapped[str] = mapped_column(String(32))
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    change_id: Mapped[int | None] = mapped_column(ForeignKey("status_changes.id"))
    subject: Mapped[str]
    payload: Mapped[dict[str, Any]]  # Any: free JSON
    late: Mapped[bool]
    at: Mapped[datetime]
    acked_at: Mapped[datetime | None]
    acked_by: Mapped[str | None]


class OutboxRow(Base):
    """One event on its way to one channel."""

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("event_row_id", "channel"),
        one_of("state", OutboxState),
        CheckConstraint(
            "(state = 'sending') = (claimed_until IS NOT NULL)", name="sending_is_claimed"
        ),
        CheckConstraint("state <> 'suppressed' OR error IS NOT NULL", name="suppressed_has_reason"),
        Index(None, "state", "available_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    event_row_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    channel: Mapped[str] = mapped_column(String(64))
    state: Mapped[OutboxState]
    attempts: Mapped[int]
    available_at: Mapped[datetime]
    claimed_until: Mapped[datetime | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]


class KeptCheckpoint(Base):
    """A checkpoint that is to be kept, is, or was; the file is in one place, on one host."""

    __tablename__ = "kept"
    __table_args__ = (
        UniqueConstraint("checkpoint_id"),
        one_of("state", KeptState),
        CheckConstraint(
            "(path IS NULL) = (place IS NULL) AND (path IS NULL) = (host IS NULL)"
            " AND (path IS NULL) = (how IS NULL) AND (path IS NULL) = (size_bytes IS NULL)"
            " AND (path IS NULL) = (signature IS NULL)",
            name="file_is_whole",
        ),
        CheckConstraint("state <> 'kept' OR path IS NOT NULL", name="kept_has_file"),
        CheckConstraint("state <> 'wanted' OR path IS NULL", name="wanted_has_no_file"),
        Index(None, "state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    checkpoint_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id"))
    state: Mapped[KeptState]
    because: Mapped[str]
    place: Mapped[str | None] = mapped_column(String(36))
    host: Mapped[str | None] = mapped_column(String(255))
    path: Mapped[str | None]
    how: Mapped[str | None] = mapped_column(String(16))
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    signature: Mapped[str | None] = mapped_column(String(128))
    error: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ExportRow(Base):
    """How far one run has been exported to one place; claimed by one exporter at a time."""

    __tablename__ = "exports"
    __table_args__ = (
        UniqueConstraint("target", "run_id"),
        CheckConstraint(
            "(claimed_by IS NULL) = (claimed_until IS NULL)", name="claimed_by_somebody"
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    target: Mapped[str] = mapped_column(String(64))
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    ordinal: Mapped[int]
    claimed_by: Mapped[str | None]
    claimed_until: Mapped[datetime | None]


class Worker(Base):
    """A worker process, as it last said of itself."""

    __tablename__ = "workers"
    __table_args__ = (one_of("state", WorkerState), Index(None, "seen_at"))

    worker_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    device: Mapped[str] = mapped_column(String(64))
    state: Mapped[WorkerState]
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"))
    base_model: Mapped[str | None] = mapped_column(HostPath)
    offer: Mapped[dict[str, Any]] = mapped_column(server_default="{}")  # Any: free JSON
    jobs_done: Mapped[int]
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class ChoreRow(Base):
    """How a chore of a daemon went last, and when it failed last; `failures` are those in a row."""

    __tablename__ = "chores"
    __table_args__ = (
        UniqueConstraint("daemon", "name"),
        CheckConstraint(
            "(failures > 0) = (failing_since IS NOT NULL)", name="failing_has_beginning"
        ),
        CheckConstraint("(failed_at IS NULL) = (error IS NULL)", name="failed_has_error"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    daemon: Mapped[str]
    name: Mapped[str] = mapped_column(String(64))
    started_at: Mapped[datetime]
    duration_seconds: Mapped[float]
    failures: Mapped[int]
    failing_since: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
    error: Mapped[str | None]
