"""How a noisy, positive number falls with the step, and when it is likely to pass a threshold.

Many falling curves are laid over the points at once: exponentials and power laws, each with a rate
of its own and many floors, and a few that stay or rise. Each counts by how well it fits, so what
the points leave open (how fast, how far down) is open in the answer too. No randomness: the same
points give the same answer. Needs numpy; only who fits imports this.

A curve is y(s) = level x (floor + (1 - floor) x g), g = 1 at the last step. In spans x of the
measured steps, x = 0 at the last, log g = rate x pace(x): pace = -x for the exponential, a
logarithm for power laws. The level is a mere offset in the logarithm, so only head and floor need
a grid; level and rate are fitted, and are as uncertain as the fit says.

Letters at the end of a name: C curves, P points, N likely forms of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nptwatch.diagnostics.curve_fit import (
    FASTEST,
    MOST_POINTS,
    SLOWEST,
    all_curves,
    best_starts,
    fitted,
    thinned,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SPANS_AHEAD = 5.0
"""How far a curve is followed, in spans of the measured steps; beyond is as good as never."""

_NORMAL = ((-1.6, 0.12), (-0.7, 0.24), (0.0, 0.28), (0.7, 0.24), (1.6, 0.12))
"""A normal distribution in five points: offset in standard errors, share."""

_DRIFT = 0.1
"""How far a rate may change after the last step, as a logarithm: no training follows a formula."""

_LIKELY = 0.6
"""A step is named where the chance is so great that it comes within sight."""

_LEAST_FALL, _CLEAR = 0.05, 3.0  # of a logarithm; in standard errors of the mean
_FEWEST_LATE, _ONE_IN_TWENTY = 5, 1.645  # points; of a normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """When a threshold is passed.

    Attributes:
        step: as likely before as after; None: not likely enough within sight.
        low: at most one in ten that it is earlier.
        high: at most one in ten that it is later; None: it may never happen.
    """

    step: float | None
    low: float | None
    high: float | None


class FallingCurves:
    """All curves, each with its weight.

    Args:
        steps: strictly rising, at least two.
        values: positive; zero counts as tiny.
    """

    def __init__(self, steps: Sequence[int], values: Sequence[float]) -> None:
        steps_P, logs_P = thinned(np.asarray(steps, float), np.asarray(values, float))
        self._last, self._span = float(steps_P[-1]), float(steps_P[-1] - steps_P[0])
        self._points = len(steps_P)
        x_P = (steps_P - self._last) / self._span
        self._curves = best_starts(all_curves(), x_P, logs_P)
        self._fit = fitted(self._curves, x_P, logs_P)
        # what a curve's likelihood is worth over all its rates, of which only the best was fitted
        width_C = np.sqrt(2 * np.pi) * self._fit.rate_error / np.log(FASTEST / SLOWEST)
        share_C = self._curves.prior * np.where(self._curves.rate > 0, width_C, 1.0)
        log_weight_C = self._fit.log_likelihood + np.log(share_C)
        weight_C = np.exp(log_weight_C - log_weight_C.max())
        self._weight_C = weight_C / weight_C.sum()
        first_C1 = self._curves.pace(x_P[:1])
        self._fall_C = self._curves.log_shape(self._fit.rate, first_C1)[:, 0]

    @property
    def level(self) -> float:
        """The trend's value at the last step."""
        return float(np.exp(self._median(self._fit.log_level)))

    def ahead(self, spans: float) -> float:
        """Give the trend's value so many spans after the last step."""
        shape_C1 = self._curves.log_shape(self._fit.rate, self._curves.pace(np.array([spans])))
        return float(np.exp(self._median(self._fit.log_level + shape_C1[:, 0])))

    @property
    def falls(self) -> bool:
        """Whether the trend from first to last step is a fall, and not just noise."""
        noise = float(self._weight_C @ self._fit.noise)
        least = max(_LEAST_FALL, _CLEAR * noise / np.sqrt(self._points))
        return bool(self._median(self._fall_C) > least)

    @property
    def law(self) -> str:
        """What kind of curve fits best, in words."""
        head_C = self._curves.head
        kinds = {
            "power law": (head_C > 0) & np.isfinite(head_C),
            "exponential": np.isinf(head_C),
            "faster than exponential": head_C < 0,
        }
        gain = {
            law: float(self._weight_C[chosen].sum() / self._curves.prior[chosen].sum())
            for law, chosen in kinds.items()
        }
        return max(gain, key=lambda law: gain[law])

    def crossing(self, threshold: float) -> Crossing:
        """Say when the trend passes a threshold."""
        ahead, total = self._likely(threshold)
        low, middle, high = (self._step(ahead, total, share) for share in (0.1, 0.5, 0.9))
        if self._step(ahead, total, _LIKELY) is None:
            middle = None
        return Crossing(step=middle, low=low, high=high)

    @cached_property
    def _nodes(self) -> tuple[Floats, Floats, Floats]:
        """Rate [C, N], log level [C, N] and weight [C, N] of each curve's likely forms."""
        offset, share = (np.array(each) for each in zip(*_NORMAL, strict=True))
        of_rate_N, of_level_N = (each.ravel() for each in np.meshgrid(offset, offset))
        error_C = np.sqrt(self._fit.rate_error**2 + _DRIFT**2)
        rate_CN = self._fit.rate[:, None] * np.exp(error_C[:, None] * of_rate_N)
        level_CN = self._fit.log_level[:, None] + self._fit.level_error[:, None] * of_level_N
        weight_CN = self._weight_C[:, None] * np.outer(share, share).ravel()
        return rate_CN, level_CN, weight_CN

    def _likely(self, threshold: float) -> tuple[Floats, Floats]:
        """Give how many spans ahead each form passes a threshold, ascending, and summed weights."""
        rate_CN, level_CN, weight_CN = self._nodes
        floor_C1, head_C1 = self._curves.floor[:, None], self._curves.head[:, None]
        target_CN = threshold / np.exp(level_CN)
        left_CN = (target_CN - floor_C1) / (1 - floor_C1)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            pace_CN = -np.log(np.maximum(left_CN, 0.0)) / rate_CN
            base_C1 = head_C1 + 1
            ahead_CN = np.where(
                np.isfinite(head_C1), base_C1 * (np.exp(pace_CN / base_C1) - 1), pace_CN
            )
        ahead_CN = np.where((rate_CN > 0) & (left_CN > 0), ahead_CN, np.inf)
        ahead = np.where(target_CN >= 1, 0.0, np.maximum(ahead_CN, 0.0)).ravel()
        order = np.argsort(ahead)
        return ahead[order], np.cumsum(weight_CN.ravel()[order])

    def _step(self, ahead: Floats, total: Floats, share: float) -> float | None:
        spans = float(ahead[min(int(np.searchsorted(total, share * total[-1])), len(ahead) - 1)])
        return self._last + spans * self._span if spans <= SPANS_AHEAD else None

    def _median(self, values_C: Floats) -> float:
        order = np.argsort(values_C)
        total = np.cumsum(self._weight_C[order])
        return float(values_C[order][int(np.searchsorted(total, 0.5 * total[-1]))])


def rises_lately(values: Sequence[float]) -> bool:
    """Whether the last third of the points goes up (Mann and Kendall's test, one in twenty)."""
    late = min(max(_FEWEST_LATE, len(values) // 3), MOST_POINTS)
    late_P = np.asarray(values[-late:], float)
    count = len(late_P)
    score = np.triu(np.sign(late_P[None, :] - late_P[:, None])).sum()
    spread = np.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return bool(score - 1 > _ONE_IN_TWENTY * spread)
