"""What an event of a result says, and to whom it goes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from stocking import FULL

from nptwatch.alert_settings import AlertSettings
from nptwatch.alerts.rules import make_rules
from nptwatch.store.news import Event, Gap, Message, Point, Standing

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


def standing(old: str | None, new: str) -> Standing:
    """A run after a result of its newest step."""
    point = Point(
        path="/exp/llama/run1/checkpoints/checkpoint-500/npt_weights.pt",
        fingerprint="zip:abc",
        step=500,
        grade=new,
        mse=0.0812,
        cosine=0.93,
    )
    return Standing(
        run_id=1,
        run_name="llama/run1",
        run_path="/exp/llama/run1",
        point=point,
        profile="quick",
        overall_status=None,
        findings=({"code": "MAGNITUDE", "text": "right direction, wrong size"},),
        written_at=AT,
        known_at=AT,
        old=old,
        previous_mse=None if old is None else 0.41,
        previous_cosine=None if old is None else 0.85,
        status=new,
        late=False,
        caught_up=True,
        recent=(new,) if old is None else (new, old),
        best=point,
        newer_than_best=0,
        told=(),
        at=AT,
    )


def told(seen: Standing, *channels: str, **settings: Any) -> tuple[Event, ...]:  # Any: settings
    """Give what the rules raise."""
    rules = make_rules(AlertSettings(**settings), ("log", *channels), FULL)
    return rules(seen).events


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (None, "GOOD", "reached_good"),
        ("POOR", "GOOD", "reached_good"),
        ("INVALID", "GOOD", "reached_good"),
        ("GOOD", "EXCELLENT", "reached_excellent"),
        ("POOR", "EXCELLENT", "reached_excellent"),
        (None, "EXCELLENT", "reached_excellent"),
        ("GOOD", "FAIR", None),
        (None, "FAIR", None),
        ("GOOD", "INVALID", "invalid"),
        (None, "INVALID", "invalid"),
    ],
)
def test_the_highest_grade_crossed_from_below_is_told_once_per_channel(
    old: str | None, new: str, kind: str | None
) -> None:
    """One message per channel, of the highest kind."""
    events = told(standing(old, new), "command")
    ways = [(event.kind, way.channel) for event in events for way in event.messages]
    assert ways == ([] if kind is None else [(kind, "log"), (kind, "command")])


def test_the_payload_says_what_happened() -> None:
    """The payload is JSON and holds old and new numbers."""
    (event,) = told(standing("FAIR", "GOOD"))
    assert event.subject == "zip:abc"
    assert json.loads(json.dumps(event.payload)) == {
        "kind": "reached_good",
        "run": "llama/run1",
        "run_path": "/exp/llama/run1",
        "step": 500,
        "path": "/exp/llama/run1/checkpoints/checkpoint-500/npt_weights.pt",
        "fingerprint": "zip:abc",
        "old": "FAIR",
        "new": "GOOD",
        "mse": 0.0812,
        "cosine": 0.93,
        "previous_mse": 0.41,
        "previous_cosine": 0.85,
        "findings": [{"code": "MAGNITUDE", "text": "right direction, wrong size"}],
        "late": False,
        "at": "2026-11-20T12:00:00+00:00",
    }


@pytest.mark.parametrize(("hours_before", "kinds"), [(23.9, ["reached_good"]), (24.1, [])])
def test_history_begins_a_day_before_the_run_was_seen(
    hours_before: float, kinds: list[str]
) -> None:
    """What was written earlier raises nothing; what was written later is news."""
    old = replace(standing(None, "GOOD"), written_at=AT - timedelta(hours=hours_before))
    assert [event.kind for event in told(old)] == kinds
    assert told(old, history_seconds=0.0) == ()


RULES = (
    {"runs": "debug-*", "kinds": []},
    {"runs": "llama/**", "channels": ["mail"], "min_gap_seconds": 60, "quiet_hours": "10:00-14:00"},
    {"runs": "**", "channels": []},
)


@pytest.mark.parametrize(
    ("run", "ways"),
    [
        ("debug-1", ()),
        ("other/run", (Message(channel="log"),)),
        (
            "llama/run1",
            (
                Message(channel="log"),
                Message(
                    channel="mail",
                    not_before=datetime(2026, 11, 20, 14, tzinfo=UTC),
                    gap=Gap(
                        seconds=60,
                        kinds=frozenset({"reached_good", "reached_excellent", "invalid"}),
                    ),
                ),
            ),
        ),
    ],
)
def test_the_first_rule_that_matches_decides(run: str, ways: tuple[Message, ...]) -> None:
    """What it leaves out is as in [alerts]; the log has all that is wanted, and at once."""
    seen = replace(standing("FAIR", "GOOD"), run_name=run)
    (event,) = told(seen, "mail", "pager", rules=RULES, time_zone="UTC")
    assert event.messages == ways
