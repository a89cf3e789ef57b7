"""The sender, with a real outbox in SQLite."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from nptwatch.alert_settings import AlertSettings
from nptwatch.alerts.outbox import Sender
from nptwatch.alerts.rules import make_rules
from nptwatch.alerts.templates import Texts
from nptwatch.errors import DeliveryError
from nptwatch.service.build import open_stores, request_of
from nptwatch.settings import FULL, Settings
from nptwatch.store.outbox import Outbox
from nptwatch.store.records import Delivery, Measured, SeenFile, WholeFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from nptwatch.service.build import Stores

pytestmark = pytest.mark.both_engines


ALERTS = AlertSettings(max_attempts=3, retry_delay_seconds=10.0)


class Fake:
    """A channel that keeps what it gets, and refuses while it is told to."""

    def __init__(self, name: str, *, refuses: bool = False) -> None:
        self.name = name
        self.longest_seconds = 5.0
        self.retry_after_seconds = 0.0
        self.refuses = refuses
        self.tries = 0
        self.got: list[str] = []
        self.payloads: list[Mapping[str, Any]] = []
        self.is_closed = False

    def send(self, delivery: Delivery) -> None:
        """Keep or refuse."""
        self.tries += 1
        if self.refuses:
            raise DeliveryError(
                f"{self.name} is down", retry_after_seconds=self.retry_after_seconds
            )
        self.got.append(delivery.event_id)
        self.payloads.append(delivery.payload)

    def check(self) -> None:
        """Needs nothing."""

    def close(self) -> None:
        """Note it."""
        self.is_closed = True


class Post:
    """An outbox whose clock the test turns, and two channels."""

    def __init__(self, stores: Stores, settings: Settings) -> None:
        self.now = datetime.now(UTC)
        self.outbox = Outbox(stores.database, clock=lambda: self.now)
        self.down, self.up = Fake("down", refuses=True), Fake("up")
        self.sender = Sender(
            self.outbox,
            [self.down, self.up],
            ALERTS,
            texts=Texts(None),
            forecast=lambda event: f"{event['run']} is due",
            random=Random(1),  # noqa: S311 - jitter
            clock=lambda: self.now,
        )
        self._stores = stores
        self._request = request_of(settings)
        self._settings = settings

    def alert(self, run: str, channels: tuple[str, ...] = ("down", "up")) -> None:
        """Have a run reach GOOD."""
        file = SeenFile(
            run_path=f"/exp/{run}",
            run_name=run,
            root="/exp",
            path=f"/exp/{run}/npt_weights.pt",
            signature="1:1:1",
            mtime_ns=time.time_ns(),
            size_bytes=1,
        )
        whole = WholeFile(file=file, fingerprint=f"zip:{run}", step=1, base_model=None)
        self._stores.catalog.admit(whole, self._request)
        claim = self._stores.queue.claim("w", lease_seconds=60)
        assert claim is not None
        measured = Measured(
            grade="GOOD",
            base_revision="b",
            diagnostics_version=1,
            mse=0.08,
            cosine=0.99,
            duration_seconds=0.1,
            measured_at=self.now,
        )
        rules = make_rules(ALERTS, channels, request_of(self._settings, FULL))
        assert self._stores.queue.finish(claim, "w", measured, rules) is not None
        self.now = datetime.now(UTC)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    """A post office of its own."""
    settings = Settings(state_dir=tmp_path)
    stores = open_stores(settings, migrate=True)
    yield Post(stores, settings)
    stores.close()


def test_a_dead_channel_holds_up_no_other(post: Post) -> None:
    """What one channel refuses waits; the others' messages go out in the same run."""
    post.alert("run1")
    post.alert("run2")

    assert post.sender.run_due() == 2
    assert len(post.up.got) == 2
    assert post.outbox.pending() == 2


def test_a_channels_turn_leaves_the_others_messages_alone(post: Post) -> None:
    """So that each can have a thread of its own."""
    post.alert("run1", ("down", "up", "pager"))

    assert post.sender.run_due("up") == 1
    assert (len(post.up.got), post.outbox.pending()) == (1, 2)
    post.down.refuses = False
    assert post.sender.run_due("down") == 1


def test_a_channel_gets_forecast_title_and_text(post: Post) -> None:
    """What people read is made when it is sent."""
    post.alert("run1", ("up",))
    post.sender.run_due()

    (payload,) = post.up.payloads
    assert payload["forecast"] == "run1 is due"
    assert payload["title"] == "[nptwatch] run1: reached GOOD at step 1"
    assert "Forecast: run1 is due" in payload["text"]
    assert f"Event: {post.up.got[0]}" in payload["text"]


def test_what_was_delivered_is_not_sent_again(post: Post) -> None:
    """However often the sender runs, and however late."""
    post.alert("run1", ("up",))
    post.sender.run_due()
    post.now += timedelta(days=1)

    assert post.sender.run_due() == 0
    assert len(post.up.got) == 1


def test_a_refused_message_is_tried_again_later_and_not_before(post: Post) -> None:
    """The pause is 10 s, and up to a quarter more by chance."""
    post.alert("run1", ("down",))
    post.sender.run_due()
    post.down.refuses = False
    post.now += timedelta(seconds=9.9)
    assert post.sender.run_due() == 0

    post.now += timedelta(seconds=2.7)

    assert post.sender.run_due() == 1
    assert len(post.down.got) == 1


def test_what_failed_together_comes_back_apart(post: Post) -> None:
    """Chance stretches the pauses, so that a receiver that is back is not run over."""
    for run in ("run1", "run2", "run3", "run4"):
        post.alert(run, ("down",))
    post.sender.run_due()
    post.down.refuses = False
    came = []
    for _ in range(26):
        post.now += timedelta(seconds=0.1)
        came.append(post.sender.run_due())
        post.now += timedelta(seconds=9.9 if len(came) == 1 else 0)

    assert sum(came) == 4
    assert max(came) < 4


def test_a_receiver_is_left_alone_for_as_long_as_it_asked(post: Post) -> None:
    """Retry-After outweighs the pause of our own, and holds for the channel's other messages."""
    for run in ("run1", "run2"):
        post.alert(run, ("down", "up"))
    post.down.retry_after_seconds = 120.0
    assert post.sender.run_due() == 2
    assert (len(post.up.got), post.down.tries) == (2, 1)
    post.down.refuses = False
    post.now += timedelta(seconds=119)
    assert post.sender.run_due() == 0

    post.now += timedelta(seconds=1)

    assert post.sender.run_due() == 2


def test_a_message_is_given_up_after_its_last_try(post: Post) -> None:
    """`max_attempts` tries, then an error in the log and silence."""
    post.alert("run1", ("down",))
    with capture_logs() as logs:
        for _ in range(5):
            post.sender.run_due()
            post.now += timedelta(hours=2)

    events = [entry["event"] for entry in logs]
    assert events == ["alert_failed", "alert_failed", "alert_given_up"]
    assert post.outbox.pending() == 0


def test_a_channel_that_is_not_configured_any_more_fails_its_messages(post: Post) -> None:
    """A message left by older settings is refused by name, not lost in silence."""
    post.alert("run1", ("pager",))
    with capture_logs() as logs:
        post.sender.run_due()
        assert logs == []  # a daemon with other settings may have it
        post.now += timedelta(hours=1)
        post.sender.run_due()

    assert [entry["error"] for entry in logs] == ["channel pager is not configured"]


def test_a_stopped_sender_claims_nothing_and_close_reaches_the_channels(post: Post) -> None:
    """What is due stays for the next daemon."""
    post.alert("run1", ("up",))
    post.sender.close()

    assert post.sender.run_due() == 0
    assert post.outbox.pending() == 1
    assert post.up.is_closed
