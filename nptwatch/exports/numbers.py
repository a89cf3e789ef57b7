"""What of a result is drawn as a curve. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nptwatch.diagnostics.grading import LEVELS, Grade

if TYPE_CHECKING:
    from nptwatch.exports.telling import Point

CURVES = (
    "mse",
    "cosine",
    "kl",
    "top1_agreement",
    "relative_mse",
    "perplexity_ratio",
    "hidden_mse",
    "avg_score",
)


def curve_values(point: Point) -> dict[str, float]:
    """Give the numbers of a result, its grade as one of them; none where there is no step.

    Of a file that could not be read nothing is drawn, of an INVALID checkpoint only that it is.
    """
    grade = Grade(point["grade"])
    if point["step"] is None or grade is Grade.UNLOADABLE:
        return {}
    values = {"grade": float(LEVELS[grade])}
    if grade is not Grade.INVALID:
        values |= {name: float(point[name]) for name in CURVES if point[name] is not None}
    return values
