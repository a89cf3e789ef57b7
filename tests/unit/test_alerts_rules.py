"""Which results raise which events."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from nptwatch.alerts.rules import make_rules
from nptwatch.settings import AlertSettings
from nptwatch.store.news import Point, Standing

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


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (None, "GOOD", "reached_good"),
        ("POOR", "GOOD", "reached_good"),
        ("INVALID", "GOOD", "reached_good"),
        ("GOOD", "EXCELLENT", "reached_excellent"),
        ("POOR", "EXCELLENT", "reached_excellent"),
        (None, "EXCELLENT", "reached_excellent"),
        ("EXCELLENT", "GOOD", None),
        ("GOOD", "FAIR", None),
        (None, "FAIR", None),
        ("GOOD", "INVALID", None),
    ],
)
def test_the_highest_grade_crossed_from_below_is_told_once_per_channel(
    old: str | None, new: str, kind: str | None
) -> None:
    """One message per channel, of the highest kind; none for falling or staying below GOOD."""
    verdict = make_rules(AlertSettings(), ["log", "command"])(standing(old, new))

    told = [(event.kind, way.channel) for event in verdict.events for way in event.messages]
    assert told == ([] if kind is None else [(kind, "log"), (kind, "command")])


def test_only_the_kinds_asked_for_are_told() -> None:
    """Passing GOOD on the way to EXCELLENT is told as GOOD where only that was asked for."""
    rules = make_rules(AlertSettings(kinds=("reached_good",)), ["log"])

    assert [event.kind for event in rules(standing("FAIR", "EXCELLENT")).events] == ["reached_good"]
    assert rules(standing("GOOD", "EXCELLENT")).events == ()


def test_the_payload_says_what_happened() -> None:
    """The payload is JSON and holds old and new numbers."""
    (event,) = make_rules(AlertSettings(), ["log"])(standing("FAIR", "GOOD")).events

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


def test_a_late_result_raises_nothing() -> None:
    """An older step says nothing of how the run stands now."""
    late = replace(standing("FAIR", "GOOD"), late=True, status="FAIR")

    assert make_rules(AlertSettings(), ["log"])(late).events == ()
