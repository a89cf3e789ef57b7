"""At least once through crashes, once for a receiver that honours the id: real processes, SIGKILL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from receivers import Answer, serving
from stocking import QUICK, alert_good, claimed, measured, whole

from nptwatch.store.catalog import Catalog
from nptwatch.store.outbox import Outbox
from nptwatch.store.queue import Queue
from nptwatch.store.records import OutboxState

if TYPE_CHECKING:
    from receivers import Handler, Server

    from nptwatch.store.engine import Database

pytestmark = pytest.mark.both_engines

SENDER = Path(__file__).with_name("alert_sender.py")
KEY = "whsec_c2lnbmluZy1rZXktb2YtdGhpcnR5LXR3by1ieXRlcyE="


class Senders:
    """Starts sender processes, and can kill the one that runs."""

    def __init__(self, database: Database) -> None:
        self._database_url = database.engine.url.render_as_string(hide_password=False)
        self.running: subprocess.Popen[str] | None = None
        self.to: Server | None = None

    def start(self, hours: float = 0.0) -> subprocess.Popen[str]:
        """Start one that takes it to be so many hours later."""
        assert self.to is not None
        self.running = subprocess.Popen(
            [sys.executable, str(SENDER), self._database_url, str(hours)],
            env=os.environ | {"URL": self.to.url(), "KEY": KEY},
            stdout=subprocess.PIPE,
            text=True,
        )
        return self.running

    def run(self, hours: float = 0.0) -> int | None:
        """Have one send all that is due; give how much it delivered, None if it was killed."""
        process = self.start(hours)
        said, _ = process.communicate(timeout=60)
        return int(said) if process.returncode == 0 else None

    def kill(self, handler: Handler) -> None:
        """Kill the sender whose message has just arrived, and then take the message."""
        assert self.running is not None
        self.running.kill()
        handler.send_response(200)
        handler.end_headers()


def raise_alerts(database: Database, runs: int) -> None:
    """Have so many runs reach GOOD."""
    catalog, queue = Catalog(database), Queue(database)
    for number in range(runs):
        catalog.admit(whole(f"run-{number}"), QUICK)
        assert queue.finish(claimed(queue), "w", measured(), alert_good) is not None


def test_a_sender_killed_between_sending_and_marking_sends_again(database: Database) -> None:
    """The receiver has the event, nobody noted it: sent again after the claim, with the same id."""
    raise_alerts(database, 1)
    senders, outbox = Senders(database), Outbox(database)
    with serving(Answer(act=senders.kill)) as server:
        senders.to = server
        assert senders.run() is None
        assert outbox.counts() == {("log", OutboxState.SENDING): 1}
        assert senders.run() == 0
        assert senders.run(hours=1) == 1

    first, second = server.got
    assert first.event_id == second.event_id
    assert first.body == second.body
    assert outbox.counts() == {("log", OutboxState.DELIVERED): 1}


def test_whenever_senders_are_killed_each_event_arrives(database: Database) -> None:
    """Eight events, three deaths: nothing is lost, and only what was in hand comes twice."""
    raise_alerts(database, 8)
    senders, outbox = Senders(database), Outbox(database)
    take, die = Answer(), Answer(act=senders.kill)
    with serving(die, take, die, take, take, die) as server:
        senders.to = server
        deaths = 0
        for hours in range(8):
            deaths += senders.run(hours) is None
            if not outbox.pending():
                break

    came = Counter(got.event_id for got in server.got)
    assert (len(came), sum(came.values()), deaths) == (8, 11, 3)
    assert outbox.counts() == {("log", OutboxState.DELIVERED): 8}


def test_two_senders_share_the_messages(database: Database) -> None:
    """One database, two daemons: each message is sent by one of them."""
    raise_alerts(database, 8)
    senders = Senders(database)
    with serving() as server:
        senders.to = server
        processes = [senders.start(), senders.start()]
        delivered = [int(process.communicate(timeout=60)[0]) for process in processes]

    assert sum(delivered) == 8
    assert set(Counter(got.event_id for got in server.got).values()) == {1}
    assert len(server.got) == 8
