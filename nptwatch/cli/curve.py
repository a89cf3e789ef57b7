"""A run's MSE over steps: which checkpoints make the curve, how it looks, how it goes on."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from nptwatch.cli.screen import sparkline
from nptwatch.diagnostics.forecast import Due, Forecast, forecast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nptwatch.cli.screen import Screen
    from nptwatch.store.records import HistoryRow

_PIPE_WIDTH = 80
_NARROW, _HANG = 40, 21
_DIGITS = 3
"""Figures of a guessed step: more would promise what no interval holds."""


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


def forecast_of(rows: Sequence[HistoryRow]) -> Forecast:
    """Forecast a run from its history."""
    alive = living(rows)
    return forecast(
        [(row.step, row.mse) for row in alive if row.step is not None and row.mse is not None],
        [
            (row.step, row.cosine)
            for row in alive
            if row.step is not None and row.cosine is not None
        ],
    )


def mse_line(rows: Sequence[HistoryRow], screen: Screen) -> str | None:
    """Draw the MSE of a run's checkpoints as one line; None where fewer than two were measured."""
    mses = [row.mse for row in living(rows) if row.mse is not None]
    if len(mses) < 2:  # noqa: PLR2004 - a line has two ends
        return None
    ends = f"  {mses[0]:.4g} to {mses[-1]:.4g}, log scale"
    width = (screen.width or _PIPE_WIDTH) - len("MSE  ") - len(ends)
    return f"MSE  {sparkline(mses, width, unicode=screen.unicode)}{ends}"


def forecast_lines(made: Forecast, screen: Screen) -> list[str]:
    """Say a forecast in two lines, or in one why there is none."""
    if all(due.step is None and due.reached_at is None for due in made.targets.values()):
        return [f"No forecast: {made.why_not}"]
    head = "Forecast  "
    lines: list[str] = []
    for line in due_lines(made.targets):
        lines += wrapped((head if not lines else " " * len(head)) + line, screen)
    return lines


def due_lines(targets: Mapping[str, Due]) -> list[str]:
    """Say of each grade when it is due, was reached, or why nothing can be said."""
    width = max(map(len, targets))
    return [f"{grade:<{width}}  {due_text(due)}" for grade, due in targets.items()]


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


def wrapped(line: str, screen: Screen) -> list[str]:
    """Break a line where the terminal ends; in a pipe it stays whole."""
    if screen.width is None:
        return [line]
    return textwrap.wrap(
        line, max(screen.width, _NARROW), subsequent_indent=" " * _HANG, drop_whitespace=False
    )


def _rounded(step: int | None) -> int:
    """Round a step that is guessed."""
    size: int = 10 ** max(0, len(str(step or 0)) - _DIGITS)
    return round((step or 0) / size) * size
