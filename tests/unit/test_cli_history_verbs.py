"""`nptwatch history`, `best` and `forecast` on a real database, called in this process."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from stocking import QUICK, measured, no_alerts, path_of, whole

from nptwatch.cli.main import main
from nptwatch.store.catalog import Catalog
from nptwatch.store.queue import Queue
from nptwatch.store.records import HistoryRow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import FakeClock

    from nptwatch.store.engine import Database

RUN = "llama/dual"


class Trainer:
    """Saves checkpoints that a worker measures at once, ten minutes apart.

    Args:
        database: of the run.
        clock: set forward with each checkpoint.
    """

    def __init__(self, database: Database, clock: FakeClock) -> None:
        self._catalog, self._queue = Catalog(database, clock=clock), Queue(database, clock=clock)
        self._clock = clock

    def save(self, step: int, mse: float, *, branch: str = "", **changes: Any) -> None:
        """Save and measure."""
        self._clock.advance(600)
        self._catalog.admit(whole(RUN, step, content=f"{branch}{step}"), QUICK)
        claim = self._queue.claim("w", lease_seconds=60)
        assert claim is not None
        about = {"grade": "FAIR", "mse": mse, "measured_at": self._clock()} | changes
        assert self._queue.finish(claim, "w", measured(**about), no_alerts)


@pytest.fixture
def trainer(database: Database, clock: FakeClock) -> Trainer:
    """Give a trainer whose run has no checkpoint yet."""
    return Trainer(database, clock)


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Give a function that calls the command and gives what it printed."""

    def run(*arguments: str, code: int = 0) -> str:
        assert main([*arguments, "--state-dir", str(tmp_path)]) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return run


def fall(trainer: Trainer, steps: range) -> None:
    """Train: a fifth less MSE each hundred steps."""
    for step in steps:
        trainer.save(step, 2 * 0.8 ** (step / 100), cosine=0.97)


def steps_of(text: str) -> list[int]:
    """Give the steps of a JSON history."""
    return [row["step"] for row in json.loads(text)]


def test_history_ends_with_curve_and_forecast(trainer: Trainer, call: Callable[..., str]) -> None:
    """Below the table: MSE as a line, and when GOOD and EXCELLENT are due."""
    fall(trainer, range(100, 1200, 100))
    lines = call("history", RUN).splitlines()
    assert lines[12] == ""
    assert lines[13].startswith("MSE  ")
    assert lines[13].endswith("  1.6 to 0.1718, log scale")
    assert lines[14].startswith("Forecast  GOOD       about step 134")
    assert lines[15].startswith("          EXCELLENT  about step 16")
    assert len(lines) == 16


def test_history_says_why_there_is_no_forecast(trainer: Trainer, call: Callable[..., str]) -> None:
    """Three points are a table and a line, and no promise."""
    fall(trainer, range(100, 400, 100))
    assert call("history", RUN).splitlines()[-1] == (
        "No forecast: 3 steps measured, at least 5 are needed"
    )


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        (["--since", "300"], [300, 400, 500]),
        (["--since", "2026-11-20T12:40"], [400, 500]),
        (["--since", "2026-11-20T13:40+01:00"], [400, 500]),
        (["--limit", "2"], [400, 500]),
        (["--since", "300", "--limit", "9"], [300, 400, 500]),
        (["--since", "501"], []),
    ],
)
def test_history_since_and_limit(
    trainer: Trainer, call: Callable[..., str], arguments: list[str], steps: list[int]
) -> None:
    """A step, a time, and so many of the last ones; saved at 12:10, 12:20 and so on."""
    fall(trainer, range(100, 600, 100))
    assert steps_of(call("history", RUN, *arguments, "--json")) == steps


def test_the_forecast_does_not_depend_on_what_is_shown(
    trainer: Trainer, call: Callable[..., str]
) -> None:
    """It is made of all steps, whatever --since and --limit leave of the table."""
    fall(trainer, range(100, 1200, 100))
    whole_history = call("history", RUN).splitlines()
    assert call("history", RUN, "--limit", "2").splitlines()[-2:] == whole_history[-2:]


def test_history_as_csv(trainer: Trainer, call: Callable[..., str]) -> None:
    """RFC 4180: a header with every field, CRLF, full precision, times in UTC, empty for none."""
    trainer.save(100, 1 / 3, kl=None)
    printed = call("history", RUN, "--csv")
    assert printed.count("\r\n") == 2
    (row,) = csv.DictReader(io.StringIO(printed))
    assert set(row) == {field.name for field in fields(HistoryRow)}
    assert (row["run"], row["step"], row["mse"]) == (RUN, "100", repr(1 / 3))
    assert row["measured_at"] == "2026-11-20T12:10:00.000Z"
    assert row["kl"] == ""


def test_a_resumed_run_is_forecast_from_its_new_branch(
    trainer: Trainer, call: Callable[..., str]
) -> None:
    """What was trained before, at the steps that were trained again and above, does not count."""
    fall(trainer, range(100, 600, 100))
    for step in range(600, 2000, 100):
        trainer.save(step, 3.0, branch="diverged-")
    fall(trainer, range(600, 1200, 100))
    made = json.loads(call("forecast", RUN, "--json"))
    assert (made["now_step"], made["points_used"]) == (1100, 11)
    assert made["targets"]["GOOD"]["step"] == pytest.approx(1342, rel=0.03)
    assert len(steps_of(call("history", RUN, "--json"))) == 25


def test_a_backlog_found_in_any_order_is_no_restart(
    trainer: Trainer, call: Callable[..., str]
) -> None:
    """Older checkpoints that are found later were not trained later."""
    fall(trainer, range(600, 1200, 100))
    fall(trainer, range(100, 600, 100))
    assert json.loads(call("forecast", RUN, "--json"))["points_used"] == 11


def test_forecast_as_text(trainer: Trainer, call: Callable[..., str]) -> None:
    """Where the run is, both grades, what fits, and the guide's table beside it."""
    fall(trainer, range(100, 1200, 100))
    lines = call("forecast", "dual").splitlines()
    assert lines[0] == f"{RUN} at step 1100: MSE 0.1718, cosine 0.9700, 11 steps measured"
    assert lines[1].startswith("GOOD:      about step 134")
    assert lines[2].startswith("EXCELLENT: about step 16")
    assert lines[3:] == [
        "Best fit:  exponential",
        "Guide:     70% done, Light training needed (1k-5k steps)",
    ]


def test_forecast_of_a_run_without_results(trainer: Trainer, call: Callable[..., str]) -> None:
    """INVALID checkpoints are no points."""
    trainer.save(100, math.nan, grade="INVALID", cosine=None)
    assert "no forecast: 0 steps measured" in call("forecast", RUN)


@pytest.mark.parametrize(("by", "step"), [("mse", 100), ("cosine", 200), ("kl", 300)])
def test_best_by_each_measure(
    trainer: Trainer, call: Callable[..., str], by: str, step: int
) -> None:
    """Lowest MSE, highest cosine, lowest KL; an INVALID one is never best."""
    trainer.save(100, 0.2, cosine=0.91, kl=0.5)
    trainer.save(200, 0.3, cosine=0.99, kl=0.4)
    trainer.save(300, 0.4, cosine=0.95, kl=0.1)
    trainer.save(400, math.nan, cosine=math.nan, kl=None, grade="INVALID")
    assert json.loads(call("best", RUN, "--by", by, "--json"))["step"] == step


def test_best_path_is_one_line_for_scripts(
    trainer: Trainer, call: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The weights file and nothing else on stdout; one that is gone is told on stderr."""
    trainer.save(100, 0.2)
    assert main(["best", RUN, "--path", "--state-dir", str(tmp_path)]) == 0
    path = path_of(RUN, "checkpoint-100")
    assert capsys.readouterr() == (
        f"{path}\n",
        f"note: {path} is not there: deleted, or on another machine\n",
    )


def test_best_of_nothing_exits_1(trainer: Trainer, call: Callable[..., str]) -> None:
    """A run that has no measured checkpoint has no best one."""
    trainer.save(100, 0.2, grade="INVALID", kl=None)
    assert call("best", RUN, "--by", "kl", code=1) == (
        f"no checkpoint of {RUN} has a measured kl yet\n"
    )
