"""The daily digest: one a day, at its time, with what the last day brought."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from stocking import QUICK, claimed, measured, no_alerts, whole

from nptwatch.alerts.channels import chosen_channels
from nptwatch.alerts.digest import due_day
from nptwatch.alerts.texts import built_in
from nptwatch.channel_settings import CommandChannelSettings
from nptwatch.errors import ConfigError
from nptwatch.service.build import Stores, open_stores
from nptwatch.service.digesting import Digest
from nptwatch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nptwatch.store.engine import Database

BERLIN = timezone(timedelta(hours=1))


class Calendar:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        """Give the time now."""
        return self.now


@pytest.fixture
def stores(database: Database, tmp_path: Path) -> Iterator[Stores]:
    """Give the stores of a fresh database."""
    url = database.engine.url.render_as_string(hide_password=False)
    opened = open_stores(Settings.model_validate({"state_dir": tmp_path, "database": {"url": url}}))
    yield opened
    opened.close()


def measure(stores: Stores, run: str, step: int, grade: str, mse: float, at: datetime) -> None:
    """Have a checkpoint measured."""
    stores.catalog.admit(whole(run, step), QUICK)
    result = measured(grade, mse, measured_at=at)
    assert stores.queue.finish(claimed(stores.queue), "w", result, no_alerts) is not None


def digests(stores: Stores) -> list[dict[str, Any]]:
    """Give the digests that were raised, the last one first."""
    return [dict(event.payload) for event in stores.alarms.events(kinds=["digest"])]


@pytest.mark.parametrize(
    ("at", "clock", "day"),
    [
        ("", "23:59", None),
        ("08:00", "07:59", None),
        ("08:00", "08:00", "2026-11-23"),
        ("08:00", "23:59", "2026-11-23"),
        ("00:00", "00:00", "2026-11-23"),
    ],
)
def test_a_digest_is_due_from_its_time_to_midnight(at: str, clock: str, day: str | None) -> None:
    """By local time; off by default."""
    hour, minute = map(int, clock.split(":"))
    assert due_day(at, datetime(2026, 11, 23, hour, minute, tzinfo=BERLIN)) == day


@pytest.mark.both_engines
def test_a_digest_sums_up_the_last_day(stores: Stores) -> None:
    """Runs that were measured, with what they were before; what waits; the others are counted."""
    calendar = Calendar()
    old, new = calendar.now - timedelta(days=3), calendar.now
    measure(stores, "quiet", 100, "POOR", 0.9, old)
    measure(stores, "busy", 100, "GOOD", 0.08, new)
    measure(stores, "busy", 200, "FAIR", 0.2, new)
    stores.catalog.admit(whole("busy", 300), QUICK)
    Digest(stores, at="00:00", channels=["log", "mail"], clock=calendar).turn()

    (digest,) = digests(stores)
    assert digest["runs"] == [
        {
            "run": "busy",
            "status": "FAIR",
            "was": None,
            "step": 200,
            "mse": 0.2,
            "cosine": 0.97,
            "best_mse": 0.08,
            "best_step": 100,
            "measured": 2,
        }
    ]
    assert (digest["quiet_runs"], digest["waiting"], digest["failed"]) == (1, 1, 0)
    assert "- busy: FAIR (was not measured) at step 200" in built_in(digest).body
    assert {channel for channel, _ in stores.outbox.counts()} == {"log", "mail"}


@pytest.mark.both_engines
def test_one_digest_a_day_whatever_restarts(stores: Stores) -> None:
    """And whoever else looks after the same database; the next one comes the next day."""
    calendar = Calendar()
    calendar.now = datetime(2026, 11, 23, 7, 0, tzinfo=BERLIN)
    first, second = (Digest(stores, at="08:00", channels=["log"], clock=calendar) for _ in range(2))
    first.turn()
    assert digests(stores) == []
    calendar.now += timedelta(hours=2)
    for daemon in (first, second, Digest(stores, at="08:00", channels=["log"], clock=calendar)):
        daemon.turn()
        daemon.turn()
    assert [digest["day"] for digest in digests(stores)] == ["2026-11-23"]
    calendar.now += timedelta(days=1)
    first.turn()
    assert [digest["day"] for digest in digests(stores)] == ["2026-11-24", "2026-11-23"]


def test_a_channel_that_is_not_there_is_refused() -> None:
    """None named is every one."""
    channels = {"pager": CommandChannelSettings(type="command", command=("x",))}
    assert chosen_channels("digest.channels", (), channels) == ("log", "pager")
    assert chosen_channels("digest.channels", ("pager",), channels) == ("pager",)
    with pytest.raises(ConfigError, match=r"digest\.channels: no channel pgaer; .* log, pager"):
        chosen_channels("digest.channels", ("pgaer",), channels)
