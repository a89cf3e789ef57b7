"""Which results raise which events, and what an event says. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.grading import Grade, at_least
from nptwatch.store.news import Event, Message, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.settings import AlertSettings
    from nptwatch.store.news import AlertRules, Standing

CROSSINGS = (("reached_excellent", Grade.EXCELLENT), ("reached_good", Grade.GOOD))
"""Kind and the grade that is reached from below; the highest first."""


def make_rules(settings: AlertSettings, channels: Sequence[str]) -> AlertRules:
    """Build the function that the store calls inside the transaction of a result.

    Args:
        settings: which kinds are wanted.
        channels: names of the channels that every alert goes to.
    """

    def rules(standing: Standing) -> Verdict:
        kind = _highest_kind(standing, settings.kinds)
        if kind is None:
            return Verdict()
        event = Event(
            kind=kind,
            subject=standing.point.fingerprint,
            payload=payload_of(kind, standing),
            messages=tuple(Message(channel=channel) for channel in channels),
        )
        return Verdict(events=(event,))

    return rules


def _highest_kind(standing: Standing, wanted: Sequence[str]) -> str | None:
    if standing.late:
        return None
    for kind, grade in CROSSINGS:
        crossed = at_least(standing.status, grade) and not at_least(standing.old, grade)
        if crossed and kind in wanted:
            return kind
    return None


def payload_of(kind: str, standing: Standing) -> dict[str, Any]:  # Any: free JSON
    """Say what happened: plain values, from which texts are made."""
    point = standing.point
    return {
        "kind": kind,
        "run": standing.run_name,
        "run_path": standing.run_path,
        "step": point.step,
        "path": point.path,
        "fingerprint": point.fingerprint,
        "old": standing.old,
        "new": point.grade,
        "mse": point.mse,
        "cosine": point.cosine,
        "previous_mse": standing.previous_mse,
        "previous_cosine": standing.previous_cosine,
        "findings": [dict(finding) for finding in standing.findings],
        "late": standing.late,
        "at": standing.at.isoformat(),
    }
