"""The forecast that an alert brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stocking import QUICK, claimed, measured, no_alerts, whole

from nptwatch.service.forecasting import Forecasts

if TYPE_CHECKING:
    from nptwatch.store.catalog import Catalog
    from nptwatch.store.history import History
    from nptwatch.store.queue import Queue


def run_with(catalog: Catalog, queue: Queue, mses: list[float]) -> None:
    """Have a run with these MSEs, a hundred steps apart."""
    for number, mse in enumerate(mses, 1):
        catalog.admit(whole("a", 100 * number), QUICK)
        queue.finish(claimed(queue), "w", measured("POOR", mse), no_alerts)


def test_an_alert_says_when_its_run_is_due(
    catalog: Catalog, queue: Queue, history: History
) -> None:
    """One line, of the grades that are still to come."""
    run_with(catalog, queue, [0.8 * 0.93**n for n in range(20)])
    line = Forecasts(history).of({"run_path": "/exp/a"})
    assert line is not None
    assert line.startswith("GOOD about step ")
    assert "; EXCELLENT about step " in line
    assert "\n" not in line


def test_no_forecast_is_none(catalog: Catalog, queue: Queue, history: History) -> None:
    """Too few points, a run that is not known, an event of no run: the alert goes out without."""
    run_with(catalog, queue, [0.8, 0.7])
    forecasts = Forecasts(history)
    assert forecasts.of({"run_path": "/exp/a"}) is None
    assert forecasts.of({"run_path": "/exp/no"}) is None
    assert forecasts.of({"kind": "digest"}) is None
