"""What people ask: which runs, how they went, what changed. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from nptwatch.errors import ConfigError
from nptwatch.store.checkpoints import (
    bare_rows,
    checkpoint_rows,
    latest_job,
    named_rows,
    one_per_content,
)
from nptwatch.store.engine import utc_now
from nptwatch.store.host_path import report_here
from nptwatch.store.keys import HistoryKey
from nptwatch.store.paging import Page, checkpoint_ids
from nptwatch.store.records import ChangeRow
from nptwatch.store.runs import best_row, find_run, run_rows
from nptwatch.store.tables import Checkpoint, File, Result, Run, StatusChangeRow

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from nptwatch.store.engine import Database
    from nptwatch.store.records import Clock, HistoryRow, RunRow
    from nptwatch.store.runs import Measure


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
            return run_rows(connection, run_id)[0]

    def history(
        self,
        run: str,
        *,
        limit: int | None = None,
        since_step: int | None = None,
        since_at: datetime | None = None,
        after: str | None = None,
        before: str | None = None,
    ) -> list[HistoryRow]:
        """List a run's checkpoints by step (unknown last), and files that never became one.

        One row for each content, whatever profiles it was measured by. A page is read by its key:
        how much lies before or behind it does not matter.

        Args:
            run: as in `run`.
            limit: give only the last so many, or, with `after` alone, the first so many.
            since_step: leave out earlier steps, and those that are not known.
            since_at: leave out what was measured before, or, if it was not, first seen before.
            after: only what comes after this row, as its `HistoryRow.key` says.
            before: only what comes before this row.

        Raises:
            ConfigError: no such run; no such key.
        """
        page = Page(
            limit=limit,
            since_step=since_step,
            since_at=since_at,
            after=None if after is None else HistoryKey.parse(after),
            before=None if before is None else HistoryKey.parse(before),
        )
        with self._database.read() as connection:
            run_id = find_run(connection, run)
            only = (latest_job(), Checkpoint.run_id == run_id)
            ids = checkpoint_ids(connection, run_id, page)
            if ids is None:
                rows = checkpoint_rows(connection, *only)
            else:
                rows = checkpoint_rows(connection, *only, Checkpoint.id.in_(ids))
            rows += bare_rows(connection, File.run_id == run_id)
        return page.cut(sorted(one_per_content(rows), key=lambda row: row.key.place))

    def best(self, run: str, by: Measure = "mse") -> HistoryRow | None:
        """Give a run's best checkpoint; None while nothing was measured. NaN is never best.

        Args:
            run: as in `run`.
            by: lowest mse or kl, or highest cosine; of equals the earliest step.

        Raises:
            ConfigError: no such run.
        """
        with self._database.read() as connection:
            return best_row(connection, find_run(connection, run), by)

    def reports(self, result_ids: Collection[int]) -> dict[int, dict[str, Any]]:  # Any: free JSON
        """Give full reports, by result."""
        query = select(Result.id, Result.details).where(Result.id.in_(list(result_ids)))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            return {row.id: report_here(connection, row.details) for row in rows}

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
            return row, report_here(connection, connection.execute(details).scalar_one())

    def changes(
        self,
        run: str | None = None,
        limit: int = 50,
        *,
        since: datetime | None = None,
        before: int | None = None,
    ) -> list[ChangeRow]:
        """List status changes, the last one first: by id, as the clocks of hosts differ.

        Args:
            run: as in `run`; None: of all runs.
            limit: at most so many.
            since: only those at this time or later.
            before: only those that come after this one in the list (`ChangeRow.change_id`).
        """
        query = (
            select(
                StatusChangeRow.id.label("change_id"),
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
        if since is not None:
            query = query.where(StatusChangeRow.at >= since)
        if before is not None:
            query = query.where(StatusChangeRow.id < before)
        with self._database.read() as connection:
            if run is not None:
                run_id = find_run(connection, run)
                query = query.where(StatusChangeRow.run_id == run_id)
            return [ChangeRow(**row) for row in connection.execute(query).mappings()]
