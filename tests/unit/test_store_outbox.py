"""Messages: one sender at a time, again after a failure, given up one day. And workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stocking import QUICK, alert_good, measured, whole

from nptwatch.store.catalog import Catalog
from nptwatch.store.outbox import Outbox
from nptwatch.store.queue import Queue
from nptwatch.store.records import OutboxState, WorkerState
from nptwatch.store.workers import Workers

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.store.engine import Database


pytestmark = pytest.mark.both_engines


@pytest.fixture
def outbox(database: Database, clock: FakeClock) -> Outbox:
    """Give an outbox with one message in it."""
    queue = Queue(database, clock=clock)
    Catalog(database, clock=clock).admit(whole(), QUICK)
    claimed = queue.claim("w1", lease_seconds=60)
    assert claimed is not None
    queue.finish(claimed, "w1", measured(), alert_good)
    return Outbox(database, clock=clock)


def test_message_is_delivered_once(outbox: Outbox) -> None:
    """Claimed, sent, noted: it is not handed out again."""
    delivery = outbox.claim(lease_seconds=30)
    assert delivery is not None
    assert (delivery.kind, delivery.channel, delivery.payload) == (
        "reached_good",
        "log",
        {"step": 100},
    )
    assert outbox.claim(lease_seconds=30) is None
    assert outbox.delivered(delivery.outbox_id)
    assert not outbox.delivered(delivery.outbox_id)
    assert (outbox.claim(lease_seconds=30), outbox.pending()) == (None, 0)


def test_silent_senders_message_is_sent_again(outbox: Outbox, clock: FakeClock) -> None:
    """A sender that died in the act does not take the message with it; the event id is the same."""
    first = outbox.claim(lease_seconds=30)
    clock.advance(29)
    assert outbox.claim(lease_seconds=30) is None
    clock.advance(1)
    second = outbox.claim(lease_seconds=30)
    assert first is not None
    assert second is not None
    assert (second.event_id, second.attempts) == (first.event_id, 2)


def test_failed_delivery_waits_and_is_given_up(outbox: Outbox, clock: FakeClock) -> None:
    """The pause doubles; at the last attempt the message rests, its error kept."""
    for pause in (10, 20):
        delivery = outbox.claim(lease_seconds=30)
        assert delivery is not None
        state = outbox.failed(delivery.outbox_id, "down", max_attempts=3, retry_delay_seconds=10)
        assert state is OutboxState.PENDING
        clock.advance(pause - 1)
        assert outbox.claim(lease_seconds=30) is None
        clock.advance(1)
    last = outbox.claim(lease_seconds=30)
    assert last is not None
    state = outbox.failed(last.outbox_id, "down", max_attempts=3, retry_delay_seconds=10)
    assert state is OutboxState.GIVEN_UP
    clock.advance(10_000)
    assert (outbox.claim(lease_seconds=30), outbox.pending()) == (None, 0)


def test_a_pause_is_stretched_and_no_shorter_than_the_receiver_asked(
    outbox: Outbox, clock: FakeClock
) -> None:
    """The longer of the two counts: our own pause, stretched by chance, or the receiver's."""
    for stretch, asked, pause in ((1.5, 0.0, 15), (1.0, 300.0, 300), (2.0, 5.0, 80)):
        delivery = outbox.claim(lease_seconds=30)
        assert delivery is not None
        outbox.failed(
            delivery.outbox_id,
            "busy",
            max_attempts=9,
            retry_delay_seconds=10,
            stretch=stretch,
            at_least_seconds=asked,
        )
        clock.advance(pause - 1)
        assert outbox.claim(lease_seconds=30) is None
        clock.advance(1)


def test_messages_are_counted_by_channel_and_state(outbox: Outbox) -> None:
    """For metrics: what waits, what was delivered, what was given up."""
    assert outbox.counts() == {("log", OutboxState.PENDING): 1}
    delivery = outbox.claim(lease_seconds=30)
    assert delivery is not None
    assert outbox.counts() == {("log", OutboxState.SENDING): 1}
    outbox.failed(delivery.outbox_id, "no", max_attempts=1, retry_delay_seconds=10)
    assert outbox.counts() == {("log", OutboxState.GIVEN_UP): 1}


def test_late_failure_does_not_undo_a_delivery(outbox: Outbox) -> None:
    """What was delivered stays delivered, whatever a slow sender says afterwards."""
    delivery = outbox.claim(lease_seconds=30)
    assert delivery is not None
    outbox.delivered(delivery.outbox_id)
    state = outbox.failed(delivery.outbox_id, "late", max_attempts=3, retry_delay_seconds=10)
    assert state is OutboxState.DELIVERED
    assert outbox.pending() == 0


def test_workers_tell_what_they_do(database: Database, clock: FakeClock) -> None:
    """The last word stands; what is not said again is kept, except the job in hand."""
    workers = Workers(database, clock=clock)
    Catalog(database, clock=clock).admit(whole(), QUICK)
    claimed = Queue(database, clock=clock).claim("w1", lease_seconds=60)
    assert claimed is not None
    workers.register("w1", "host", 42, "cuda:0")
    workers.beat("w1", state="busy", job_id=claimed.job_id, base_model="llama", jobs_done=3)
    (row,) = workers.rows()
    assert (row.state, row.job_id, row.pid) == (WorkerState.BUSY, claimed.job_id, 42)
    clock.advance(5)
    workers.beat("w1", state=WorkerState.IDLE)
    (row,) = workers.rows()
    assert (row.job_id, row.base_model, row.jobs_done) == (None, "llama", 3)
    assert (row.seen_at, row.started_at < row.seen_at) == (clock(), True)


def test_alive_workers_were_heard_of_lately(database: Database, clock: FakeClock) -> None:
    """Stopped and silent workers are not alive; a restart under the same name begins anew."""
    workers = Workers(database, clock=clock)
    for name in ("w1", "w2", "w3"):
        workers.register(name, "host", 1, "cpu")
    workers.stopped("w1")
    clock.advance(60)
    workers.beat("w2", state="idle", jobs_done=7)
    assert [row.worker_id for row in workers.alive(30)] == ["w2"]
    workers.register("w2", "host", 2, "cpu")
    (row,) = workers.alive(30)
    assert (row.pid, row.jobs_done, row.state) == (2, 0, WorkerState.STARTING)
