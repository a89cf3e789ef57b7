"""Falling curves laid over noisy points: what curves there are, and how each fits best.

Used by falling.py, which says what a curve is and what the letters mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MOST_POINTS = 64
"""More are thinned to so many medians: a fit takes milliseconds however long the run is."""

SLOWEST, FASTEST, _STARTS = 0.05, 25.0, 14
"""Logarithmic fall per span at the last step, floor apart; and from how many rates to start."""

_HEADS = (
    *((head, 0.1) for head in (0.03, 0.1, 0.3, 1.0, 3.0)),  # power laws
    (np.inf, 0.32),  # the exponential
    *((-5.0, 0.1), (-2.0, 0.08)),  # faster than that: what a falling learning rate does
)
"""Where a power law's zero lies, in spans before the first step, and its share beforehand.

The exponential must not be the fastest curve of all: it would lie at the edge of every answer.
"""

_FLOORS = (*np.linspace(0, 0.5, 11), *np.linspace(0.55, 0.9, 6), 0.94, 0.97, 0.985, 0.995)
_FLOORLESS = 0.7
"""Share beforehand of curves that fall to zero; the other floors share the rest."""

_RISES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_RISING = 0.2
"""Rates of the curves that stay or rise, and the weight of them all, the falling ones having 1."""

_TAIL = 4.0  # degrees of freedom of Student's t: outliers happen
_ROUNDS, _STRIDE = 8, 0.4  # of Gauss and Newton's method; its longest step
_HALF_LIFE = 0.6  # in spans: what an old point counts
_TEMPER = 0.5
"""A point counts as so many independent ones: its noise is like its neighbours'. By backtest."""

_NOISE_GUESS, _NOISE_POINTS = 0.05, 2.0  # what is believed of the noise before, in points
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Curves to be fitted, one array each for all of them.

    Attributes:
        rate: to start from; zero and below: the curve stays or rises, and is not fitted.
        head, floor: see _HEADS, _FLOORS.
        prior: share beforehand.
    """

    rate: Floats
    head: Floats
    floor: Floats
    prior: Floats

    def pace(self, x_P: Floats) -> Floats:
        """Give log g for a rate of 1, [C, P]."""
        finite_C1 = np.isfinite(self.head)[:, None]
        base_C1 = np.where(finite_C1, self.head[:, None], 1.0) + 1
        power_CP = -base_C1 * np.log(np.maximum(x_P / base_C1 + 1, _TINY))
        return np.where(finite_C1, power_CP, -x_P)

    def log_shape(self, rate_C: Floats, pace_CP: Floats) -> Floats:
        """Give log y less log level, [C, P]."""
        floor_C1 = self.floor[:, None]
        log_shape_CP: Floats = np.logaddexp(
            np.log(floor_C1 + _TINY), np.log(1 - floor_C1) + rate_C[:, None] * pace_CP
        )
        return log_shape_CP

    def only(self, chosen: NDArray[np.intp]) -> Curves:
        """Give some of them."""
        return Curves(
            rate=self.rate[chosen],
            head=self.head[chosen],
            floor=self.floor[chosen],
            prior=self.prior[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Curves laid over the points.

    Attributes:
        rate, rate_error: the error of the logarithm.
        log_level, level_error: at that rate.
        noise: how far points lie from the curve, in the logarithm.
        log_likelihood: of the points.
    """

    rate: Floats
    rate_error: Floats
    log_level: Floats
    level_error: Floats
    noise: Floats
    log_likelihood: Floats


def thinned(steps_P: Floats, values_P: Floats) -> tuple[Floats, Floats]:
    """Take logarithms; replace neighbours by medians where there are more points than needed."""
    logs_P = np.log(np.maximum(values_P, _TINY))
    if len(steps_P) <= MOST_POINTS:
        return steps_P, logs_P
    groups = np.array_split(np.arange(len(steps_P)), MOST_POINTS)
    return (
        np.array([np.median(steps_P[group]) for group in groups]),
        np.array([np.median(logs_P[group]) for group in groups]),
    )


def all_curves() -> Curves:
    """Give every head and floor from every start; those that stay or rise come last."""
    heads, shares = (np.array(each) for each in zip(*_HEADS, strict=True))
    rates = np.geomspace(SLOWEST, FASTEST, _STARTS)
    head, floor, rate = (each.ravel() for each in np.meshgrid(heads, _FLOORS, rates, indexing="ij"))
    with_floor = (1 - _FLOORLESS) / (len(_FLOORS) - 1)
    prior = np.repeat(shares, len(_FLOORS) * _STARTS) * np.where(floor == 0, _FLOORLESS, with_floor)
    rises = -np.array(_RISES)
    none = np.zeros_like(rises)
    return Curves(
        rate=np.concatenate([rate, rises]),
        head=np.concatenate([head, none + np.inf]),
        floor=np.concatenate([floor, none]),
        prior=np.concatenate([prior / shares.sum(), none + _RISING / len(_RISES)]),
    )


def best_starts(curves: Curves, x_P: Floats, logs_P: Floats) -> Curves:
    """Keep of each head and floor the rate that fits best as it is."""
    offset_CP = logs_P - curves.log_shape(curves.rate, curves.pace(x_P))
    away_CP = np.abs(offset_CP - np.median(offset_CP, axis=1)[:, None])
    falling = len(curves.rate) - len(_RISES)
    best = (away_CP @ _recency(x_P))[:falling].reshape(-1, _STARTS).argmin(axis=1)
    chosen = best + np.arange(0, falling, _STARTS)
    return curves.only(np.concatenate([chosen, np.arange(falling, len(curves.rate))]))


def fitted(curves: Curves, x_P: Floats, logs_P: Floats) -> Fit:
    """Fit level and rate of each curve, by Student's t so that an outlier counts little."""
    recency_P, pace_CP = _recency(x_P), curves.pace(x_P)
    belief = recency_P.sum() + _NOISE_POINTS
    rate_C = curves.rate
    shape_CP = curves.log_shape(rate_C, pace_CP)
    away_CP = logs_P - shape_CP
    away_CP = away_CP - np.median(away_CP, axis=1)[:, None]
    variance_C = np.median(np.abs(away_CP), axis=1) ** 2 + _NOISE_GUESS**2
    for _ in range(_ROUNDS):
        weight_CP = recency_P * (_TAIL + 1) / (_TAIL + away_CP**2 / variance_C[:, None])
        slope_CP = rate_C[:, None] * pace_CP * (1 - curves.floor[:, None] * np.exp(-shape_CP))
        slope_CP -= _mean(weight_CP, slope_CP)[:, None]
        leverage_C = (weight_CP * slope_CP**2).sum(1)
        rate_C = _moved(rate_C, (weight_CP * slope_CP * away_CP).sum(1) / (leverage_C + _TINY))
        shape_CP = curves.log_shape(rate_C, pace_CP)
        level_C = _mean(weight_CP, logs_P - shape_CP)
        away_CP = logs_P - shape_CP - level_C[:, None]
        variance_C = ((weight_CP * away_CP**2).sum(1) + _NOISE_POINTS * _NOISE_GUESS**2) / belief
    noise_C = np.sqrt(variance_C)
    tails_C = np.log1p(away_CP**2 / (_TAIL * variance_C[:, None])) @ recency_P
    misfit_C = (_TAIL + 1) * tails_C + belief * np.log(variance_C)
    misfit_C += _NOISE_POINTS * _NOISE_GUESS**2 / variance_C
    return Fit(
        rate=rate_C,
        rate_error=noise_C / np.sqrt(_TEMPER * leverage_C + variance_C),
        log_level=level_C,
        level_error=noise_C / np.sqrt(_TEMPER * recency_P.sum()),
        noise=noise_C,
        log_likelihood=-0.5 * _TEMPER * misfit_C,
    )


def _mean(weight_CP: Floats, values_CP: Floats) -> Floats:
    mean_C: Floats = (weight_CP * values_CP).sum(1) / weight_CP.sum(1)
    return mean_C


def _moved(rate_C: Floats, move_C: Floats) -> Floats:
    """Move rates by a step of the logarithm; those of curves that stay or rise are as they are."""
    falling_C = rate_C > 0
    logs_C = np.log(np.where(falling_C, rate_C, 1.0)) + np.clip(move_C, -_STRIDE, _STRIDE)
    return np.where(falling_C, np.clip(np.exp(logs_C), SLOWEST, FASTEST), rate_C)


def _recency(x_P: Floats) -> Floats:
    recency_P: Floats = 0.5 ** (-x_P / _HALF_LIFE)
    return recency_P
