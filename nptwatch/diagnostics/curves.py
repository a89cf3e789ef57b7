"""Runs side by side, step by step. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.diagnostics.grading import Grade, at_least
from nptwatch.diagnostics.report_fields import number_at, word_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.diagnostics.report import Report


_NOISE = 1e-4
"""The same weights measured in another batch or on another device differ by less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was measured at one step; None where it was not measured or is no number."""

    step: int
    path: str
    grade: str | None
    mse: float | None
    cosine: float | None
    kl: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A run.

    Attributes:
        name: as people call it.
        source: where the numbers are from, in words.
        points: one for each measured step, ascending.
        sample: a report of it, for whether runs compare at all; {} where there is none.
    """

    name: str
    source: str
    points: tuple[Point, ...]
    sample: Report

    def at(self, step: int) -> Point | None:
        """Give what was measured at a step."""
        return next((point for point in self.points if point.step == step), None)

    def best(self) -> Point | None:
        """Give the point of the lowest MSE, the first of equals."""
        measured = [(point.mse, point.step) for point in self.points if point.mse is not None]
        return self.at(min(measured)[1]) if measured else None

    def first_at_least(self, grade: Grade) -> int | None:
        """Give the first step that is as good as this."""
        return next((point.step for point in self.points if at_least(point.grade, grade)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """A run against the first one, at the steps where both have an MSE.

    Attributes:
        lower: at so many of them its MSE is the lower one, by more than rounding.
        factor: geometric mean of its MSE over the first run's; None without such steps.
    """

    steps: int
    lower: int
    factor: float | None


def points_of(reports: Sequence[Report]) -> tuple[Point, ...]:
    """Make a curve's points of reports; those of no known step are left out.

    Args:
        reports: of equal steps the first one counts that has an MSE (best/ is a twin).
    """
    points: dict[int, Point] = {}
    for report in reports:
        step, grade = number_at(report, "step"), word_at(report, "grade")
        if step is None or grade is None:
            continue
        known = points.get(int(step))
        if known is None or known.mse is None:
            points[int(step)] = Point(
                step=int(step),
                path=word_at(report, "checkpoint") or "",
                grade=grade,
                mse=number_at(report, "accuracy", "avg_mse"),
                cosine=number_at(report, "accuracy", "avg_cosine_similarity"),
                kl=number_at(report, "accuracy", "kl"),
            )
    return tuple(points[step] for step in sorted(points))


def steps_of(curves: Sequence[Curve]) -> list[int]:
    """Give every step that any of them has."""
    return sorted({point.step for curve in curves for point in curve.points})


def tally(curve: Curve, first: Curve) -> Tally:
    """Count where a run is better than the first one, and by how much."""
    theirs = {point.step: point.mse for point in first.points if point.mse is not None}
    pairs = [
        (point.mse, theirs[point.step])
        for point in curve.points
        if point.mse is not None and point.step in theirs
    ]
    ratios = [math.log(own / other) for own, other in pairs if own > 0 and other > 0]
    return Tally(
        steps=len(pairs),
        lower=sum(own < other * (1 - _NOISE) for own, other in pairs),
        factor=math.exp(sum(ratios) / len(ratios)) if ratios else None,
    )
