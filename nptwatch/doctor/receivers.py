"""Whether alerts can go out: secrets that can be read, and receivers that take a message."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nptwatch.alerts.trying import example_of
from nptwatch.doctor.finding import Finding, fail, ok
from nptwatch.errors import ConfigError, DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nptwatch.alerts.channels import Channel
    from nptwatch.settings import Settings


def is_ready(channel: Channel, settings: Settings, *, send: bool) -> Iterator[Finding]:
    """Look at a channel's secrets.

    Args:
        send: also send a real message.
    """
    name = f"channel {channel.name}"
    try:
        channel.check()
    except ConfigError as error:
        yield fail(name, str(error), "the daemon does not start without it")
        return
    if not send:
        yield ok(name, "its secrets can be read; --send tries it")
        return
    begun = time.monotonic()
    try:
        channel.send(example_of("test", channel.name, settings.alerts.templates))
    except DeliveryError as error:
        fix = f"correct [channels.{channel.name}], then: nptwatch alerts test {channel.name}"
        yield fail(name, f"did not take a message: {error}", fix)
    else:
        yield ok(name, f"took a test message in {time.monotonic() - begun:.1f} s")
