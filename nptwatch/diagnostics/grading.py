"""Numbers -> grades, progress and findings. Pure; the tables are those of the user's guide."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

EXCELLENT_MSE, GOOD_MSE, FAIR_MSE = 0.05, 0.1, 0.5
EXCELLENT_COSINE, GOOD_COSINE, FAIR_COSINE = 0.95, 0.9, 0.8
TARGET_MSE = EXCELLENT_MSE


class Grade(StrEnum):
    """How good a checkpoint is; the last two are outcomes of their own, never POOR."""

    EXCELLENT = "EXCELLENT"  # ready, production use
    GOOD = "GOOD"  # ready, basic use
    FAIR = "FAIR"  # continue training, getting close
    POOR = "POOR"  # significant training needed
    INVALID = "INVALID"  # NaN or infinity
    UNLOADABLE = "UNLOADABLE"  # wrong names, shapes or base; corrupt


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Where grades begin: MSEs are below theirs, cosines above (of FAIR: at least).

    An MSE of 0 or a cosine of 1 is never passed: the grade is not given.
    """

    excellent_mse: float = EXCELLENT_MSE
    good_mse: float = GOOD_MSE
    fair_mse: float = FAIR_MSE
    excellent_cosine: float = EXCELLENT_COSINE
    good_cosine: float = GOOD_COSINE
    fair_cosine: float = FAIR_COSINE

    def of(self, grade: Grade) -> tuple[float, float]:
        """Give the MSE and the cosine of EXCELLENT or GOOD."""
        if grade is Grade.EXCELLENT:
            return self.excellent_mse, self.excellent_cosine
        return self.good_mse, self.good_cosine


GUIDE = Bounds()
"""The user's guide's."""

LEVELS = {
    Grade.UNLOADABLE: -1,
    Grade.INVALID: 0,
    Grade.POOR: 1,
    Grade.FAIR: 2,
    Grade.GOOD: 3,
    Grade.EXCELLENT: 4,
}
"""Grades as numbers, to compare, to draw and to colour by."""

_RANK = {Grade.POOR: 0, Grade.FAIR: 1, Grade.GOOD: 2, Grade.EXCELLENT: 3}


def loss_status(mse: float, bounds: Bounds = GUIDE) -> Grade:
    """Grade an MSE: below 0.05, 0.1, 0.5; a value on a bound belongs to the lower grade."""
    if mse < bounds.excellent_mse:
        return Grade.EXCELLENT
    if mse < bounds.good_mse:
        return Grade.GOOD
    return Grade.FAIR if mse < bounds.fair_mse else Grade.POOR


def direction_status(cosine: float, bounds: Bounds = GUIDE) -> Grade:
    """Grade a cosine: above 0.95, above 0.9, at least 0.8 (the guide's MODERATE is FAIR)."""
    if cosine > bounds.excellent_cosine:
        return Grade.EXCELLENT
    if cosine > bounds.good_cosine:
        return Grade.GOOD
    return Grade.FAIR if cosine >= bounds.fair_cosine else Grade.POOR


def grade_of(mse: float, cosine: float, bounds: Bounds = GUIDE) -> Grade:
    """Return the lower of the two grades. NaN grades as INVALID."""
    if not (mse == mse and cosine == cosine):  # noqa: PLR0124 - NaN is unequal to itself
        return Grade.INVALID
    grades = (loss_status(mse, bounds), direction_status(cosine, bounds))
    return min(grades, key=_RANK.__getitem__)


def at_least(grade: str | None, wanted: Grade) -> bool:
    """Tell whether a grade is as good as the one wanted; INVALID, UNLOADABLE and None never are."""
    if grade is None or Grade(grade) not in _RANK:
        return False
    return _RANK[Grade(grade)] >= _RANK[wanted]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The verdict in words."""

    ready: bool
    confidence: float
    reason: str
    recommendation: str


_READINESS = {
    Grade.EXCELLENT: (True, 0.9, "Excellent", "Ready for production use"),
    Grade.GOOD: (True, 0.7, "Good", "Ready for basic use, with minor limitations"),
    Grade.FAIR: (False, 0.4, "Fair", "Continue training, getting close"),
    Grade.POOR: (False, 0.1, "Poor", "Significant training needed"),
}


def readiness_of(grade: Grade, mse: float | None, cosine: float | None, why: str = "") -> Readiness:
    """Say in words what a grade means; `why` explains INVALID and UNLOADABLE."""
    if grade in _READINESS:
        ready, confidence, word, recommendation = _READINESS[grade]
        reason = f"{word} match with the base: MSE={mse:.4f}, cosine={cosine:.4f}"
        return Readiness(
            ready=ready, confidence=confidence, reason=reason, recommendation=recommendation
        )
    recommendation = (
        "Find where training produced NaN or infinity; an earlier checkpoint may be sound"
        if grade is Grade.INVALID
        else "Check that the file is whole and belongs to this base model"
    )
    return Readiness(ready=False, confidence=0.0, reason=why, recommendation=recommendation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The guide's estimate of how much training is done.

    Attributes:
        estimate: share of the training done, 0 to 1.
        remaining: remaining work in words.
    """

    estimate: float
    remaining: str


def progress_of(mse: float) -> Progress:
    """Look an MSE up in the guide's progress table."""
    table = (
        (1.0, 0.1, "Significant training needed (>10k steps)"),
        (FAIR_MSE, 0.3, "Moderate training needed (5k-10k steps)"),
        (GOOD_MSE, 0.7, "Light training needed (1k-5k steps)"),
        (EXCELLENT_MSE, 0.9, "Fine-tuning needed (<1k steps)"),
    )
    for bound, estimate, remaining in table:
        if mse >= bound:
            return Progress(estimate=estimate, remaining=remaining)
    return Progress(estimate=1.0, remaining="Training complete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something worth knowing beside the grade."""

    code: str
    text: str


def findings_of(mse: float, cosine: float) -> list[Finding]:
    """What MSE and cosine together say of the training."""
    found = []
    if cosine > GOOD_COSINE and mse >= FAIR_MSE:
        found.append(
            Finding(
                code="MAGNITUDE",
                text="Right direction, wrong size: training progresses but needs more steps, or "
                "the learning rate is too high or too low. Normal in early and mid training.",
            )
        )
    if cosine < FAIR_COSINE:
        found.append(
            Finding(
                code="DIRECTION",
                text="Outputs point in the wrong direction: poor initialisation, unstable "
                "training, or an architecture mismatch (wrong base or residual rule).",
            )
        )
    return found
