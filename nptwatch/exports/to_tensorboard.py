"""A process that writes results as TensorBoard's event files, a log directory for each run.

Run as `python -m nptwatch.exports.to_tensorboard`; see exporter.py. It needs the package
tensorboard for the format; neither TensorFlow nor torch is loaded.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

from nptwatch.exports.numbers import curve_values
from nptwatch.exports.telling import Question, RunNews, speak

if TYPE_CHECKING:
    from nptwatch.exports.event_files import Points

PREFIX = "nptwatch/"
"""Of the names of all curves, so that they stand together."""


def export(question: Question, run: RunNews) -> None:
    """Add a run's results to its log directory."""
    # not at the top: what is missing is told, too
    from nptwatch.exports.event_files import LogDirectory

    if points := _points(run):
        LogDirectory(run.path(question.folder)).add(points)


def _points(run: RunNews) -> Points:
    """Give the numbers of each step, of several results the last one's."""
    points: Points = {}
    for told in run.points:
        if values := curve_values(told):
            measured = datetime.fromisoformat(told["measured_at"]).timestamp()
            _, before = points.get(told["step"], (0.0, {}))
            named = {PREFIX + name: value for name, value in values.items()}
            points[told["step"]] = measured, before | named
    return points


if __name__ == "__main__":
    sys.exit(speak(export, package="tensorboard"))
