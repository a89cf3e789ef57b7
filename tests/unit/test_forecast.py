"""What a forecast says of runs whose answer is plain; see test_forecast_backtest.py for the rest."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import pytest

from nptwatch.diagnostics.forecast import Forecast, forecast, trunk

WOBBLE = (0.01, -0.02, 0.015, 0.0, -0.01, 0.02, -0.015)


def falling(count: int = 12, *, fall: float = 0.8, start: float = 2.0) -> list[tuple[int, float]]:
    """Give a curve that keeps the same share from each step to the next, nearly."""
    return [
        (step * 100, start * fall**step * math.exp(WOBBLE[step % 7])) for step in range(1, count)
    ]


def why(points: list[tuple[int, float]]) -> str:
    """Give why there is no forecast."""
    made = forecast(points)
    assert made.why_not is not None
    assert all(due.step is None for due in made.targets.values())
    return made.why_not


def test_an_exponential_is_followed_to_both_grades() -> None:
    """2 x 0.8^n passes 0.1 at n = 13.4 and 0.05 at n = 16.5."""
    made = forecast(falling())
    good, excellent = made.targets["GOOD"], made.targets["EXCELLENT"]
    assert (made.now_step, made.points_used, made.why_not) == (1100, 11, None)
    assert made.model == "exponential"
    assert good.step == pytest.approx(1342, rel=0.03)
    assert excellent.step == pytest.approx(1653, rel=0.05)
    for due in (good, excellent):
        assert due.low is not None
        assert due.step is not None
        assert due.high is not None
        assert 1100 <= due.low < due.step < due.high < 2 * due.step


def test_the_guide_stands_beside_it() -> None:
    """The guide's table knows the newest MSE only."""
    guide = forecast(falling()).guide
    assert guide is not None
    assert (guide.estimate, guide.remaining[:21]) == (0.7, "Light training needed")


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_points_give_no_forecast(count: int) -> None:
    """Four points fit anything."""
    measured = f"{count} step{'' if count == 1 else 's'} measured"
    assert why(falling(20)[:count]) == f"{measured}, at least 5 are needed"


def test_flat_points_give_no_forecast() -> None:
    """Noise around a value is no fall."""
    assert why(falling(20, fall=1.0, start=0.43)) == "MSE stays near 0.43"


def test_rising_points_give_no_forecast() -> None:
    """What goes up lately is not promised to come down, however well it fell before."""
    fell = falling(8)
    rose = [(800 + 100 * step, 0.42 * 1.05**step) for step in range(8)]
    assert why([*fell, *rose]) == "MSE rises lately"


def test_a_plateau_is_named_with_its_height() -> None:
    """A floor above GOOD is no slow fall."""
    points = [(100 * s, 0.21 + 2 * 0.5**s * math.exp(WOBBLE[s % 7])) for s in range(1, 21)]
    reason, _, height = why(points).rpartition(" ")
    assert reason == "MSE levels off near"
    assert float(height) == pytest.approx(0.21, rel=0.1)


def test_a_floor_between_the_grades_promises_the_lower_one_only() -> None:
    """GOOD is reached; EXCELLENT never."""
    points = [(100 * s, 0.07 + 2 * 0.6**s * math.exp(WOBBLE[s % 7])) for s in range(1, 21)]
    made = forecast(points)
    assert made.targets["GOOD"].reached_at == 900
    assert made.targets["EXCELLENT"].step is None
    assert made.why_not == made.targets["EXCELLENT"].why == "MSE levels off near 0.069"


def test_what_is_reached_is_not_due() -> None:
    """A run that is EXCELLENT has nothing left to forecast."""
    made = forecast(falling(25))
    assert made.why_not is None
    assert [due.reached_at for due in made.targets.values()] == [1400, 1700]
    assert all(due.step is None for due in made.targets.values())


def test_what_was_reached_and_lost_is_due_again() -> None:
    """The first step that was GOOD is told, and when the trend is."""
    points = falling()
    points[5] = (600, 0.09)
    good = forecast(points).targets["GOOD"]
    assert good.reached_at == 600
    assert good.step == pytest.approx(1342, rel=0.05)


def test_a_spike_moves_little() -> None:
    """One wild measurement, even the last but one, is not the trend."""
    points = falling()
    plain = forecast(points).targets["GOOD"].step
    points[-2] = (points[-2][0], 10 * points[-2][1])
    spiked = forecast(points).targets["GOOD"].step
    assert plain is not None
    assert spiked == pytest.approx(plain, rel=0.1)


def test_an_abandoned_branch_does_not_count() -> None:
    """A run resumed at a lower step is forecast from what it has trained since."""
    diverged = [(step, 3.0) for step in range(600, 2000, 100)]
    points = [*falling()[:5], *diverged, *falling()[5:]]
    assert forecast(points) == forecast(falling())


def test_trunk_keeps_the_newest_of_each_step() -> None:
    """A step that comes again ends what came at and above it before; late finds are put in place."""
    assert trunk([(100, 1.0), (200, 0.9), (300, 0.8), (200, 0.7)]) == {100: 1.0, 200: 0.7}
    assert trunk([(300, 0.8), (100, 1.0)]) == {100: 1.0, 300: 0.8}
    assert trunk([(100, 1.0), (200, math.inf)]) == {100: 1.0}


def cosines(points: list[tuple[int, float]], size: float) -> list[tuple[int, float]]:
    """Give cosines whose distance from 1 falls as the MSE does."""
    return [(step, 1 - size * mse) for step, mse in points]


def test_a_cosine_holds_a_grade_back() -> None:
    """GOOD needs both: the later one counts, and is named."""
    points = falling()
    good = forecast(points, cosines(points, 2.0)).targets["GOOD"]
    assert good.step == pytest.approx(1653, rel=0.05)
    assert good.why == "held back by the cosine, which must be above 0.9"
    assert forecast(points, cosines(points, 0.5)).targets["GOOD"].why == ""


def test_a_cosine_that_never_gets_there_is_the_reason() -> None:
    """A good MSE is not GOOD while the cosine stays low."""
    points = falling(18)
    assert points[-1][1] < 0.05
    made = forecast(points, [(step, 0.85) for step, _ in points])
    assert (made.why_not or "").startswith("cosine stays near 0.85")
    assert made.targets["GOOD"].reached_at is None


def test_a_forecast_is_deterministic_and_does_not_follow_units() -> None:
    """The same points give the same answer; steps counted in tens give a tenth of it."""
    once, again = forecast(falling()), forecast(falling())
    assert once == again
    tenth = forecast([(step // 10, mse) for step, mse in falling()]).targets["GOOD"].step
    assert tenth == pytest.approx((once.targets["GOOD"].step or 0) / 10, abs=1)


def test_a_long_run_is_forecast_in_no_time() -> None:
    """Fifty milliseconds: it stands below each history."""
    points = [(10 * s, 0.1 + 3 * 0.999**s * math.exp(WOBBLE[s % 7])) for s in range(5000)]
    forecast(points)  # loads numpy
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        forecast(points)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.05


@pytest.mark.parametrize("points", [[], falling(3)])
def test_numpy_is_not_loaded_for_nothing(points: list[tuple[int, float]]) -> None:
    """A history too short for a forecast is shown without it."""
    code = (
        "import sys; from nptwatch.diagnostics.forecast import forecast;"
        f"forecast({points!r}); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("values", [[0.0] * 6, [1e-30, 1e30] * 4, [0.2, 0.2, 0.2, 0.2, 0.2]])
def test_odd_numbers_do_no_harm(values: list[float]) -> None:
    """Whatever is measured, the answer is a forecast or a reason."""
    made = forecast(list(enumerate(values)))
    assert isinstance(made, Forecast)
    assert made.points_used == len(values)
