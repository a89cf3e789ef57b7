"""Runs side by side: which point stands for a step, and how a run did against another."""

from __future__ import annotations

import pytest
from reporting import quick

from nptwatch.diagnostics.curves import Curve, points_of, steps_of, tally
from nptwatch.diagnostics.grading import Grade


def curve(**mses: float | None) -> Curve:
    """Give a run by MSE: s100=0.4."""
    reports = [
        quick(mse, step=int(step[1:]), grade="GOOD" if mse and mse < 0.1 else "FAIR")
        for step, mse in mses.items()
    ]
    return Curve(name="run", source="/exp/run", points=points_of(reports), sample={})


def test_points_are_in_step_order_and_twins_count_once() -> None:
    """best/ is a twin of a numbered step; what has no step or no grade is no point."""
    reports = [
        quick(None, step=200, grade="UNLOADABLE"),
        quick(0.3, step=100),
        quick(0.9, step=100, checkpoint="best"),
        quick(0.2, step=200),
        quick(0.1, step=None),
        quick(0.1, step=300, grade=None),
    ]
    assert [(point.step, point.mse) for point in points_of(reports)] == [(100, 0.3), (200, 0.2)]


def test_steps_are_the_union() -> None:
    """A step that only one run has is a row too."""
    assert steps_of([curve(s100=0.4, s300=0.2), curve(s200=0.3)]) == [100, 200, 300]


def test_best_and_first_good() -> None:
    """The lowest MSE wherever it stands, the first of equals; the first step graded GOOD."""
    run = curve(s100=0.4, s200=0.09, s300=None, s400=0.05, s500=0.05)
    best = run.best()
    assert best is not None
    assert (best.step, run.first_at_least(Grade.GOOD)) == (400, 200)
    assert (curve().best(), curve(s1=None).best(), curve().first_at_least(Grade.GOOD)) == (
        None,
    ) * 3


def test_tally_counts_common_steps_only() -> None:
    """The mean factor is geometric: half and double cancel out."""
    against = tally(curve(s1=0.2, s2=0.4, s3=0.1, s4=None), curve(s1=0.1, s2=0.8, s4=0.3))
    assert (against.steps, against.lower) == (2, 1)
    assert against.factor == pytest.approx(1)
    assert tally(curve(s1=0.1999999), curve(s1=0.2)).lower == 0, "rounding is no progress"
    nothing = tally(curve(s1=0.2), curve(s2=0.1))
    assert (nothing.steps, nothing.factor) == (0, None)
