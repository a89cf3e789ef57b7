"""Where an alert goes: the log, and what the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from nptwatch.alerts.commands import CommandChannel
from nptwatch.alerts.remote import AppriseChannel, WebhookChannel
from nptwatch.alerts.secrets import Secret
from nptwatch.channel_settings import (
    LOG,
    AppriseChannelSettings,
    CommandChannelSettings,
    WebhookChannelSettings,
)
from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nptwatch.channel_settings import ChannelSettings
    from nptwatch.store.records import Delivery

log = structlog.get_logger()


class Channel(Protocol):
    """Takes one message; returning means that it was delivered."""

    @property
    def name(self) -> str:
        """As it stands in the outbox."""

    @property
    def longest_seconds(self) -> float:
        """No delivery takes longer."""

    def send(self, delivery: Delivery) -> None:
        """Deliver.

        Raises:
            DeliveryError: it was not delivered and may be tried again.
        """

    def check(self) -> None:
        """Look, without sending anything, whether its secrets are there and can be used.

        Raises:
            ConfigError: they are not.
        """

    def close(self) -> None:
        """Break off what is being sent: the daemon stops."""


def make_channels(
    channels: Mapping[str, ChannelSettings], *, env: Mapping[str, str]
) -> list[Channel]:
    """Build the channels that the settings name; the log is always one.

    Args:
        env: where secrets are looked for.
    """
    return [LogChannel(), *(_make(name, channel, env) for name, channel in channels.items())]


def channel_names(channels: Mapping[str, ChannelSettings]) -> tuple[str, ...]:
    """Names of all channels there are, for the rules; builds none and needs no secret."""
    return (LOG, *channels)


def chosen_channels(
    setting: str, wanted: Sequence[str], channels: Mapping[str, ChannelSettings]
) -> tuple[str, ...]:
    """Names of the channels that a setting asks for; none named: all there are.

    Raises:
        ConfigError: it names one that is not there.
    """
    known = channel_names(channels)
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ConfigError(
            f"{setting}: no channel {', '.join(missing)}; there are {', '.join(known)}"
        )
    return tuple(wanted) or known


def require_secrets(channels: Mapping[str, ChannelSettings], *, env: Mapping[str, str]) -> None:
    """Hold that every secret that the channels need can be read.

    Raises:
        ConfigError: one cannot; tells all.
    """
    problems = []
    for name, channel in channels.items():
        for field in ("url", "key"):
            if hasattr(channel, f"{field}_env"):
                try:
                    Secret.of(name, channel, field, env).read()
                except ConfigError as error:
                    problems.append(str(error))
    if problems:
        raise ConfigError("\n  ".join(["channels cannot be used:", *problems]))


def _make(name: str, settings: ChannelSettings, env: Mapping[str, str]) -> Channel:
    match settings:
        case CommandChannelSettings():
            return CommandChannel(
                name, settings.command, timeout_seconds=settings.timeout_seconds, env=env
            )
        case AppriseChannelSettings():
            return AppriseChannel(
                name,
                url=Secret.of(name, settings, "url", env),
                timeout_seconds=settings.timeout_seconds,
                env=env,
            )
        case WebhookChannelSettings():
            return WebhookChannel(
                name,
                url=Secret.of(name, settings, "url", env),
                key=Secret.of(name, settings, "key", env),
                ca_file=settings.ca_file,
                timeout_seconds=settings.timeout_seconds,
                env=env,
            )


class LogChannel:
    """One log event per alert, at a level that a quiet log still shows; its title, not its text."""

    name = LOG
    longest_seconds = 1.0

    def send(self, delivery: Delivery) -> None:
        """Log the alert."""
        fields = {"event_id": delivery.event_id, **delivery.payload}
        log.warning("alert_raised", **{k: value for k, value in fields.items() if k != "text"})

    def check(self) -> None:
        """Needs nothing."""

    def close(self) -> None:
        """Nothing to break off."""
