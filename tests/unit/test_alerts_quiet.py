"""Quiet hours: over midnight, by local time, through changes of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from nptwatch.alerts.quiet import Quiet

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    """Give a time of Berlin."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


@pytest.mark.parametrize(
    ("hours", "now", "over"),
    [
        ("22:00-07:00", "2026-11-20T21:59:59", None),
        ("22:00-07:00", "2026-11-20T22:00", "2026-11-21T07:00"),
        ("22:00-07:00", "2026-11-21T00:00", "2026-11-21T07:00"),
        ("22:00-07:00", "2026-11-21T06:59:59", "2026-11-21T07:00"),
        ("22:00-07:00", "2026-11-21T07:00", None),
        ("12:00-13:30", "2026-11-20T12:30", "2026-11-20T13:30"),
        ("12:00-13:30", "2026-11-20T13:30", None),
        ("00:00-00:00", "2026-11-20T00:00", None),
        # the clocks go forward and back in that night: 07:00 is 07:00 all the same
        ("22:00-07:00", "2026-03-28T23:00", "2026-03-29T07:00"),
        ("22:00-07:00", "2026-10-24T23:00", "2026-10-25T07:00"),
        # an end that the clocks skip
        ("22:00-02:30", "2026-03-28T23:00", "2026-03-29T02:30"),
    ],
)
def test_quiet_hours_end_by_the_clock_on_the_wall(hours: str, now: str, over: str | None) -> None:
    """Within them their end is given, in UTC; outside them nothing."""
    quiet = Quiet.of(hours, BERLIN)
    assert quiet is not None
    assert quiet.over_at(at(now)) == (None if over is None else at(over))


def test_without_a_zone_the_machines_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the TZ of the daemon's environment says."""
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        quiet = Quiet.of("22:00-07:00", None)
        assert quiet is not None
        now = datetime(2026, 7, 1, 4, 0, tzinfo=UTC)  # midnight there
        assert quiet.over_at(now) == datetime(2026, 7, 1, 11, 0, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_no_quiet_hours() -> None:
    """An empty setting is none."""
    assert Quiet.of("", BERLIN) is None
