"""A run as it trains, for tests of alerts: real store, real rules, a clock that tests turn."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stocking import FULL, QUICK, measured, whole

from nptwatch.alert_settings import AlertSettings
from nptwatch.alerts.routing import Router
from nptwatch.alerts.rules import make_rules
from nptwatch.alerts.watching import Lookout
from nptwatch.store.alarms import Alarms
from nptwatch.store.catalog import Catalog
from nptwatch.store.outbox import Outbox
from nptwatch.store.queue import Queue

if TYPE_CHECKING:
    from datetime import datetime

    from conftest import FakeClock

    from nptwatch.store.engine import Database
    from nptwatch.store.news import EventRecord

CHANNELS = ("log", "mail", "pager")
MSES = {"EXCELLENT": 0.03, "GOOD": 0.08, "FAIR": 0.3, "POOR": 0.9, "INVALID": None}
ROOT = "/exp"


class Training:
    """Runs that write checkpoints, workers that measure them, and what people are told."""

    def __init__(
        self,
        database: Database,
        clock: FakeClock,
        root: Path | None = None,
        **alerts: Any,  # Any: settings
    ) -> None:
        self.clock = clock
        self.root = str(root or ROOT)
        self.database = database
        self.settings = AlertSettings(**alerts)
        self.catalog = Catalog(database, clock=clock)
        self.queue = Queue(database, clock=clock)
        self.alarms = Alarms(database, clock=clock)
        self.outbox = Outbox(database, clock=clock)
        self.rules = make_rules(self.settings, CHANNELS, FULL)
        self._told: set[str] = set()

    def lookout(self, root: Path | None = None) -> Lookout:
        """Give another daemon's lookout, which begins to wait now."""
        return Lookout(
            self.alarms,
            Router(self.settings, CHANNELS),
            self.settings,
            roots=[str(root or self.root)],
            clock=self.clock,
        )

    def write(
        self, step: int, run: str = "a", *, at: datetime | None = None, **changes: Any
    ) -> None:  # Any: of the file
        """Have the trainer write a checkpoint, a minute after the last."""
        self.clock.advance(60)
        written = (at or self.clock()).timestamp()
        changes.setdefault("mtime_ns", int(written * 1e9))
        if self.root != ROOT:
            (Path(self.root) / run).mkdir(exist_ok=True)
        self.catalog.admit(whole(run, step, root=self.root, **changes), QUICK)

    def measure(self, grade: str, mse: float | None = None, **changes: Any) -> list[str]:
        """Have a worker measure what is next; give the kinds that are raised by it."""
        claim = self.queue.claim("w", lease_seconds=60)
        assert claim is not None
        value = MSES[grade] if mse is None else mse
        result = measured(grade, value, **changes)
        assert self.queue.finish(claim, "w", result, self.rules) is not None
        return self.news()

    def train(self, *grades: str, start: int = 1, run: str = "a") -> list[list[str]]:
        """Write and measure one checkpoint for each grade; give what each raised."""
        told = []
        for step, grade in enumerate(grades, start):
            self.write(step, run)
            told.append(self.measure(grade))
        return told

    def news(self) -> list[str]:
        """Give the kinds of the events since the last question, the first one first."""
        fresh = [each for each in self.events() if each.event_id not in self._told]
        self._told |= {each.event_id for each in fresh}
        return [f"{each.kind} (late)" if each.late else each.kind for each in fresh]

    def events(self) -> list[EventRecord]:
        """Give all events, the first one first."""
        return self.alarms.events(limit=1000)[::-1]

    def last(self) -> EventRecord:
        """Give the last event."""
        return self.events()[-1]

    def sent(self) -> dict[str, list[str]]:
        """Give which kinds go to whom, now or later."""
        ways: dict[str, list[str]] = {channel: [] for channel in CHANNELS}
        for each in self.events():
            for way in each.messages:
                if way.state != "suppressed":
                    ways[way.channel].append(each.kind)
        return ways


def minutes(count: float) -> timedelta:
    """Give so many."""
    return timedelta(minutes=count)
