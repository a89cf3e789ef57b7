"""The daily digest: when it is due, and what it says of the last day. Pure."""

from __future__ import annotations

from datetime import time, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from nptwatch.store.records import ChangeRow, HistoryRow, RunRow

KIND = "digest"
PERIOD = timedelta(days=1)


def due_day(at: str, now: datetime) -> str | None:
    """Name the day whose digest is due, "2026-11-23"; None while it is too early, or never.

    Args:
        at: local time, "08:00"; "": never.
        now: local time.
    """
    if not at or now.time() < time.fromisoformat(at):
        return None
    return now.date().isoformat()


def run_entry(
    run: RunRow, rows: Sequence[HistoryRow], changes: Sequence[ChangeRow], since: datetime
) -> dict[str, Any]:  # Any: free JSON
    """Say how a run went.

    Args:
        run: as it is now.
        rows: its checkpoints.
        changes: of its status, the last one first.
        since: when the day began.
    """
    lately = [change for change in changes if change.at >= since]
    return {
        "run": run.run,
        "status": run.status,
        "was": lately[-1].old if lately else run.status,
        "step": run.step,
        "mse": run.mse,
        "cosine": run.cosine,
        "best_mse": run.best_mse,
        "best_step": run.best_step,
        "measured": sum(row.measured_at is not None and row.measured_at >= since for row in rows),
    }


def payload_of(
    day: str, runs: Sequence[Mapping[str, Any]], totals: Mapping[str, int]
) -> dict[str, Any]:  # Any: free JSON
    """Make the event of a day.

    Args:
        day: as `due_day` names it.
        runs: what `run_entry` says of each.
        totals: waiting, failed, given_up: how many checkpoints and messages, now.
    """
    active = [dict(entry) for entry in runs if entry["measured"]]
    return {
        "kind": KIND,
        "day": day,
        "runs": active,
        "quiet_runs": len(runs) - len(active),
        **totals,
    }
