"""The chore that raises the daily digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nptwatch.alerts.digest import KIND, PERIOD, due_day, payload_of, run_entry
from nptwatch.store.news import Event, Message
from nptwatch.store.records import OutboxState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from nptwatch.service.build import Stores
    from nptwatch.store.records import Clock

LOOK_SECONDS = 60.0
"""How soon after its time it is raised."""

MOST_CHANGES = 1000
"""Of a run's status in a day; older ones are looked at in vain."""


class Digest:
    """Raises one event a day, whatever restarts, and however many daemons share the database.

    Args:
        at: local time, "08:00"; "": never.
        channels: who gets it.
        clock: gives local time, aware.
    """

    def __init__(self, stores: Stores, *, at: str, channels: Sequence[str], clock: Clock) -> None:
        self._stores = stores
        self._at = at
        self._channels = tuple(channels)
        self._clock = clock
        self._done: str | None = None

    def turn(self) -> None:
        """Raise the digest if its time has come and nobody has."""
        now = self._clock()
        day = due_day(self._at, now)
        if day is None or day == self._done:
            return
        self._stores.alarms.raise_event(
            Event(
                kind=KIND,
                subject=day,
                payload=self._payload(day, now),
                messages=tuple(Message(channel=channel) for channel in self._channels),
            )
        )
        self._done = day

    def _payload(self, day: str, now: datetime) -> dict[str, Any]:  # Any: free JSON
        history, since = self._stores.history, now - PERIOD
        runs = history.runs()
        entries = [
            run_entry(
                run,
                history.history(run.path, since_at=since),
                history.changes(run.path, limit=MOST_CHANGES),
                since,
            )
            for run in runs
        ]
        counts = self._stores.outbox.counts().items()
        totals = {
            "waiting": sum(run.open_jobs for run in runs),
            "failed": sum(run.failed for run in runs),
            "given_up": sum(n for (_, state), n in counts if state is OutboxState.GIVEN_UP),
        }
        return payload_of(day, entries, totals) | {"at": now.isoformat()}
