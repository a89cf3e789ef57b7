"""What an event says: plain values, from which texts are made. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nptwatch.store.news import Standing


def payload_of(kind: str, standing: Standing) -> dict[str, Any]:  # Any: free JSON
    """Say what a result shows."""
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
