"""Grades, progress and findings are the guide's tables, bounds included."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nptwatch.diagnostics.grading import (
    Grade,
    at_least,
    direction_status,
    findings_of,
    grade_of,
    loss_status,
    progress_of,
    readiness_of,
)

below = lambda x: math.nextafter(x, -math.inf)  # noqa: E731 - reads as a table below
above = lambda x: math.nextafter(x, math.inf)  # noqa: E731


@pytest.mark.parametrize(
    ("mse", "status"),
    [
        (0.0, "EXCELLENT"),
        (below(0.05), "EXCELLENT"),
        (0.05, "GOOD"),
        (below(0.1), "GOOD"),
        (0.1, "FAIR"),
        (below(0.5), "FAIR"),
        (0.5, "POOR"),
        (1e9, "POOR"),
    ],
)
def test_loss_status_at_its_bounds(mse: float, status: str) -> None:
    """A value on a bound belongs to the lower grade."""
    assert loss_status(mse) == status


@pytest.mark.parametrize(
    ("cosine", "status"),
    [
        (1.0, "EXCELLENT"),
        (above(0.95), "EXCELLENT"),
        (0.95, "GOOD"),
        (above(0.9), "GOOD"),
        (0.9, "FAIR"),
        (0.8, "FAIR"),
        (below(0.8), "POOR"),
        (-1.0, "POOR"),
    ],
)
def test_direction_status_at_its_bounds(cosine: float, status: str) -> None:
    """Above 0.95, above 0.9, at least 0.8."""
    assert direction_status(cosine) == status


@pytest.mark.parametrize(
    ("mse", "cosine", "grade"),
    [
        (0.01, 0.99, "EXCELLENT"),
        (0.01, 0.95, "GOOD"),
        (0.35, 0.985, "FAIR"),
        (0.01, 0.1, "POOR"),
        (1.888480, 0.9548, "POOR"),
        (math.nan, 0.9, "INVALID"),
    ],
)
def test_grade_is_the_lower_of_the_two(mse: float, cosine: float, grade: str) -> None:
    """One good number never covers for the other."""
    assert grade_of(mse, cosine) == grade


@given(st.floats(0, 100), st.floats(-1, 1), st.floats(0, 100), st.floats(-1, 1))
def test_better_numbers_never_grade_lower(
    mse: float, cosine: float, other_mse: float, other_cosine: float
) -> None:
    """Lower MSE and higher cosine: at least the same grade."""
    best = grade_of(min(mse, other_mse), max(cosine, other_cosine))
    assert at_least(best, grade_of(mse, cosine))


def test_outcomes_without_numbers_are_never_good_enough() -> None:
    """INVALID, UNLOADABLE and unmeasured satisfy nothing, not even POOR."""
    for grade in (None, "INVALID", "UNLOADABLE"):
        assert not at_least(grade, Grade.POOR)
    assert at_least("EXCELLENT", Grade.GOOD)
    assert not at_least("FAIR", Grade.GOOD)


@pytest.mark.parametrize(
    ("mse", "estimate", "remaining"),
    [
        (1.0, 0.1, ">10k steps"),
        (below(1.0), 0.3, "5k-10k steps"),
        (0.5, 0.3, "5k-10k steps"),
        (0.35, 0.7, "1k-5k steps"),
        (0.1, 0.7, "1k-5k steps"),
        (0.05, 0.9, "<1k steps"),
        (below(0.05), 1.0, "Training complete"),
    ],
)
def test_progress_table(mse: float, estimate: float, remaining: str) -> None:
    """The guide's estimates at their bounds."""
    progress = progress_of(mse)
    assert progress.estimate == estimate
    assert remaining in progress.remaining


def test_findings_explain_the_two_ways_to_be_wrong() -> None:
    """Right direction but wrong size, and wrong direction; nothing where nothing is wrong."""
    assert [f.code for f in findings_of(0.5, 0.91)] == ["MAGNITUDE"]
    assert [f.code for f in findings_of(0.5, 0.9)] == []
    assert [f.code for f in findings_of(0.2, 0.79)] == ["DIRECTION"]
    assert findings_of(0.01, 0.99) == []


@pytest.mark.parametrize(
    ("grade", "ready", "confidence"),
    [("EXCELLENT", True, 0.9), ("GOOD", True, 0.7), ("FAIR", False, 0.4), ("POOR", False, 0.1)],
)
def test_readiness_of_each_grade(grade: str, ready: bool, confidence: float) -> None:
    """Confidence and readiness as the guide's scripts give them."""
    words = readiness_of(Grade(grade), 0.1, 0.9)
    assert (words.ready, words.confidence) == (ready, confidence)


def test_broken_checkpoints_have_no_confidence() -> None:
    """INVALID and UNLOADABLE carry their reason."""
    for grade in (Grade.INVALID, Grade.UNLOADABLE):
        words = readiness_of(grade, None, None, "tensor x holds NaN")
        assert (words.ready, words.confidence) == (False, 0.0)
        assert words.reason == "tensor x holds NaN"
