"""What an argument of `compare` names: a checkpoint, a job, a report file, a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from nptwatch.cli.targets import weights_below
from nptwatch.diagnostics.curves import Curve, Point, points_of
from nptwatch.diagnostics.grading import Grade
from nptwatch.diagnostics.report import error_report
from nptwatch.diagnostics.report_fields import at, number_at, word_at
from nptwatch.errors import CheckpointError, ConfigError
from nptwatch.npt.files import fingerprint
from nptwatch.service.forecasting import living
from nptwatch.settings import FULL
from nptwatch.watch.sighting import run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from nptwatch.diagnostics.report import Report
    from nptwatch.settings import Settings
    from nptwatch.store.history import History
    from nptwatch.store.records import HistoryRow

JSON = ".json"
NOW = "measured now"
STORED = "database"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One checkpoint with its report.

    Attributes:
        source: where the numbers are from, in words.
        measured_at: None where it was measured for this, or nobody says.
    """

    path: str
    report: Report
    source: str
    measured_at: datetime | None = None


Subject: TypeAlias = Checkpoint | Curve


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Finds what is named: first what is known, then what can be measured.

    Attributes:
        history: the database, or None where there is none, or it is not to be asked.
        measure: measures weights files now, in order; one that cannot be measured is an error
            report where there are several, and raises where it is alone.
        profile: FULL: a stored quick result is not enough.
    """

    settings: Settings
    history: History | None
    measure: Callable[[Sequence[Path]], list[Report]]
    profile: str

    def find(self, named: str) -> Subject:
        """Find what one argument names.

        Raises:
            ConfigError: nothing is known of it and there is no such file, or a file is no report.
            CheckpointError: it cannot be measured.
        """
        path = Path(named).expanduser()
        if is_report(path):
            return _reported(path)
        if path.is_file():
            return self._checkpoint(path)
        if path.is_dir():
            return self._folder(path, named)
        return self._known(named)

    def _folder(self, folder: Path, named: str) -> Subject:
        """A checkpoint's folder; else a run, known or not; else a run that is called like it."""
        try:
            files = weights_below(folder, self.settings.watch)
        except CheckpointError:
            # rotated away, or a folder that happens to be called like a run
            if self.history is None:
                raise
            return self._known(named)
        if len(files) == 1 and files[0].parent == folder:
            return self._checkpoint(files[0])
        try:
            if self.history is not None:
                return self._run(self.history, str(folder.resolve()))
        except ConfigError:
            pass  # a folder that nobody watches
        runs = {run_of(str(file.absolute())) for file in files}
        if len(runs) > 1:
            names = ", ".join(sorted(runs)[:5])
            raise ConfigError(f"{named} holds {len(runs)} runs: name them ({names})")
        reports = self.measure(files)
        return Curve(
            name=str(folder), source=NOW, points=points_of(reports), sample=_sample(reports)
        )

    def _checkpoint(self, weights: Path) -> Checkpoint:
        stored = self._stored(weights)
        if stored is not None:
            return stored
        (report,) = self.measure([weights])
        return Checkpoint(path=str(weights), report=report, source=NOW)

    def _stored(self, weights: Path) -> Checkpoint | None:
        """What the database knows of this very content, where that is enough."""
        if self.history is None:
            return None
        try:
            row, details = self.history.show(str(weights))
        except ConfigError:
            return None
        # the file may have been rewritten since, and the watcher not have seen it yet
        if row.grade is None or not _holds(weights, row.fingerprint):
            return None
        return None if self._wants_more(row, details) else _of_row(row, details)

    def _known(self, named: str) -> Subject:
        """A job's number, a run, or a checkpoint that is gone from disk."""
        if self.history is None:
            raise ConfigError(
                f"{named!r} is no file or folder, and there is no database to look it up in"
            )
        if named.isdecimal():
            return self._stored_only(self.history, named)
        try:
            return self._run(self.history, named)
        except ConfigError as no_run:
            try:
                return self._stored_only(self.history, named)
            except ConfigError as exc:
                raise ConfigError(f"{named!r} is no file or folder; {no_run}; {exc}") from exc

    def _stored_only(self, history: History, named: str) -> Checkpoint:
        row, details = history.show(named)
        if row.grade is None:
            raise ConfigError(f"{named!r} has no result yet: {row.path} is {row.state}")
        if self._wants_more(row, details) and _holds(Path(row.path), row.fingerprint):
            return self._checkpoint(Path(row.path))
        return _of_row(row, details)

    def _wants_more(self, row: HistoryRow, details: Report | None) -> bool:
        """A full result is asked for, and this is none; of an unloadable file there is no more."""
        if self.profile != FULL or row.grade == Grade.UNLOADABLE:
            return False
        return details is None or word_at(details, "profile") != FULL

    def _run(self, history: History, named: str) -> Curve:
        run = history.run(named)
        rows = history.history(run.path)
        # as in the history's line and forecast; a damaged file only where there is nothing else
        alive = living([row for row in rows if row.grade != Grade.UNLOADABLE])
        damaged = [row for row in rows if row.grade == Grade.UNLOADABLE]
        graded = {row.step: row for row in (*damaged, *alive) if row.grade and row.step is not None}
        points = tuple(_point(step, graded[step]) for step in sorted(graded))
        ids = [row.result_id for row in alive if row.mse is not None and row.result_id is not None]
        reports = history.reports(ids[-1:])
        return Curve(name=run.run, source=run.path, points=points, sample=_sample(reports.values()))


def is_report(path: Path) -> bool:
    """Tell whether this names a report: a JSON file."""
    return path.suffix == JSON and path.is_file()


def _point(step: int, row: HistoryRow) -> Point:
    return Point(
        step=step, path=row.path, grade=row.grade, mse=row.mse, cosine=row.cosine, kl=row.kl
    )


def _holds(weights: Path, content: str | None) -> bool:
    return weights.is_file() and fingerprint(weights) == content


def _of_row(row: HistoryRow, details: Report | None) -> Checkpoint:
    report = details
    if not report or "accuracy" not in report:
        # an unloadable checkpoint has a grade and no report
        error = CheckpointError(row.reason or f"{row.grade}")
        at_ = row.measured_at or row.first_seen_at
        report = error_report(row.path, row.step, error, at_) | {"grade": row.grade}
    return Checkpoint(path=row.path, report=report, source=STORED, measured_at=row.measured_at)


def _reported(file: Path) -> Subject:
    """Read what --output wrote: a checkpoint's report, or a list of a folder's, which is a run."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{file} is no report: {exc}") from exc
    reports = content if isinstance(content, list) else [content]
    if not reports or not all(isinstance(at(report, "accuracy"), dict) for report in reports):
        raise ConfigError(f"{file} is no report: expected what `nptwatch quick --output` writes")
    if len(reports) == 1:
        (report,) = reports
        path = word_at(report, "checkpoint") or str(file)
        return Checkpoint(path=path, report=report, source=str(file))
    return Curve(
        name=str(file), source=str(file), points=points_of(reports), sample=_sample(reports)
    )


def _sample(reports: Iterable[Report]) -> Report:
    """Give the last report with numbers: it says how all of them were measured."""
    measured = [r for r in reports if number_at(r, "accuracy", "avg_mse") is not None]
    return measured[-1] if measured else {}
