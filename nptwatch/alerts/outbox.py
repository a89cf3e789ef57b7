"""Empties the outbox: claim, send, mark."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from nptwatch.errors import DeliveryError
from nptwatch.store.engine import utc_now
from nptwatch.store.records import OutboxState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from random import Random

    from nptwatch.alert_settings import AlertSettings
    from nptwatch.alerts.channels import Channel
    from nptwatch.alerts.templates import Texts
    from nptwatch.store.outbox import Outbox
    from nptwatch.store.records import Clock, Delivery

MOST_STRETCH = 0.25
"""A pause is longer by up to this share, by chance."""

LEASE_MARGIN_SECONDS = 30.0
"""A claim outlives the slowest delivery by so much; after a crash it is sent again then."""

BATCH = 100
"""A run ends after so many, so that a row that is due again at once cannot hold it for ever."""

log = structlog.get_logger()


class Sender:
    """Delivers what is due; failures come back later, so a channel that fails holds up no other.

    One that hangs holds up what is sent in the same turn: give each channel turns of its own.

    Args:
        texts: what people read of an event.
        forecast: one line for an event that brings none; None where nobody can say.
        random: stretches the pauses after failures.
    """

    def __init__(
        self,
        outbox: Outbox,
        channels: Sequence[Channel],
        settings: AlertSettings,
        *,
        texts: Texts,
        forecast: Callable[[Mapping[str, Any]], str | None],
        random: Random,
        clock: Clock = utc_now,
    ) -> None:
        self._outbox = outbox
        self._channels = {channel.name: channel for channel in channels}
        self._settings = settings
        self._texts = texts
        self._forecast = forecast
        self._random = random
        self._lease_seconds = LEASE_MARGIN_SECONDS + max(
            (channel.longest_seconds for channel in channels), default=0.0
        )
        self._clock = clock
        self._left_alone: dict[str, datetime] = {}
        self._stop = threading.Event()

    def run_due(self, channel: str | None = None) -> int:
        """Send what is due now.

        Args:
            channel: leave out the other channels' messages; what is for none that is configured,
                and that no other daemon took, is refused in anybody's turn. None: all messages.

        Returns:
            How many messages were delivered.

        Raises:
            DatabaseError: the outbox cannot be reached; claimed rows come back by themselves.
        """
        skip = [] if channel is None else [name for name in self._channels if name != channel]
        delivered = 0
        for _ in range(BATCH):
            if self._stop.is_set():
                break
            now = self._clock()
            resting = [name for name, until in self._left_alone.items() if now < until]
            delivery = self._outbox.claim(
                lease_seconds=self._lease_seconds,
                skip=[*skip, *resting],
                known=list(self._channels),
            )
            if delivery is None:
                break
            delivered += self._deliver(delivery)
        return delivered

    def stop(self) -> None:
        """Start no further delivery."""
        self._stop.set()

    def close(self) -> None:
        """Break off the delivery that runs."""
        self.stop()
        for channel in self._channels.values():
            channel.close()

    def _deliver(self, delivery: Delivery) -> bool:
        try:
            channel = self._channels.get(delivery.channel)
            if channel is None:
                msg = f"channel {delivery.channel} is not configured"
                raise DeliveryError(msg)  # noqa: TRY301 - one place handles all failures
            channel.send(worded(delivery, self._texts, self._forecast))
        except DeliveryError as error:
            self._failed(delivery, error)
            return False
        self._outbox.delivered(delivery.outbox_id)
        log.info("alert_delivered", **_who(delivery))
        return True

    def _failed(self, delivery: Delivery, error: DeliveryError) -> None:
        if error.retry_after_seconds:
            # it asked for a pause, and would refuse the next message too
            pause = timedelta(seconds=error.retry_after_seconds)
            self._left_alone[delivery.channel] = self._clock() + pause
        state = self._outbox.failed(
            delivery.outbox_id,
            str(error),
            max_attempts=self._settings.max_attempts,
            retry_delay_seconds=self._settings.retry_delay_seconds,
            stretch=self._random.uniform(1.0, 1.0 + MOST_STRETCH),
            at_least_seconds=error.retry_after_seconds,
        )
        if state == OutboxState.GIVEN_UP:
            log.error("alert_given_up", error=str(error), **_who(delivery))
        else:
            log.warning("alert_failed", error=str(error), **_who(delivery))


def worded(
    delivery: Delivery, texts: Texts, forecast: Callable[[Mapping[str, Any]], str | None]
) -> Delivery:
    """Add forecast, title and text to what a channel gets."""
    payload = dict(delivery.payload)
    payload["forecast"] = payload.get("forecast") or forecast(payload)
    text = texts.of({"event_id": delivery.event_id, **payload})
    return replace(delivery, payload={**payload, "title": text.title, "text": text.body})


def _who(delivery: Delivery) -> dict[str, object]:
    return {
        "event_id": delivery.event_id,
        "kind": delivery.kind,
        "channel": delivery.channel,
        "attempts": delivery.attempts,
    }
