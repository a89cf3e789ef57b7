"""How a daemon's chores go: a frozen record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

SHOWN_FOR = timedelta(days=1)
"""A chore that was not done for so long belongs to a daemon that is gone; the rarest is done every
six hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoreRecord:
    """How a chore went last.

    Attributes:
        daemon: whose it is: its host and state folder.
        failures: in a row, up to its last turn.
        failing_since: when the first of these was.
        failed_at, error: its last failure, be it long ago.
    """

    daemon: str
    name: str
    started_at: datetime
    duration_seconds: float
    failures: int
    failing_since: datetime | None
    failed_at: datetime | None
    error: str | None


def lately(now: datetime) -> datetime:
    """Give the time since which a chore of a daemon that is there was done."""
    return (now - SHOWN_FOR).astimezone(UTC)
