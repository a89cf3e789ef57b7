"""The migration that takes events and their messages apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from stocking import QUICK, alert_good, claimed, event, measured, whole

from nptwatch.store import migrate
from nptwatch.store.alarms import Alarms
from nptwatch.store.catalog import Catalog
from nptwatch.store.outbox import Outbox
from nptwatch.store.queue import Queue
from nptwatch.store.records import OutboxState

if TYPE_CHECKING:
    from nptwatch.store.engine import Database

pytestmark = [pytest.mark.both_engines, pytest.mark.changes_schema]

AT = "2026-11-20 12:00:00.000000"


def reach(database: Database, run: str) -> None:
    """Have a run reach GOOD."""
    Catalog(database).admit(whole(run), QUICK)
    assert Queue(database).finish(claimed(Queue(database)), "w", measured(), alert_good)


def test_old_messages_become_events_with_their_ids(database: Database) -> None:
    """One event for the channels of one alert; state, tries and receivers' id stay."""
    reach(database, "a")
    migrate.downgrade(database, "0002")
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO outbox (run_id, change_id, event_id, kind, fingerprint, channel,"
                " payload, state, attempts, available_at, error, created_at)"
                " SELECT run_id, change_id, event_id, kind, fingerprint, 'mail', payload,"
                " 'given_up', 7, available_at, 'no such host', created_at FROM outbox"
            )
        )
        (old_id,) = connection.scalars(text("SELECT DISTINCT event_id FROM outbox")).all()
    migrate.upgrade(database)
    (found,) = Alarms(database).events()
    assert (found.event_id, found.kind, found.run, found.late) == (
        old_id,
        "reached_good",
        "a",
        False,
    )
    assert found.payload == {"step": 100}
    assert [(way.channel, way.state, way.attempts, way.error) for way in found.messages] == [
        ("log", OutboxState.PENDING, 0, None),
        ("mail", OutboxState.GIVEN_UP, 7, "no such host"),
    ]
    delivery = Outbox(database).claim(lease_seconds=30)
    assert delivery is not None
    assert (delivery.event_id, delivery.payload) == (old_id, {"step": 100})


def test_the_same_alert_is_not_raised_again_after_the_migration(database: Database) -> None:
    """Its event id is made as before."""
    reach(database, "a")
    migrate.downgrade(database, "0002")
    migrate.upgrade(database)
    again = event("reached_good", "content-a-100", "log")
    assert not Alarms(database).raise_event(again, run_id=1)
    assert len(Alarms(database).events()) == 1


def test_down_again_keeps_what_the_old_schema_has_a_place_for(database: Database) -> None:
    """Messages of status changes stay; events of the daemon and suppressed messages go."""
    reach(database, "a")
    reach(database, "b")
    Alarms(database).raise_event(event("chore_failing", "c", "log"))
    Alarms(database).raise_event(event("silent", "d", "log"), run_id=1)
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE outbox SET state = 'suppressed', error = 'why' WHERE event_row_id ="
                " (SELECT id FROM events WHERE run_id = 2)"
            )
        )
    migrate.downgrade(database, "0002")
    with database.read() as connection:
        rows = connection.execute(
            text("SELECT run_id, kind, fingerprint, channel, state FROM outbox")
        ).all()
    assert [tuple(row) for row in rows] == [(1, "reached_good", "content-a-100", "log", "pending")]
