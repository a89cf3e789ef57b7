"""Records for store tests: files as a watcher sees them, results as a worker makes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nptwatch.store.news import Event, Message, Standing, Verdict
from nptwatch.store.records import (
    Claim,
    Demand,
    Facts,
    Measured,
    Request,
    SeenFile,
    WholeFile,
)

if TYPE_CHECKING:
    from nptwatch.store.queue import Queue

ROOT = "/exp"
QUICK = Request(profile="quick", settings_hash="s1")
FULL = Request(profile="full", settings_hash="f1")


def seen(run: str = "a", folder: str = "checkpoint-100", **changes: Any) -> SeenFile:  # Any: fields
    """Give a file of a run, as seen."""
    root = changes.get("root", ROOT)
    about: dict[str, Any] = {
        "run_path": f"{root}/{run}",
        "run_name": run,
        "root": root,
        "path": path_of(run, folder, root),
        "signature": "1:1:1",
        "mtime_ns": 1_000_000,
        "size_bytes": 1,
        **changes,
    }
    return SeenFile(**about)


def path_of(run: str, folder: str, root: str = ROOT) -> str:
    """Give where a run's checkpoint lies."""
    return f"{root}/{run}/checkpoints/{folder}/npt_weights.pt"


def whole(
    run: str = "a",
    step: int | None = 100,
    content: str | None = None,
    *,
    folder: str | None = None,
    **changes: Any,
) -> WholeFile:
    """Give a whole file; content and time follow from the step unless given."""
    changes.setdefault("mtime_ns", 1_000 + (step or 0))
    return WholeFile(
        file=seen(run, folder or f"checkpoint-{step}", **changes),
        fingerprint=content or f"content-{run}-{step}",
        step=step,
        base_model=None,
    )


def measured(grade: str = "GOOD", mse: float | None = 0.07, **changes: Any) -> Measured:
    """Give a result."""
    about: dict[str, Any] = {
        "grade": grade,
        "base_revision": "base-1",
        "diagnostics_version": 1,
        "mse": mse,
        "cosine": 0.97,
        "duration_seconds": 1.5,
        "measured_at": datetime(2026, 11, 20, 12, 0, tzinfo=UTC),
        "details": {"grade": grade},
        **changes,
    }
    return Measured(**about)


def no_alerts(_standing: Standing) -> Verdict:
    """Raise nothing."""
    return Verdict()


def event(kind: str, subject: str = "s", *channels: str, **payload: Any) -> Event:  # Any: free JSON
    """Give an event with a message to each channel."""
    return Event(
        kind=kind,
        subject=subject,
        payload=payload,
        messages=tuple(Message(channel=channel) for channel in channels),
    )


def alert_good(standing: Standing) -> Verdict:
    """Raise one message for each change to GOOD."""
    if standing.late or standing.status != "GOOD" or standing.old == "GOOD":
        return Verdict()
    point = standing.point
    return Verdict(events=(event("reached_good", point.fingerprint, "log", step=point.step),))


def ask_full(_facts: Facts) -> Demand:
    """Have a full diagnostic follow every quick result."""
    return Demand(request=FULL, because="the test says so")


def claimed(queue: Queue, worker: str = "w") -> Claim:
    """Claim the next job, which must be there."""
    claim = queue.claim(worker, lease_seconds=60)
    assert claim is not None
    return claim
