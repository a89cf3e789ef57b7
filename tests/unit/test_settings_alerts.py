"""The table [alerts]: what it takes, and what it refuses and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from nptwatch.errors import ConfigError
from nptwatch.settings import load_settings


def load(tmp_path: Path, text: str) -> object:
    """Load settings from a file with this text."""
    file = tmp_path / "nptwatch.toml"
    file.write_text(text)
    return load_settings(file, env={"HOME": str(tmp_path)})


def test_rules_are_tables(tmp_path: Path) -> None:
    """As the documentation writes them; what is left out stays out."""
    docs = (Path(__file__).parents[2] / "docs/alerts.md").read_text()
    example = docs.partition("## For some runs")[2].split("```")[1].removeprefix("toml\n")
    channels = '[channels.{}]\ntype = "command"\ncommand = ["true"]\n'
    text = example + channels.format("slack") + channels.format("pager")
    alerts = load(tmp_path, text).alerts  # type: ignore[attr-defined]
    first, second = alerts.rules
    assert (first.runs, first.kinds, first.quiet_hours) == ("debug-*", (), None)
    assert (second.quiet_hours, second.min_gap_seconds, second.confirm) == ("", 1800, True)
    assert (alerts.channels, alerts.quiet_hours) == (("slack",), "22:00-07:00")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('quiet_hours = "22-7"', "quiet_hours"),
        ('quiet_hours = "24:00-07:00"', "quiet_hours"),
        ('time_zone = "Europe/Berln"', "no time zone 'Europe/Berln'"),
        ('time_zone = "../../etc/passwd"', "no time zone"),
        ('kinds = ["reached_god"]', "reached_god"),
        ("regressed_needs = 2\nregressed_of = 4", "more than half"),
        ("regressed_needs = 5\nregressed_of = 4", "at most all"),
        ('channels = ["slak"]', "no channel 'slak'"),
        ('rules = [{ runs = "a", channels = ["slak"] }]', "no channel 'slak'"),
        ("rules = [{ kinds = [] }]", "runs"),
        ('rules = [{ runs = "a", kind = [] }]', "kind"),
        ("new_best_by = 1.0", "new_best_by"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, error: str) -> None:
    """By name, before a daemon starts."""
    with pytest.raises(ConfigError) as told:
        load(tmp_path, f"[alerts]\n{text}\n")
    assert error in str(told.value)


@pytest.mark.parametrize(
    "text",
    [
        "min_gap_seconds = 0",
        "stalled_after = 0",
        "silent_after = 0",
        "silent_at_least_seconds = 0",
        "failing_after = 0",
        "new_best_by = 0",
        "history_seconds = 0",
        "kinds = []",
        "channels = []",
        'channels = ["log"]',
        "regressed_needs = 1\nregressed_of = 1",
    ],
)
def test_nothing_is_a_setting_too(tmp_path: Path, text: str) -> None:
    """0 and an empty list are taken as they stand, not as left out."""
    name, _, value = text.splitlines()[0].partition(" = ")
    alerts = load(tmp_path, f"[alerts]\n{text}\n").alerts  # type: ignore[attr-defined]
    wanted = {"0": 0, "[]": (), '["log"]': ("log",), "1": 1}[value]
    assert getattr(alerts, name) == wanted
