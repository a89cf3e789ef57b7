"""When a run is likely to be GOOD and EXCELLENT, from what was measured of it so far.

Pure, and light to import: numpy (falling.py) is loaded only where there is something to fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nptwatch.diagnostics.grading import GUIDE, Bounds, Grade, Progress, progress_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nptwatch.diagnostics.falling import Crossing, FallingCurves

FEWEST_POINTS = 5
"""Fewer steps tell no curve from another."""

_LEVEL = 0.6
"""A trend that keeps so much of its value as far as one can see levels off."""

_TARGETS = (Grade.GOOD, Grade.EXCELLENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """When a grade is due.

    Attributes:
        step: as likely before as after; None: reached, or no forecast.
        low, high: 80 % interval around it; `high` None: it may never happen.
        reached_at: first measured step that has the grade.
        why: why there is no step; or what holds the grade back beside the MSE.
    """

    step: int | None = None
    low: int | None = None
    high: int | None = None
    reached_at: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the history says of the steps to come.

    Attributes:
        now_step, now_mse: of the newest measured step; None: nothing was measured.
        targets: for GOOD and EXCELLENT.
        why_not: why there is no forecast at all; None where there is one, or nothing to forecast.
        points_used: steps that count: without those of an abandoned branch.
        model: what fits best, in words.
        guide: what the guide's table says of the newest MSE.
    """

    now_step: int | None = None
    now_mse: float | None = None
    targets: Mapping[str, Due] = field(default_factory=dict)
    why_not: str | None = None
    points_used: int = 0
    model: str | None = None
    guide: Progress | None = None


def forecast(
    points: Sequence[tuple[int, float]],
    cosines: Sequence[tuple[int, float]] = (),
    bounds: Bounds = GUIDE,
) -> Forecast:
    """Forecast the steps at which a run becomes GOOD and EXCELLENT.

    Args:
        points: step and MSE of each measured checkpoint, in the order in which they were trained.
            A step that comes again was trained again: it replaces all above it that came before.
        cosines: step and cosine of the same checkpoints; without them only the MSE counts.
        bounds: where the grades begin.
    """
    mse, cosine = trunk(points), trunk(cosines)
    if not mse:
        return Forecast(why_not=_too_few(0))
    now_step, now_mse = list(mse.items())[-1]
    fits = (_Curve("MSE", mse), _Curve("cosine", {s: 1 - each for s, each in cosine.items()}))
    targets = {grade.value: _due(bounds.of(grade), mse, cosine, fits) for grade in _TARGETS}
    return Forecast(
        now_step=now_step,
        now_mse=now_mse,
        targets=targets,
        why_not=_why_not(targets),
        points_used=len(mse),
        model=fits[0].model,
        guide=progress_of(now_mse),
    )


def trunk(points: Sequence[tuple[int, float]]) -> dict[int, float]:
    """Give the points of the branch that lives, by step.

    A step that comes again is of a run that was resumed below it. All points at and above it that
    came before belong to the branch that was given up.
    """
    held: dict[int, float] = {}
    for step, value in points:
        if not math.isfinite(value):
            continue
        if step in held:
            held = {other: each for other, each in held.items() if other < step}
        held[step] = value
    return dict(sorted(held.items()))


class _Curve:
    """A number that should fall, fitted once and only if somebody asks.

    Args:
        name: MSE or cosine, in whose words reasons are given.
        values: by step; of the cosine its distance from 1.
    """

    def __init__(self, name: str, values: Mapping[int, float]) -> None:
        self._name = name
        self._values = values
        self._fitted: FallingCurves | None = None

    @property
    def fit(self) -> FallingCurves:
        """The fit; made when first asked for."""
        from nptwatch.diagnostics.falling import FallingCurves

        self._fitted = self._fitted or FallingCurves([*self._values], [*self._values.values()])
        return self._fitted

    @property
    def model(self) -> str | None:
        """What fits best; None where nothing was fitted."""
        return self._fitted.law if self._fitted else None

    def crossing(self, bound: float) -> Crossing | str:
        """Say when the curve passes a bound, or why it cannot be said."""
        if len(self._values) < FEWEST_POINTS:
            return _too_few(len(self._values))
        from nptwatch.diagnostics.falling import SPANS_AHEAD, rises_lately

        if rises_lately([*self._values.values()]):
            return f"{self._name} {'rises' if self._name == 'MSE' else 'falls'} lately"
        if not self.fit.falls:
            return f"{self._name} stays near {self._said(self.fit.level)}"
        found = self.fit.crossing(bound)
        if found.step is not None:
            return found
        if self.fit.ahead(SPANS_AHEAD) > _LEVEL * self.fit.level:
            return f"{self._name} levels off near {self._said(self.fit.ahead(1.0))}"
        return f"{self._name} changes too slowly to tell within {SPANS_AHEAD:.0f} times its steps"

    def _said(self, value: float) -> str:
        return f"{value:.2g}" if self._name == "MSE" else f"{1 - value:.3f}"


def _due(
    bounds: tuple[float, float],
    mse: Mapping[int, float],
    cosine: Mapping[int, float],
    fits: tuple[_Curve, _Curve],
) -> Due:
    mse_bound, cosine_bound = bounds
    if mse_bound <= 0 or cosine_bound >= 1:
        return Due(why="by its bounds nothing can be")
    reached = [s for s in mse if mse[s] < mse_bound and cosine.get(s, 1.0) > cosine_bound]
    reached_at = reached[0] if reached else None
    now_step = [*mse][-1]
    if now_step in reached:
        return Due(reached_at=reached_at)
    wanted = []
    if mse[now_step] >= mse_bound:
        wanted.append(("MSE", fits[0].crossing(mse_bound)))
    if cosine.get(now_step, 1.0) <= cosine_bound:
        wanted.append(("cosine", fits[1].crossing(1 - cosine_bound)))
    for _, found in wanted:
        if isinstance(found, str):
            return Due(reached_at=reached_at, why=found)
    crossings = {name: found for name, found in wanted if not isinstance(found, str)}
    last = max(crossings, key=lambda name: crossings[name].step or 0.0)
    held = f"held back by the cosine, which must be above {cosine_bound}"
    return Due(
        step=_latest(now_step, [each.step for each in crossings.values()]),
        low=_latest(now_step, [each.low for each in crossings.values()]),
        high=_latest(now_step, [each.high for each in crossings.values()]),
        reached_at=reached_at,
        why=held if last == "cosine" else "",
    )


def _latest(now_step: int, steps: Sequence[float | None]) -> int | None:
    """The later one counts: a grade needs both numbers. None is never."""
    known = [step for step in steps if step is not None]
    return max(now_step, *(round(step) for step in known)) if len(known) == len(steps) else None


def _why_not(targets: Mapping[str, Due]) -> str | None:
    """Give the first reason, unless something is forecast or all is reached."""
    if any(due.step is not None for due in targets.values()):
        return None
    return next((due.why for due in targets.values() if due.why), None)


def _too_few(count: int) -> str:
    measured = f"{count} step{'' if count == 1 else 's'} measured"
    return f"{measured}, at least {FEWEST_POINTS} are needed"
