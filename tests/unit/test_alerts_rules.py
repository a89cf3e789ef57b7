"""Which status changes raise which alerts."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from nptwatch.alerts.rules import make_rules
from nptwatch.settings import AlertSettings
from nptwatch.store.records import StatusChange

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


def change(old: str | None, new: str) -> StatusChange:
    """A status change of one run."""
    return StatusChange(
        run_id=1,
        run_name="llama/run1",
        run_path="/exp/llama/run1",
        checkpoint_path="/exp/llama/run1/checkpoints/checkpoint-500/npt_weights.pt",
        fingerprint="zip:abc",
        step=500,
        old=old,
        new=new,
        mse=0.0812,
        cosine=0.93,
        previous_mse=None if old is None else 0.41,
        previous_cosine=None if old is None else 0.85,
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
    messages = make_rules(AlertSettings(), ["log", "command"])(change(old, new))

    told = [(message.kind, message.channel) for message in messages]
    assert told == ([] if kind is None else [(kind, "log"), (kind, "command")])


def test_only_the_kinds_asked_for_are_told() -> None:
    """Passing GOOD on the way to EXCELLENT is told as GOOD where only that was asked for."""
    rules = make_rules(AlertSettings(kinds=("reached_good",)), ["log"])

    assert [message.kind for message in rules(change("FAIR", "EXCELLENT"))] == ["reached_good"]
    assert rules(change("GOOD", "EXCELLENT")) == ()


def test_the_payload_says_what_happened_and_what_to_do_next() -> None:
    """The payload is JSON, holds old and new numbers, and one line for people."""
    (message,) = make_rules(AlertSettings(), ["log"])(change("FAIR", "GOOD"))

    payload = json.loads(json.dumps(message.payload))
    text = payload.pop("text")
    assert payload == {
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
        "at": "2026-11-20T12:00:00+00:00",
    }
    assert text == (
        "Run llama/run1 reached GOOD at step 500 (MSE 0.0812, cosine 0.93), "
        "was FAIR (MSE 0.41, cosine 0.85). Next: `nptwatch history llama/run1`; the checkpoint is "
        "/exp/llama/run1/checkpoints/checkpoint-500/npt_weights.pt"
    )


def test_a_first_measurement_without_a_step_reads_well() -> None:
    """What is not known is left out of the sentence."""
    first = change(None, "GOOD")
    rules = make_rules(AlertSettings(), ["log"])
    (message,) = rules(
        StatusChange(**{name: getattr(first, name) for name in first.__slots__} | {"step": None})
    )

    assert message.payload["text"].startswith(
        "Run llama/run1 reached GOOD (MSE 0.0812, cosine 0.93), first measurement. Next: "
    )
