"""What can become of a claimed job, and which error leads where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.diagnostics.grading import Grade
from nptwatch.diagnostics.identity import DIAGNOSTICS_VERSION
from nptwatch.store.records import JobState, Measured, Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from nptwatch.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A result to be recorded."""

    measured: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreKnown:
    """The same content was measured before in the same way: that result counts."""

    result_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """There is nothing that can be measured: DELETED, SUPERSEDED or UNLOADABLE.

    The job goes on with a file that came since.
    """

    state: JobState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAgain:
    """It was asked for with other settings: a result would be recorded as what it is not."""

    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBack:
    """Not the checkpoint's fault: back to the queue, not counted."""

    event: str  # what the log calls it
    reason: str
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Counted against the checkpoint; quarantined after `max_attempts`."""

    cause: str
    error: str


Outcome = Store | StoreKnown | Close | AskAgain | HandBack | Fault

GONE = Close(state=JobState.DELETED, reason="deleted before it was measured")
OVERWRITTEN = Close(state=JobState.SUPERSEDED, reason="overwritten before it was measured")


def refused(
    error: CheckpointError, *, base_revision: str, duration_seconds: float, measured_at: datetime
) -> Store:
    """Turn a checkpoint that cannot be measured into the result that says so."""
    return Store(
        measured=Measured(
            grade=Grade.UNLOADABLE,
            base_revision=base_revision,
            diagnostics_version=DIAGNOSTICS_VERSION,
            error=str(error),
            duration_seconds=duration_seconds,
            measured_at=measured_at,
            details={"error": str(error), "error_kind": type(error).__name__},
        )
    )


class Backoff:
    """A pause that doubles while something stays broken, shared by all jobs it hits meanwhile.

    Args:
        first_seconds: the first pause.
        most_seconds: the longest.
        seconds: a monotonic clock.
    """

    def __init__(
        self, first_seconds: float, most_seconds: float, seconds: Callable[[], float]
    ) -> None:
        self._first_seconds = first_seconds
        self._most_seconds = most_seconds
        self._seconds = seconds
        self._pause_seconds = 0.0
        self._until = float("-inf")

    def delay(self) -> float:
        """Seconds until it is worth another try."""
        now = self._seconds()
        if now >= self._until:
            self._pause_seconds = min(
                max(self._pause_seconds * 2, self._first_seconds), self._most_seconds
            )
            self._until = now + self._pause_seconds
        return self._until - now

    def left(self) -> float:
        """Seconds that are left of the pause."""
        return max(0.0, self._until - self._seconds())

    def reset(self) -> None:
        """It works again."""
        self._pause_seconds = 0.0
        self._until = float("-inf")
