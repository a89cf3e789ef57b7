"""The book of a daemon's chores: what others see of it, and when people are told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from nptwatch.alert_settings import AlertSettings
from nptwatch.alerts.routing import Router
from nptwatch.errors import ConfigError
from nptwatch.service.chore_book import ChoreBook
from nptwatch.service.schedule import Turn
from nptwatch.store.alarms import Alarms
from nptwatch.store.chores import Chores

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import FakeClock

    from nptwatch.store.engine import Database
    from nptwatch.store.news import EventRecord

pytestmark = pytest.mark.both_engines

NAMES = ("keep", "tidy")


@pytest.fixture
def book_of(database: Database, clock: FakeClock) -> Callable[[str], ChoreBook]:
    """Give the book of a daemon that starts."""

    def make(daemon: str) -> ChoreBook:
        router = Router(AlertSettings(), ["log", "phone"])
        alarms = Alarms(database, clock=clock)
        store = Chores(database, clock=clock)
        return ChoreBook(store, alarms, router, daemon, names=lambda: NAMES)

    return make


def turn(book: ChoreBook, clock: FakeClock, error: Exception | None = None) -> None:
    """Have a chore end, half a minute after the one before."""
    clock.advance(30)
    book.note(Turn(name="keep", started_at=clock(), seconds=0.5, error=error))
    book.write_down()


def events(database: Database) -> list[EventRecord]:
    """Give what was raised, the first one first."""
    return list(reversed(Alarms(database).events()))


FULL = ConfigError("the disk is\nfull")


def test_how_a_chore_went_is_seen_by_others(
    database: Database, clock: FakeClock, book_of: Callable[[str], ChoreBook]
) -> None:
    """Its last turn and its last failure; each daemon speaks of its own."""
    one, two = book_of("host:/one"), book_of("host:/two")
    turn(one, clock, FULL)
    failed_at = clock()
    turn(one, clock)
    turn(two, clock, KeyError("https://secret"))
    first, second = Chores(database, clock=clock).lately()
    assert (first.daemon, first.name, first.duration_seconds) == ("host:/one", "keep", 0.5)
    assert (first.failures, first.failing_since) == (0, None)
    assert (first.failed_at, first.error) == (failed_at, "the disk is full")
    assert first.started_at == failed_at + timedelta(seconds=30)
    assert (second.daemon, second.failures) == ("host:/two", 1)
    assert second.failing_since == second.failed_at == second.started_at == clock()
    assert second.error == "KeyError: see the daemon's log"
    assert [first] == one.records()


def test_a_chore_that_keeps_failing_is_told_once_and_when_it_is_over(
    database: Database, clock: FakeClock, book_of: Callable[[str], ChoreBook]
) -> None:
    """Not at its first failure, not at each; a restart of the daemon is no new trouble."""
    book = book_of("host:/one")
    turn(book, clock, FULL)
    turn(book, clock, FULL)
    assert events(database) == []
    turn(book, clock, FULL)
    turn(book, clock, FULL)
    (failing,) = events(database)
    assert (failing.kind, failing.run) == ("chore_failing", None)
    assert failing.payload["detail"] == "keep failed 3 times in a row: the disk is full"
    assert failing.payload["host"] == "host"
    assert {message.channel for message in failing.messages} == {"log", "phone"}

    again = book_of("host:/one")
    turn(again, clock, FULL)
    assert len(events(database)) == 1
    turn(again, clock)
    turn(again, clock)
    _, over = events(database)
    assert (over.kind, over.payload["of"]) == ("recovered", "chore_failing")
    assert {message.channel for message in over.messages} == {"log", "phone"}

    for _ in range(3):
        turn(again, clock, FULL)
    assert [event.kind for event in events(database)][2:] == ["chore_failing"]


def test_a_daemon_killed_before_it_told_tells_at_its_next_start(
    database: Database, clock: FakeClock, book_of: Callable[[str], ChoreBook]
) -> None:
    """What is written down but was not raised is raised then, once."""
    book = book_of("host:/one")
    turn(book, clock, FULL)
    (record,) = book.records()
    since = record.started_at - timedelta(minutes=5)
    Chores(database).note([replace(record, failures=9, failing_since=since)])
    assert events(database) == []
    book_of("host:/one").write_down()
    book_of("host:/one").write_down()
    assert [event.kind for event in events(database)] == ["chore_failing"]


def test_what_a_daemon_no_longer_does_is_forgotten(
    database: Database, clock: FakeClock, book_of: Callable[[str], ChoreBook]
) -> None:
    """A chore of an old version, and all of a daemon that was not there for a day."""
    turn(book_of("gone:/two"), clock)
    book = book_of("host:/one")
    turn(book, clock)
    (kept,) = book.records()
    Chores(database).note([replace(kept, name="of an old version")])
    assert len(Chores(database, clock=clock).lately()) == 3
    clock.advance(86_400)
    book = book_of("host:/one")
    book.write_down()
    assert [record.name for record in book.records()] == ["keep"]
    assert Chores(database).of("gone:/two") == []
    turn(book, clock)
    assert [record.daemon for record in Chores(database, clock=clock).lately()] == ["host:/one"]
