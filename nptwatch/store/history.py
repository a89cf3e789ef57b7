"""What people ask: which runs, how they went, what changed. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sqlalchemy import select

from nptwatch.errors import ConfigError
from nptwatch.store.checkpoints import (
    bare_rows,
    by_step,
    checkpoint_rows,
    latest_job,
    named_rows,
    one_per_content,
)
from nptwatch.store.engine import utc_now
from nptwatch.store.records import ChangeRow
from nptwatch.store.runs import find_run, run_rows
from nptwatch.store.tables import Checkpoint, File, Result, Run, StatusChangeRow

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from nptwatch.store.engine import Database
    from nptwatch.store.records import Clock, HistoryRow, RunRow


Measure: TypeAlias = Literal["mse", "cosine", "kl"]

_NEVER_BEST = {"INVALID", "UNLOADABLE"}


class History:
    """Questions to the database. Every method is one snapshot.

    Raises (every method):
        DatabaseError: the database cannot be used.
    """

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def runs(self) -> list[RunRow]:
        """List all runs with their newest measured and their best checkpoint, by name."""
        with self._database.read() as connection:
            return run_rows(connection)

    def run(self, name_or_path: str) -> RunRow:
        """Find a run by its name, its path, or the end of its path where that is unique.

        Raises:
            ConfigError: there is none, or several; lists names that come close.
        """
        with self._database.read() as connection:
            run_id = find_run(connection, name_or_path)
            return run_rows(connection, Run.id == run_id)[0]

    def history(
        self,
        run: str,
        *,
        limit: int | None = None,
        since_step: int | None = None,
        since_at: datetime | None = None,
    ) -> list[HistoryRow]:
        """List a run's checkpoints by step (unknown last), and files that never became one.

        One row for each content, whatever profiles it was measured by.

        Args:
            run: as in `run`.
            limit: give only the last so many.
            since_step: leave out earlier steps, and those that are not known.
            since_at: leave out what was measured before, or, if it was not, first seen before.

        Raises:
            ConfigError: no such run.
        """
        with self._database.read() as connection:
            run_id = find_run(connection, run)
            rows = checkpoint_rows(connection, latest_job(), Checkpoint.run_id == run_id)
            rows += bare_rows(connection, File.run_id == run_id)
        rows = one_per_content(rows)
        if since_step is not None:
            rows = [row for row in rows if row.step is not None and row.step >= since_step]
        if since_at is not None:
            rows = [row for row in rows if (row.measured_at or row.first_seen_at) >= since_at]
        rows.sort(key=by_step)
        return rows if limit is None else rows[max(0, len(rows) - limit) :]

    def best(self, run: str, by: Measure = "mse") -> HistoryRow | None:
        """Give a run's best checkpoint; None while nothing was measured. NaN is never best.

        Args:
            run: as in `run`.
            by: lowest mse or kl, or highest cosine; of equals the earliest step.

        Raises:
            ConfigError: no such run.
        """
        measured = [
            row
            for row in self.history(run)
            if getattr(row, by) is not None and row.grade not in _NEVER_BEST
        ]
        sign = -1 if by == "cosine" else 1
        return min(measured, key=lambda row: sign * getattr(row, by), default=None)

    def reports(self, result_ids: Collection[int]) -> dict[int, dict[str, Any]]:  # Any: free JSON
        """Give full reports, by result."""
        query = select(Result.id, Result.details).where(Result.id.in_(list(result_ids)))
        with self._database.read() as connection:
            return {row.id: row.details for row in connection.execute(query)}

    def show(self, path_or_id: str) -> tuple[HistoryRow, dict[str, Any] | None]:  # Any: free JSON
        """Find one checkpoint with its full report.

        Args:
            path_or_id: weights file, its folder, or a job's number.

        Returns:
            The row, and the report (None while there is no result).

        Raises:
            ConfigError: nothing is known of it.
        """
        with self._database.read() as connection:
            rows = named_rows(connection, path_or_id)
            if not rows:
                raise ConfigError(
                    f"nothing is known of {path_or_id!r}: expected a weights file, its folder, or"
                    " a job number (see `nptwatch history RUN --json` or `nptwatch jobs list`)"
                )
            row = max(
                one_per_content(rows),
                key=lambda each: (each.result_id is not None, each.job_id or 0),
            )
            if row.result_id is None:
                return row, None
            details = select(Result.details).where(Result.id == row.result_id)
            return row, connection.execute(details).scalar_one()

    def changes(self, run: str | None = None, limit: int = 50) -> list[ChangeRow]:
        """List status changes, the last one first: by id, as the clocks of hosts differ.

        Args:
            run: as in `run`; None: of all runs.
            limit: at most so many.
        """
        query = (
            select(
                Run.name.label("run"),
                StatusChangeRow.step,
                StatusChangeRow.path,
                StatusChangeRow.old,
                StatusChangeRow.new,
                StatusChangeRow.mse,
                StatusChangeRow.cosine,
                StatusChangeRow.at,
            )
            .join(Run, Run.id == StatusChangeRow.run_id)
            .order_by(StatusChangeRow.id.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            if run is not None:
                query = query.where(Run.id == find_run(connection, run))
            return [ChangeRow(**row) for row in connection.execute(query).mappings()]
