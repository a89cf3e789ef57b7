"""Forecasts against curves whose end is known: made from the first part only, then looked up.

Each curve is drawn with a fixed seed: law, speed, floor, noise (1 to 20 %, like its neighbours'
or not), number of checkpoints, how much of it has been seen, and in one of three a wild spike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nptwatch.diagnostics.forecast import Due, forecast
from nptwatch.diagnostics.grading import GOOD_MSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Law = Callable[[Floats], Floats]

SEEDS = 60
STEPS = 10_000
"""Steps in one unit of a law's time."""


def exponential(rng: Generator) -> Law:
    """Fall to zero, by the same factor each step."""
    rate, height = rng.uniform(2, 6), rng.uniform(1, 6)
    return lambda t: height * np.exp(-rate * t)


def exponential_to_a_floor(rng: Generator) -> Law:
    """Fall to a floor below GOOD."""
    rate, height, floor = rng.uniform(4, 9), rng.uniform(1, 6), rng.uniform(0.005, 0.07)
    return lambda t: floor + height * np.exp(-rate * t)


def power_law(rng: Generator) -> Law:
    """Fall fast first, then ever slower."""
    power, height, head = rng.uniform(0.6, 2), rng.uniform(1, 4), rng.uniform(0.01, 0.1)
    return lambda t: height * ((t + head) / head) ** -power


def plateau(rng: Generator) -> Law:
    """Fall to a floor above GOOD."""
    rate, height, floor = rng.uniform(6, 14), rng.uniform(1, 5), rng.uniform(0.15, 0.6)
    return lambda t: floor + height * np.exp(-rate * t)


def rise(rng: Generator) -> Law:
    """Fall, then rise: too high a learning rate, or overfitting."""
    falls, slope = plateau(rng), rng.uniform(0.1, 0.6)
    return lambda t: falls(t) + slope * np.maximum(t - 0.3, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A forecast, and what came of it.

    Attributes:
        truth: step at which the curve, without its noise, passes GOOD; None: never.
        seen: last measured step.
    """

    due: Due
    truth: float | None
    seen: int

    @property
    def holds(self) -> bool:
        """Whether the interval holds the truth; no forecast holds no truth but "never"."""
        if self.truth is None:
            return self.due.high is None
        if self.due.step is None or self.due.low is None:
            return False
        return self.due.low <= self.truth and (self.due.high is None or self.truth <= self.due.high)


def backtest(make: Callable[[Generator], Law], likeness: float) -> list[Case]:
    """Forecast many curves of one law; those that are GOOD already are left out.

    Args:
        likeness: correlation of a point's noise with the one before.
    """
    cases = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        law = make(rng)
        time = np.linspace(0, 40, 40_001)
        below = np.flatnonzero(law(time) < GOOD_MSE)
        truth = float(time[below[0]]) if len(below) else None
        seen = rng.uniform(0.35, 0.9) * truth if truth else 1.0
        steps = np.round(np.linspace(0, seen, int(rng.integers(6, 40)) + 1)[1:] * STEPS)
        values = law(steps / STEPS) * np.exp(noise(rng, len(steps), likeness))
        if seed % 3 == 0:
            values[rng.integers(len(steps))] *= rng.uniform(2, 5)
        made = forecast([(int(s), float(v)) for s, v in zip(steps, values, strict=True)])
        if (due := made.targets["GOOD"]).reached_at is None:
            passed = None if truth is None else truth * STEPS
            cases.append(Case(due=due, truth=passed, seen=int(steps[-1])))
    return cases


def noise(rng: Generator, count: int, likeness: float) -> Floats:
    """Give noise of a logarithm."""
    fresh = rng.normal(scale=rng.choice([0.01, 0.05, 0.1, 0.2]), size=count)
    for here in range(1, count):
        fresh[here] = likeness * fresh[here - 1] + np.sqrt(1 - likeness**2) * fresh[here]
    return fresh


@pytest.mark.parametrize("likeness", [0.0, 0.5])
@pytest.mark.parametrize("make", [exponential, exponential_to_a_floor, power_law])
def test_interval_holds_the_truth_and_is_narrow(
    make: Callable[[Generator], Law], likeness: float
) -> None:
    """80 % intervals hold the step in 80 % of cases or more, and still say something."""
    cases = backtest(make, likeness)
    assert len(cases) >= 0.9 * SEEDS
    assert sum(case.holds for case in cases) >= 0.8 * len(cases)
    closed = [c for c in cases if c.due.step and c.due.high is not None and c.due.low is not None]
    assert len(closed) >= 0.45 * len(cases)
    widths = [
        (c.due.high - c.due.low) / c.truth for c in closed if c.truth and c.due.high and c.due.low
    ]
    assert np.median(widths) < 0.4
    errors = [c.due.step / c.truth for c in cases if c.truth and c.due.step]
    assert 0.9 < np.median(errors) < 1.1


@pytest.mark.parametrize("likeness", [0.0, 0.5])
@pytest.mark.parametrize("make", [plateau, rise])
def test_no_promise_where_the_fall_has_ended(
    make: Callable[[Generator], Law], likeness: float
) -> None:
    """A curve that levels off above GOOD, or rises, is promised no GOOD: it may never happen."""
    cases = backtest(make, likeness)
    assert sum(case.holds for case in cases) >= 0.95 * len(cases)
    assert sum(case.due.step is None for case in cases) >= 0.85 * len(cases)
