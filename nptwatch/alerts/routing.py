"""Who is told of what: kinds, channels, gaps and quiet hours, run by run. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from nptwatch.alert_settings import KINDS
from nptwatch.alerts.quiet import Quiet
from nptwatch.channel_settings import LOG
from nptwatch.globs import PathGlobs
from nptwatch.store.news import Gap, Message

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, tzinfo

    from nptwatch.alert_settings import AlertRule, AlertSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How one run's events go.

    Attributes:
        channels: names; the log has every wanted event, and at once.
        confirm: GOOD is told after the full diagnostic only.
    """

    kinds: frozenset[str]
    channels: tuple[str, ...]
    min_gap_seconds: float
    quiet: Quiet | None
    confirm: bool

    def wants(self, kind: str) -> bool:
        """Whether people are told; what cannot be switched off (a digest) always is."""
        return kind in self.kinds or kind not in KINDS

    def messages(self, kind: str, at: datetime) -> tuple[Message, ...]:
        """Give the messages of an event that is raised at a time."""
        if not self.wants(kind):
            return ()
        not_before = self.quiet.over_at(at) if self.quiet else None
        gap = _gap(kind, self.min_gap_seconds)
        return tuple(
            Message(channel=name)
            if name == LOG
            else Message(channel=name, not_before=not_before, gap=gap)
            for name in self.channels
        )


class Router:
    """Finds each run's route.

    Args:
        channels: names of all there are.
    """

    def __init__(self, settings: AlertSettings, channels: Sequence[str]) -> None:
        self._zone = ZoneInfo(settings.time_zone) if settings.time_zone else None
        self._default = _route(settings, None, channels, self._zone)
        self._routes = [
            (PathGlobs([rule.runs]), _route(settings, rule, channels, self._zone))
            for rule in settings.rules
        ]

    def of(self, run_name: str | None) -> Route:
        """Give a run's route; of no run: the daemon's own."""
        if run_name is None:
            return self._default
        return next(
            (route for globs, route in self._routes if globs.match(run_name)), self._default
        )


def _route(
    settings: AlertSettings, rule: AlertRule | None, channels: Sequence[str], zone: tzinfo | None
) -> Route:
    if rule is not None:
        own = {name: value for name, value in rule if name != "runs" and value is not None}
        settings = settings.model_copy(update=own)
    wanted = settings.channels
    return Route(
        kinds=frozenset(settings.kinds),
        channels=tuple(
            name for name in channels if name == LOG or wanted is None or name in wanted
        ),
        min_gap_seconds=settings.min_gap_seconds,
        quiet=Quiet.of(settings.quiet_hours, zone),
        confirm=settings.confirm,
    )


def _gap(kind: str, seconds: float) -> Gap | None:
    """Let kinds that are as high or higher hold a kind back."""
    if seconds <= 0 or kind not in KINDS:
        return None
    rank = [*KINDS].index(kind)
    return Gap(seconds=seconds, kinds=frozenset(KINDS[rank:]))
