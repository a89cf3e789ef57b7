"""An example of each kind of alert: templates are tried on them, `alerts test` can send them."""

from __future__ import annotations

from typing import Any

KINDS = (
    "reached_good",
    "reached_excellent",
    "regressed",
    "invalid",
    "new_best",
    "stalled",
    "silent",
    "recovered",
    "diagnosis_failing",
    "chore_failing",
    "digest",
    "test",
)
"""All there are."""

FIELDS = (
    "event_id",
    "kind",
    "run",
    "run_path",
    "step",
    "path",
    "fingerprint",
    "old",
    "new",
    "mse",
    "cosine",
    "previous_mse",
    "previous_cosine",
    "at",
    "findings",
    "forecast",
    "late",
    "detail",
    "of",
    "confirmed",
    "day",
    "runs",
    "quiet_runs",
    "waiting",
    "failed",
    "given_up",
    "host",
    "test",
)
"""What an event may say; a template may name each, and gets None where this one does not."""

_GRADES = {
    "reached_good": ("FAIR", "GOOD"),
    "reached_excellent": ("GOOD", "EXCELLENT"),
    "regressed": ("GOOD", "FAIR"),
    "invalid": ("GOOD", "INVALID"),
    "recovered": ("INVALID", "FAIR"),
}
"""Old and new grade, where a kind has both."""

_OF_NO_RUN = frozenset({"chore_failing", "test"})

_DIGEST: dict[str, Any] = {
    "day": "2026-01-01",
    "runs": [
        {
            "run": "example",
            "status": "GOOD",
            "was": "FAIR",
            "step": 1000,
            "mse": 0.08,
            "cosine": 0.94,
            "best_mse": 0.07,
            "best_step": 900,
            "measured": 10,
        }
    ],
    "quiet_runs": 1,
    "waiting": 2,
    "failed": 0,
    "given_up": 0,
}


def sample(kind: str) -> dict[str, Any]:  # Any: free JSON
    """Make up an event of a kind."""
    event: dict[str, Any] = {
        "event_id": "00000000-0000-0000-0000-000000000000",
        "kind": kind,
        "at": "2026-01-01T12:00:00+00:00",
        "late": False,
    }
    if kind == "digest":
        return event | _DIGEST
    if kind in _OF_NO_RUN:
        return event
    old, new = _GRADES.get(kind, ("GOOD", "GOOD"))
    return event | {
        "run": "example",
        "run_path": "/experiments/example",
        "step": 1000,
        "path": "/experiments/example/checkpoints/checkpoint-1000/npt_weights.pt",
        "fingerprint": "zip:example",
        "old": old,
        "new": new,
        "mse": None if new == "INVALID" else 0.08,
        "cosine": None if new == "INVALID" else 0.94,
        "previous_mse": 0.12,
        "previous_cosine": 0.91,
        "findings": [{"code": "EXAMPLE", "text": "This is an example."}],
        **({"of": "invalid"} if kind == "recovered" else {}),
        "forecast": "EXCELLENT at about step 2000 (1800 to 2400)",
    }
