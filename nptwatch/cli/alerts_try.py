"""`nptwatch alerts test`: send a real message through one channel."""

from __future__ import annotations

import os
import time
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.screen import print_json
from nptwatch.cli.session import ConfigOption, JsonOption, settings_of
from nptwatch.errors import ConfigError, DeliveryError

if TYPE_CHECKING:
    from collections.abc import Collection

    from nptwatch.alerts.channels import Channel
    from nptwatch.settings import Settings
    from nptwatch.store.records import Delivery

TEST = "test"


def try_channel(
    channel: Annotated[str, typer.Argument(help="Name of the channel, as in [channels.NAME].")],
    *,
    kind: Annotated[
        str, typer.Option(help="Send an example of this kind, worded as it would be.")
    ] = TEST,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Send a real message through a channel, once, and say what became of it.

    Exit code 1: it was not delivered. Nothing is written to the database.

    Example: nptwatch alerts test slack
    """
    from nptwatch.logs import configure_logs

    settings = settings_of(config)
    configure_logs(level=settings.log.level, form=settings.log.form)  # the log is a channel too
    chosen = _channel(settings, channel)
    delivery = _delivery(settings, channel, kind)
    begun = time.monotonic()
    error = None
    try:
        chosen.send(delivery)
    except DeliveryError as refused:
        error = str(refused)
    seconds = time.monotonic() - begun
    if as_json:
        answer = {"channel": channel, "kind": kind, "event_id": delivery.event_id}
        print_json(answer | {"delivered": error is None, "error": error, "seconds": seconds})
    elif error is None:
        print(f"delivered to {channel} in {seconds:.1f} s: {delivery.payload['title']}")
    if error is not None and as_json:
        raise typer.Exit(DeliveryError.exit_code)
    if error is not None:
        raise DeliveryError(f"{channel} did not take it (after {seconds:.1f} s): {error}")


def _channel(settings: Settings, name: str) -> Channel:
    from nptwatch.alerts.channels import make_channels

    channels = {one.name: one for one in make_channels(settings.channels, env=os.environ)}
    if name not in channels:
        raise ConfigError(f"no channel {name!r}{_hint(name, channels)}")
    return channels[name]


def _delivery(settings: Settings, channel: str, kind: str) -> Delivery:
    from nptwatch.alerts.samples import KINDS
    from nptwatch.alerts.trying import example_of

    if kind not in KINDS:
        raise ConfigError(f"no kind {kind!r}{_hint(kind, KINDS)}")
    return example_of(kind, channel, settings.alerts.templates)


def _hint(wrong: str, known: Collection[str]) -> str:
    near = get_close_matches(wrong, known, n=1)
    return f", did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}"
