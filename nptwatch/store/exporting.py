"""What is to be exported, and how far that has come: a run at a time, by one daemon at a time.

Results of a run are numbered in the order in which they were committed (`Job.ordinal`: the run is
locked from before the number is taken until after the commit), so an exporter that has read up to
one has missed none, on Postgres neither, where ids and times are not in that order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.orm import aliased

from nptwatch.store.engine import insert_into, utc_now
from nptwatch.store.runs import best_row
from nptwatch.store.tables import Checkpoint, ExportRow, Job, Result, Run, StatusChangeRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.engine import Connection

    from nptwatch.store.engine import Database
    from nptwatch.store.records import Clock, HistoryRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One result of a run; None where something was not measured.

    Attributes:
        ordinal: its place among the run's results, in the order in which they were recorded.
        status_before, status_after: where it changed the run's status; both None where not.
    """

    ordinal: int
    job_id: int
    result_id: int
    profile: str
    step: int | None
    path: str
    fingerprint: str
    grade: str
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
    error: str | None
    duration_seconds: float
    measured_at: datetime
    status_before: str | None
    status_after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """A run with results that are not exported yet, and nobody at it.

    Attributes:
        is_namesake: an older run has the same name, below another root.
    """

    run_id: int
    run: str
    run_path: str
    root: str
    status: str | None
    created_at: datetime
    is_namesake: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A run's next results, in the hands of one daemon until the claim is over.

    Attributes:
        best: the run's best checkpoint of all; None while it has none.
    """

    export_id: int
    run: Behind
    points: tuple[Point, ...]
    best: HistoryRow | None
    claimed_by: str
    claimed_until: datetime


class Exports:
    """How far each run has been exported to each target. Every method is one transaction.

    Args:
        daemon: who claims; what it claimed before it was killed is its own again at once.

    Raises (every method):
        DatabaseError: the database cannot be used.
    """

    def __init__(self, database: Database, daemon: str, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._daemon = daemon
        self._clock = clock

    def behind(self, target: str) -> list[Behind]:
        """List the runs with results that this target has not got, the longest known one first."""
        other = aliased(Run, name="other")
        is_namesake = exists().where(other.name == Run.name, other.id < Run.id)
        query = (
            select(
                Run.id.label("run_id"),
                Run.name.label("run"),
                Run.path.label("run_path"),
                Run.root,
                Run.status,
                Run.created_at,
                is_namesake.correlate(Run).label("is_namesake"),
            )
            .outerjoin(ExportRow, (ExportRow.run_id == Run.id) & (ExportRow.target == target))
            .where(
                Run.last_ordinal > func.coalesce(ExportRow.ordinal, 0),
                self._is_free(self._clock()),
            )
            .order_by(Run.id)
        )
        with self._database.read() as connection:
            return [Behind(**row) for row in connection.execute(query).mappings()]

    def claim(self, target: str, run: Behind, *, lease_seconds: float, limit: int) -> Batch | None:
        """Take a run's next results; None: others have them, or there are none any more.

        Args:
            limit: at most so many.
        """
        with self._database.begin() as connection:
            now = self._clock()  # after the wait for others
            until = now + timedelta(seconds=lease_seconds)
            row = self._claimed(connection, target, run.run_id, now, until)
            if row is None:
                return None
            # before the results, or one that is recorded between the two would be skipped
            last = connection.scalars(select(Run.last_ordinal).where(Run.id == run.run_id)).one()
            points = _points(connection, run.run_id, row.ordinal, limit)
            if not points:  # forgotten since, or exported meanwhile
                _skip(connection, row.id, last)
                return None
            return Batch(
                export_id=row.id,
                run=run,
                points=points,
                best=best_row(connection, run.run_id, "mse"),
                claimed_by=self._daemon,
                claimed_until=until,
            )

    def done(self, batch: Batch) -> bool:
        """Note that a batch is exported; False: the claim was lost, and others will say so."""
        return self._end(batch, ordinal=batch.points[-1].ordinal)

    def release(self, batch: Batch) -> bool:
        """Hand a batch back: it is to be exported again."""
        return self._end(batch)

    def _end(self, batch: Batch, **values: int) -> bool:
        statement = (
            update(ExportRow)
            .where(
                ExportRow.id == batch.export_id,
                ExportRow.claimed_by == batch.claimed_by,
                ExportRow.claimed_until == batch.claimed_until,
            )
            .values(claimed_by=None, claimed_until=None, **values)
            .returning(ExportRow.id)
        )
        with self._database.begin() as connection:
            return connection.scalar(statement) is not None

    def _is_free(self, now: datetime) -> ColumnElement[bool]:
        return or_(
            ExportRow.claimed_until.is_(None),
            ExportRow.claimed_until <= now,
            ExportRow.claimed_by == self._daemon,
        )

    def _claimed(
        self, connection: Connection, target: str, run_id: int, now: datetime, until: datetime
    ) -> Row[*tuple[Any, ...]] | None:  # Any: columns
        """Claim a run's row, made if need be; give its id and how far it is."""
        connection.execute(
            insert_into(connection, ExportRow)
            .values(target=target, run_id=run_id, ordinal=0)
            .on_conflict_do_nothing()
        )
        statement = (
            update(ExportRow)
            .where(ExportRow.target == target, ExportRow.run_id == run_id, self._is_free(now))
            .values(claimed_by=self._daemon, claimed_until=until)
            .returning(ExportRow.id, ExportRow.ordinal)
        )
        return connection.execute(statement).one_or_none()


def _skip(connection: Connection, export_id: int, last: int) -> None:
    """Note that nothing up to the last ordinal is left to export."""
    connection.execute(
        update(ExportRow)
        .where(ExportRow.id == export_id)
        .values(claimed_by=None, claimed_until=None, ordinal=last)
    )


def _points(connection: Connection, run_id: int, after: int, limit: int) -> tuple[Point, ...]:
    query = (
        select(
            Job.ordinal,
            Job.id.label("job_id"),
            Job.result_id,
            Job.profile,
            Checkpoint.step,
            Checkpoint.path,
            Checkpoint.fingerprint,
            *(getattr(Result, name) for name in _MEASURED),
            StatusChangeRow.old.label("status_before"),
            StatusChangeRow.new.label("status_after"),
        )
        .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
        .join(Result, Result.id == Job.result_id)
        .outerjoin(StatusChangeRow, StatusChangeRow.job_id == Job.id)
        .where(Job.run_id == run_id, Job.ordinal > after)
        .order_by(Job.ordinal)
        .limit(limit)
    )
    return tuple(Point(**row) for row in connection.execute(query).mappings())


_MEASURED = (
    "grade",
    "mse",
    "cosine",
    "kl",
    "top1_agreement",
    "relative_mse",
    "perplexity_ratio",
    "hidden_mse",
    "residual",
    "overall_status",
    "avg_score",
    "error",
    "duration_seconds",
    "measured_at",
)
