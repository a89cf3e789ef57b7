"""How this daemon's chores go: kept in memory, written down now and then, told when they fail."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nptwatch.errors import NptwatchError
from nptwatch.service.schedule import Chore
from nptwatch.store.chore_records import ChoreRecord
from nptwatch.store.events import event_id
from nptwatch.store.news import RECOVERED, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from nptwatch.alerts.routing import Router
    from nptwatch.service.schedule import Turn
    from nptwatch.store.alarms import Alarms
    from nptwatch.store.chores import Chores

NOTE_SECONDS = 15.0
"""How old what others see may be."""

CHORE_FAILING = "chore_failing"

FAILS_AFTER_TURNS, FAILS_AFTER = 3, timedelta(minutes=1)
"""A chore keeps failing when so many turns failed in a row, over so long."""

_LONGEST_ERROR = 300


def daemon_name(state_dir: Path) -> str:
    """Say which daemon this is: there is one for each state folder of a host."""
    return f"{socket.gethostname()}:{state_dir}"


class ChoreBook:
    """Takes the end of each turn from the scheduler's threads.

    What failed before a restart goes on failing: people are told once.

    Args:
        daemon: as `daemon_name` gives it.
        names: gives the names of all its chores.
    """

    def __init__(
        self,
        store: Chores,
        alarms: Alarms,
        router: Router,
        daemon: str,
        names: Callable[[], Collection[str]],
    ) -> None:
        self._store = store
        self._alarms = alarms
        self._router = router
        self._daemon = daemon
        self._names = names
        self._has_begun = False
        self._lock = threading.Lock()
        self._records: dict[str, ChoreRecord] = {}
        self._changed: set[str] = set()
        self._told: dict[str, Event] = {}

    def chores(self) -> list[Chore]:
        """Give what is to be done every so often."""
        return [Chore(name="note_chores", do=self.write_down, every_seconds=NOTE_SECONDS)]

    def note(self, turn: Turn) -> None:
        """Take the end of a turn; called from any thread, must not block."""
        with self._lock:
            before = self._records.get(turn.name)
            record = ChoreRecord(
                daemon=self._daemon,
                name=turn.name,
                started_at=turn.started_at,
                duration_seconds=turn.seconds,
                failures=0,
                failing_since=None,
                failed_at=before.failed_at if before else None,
                error=before.error if before else None,
            )
            if turn.error is not None:
                record = replace(
                    record,
                    failures=1 + (before.failures if before else 0),
                    failing_since=(before.failing_since if before else None) or turn.started_at,
                    failed_at=turn.started_at,
                    error=_words(turn.error),
                )
            self._records[turn.name] = record
            self._changed.add(turn.name)

    def records(self) -> list[ChoreRecord]:
        """Give how all went last, by name."""
        with self._lock:
            return sorted(self._records.values(), key=lambda record: record.name)

    def write_down(self) -> None:
        """Write what is new, and raise what people must know.

        Raises:
            DatabaseError: it cannot be used; nothing is lost.
        """
        if not self._has_begun:
            self._take_up()
            self._has_begun = True
        with self._lock:
            changed, self._changed = self._changed, set()
            records = [self._records[name] for name in sorted(changed)]
        try:
            for record in records:  # before it is written: a daemon killed in between tells again
                if not record.failures and record.name in self._told:
                    self._tell_recovered(record)
            self._store.note(records)
            for record in records:
                if _keeps_failing(record) and record.name not in self._told:
                    self._tell_failing(record)
        except BaseException:
            with self._lock:
                self._changed |= changed
            raise

    def _take_up(self) -> None:
        """Go on where an earlier daemon of this folder ended, once the database can be used."""
        self._store.forget(self._daemon, self._names())
        for record in self._store.of(self._daemon):
            if _keeps_failing(record):
                self._tell_failing(record)  # again, if it was not killed before it did
            with self._lock:
                now = self._records.setdefault(record.name, record)
                if now.failures and record.failures:
                    since, failures = record.failing_since, now.failures + record.failures
                    self._records[now.name] = replace(now, failing_since=since, failures=failures)

    def _tell_failing(self, record: ChoreRecord) -> None:
        event = self._failing(record)
        self._alarms.raise_event(event)
        self._told[record.name] = event

    def _tell_recovered(self, record: ChoreRecord) -> None:
        self._alarms.raise_event(self._recovered(record, self._told[record.name]))
        del self._told[record.name]

    def _failing(self, record: ChoreRecord) -> Event:
        since = record.failing_since or record.started_at
        return Event(
            kind=CHORE_FAILING,
            subject=f"{self._daemon} {record.name} {since.isoformat()}",
            payload=self._payload(
                CHORE_FAILING,
                record,
                f"{record.name} failed {record.failures} times in a row: {record.error}",
            ),
            messages=self._router.of(None).messages(CHORE_FAILING, record.started_at),
        )

    def _recovered(self, record: ChoreRecord, told: Event) -> Event:
        event = Event(
            kind=RECOVERED,
            subject=event_id("", CHORE_FAILING, told.subject),
            payload=self._payload(RECOVERED, record, f"{record.name} works again")
            | {"of": CHORE_FAILING},
            messages=self._router.of(None).messages(RECOVERED, record.started_at),
        )
        return event if told.messages else event.untold()

    def _payload(
        self, kind: str, record: ChoreRecord, detail: str
    ) -> dict[str, Any]:  # Any: free JSON
        return {
            "kind": kind,
            "host": self._daemon.partition(":")[0],
            "detail": detail,
            "at": record.started_at.isoformat(),
        }


def _keeps_failing(record: ChoreRecord) -> bool:
    return (
        record.failures >= FAILS_AFTER_TURNS
        and record.failing_since is not None
        and record.started_at - record.failing_since >= FAILS_AFTER
    )


def _words(error: Exception) -> str:
    """Give an error in one line; what is not ours may hold anything, and stays in the log."""
    if not isinstance(error, NptwatchError):
        return f"{type(error).__name__}: see the daemon's log"
    return " ".join(str(error).split())[:_LONGEST_ERROR]
