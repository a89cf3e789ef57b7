"""A run's forecast from its history: which checkpoints count, and how it is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.forecast import Due, Forecast, forecast
from nptwatch.diagnostics.grading import GUIDE
from nptwatch.errors import NptwatchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nptwatch.diagnostics.grading import Bounds
    from nptwatch.store.history import History
    from nptwatch.store.records import HistoryRow

_DIGITS = 3
"""Figures of a guessed step: more would promise what no interval holds."""


class Forecasts:
    """Forecasts runs for alerts."""

    def __init__(self, history: History, bounds: Bounds = GUIDE) -> None:
        self._history = history
        self._bounds = bounds

    def of(self, event: Mapping[str, Any]) -> str | None:  # Any: free JSON
        """Say in one line when the run of an event is due; None where nobody can say."""
        run = event.get("run_path")
        if run is None:
            return None
        try:
            made = forecast_of(self._history.history(run), self._bounds)
        except NptwatchError:  # an alert does not wait for a forecast
            return None
        due = {grade: due for grade, due in made.targets.items() if due.step is not None}
        return "; ".join(f"{grade} {due_text(each)}" for grade, each in due.items()) or None


def living(rows: Sequence[HistoryRow]) -> list[HistoryRow]:
    """Give the checkpoints of the branch that lives, by step, one for each step.

    A path that holds another content of the same step now was trained again: the run was resumed
    below that step, and what was there before, at it and above, belongs to a branch given up. When
    a file was first seen says nothing else: a backlog is found in any order.
    """
    numbered = sorted((row for row in rows if row.step is not None), key=_first_seen)
    first: dict[tuple[str, int | None], HistoryRow] = {}
    resumed = []
    for row in numbered:
        known = first.setdefault((row.path, row.step), row)
        if known.fingerprint != row.fingerprint and None not in (
            known.fingerprint,
            row.fingerprint,
        ):
            resumed.append(row)
    alive = [row for row in numbered if not any(_given_up(row, again) for again in resumed)]
    return [each for _, each in sorted({row.step or 0: row for row in alive}.items())]


def _first_seen(row: HistoryRow) -> tuple[float, int]:
    return row.first_seen_at.timestamp(), row.job_id or 0


def _given_up(row: HistoryRow, again: HistoryRow) -> bool:
    """Whether a checkpoint was there before a run was resumed below it."""
    return (row.step or 0) >= (again.step or 0) and _first_seen(row) < _first_seen(again)


def forecast_of(rows: Sequence[HistoryRow], bounds: Bounds = GUIDE) -> Forecast:
    """Forecast a run from its history."""
    alive = living(rows)
    return forecast(
        [(row.step, row.mse) for row in alive if row.step is not None and row.mse is not None],
        [
            (row.step, row.cosine)
            for row in alive
            if row.step is not None and row.cosine is not None
        ],
        bounds,
    )


def due_text(due: Due) -> str:
    """Say when a grade is due."""
    had = "" if due.reached_at is None else f"reached at step {due.reached_at}"
    if due.step is None:
        lost = f"{had}, lost again; " if had else ""
        return f"{lost}no forecast: {due.why}" if due.why else had
    sure = f"from {_rounded(due.low)}, maybe never"
    if due.high is not None:
        sure = f"{_rounded(due.low)} to {_rounded(due.high)}"
    lost = f"{had}, lost again; " if had else ""
    held = f"; {due.why}" if due.why else ""
    return f"{lost}about step {_rounded(due.step)} (80 %: {sure}){held}"


def _rounded(step: int | None) -> int:
    """Round a step that is guessed."""
    size: int = 10 ** max(0, len(str(step or 0)) - _DIGITS)
    return round((step or 0) / size) * size
