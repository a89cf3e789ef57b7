"""A run's MSE over steps, on a screen: how it looks, how it goes on."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from nptwatch.cli.screen import sparkline
from nptwatch.service.forecasting import due_text, living

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nptwatch.cli.screen import Screen
    from nptwatch.diagnostics.forecast import Due, Forecast
    from nptwatch.store.records import HistoryRow

_PIPE_WIDTH = 80
_NARROW, _HANG = 40, 21


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


def wrapped(line: str, screen: Screen) -> list[str]:
    """Break a line where the terminal ends; in a pipe it stays whole."""
    if screen.width is None:
        return [line]
    return textwrap.wrap(
        line, max(screen.width, _NARROW), subsequent_indent=" " * _HANG, drop_whitespace=False
    )
