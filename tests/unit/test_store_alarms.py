"""Events: raised once, listed, acknowledged, sent again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from stocking import QUICK, event, seen, whole

from nptwatch.errors import ConfigError
from nptwatch.store.alarms import Alarms
from nptwatch.store.catalog import Catalog
from nptwatch.store.events import event_id
from nptwatch.store.news import Gap, Message
from nptwatch.store.outbox import Outbox
from nptwatch.store.records import FileState, OutboxState

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.store.engine import Database

pytestmark = pytest.mark.both_engines

RUN = 1


@pytest.fixture
def alarms(database: Database, clock: FakeClock) -> Alarms:
    """Give the alarms of a database with one run."""
    catalog = Catalog(database, clock=clock)
    catalog.admit(whole("a"), QUICK)
    return Alarms(database, clock=clock)


def states(alarms: Alarms) -> list[tuple[str, dict[str, str]]]:
    """Give each event's kind and the states of its messages, the first one first."""
    return [
        (found.kind, {way.channel: str(way.state) for way in found.messages})
        for found in reversed(alarms.events())
    ]


def test_an_event_is_raised_once(alarms: Alarms, clock: FakeClock) -> None:
    """Kind, run and subject make it; later attempts add neither event nor messages."""
    assert alarms.raise_event(event("silent", "s1", "log", "mail", since=3), run_id=RUN)
    clock.advance(60)
    assert not alarms.raise_event(event("silent", "s1", "other"), run_id=RUN)
    (found,) = alarms.events()
    assert (found.event_id, found.run) == (event_id("/exp/a", "silent", "s1"), "a")
    assert (found.payload, len(found.messages)) == ({"since": 3}, 2)
    assert alarms.raise_event(event("silent", "s2"), run_id=RUN)
    assert alarms.raise_event(event("silent", "s1"))  # of the daemon, not of the run
    assert [each.run for each in alarms.events()] == [None, "a", "a"]


def test_many_that_raise_the_same_raise_it_once(database: Database, alarms: Alarms) -> None:
    """Two daemons on one database, each with connections of its own."""
    both = [Alarms(database), alarms]
    with ThreadPoolExecutor(8) as pool:
        raised = list(
            pool.map(
                lambda n: both[n % 2].raise_event(event("silent", f"s{n // 8}", "log"), run_id=RUN),
                range(40),
            )
        )
    assert sum(raised) == 5
    assert len(alarms.events()) == 5
    assert Outbox(database).pending() == 5


def test_a_message_too_soon_is_suppressed(alarms: Alarms, clock: FakeClock) -> None:
    """Only what went the same way, of the kinds named, counts; what was suppressed does not."""

    def tell(kind: str, subject: str, channel: str = "mail") -> None:
        gap = Gap(seconds=100, kinds=frozenset({"regressed", "invalid"}))
        told = replace(event(kind, subject), messages=(Message(channel=channel, gap=gap),))
        alarms.raise_event(told, run_id=RUN)
        clock.advance(40)

    tell("regressed", "1")
    tell("regressed", "2")
    tell("regressed", "3", "pager")
    tell("regressed", "4")
    tell("new_best", "5")
    assert states(alarms) == [
        ("regressed", {"mail": "pending"}),
        ("regressed", {"mail": "suppressed"}),
        ("regressed", {"pager": "pending"}),
        ("regressed", {"mail": "pending"}),
        ("new_best", {"mail": "suppressed"}),
    ]
    (last, *_) = alarms.events()
    assert last.messages[0].error == "too soon after another message of its run (min_gap)"


def test_a_message_waits_for_its_time(database: Database, alarms: Alarms, clock: FakeClock) -> None:
    """Quiet hours postpone: nobody gets it before, and then it goes out."""
    outbox = Outbox(database, clock=clock)
    later = Message(channel="mail", not_before=clock() + timedelta(hours=1))
    alarms.raise_event(replace(event("silent"), messages=(later,)), run_id=RUN)
    assert outbox.claim(lease_seconds=30) is None
    clock.advance(3601)
    assert outbox.claim(lease_seconds=30) is not None


def test_events_are_found_by_what_they_are(alarms: Alarms, database: Database) -> None:
    """By run, kind, state of a message, and whether anybody saw them; the last one first."""
    Catalog(database).note(seen("b"), FileState.SETTLING, "new")
    alarms.raise_event(event("silent", "1", "mail"), run_id=RUN)
    alarms.raise_event(event("stalled", "2"), run_id=2)
    alarms.raise_event(event("chore_failing", "3", "mail"))
    kinds = [found.kind for found in alarms.events()]
    assert kinds == ["chore_failing", "stalled", "silent"]
    assert [found.kind for found in alarms.events(run="b")] == ["stalled"]
    assert [found.kind for found in alarms.events(kinds=["silent"])] == ["silent"]
    pending = alarms.events(states=[OutboxState.PENDING])
    assert [found.kind for found in pending] == ["chore_failing", "silent"]
    assert [found.kind for found in alarms.events(limit=1)] == ["chore_failing"]
    with pytest.raises(ConfigError, match="no run 'c'"):
        alarms.events(run="c")


def test_acknowledged_events_are_seen_once(alarms: Alarms, clock: FakeClock) -> None:
    """Who and when; a second one changes nothing; all at once on request."""
    for subject in "123":
        alarms.raise_event(event("silent", subject), run_id=RUN)
    first = alarms.events()[2].event_id
    assert alarms.ack([first[:8]], "ann") == 1
    clock.advance(60)
    assert alarms.ack([first], "bob") == 0
    found = alarms.event(first)
    assert (found.acked_by, found.acked_at) == ("ann", clock() - timedelta(seconds=60))
    assert len(alarms.events(unacked=True)) == 2
    assert alarms.ack(None, "bob") == 2
    assert alarms.events(unacked=True) == []


@pytest.mark.parametrize("wrong", ["", "abc", "zzzzzzzz", "%%%%", "____"])
def test_what_names_no_event_is_refused(alarms: Alarms, wrong: str) -> None:
    """Nothing is acknowledged or sent by accident; patterns are no names."""
    alarms.raise_event(event("silent", "1", "log"), run_id=RUN)
    known = alarms.events()[0].event_id
    for ask in (alarms.event, alarms.replay):
        with pytest.raises(ConfigError, match=r"alerts list|at least 4"):
            ask(wrong)
    with pytest.raises(ConfigError):
        alarms.ack([known, wrong], "ann")
    assert alarms.events(unacked=True) != []


def test_replay_sends_again_by_the_same_id(
    database: Database, alarms: Alarms, clock: FakeClock
) -> None:
    """Given up, delivered and suppressed ones go again; what is being sent stays with its sender."""
    outbox = Outbox(database, clock=clock)
    alarms.raise_event(event("silent", "1", "log", "mail", "pager"), run_id=RUN)
    by_channel = {}
    for _ in range(3):
        delivery = outbox.claim(lease_seconds=300)
        assert delivery is not None
        by_channel[delivery.channel] = delivery
    outbox.delivered(by_channel["log"].outbox_id)
    outbox.failed(by_channel["mail"].outbox_id, "no", max_attempts=1, retry_delay_seconds=1)
    known = by_channel["log"].event_id
    assert alarms.replay(known) == ["log", "mail"]
    assert states(alarms) == [("silent", {"log": "pending", "mail": "pending", "pager": "sending"})]
    again = [outbox.claim(lease_seconds=300) for _ in range(2)]
    assert {each.event_id for each in again if each} == {known}
    assert {each.attempts for each in again if each} == {1}
    assert outbox.claim(lease_seconds=300) is None
    assert alarms.replay(known, ["phone"]) == ["phone"]
