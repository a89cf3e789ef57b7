"""Which quick results a full diagnostic follows."""

from __future__ import annotations

from typing import Any

import pytest

from nptwatch.settings import FullSettings
from nptwatch.store.records import Facts, Request
from nptwatch.worker.policy import FullPolicy

REQUEST = Request(profile="full", settings_hash="now")


def because(facts: Facts, **settings: Any) -> str | None:
    """Why the policy of these settings wants a full diagnostic."""
    values = {"every": 0, "on_grade": "never", "on_new_best": "never", **settings}
    demand = FullPolicy(FullSettings.model_validate(values), REQUEST).follow(facts)
    assert demand is None or demand.request == REQUEST
    return demand and demand.because


def facts(**changes: Any) -> Facts:
    """A FAIR checkpoint in the middle of a FAIR run."""
    about: dict[str, Any] = {
        "run_name": "run",
        "step": 500,
        "nth": 5,
        "old": "FAIR",
        "status": "FAIR",
        "late": False,
        "grade": "FAIR",
        "mse": 0.3,
        "best_mse_before": 0.2,
        "asked_before": frozenset(),
        **changes,
    }
    return Facts(**about)


def test_nothing_is_wanted_where_all_is_off() -> None:
    """0 and never switch off, whatever happens."""
    good = facts(status="EXCELLENT", grade="EXCELLENT", mse=0.01, nth=10)
    assert because(good) is None


@pytest.mark.parametrize(
    ("every", "nth", "wanted"),
    [
        (10, 10, "every 10th checkpoint"),
        (10, 11, None),
        (10, 20, "every 10th checkpoint"),
        (2, 4, "every 2nd checkpoint"),
        (3, 3, "every 3rd checkpoint"),
        (11, 22, "every 11th checkpoint"),
        (21, 21, "every 21st checkpoint"),
        (1, 7, "every checkpoint"),
    ],
)
def test_every_nth(every: int, nth: int, wanted: str | None) -> None:
    """By the place among the run's checkpoints; late ones count too."""
    assert because(facts(nth=nth), every=every) == wanted
    assert because(facts(nth=nth, late=True), every=every) == wanted


@pytest.mark.parametrize(
    ("old", "status", "wanted"),
    [
        ("FAIR", "GOOD", "reached GOOD"),
        (None, "GOOD", "reached GOOD"),
        ("POOR", "EXCELLENT", "reached EXCELLENT"),
        ("INVALID", "GOOD", "reached GOOD"),
        ("GOOD", "EXCELLENT", None),  # was as good as wanted before
        ("GOOD", "GOOD", None),
        ("EXCELLENT", "GOOD", None),
        ("POOR", "FAIR", None),
        ("FAIR", "INVALID", None),
    ],
)
def test_on_reaching_a_grade(old: str | None, status: str, wanted: str | None) -> None:
    """From below it to it or above; GOOD by default."""
    assert because(facts(old=old, status=status), on_grade="GOOD") == wanted


def test_a_late_result_reaches_nothing() -> None:
    """An older step does not move the status."""
    assert because(facts(late=True, old="FAIR", status="GOOD"), on_grade="GOOD") is None


@pytest.mark.parametrize(
    ("mse", "before", "grade", "wanted"),
    [
        (0.05, 0.06, "GOOD", "new best"),
        (0.06, 0.06, "GOOD", None),
        (0.05, None, "GOOD", None),  # the run's first has nothing to be better than
        (0.2, 0.3, "FAIR", None),  # not good enough to be worth it
        (None, 0.3, "INVALID", None),
    ],
)
def test_on_new_best(
    mse: float | None, before: float | None, grade: str, wanted: str | None
) -> None:
    """The lowest MSE of the run, if it is as good as the setting asks."""
    found = facts(mse=mse, best_mse_before=before, grade=grade)
    assert because(found, on_new_best="GOOD") == wanted
    assert because(facts(mse=0.2, best_mse_before=0.3), on_new_best="FAIR") == "new best"


def test_runs_may_have_rules_of_their_own() -> None:
    """The first glob that matches counts; what it leaves out is as for all."""
    settings = {
        "every": 5,
        "on_grade": "GOOD",
        "runs": [
            {"run": "debug/**", "every": 0, "on_grade": "never"},
            {"run": "debug/*", "every": 1},
            {"run": "fine-*", "on_grade": "EXCELLENT"},
        ],
    }
    reached = {"old": "FAIR", "status": "GOOD", "nth": 5}
    assert because(facts(run_name="debug/a", **reached), **settings) is None
    assert because(facts(run_name="fine-7", **reached), **settings) == "every 5th checkpoint"
    assert because(facts(run_name="other", **reached), **settings) == "reached GOOD"


def test_what_was_asked_by_other_settings_is_asked_again() -> None:
    """Whatever the rules say now: somebody has wanted it; by the same settings it stands already."""
    assert because(facts(asked_before=frozenset({"old", "now"}))) is not None
    assert because(facts(asked_before=frozenset({"now"}))) is None
