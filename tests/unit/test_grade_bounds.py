"""Bounds of one's own: what they change, and what they leave alone."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest

from nptwatch.diagnostics.forecast import forecast
from nptwatch.diagnostics.grading import GUIDE, Bounds, Grade, grade_of
from nptwatch.diagnostics.identity import bounds_of, settings_hash
from nptwatch.diagnostics.text_blocks import Style, accuracy_lines
from nptwatch.errors import ConfigError
from nptwatch.settings import Settings, load_settings

if TYPE_CHECKING:
    from pathlib import Path


def loaded(tmp_path: Path, text: str) -> Settings:
    """Load settings that have these bounds."""
    file = tmp_path / "nptwatch.toml"
    file.write_text(f"[grades]\n{text}\n")
    return load_settings(file, env={"HOME": str(tmp_path)})


def test_the_guides_bounds_are_the_default() -> None:
    """And their settings hash is the one that histories have."""
    assert bounds_of(Settings()) == GUIDE
    assert settings_hash(Settings(), "quick") == "81002de3b6cf4896"


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_other_bounds_are_other_results(tmp_path: Path, profile: str) -> None:
    """A grade is stored with its result; the same bounds, written out, are no others."""
    plain = settings_hash(Settings(), profile)
    assert settings_hash(loaded(tmp_path, "good_mse = 0.2"), profile) != plain
    assert settings_hash(loaded(tmp_path, "good_mse = 0.1"), profile) == plain


@pytest.mark.parametrize(
    ("bounds", "mse", "cosine", "grade"),
    [
        (Bounds(good_mse=0.2), 0.15, 0.96, "GOOD"),
        (Bounds(excellent_mse=0.0), 0.0, 1.0, "GOOD"),
        (Bounds(excellent_mse=0.0, good_mse=0.0), 0.0, 1.0, "FAIR"),
        (Bounds(excellent_mse=0.0, good_mse=0.0, fair_mse=0.0), 0.0, 1.0, "POOR"),
        (Bounds(excellent_cosine=0.0, good_cosine=0.0, fair_cosine=0.0), 0.01, 0.1, "EXCELLENT"),
        (Bounds(excellent_cosine=0.0, good_cosine=0.0, fair_cosine=0.0), 0.01, 0.0, "FAIR"),
        (Bounds(excellent_cosine=1.0), 0.01, 1.0, "GOOD"),
        (Bounds(fair_mse=9.0), float("nan"), 1.0, "INVALID"),
    ],
)
def test_zero_is_a_bound(bounds: Bounds, mse: float, cosine: float, grade: str) -> None:
    """Taken as it stands, not as left out; NaN is no grade by any bounds."""
    assert grade_of(mse, cosine, bounds) == Grade(grade)


def test_a_bound_of_zero_is_set_as_any_other(tmp_path: Path) -> None:
    """By file and by environment."""
    assert bounds_of(loaded(tmp_path, "excellent_mse = 0")).excellent_mse == 0
    env = {"HOME": str(tmp_path), "NPTWATCH_GRADES__EXCELLENT_MSE": "0"}
    assert bounds_of(load_settings(None, env=env)).excellent_mse == 0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("good_mse = 0.01", "excellent_mse = 0.05 would be easier to reach"),
        ("fair_mse = 0.09", "good_mse = 0.1 would be easier to reach"),
        ("excellent_cosine = 0.85", "excellent_cosine = 0.85 would be easier to reach"),
        ("fair_cosine = 0.95", "good_cosine = 0.9 would be easier to reach"),
        ("good_mse = -1", "good_mse"),
        ("good_cosine = 1.5", "good_cosine"),
        ("good_mse = nan", "good_mse"),
    ],
)
def test_bounds_that_cross_are_refused(tmp_path: Path, text: str, error: str) -> None:
    """A higher grade is never easier to get than a lower one."""
    with pytest.raises(ConfigError) as told:
        loaded(tmp_path, text)
    assert error in str(told.value)


def test_the_text_is_by_the_same_bounds() -> None:
    """What a person reads of loss and direction agrees with the grade of the report."""
    accuracy = {"avg_mse": 0.15, "avg_cosine_similarity": 0.85, "kl": 0.1}
    accuracy |= {"top1_agreement": 0.5, "relative_mse": 0.1}
    progress = {"progress_estimate": 0.7, "remaining_work": "some"}
    report = {"accuracy": accuracy, "progress": progress, "grade": "GOOD"}
    wide = asdict(Bounds(good_mse=0.2, good_cosine=0.8))

    def said(**more: object) -> list[str]:
        lines = accuracy_lines(report | more, Style(emoji=False))
        return [line.split()[-1] for line in lines if "Status" in line]

    assert said() == ["FAIR", "MODERATE"]
    assert said(grade_bounds=wide) == ["GOOD", "GOOD"]


FALLING = [(step, 2.0 * 0.7 ** (step / 100)) for step in range(0, 1000, 100)]


def test_the_forecast_is_of_the_bounds_in_force() -> None:
    """A wider GOOD is due earlier; what nothing can be is not forecast."""
    by_guide = forecast(FALLING).targets["GOOD"]
    wider = forecast(FALLING, bounds=Bounds(good_mse=0.5)).targets["GOOD"]
    assert wider.reached_at == 400
    assert by_guide.reached_at == 900
    never = Bounds(excellent_mse=0.0, excellent_cosine=1.0)
    for each in (never, replace(never, excellent_cosine=0.9), Bounds(excellent_cosine=1.0)):
        due = forecast(FALLING, bounds=each).targets["EXCELLENT"]
        assert (due.step, due.why) == (None, "by its bounds nothing can be")
