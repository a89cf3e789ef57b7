"""How a history looks at 80 and 160 columns, and what `--since` and a restart leave of it."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nptwatch.cli.curve import forecast_lines, mse_line
from nptwatch.cli.history_table import print_history
from nptwatch.cli.screen import Screen
from nptwatch.cli.since import Since, parse_since
from nptwatch.diagnostics.forecast import Due
from nptwatch.errors import ConfigError
from nptwatch.service.forecasting import due_text, forecast_of, living
from nptwatch.store.records import HistoryRow

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
FOLDER = "/home/someone/experiments/llama-1b/dual-modulation-rank-64/checkpoints"


def row(step: int | None, mse: float | None = 0.5, **changes: Any) -> HistoryRow:
    """Give a measured checkpoint, seen as many seconds ago as its step says less 10000."""
    about: dict[str, Any] = {field.name: None for field in fields(HistoryRow)}
    about |= {
        "run": "dual",
        "run_path": FOLDER,
        "step": step,
        "path": f"{FOLDER}/checkpoint-{step}/npt_weights.pt",
        "also": (),
        "fingerprint": f"content-{step}",
        "state": "done",
        "grade": "FAIR",
        "mse": mse,
        "cosine": 0.95,
        "attempts": 1,
        "first_seen_at": NOW - timedelta(seconds=10_000 - (step or 0)),
        "measured_at": NOW - timedelta(seconds=10_000 - (step or 0)),
    }
    return HistoryRow(**about | changes)


def falling(count: int) -> list[HistoryRow]:
    """Give a run whose MSE falls."""
    return [row(100 * step, 2 * 0.8**step) for step in range(1, count)]


def screen(width: int | None, encoding: str = "utf-8") -> Screen:
    """Give a screen whose text a test can read."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Screen(out=out, width=width, colours=False, now=NOW)


def shown(rows: list[HistoryRow], width: int | None, encoding: str = "utf-8") -> list[str]:
    """Give the lines of a history."""
    to = screen(width, encoding)
    print_history(rows, to)
    for line in forecast_lines(forecast_of(rows), to):
        to.say(line)
    to.out.seek(0)
    return to.out.read().splitlines()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("count", [4, 30, 300])
@pytest.mark.parametrize("width", [80, 160])
def test_nothing_wraps(width: int, count: int, encoding: str) -> None:
    """Table, curve and forecast stay within the terminal, also where it has no blocks."""
    rows = [replace(each, also=(f"{FOLDER}/best-so-far/x.pt",)) for each in falling(count)]
    lines = shown(rows, width, encoding)
    assert max(map(len, lines)) <= width
    assert len(lines) >= count + 2


def test_the_curve_uses_the_width() -> None:
    """As many characters as fit; what they span is said beside them."""
    line = mse_line(falling(300), screen(80, "ascii"))
    assert line is not None
    assert len(line) == 80
    assert line.startswith("MSE  ##")
    assert line.endswith("__  1.6 to 2.113e-29, log scale")


def test_one_point_is_no_curve() -> None:
    """A line has two ends."""
    assert mse_line(falling(2), screen(80)) is None
    assert mse_line(falling(3), screen(80)) is not None


def test_a_long_forecast_is_broken_between_words() -> None:
    """On a terminal only; a pipe gets it whole."""
    held = "held back by the cosine, which must be above 0.95"
    due = Due(step=1234567, low=1200000, high=1300000, reached_at=900000, why=held)
    assert due_text(due) == (
        "reached at step 900000, lost again; about step 1230000 (80 %: 1200000 to 1300000); " + held
    )
    rows = [replace(each, cosine=1 - (each.mse or 0) * 2) for each in falling(12)]
    piped, narrow = shown(rows, None)[-2:], shown(rows, 80)[-4:]
    assert " ".join(" ".join(narrow).split()) == " ".join(" ".join(piped).split())
    assert max(map(len, narrow)) <= 80 < max(map(len, piped))


@pytest.mark.parametrize(
    ("due", "text"),
    [
        (Due(reached_at=700), "reached at step 700"),
        (Due(why="MSE rises lately"), "no forecast: MSE rises lately"),
        (Due(reached_at=7, why="x"), "reached at step 7, lost again; no forecast: x"),
        (Due(step=1347, low=1275), "about step 1350 (80 %: from 1280, maybe never)"),
        (Due(step=47, low=41, high=99), "about step 47 (80 %: 41 to 99)"),
    ],
)
def test_due_in_words(due: Due, text: str) -> None:
    """Three figures; an open end is said to be one."""
    assert due_text(due) == text


def test_a_checkpoint_not_measured_yet_ends_the_old_branch_too() -> None:
    """The first checkpoint of the new branch counts as soon as it is seen."""
    again = row(300, None, fingerprint="new", state="queued", first_seen_at=NOW)
    alive = living([*falling(8), again])
    assert [(each.step, each.mse) for each in alive][2:] == [(300, None)]
    assert len(alive) == 3


def test_a_copy_in_another_folder_is_no_restart() -> None:
    """best/ may hold another file of the same step, found later."""
    copy = row(300, 1.0, path=f"{FOLDER}/best/npt_weights.pt", fingerprint="x", first_seen_at=NOW)
    alive = living([*falling(8), copy])
    assert [each.step for each in alive] == [100, 200, 300, 400, 500, 600, 700]


@pytest.mark.parametrize(
    ("text", "since"),
    [
        (None, Since()),
        ("500", Since(step=500)),
        ("90min", Since(at=NOW - timedelta(minutes=90))),
        ("1.5h", Since(at=NOW - timedelta(hours=1.5))),
        ("2d", Since(at=NOW - timedelta(days=2))),
        ("2026-11-22", Since(at=datetime(2026, 11, 22, tzinfo=UTC))),
        ("2026-11-22T10:30Z", Since(at=datetime(2026, 11, 22, 10, 30, tzinfo=UTC))),
        ("2026-11-22T11:30+01:00", Since(at=datetime(2026, 11, 22, 10, 30, tzinfo=UTC))),
    ],
)
def test_since_is_a_step_an_age_or_a_time(text: str | None, since: Since) -> None:
    """Told apart by how they are written; a time without offset is UTC."""
    assert parse_since(text, now=NOW) == since


@pytest.mark.parametrize("text", ["", "soon", "-5", "3 hours", "2026-13-01", "9" * 30 + "d"])
def test_since_refuses_the_rest(text: str) -> None:
    """With what it takes."""
    with pytest.raises(ConfigError, match=r"a step \(500\), an age"):
        parse_since(text, now=NOW)


FULL = {"overall_status": "READY", "avg_score": 0.92, "full_state": "done"}


@pytest.mark.parametrize(
    ("about", "text"),
    [
        (FULL, "READY 0.92"),
        (FULL | {"overall_status": "PARTIALLY_READY", "avg_score": 0.7}, "PARTIAL 0.70"),
        ({"full_state": "leased"}, "leased"),
        ({}, "-"),
    ],
)
def test_full_is_a_column_where_some_row_has_one(about: dict[str, Any], text: str) -> None:
    """Verdict and score, else how far the job is; a history of quick ones has no such column."""
    rows = falling(6)
    assert "FULL" not in shown(rows, 80)[0]
    lines = shown([*rows[:4], replace(rows[4], **about), replace(rows[0], step=600, **FULL)], 80)
    assert max(map(len, lines)) <= 80
    assert "FULL" in lines[0]
    assert lines[5].endswith(f"  FAIR   {text}")
    assert any(line.startswith("MSE, COSINE and GRADE: of the quick prompts.") for line in lines)


def test_the_widest_words_fit_eighty_columns() -> None:
    """FULL takes the room of MEASURED there; both are shown where they fit, and in a pipe."""
    partial = FULL | {"overall_status": "PARTIALLY_READY"}
    rows = [replace(row(123456, 0.04), state="superseded", grade="EXCELLENT", **partial)] * 2
    lines = shown(rows, 80)
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[-1] == "FULL"
    assert all(shown(rows, width)[0].split()[-1] == "MEASURED" for width in (90, 160, None))
    assert max(map(len, shown(rows, 90))) <= 90
