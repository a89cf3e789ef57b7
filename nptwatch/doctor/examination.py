"""What is looked at, in which order, and for how long."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from nptwatch.alerts.channels import make_channels
from nptwatch.channel_settings import LOG
from nptwatch.doctor import databases, events, folders, models, receivers, software
from nptwatch.doctor.bounded import Check
from nptwatch.doctor.finding import Finding, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from nptwatch.settings import Settings

_HANGS = "its file system, or one below it, does not answer: is its server up? (see dmesg, mount)"
_TORCH = "loading torch hangs: a broken driver? (see nvidia-smi, dmesg)"


def examination(
    settings: Settings, file: Path | None, *, env: Mapping[str, str], send: bool
) -> list[Check]:
    """List the checks of these settings.

    Args:
        file: where the settings come from.
        env: where secrets are looked for.
        send: whether channels are to be sent a message.
    """
    database_seconds = (
        settings.database.connect_timeout_seconds + settings.database.busy_timeout_seconds + 10
    )
    return [
        Check(
            name="settings",
            run=partial(_settings, settings, file),
            seconds=5,
            when_late="see the roots below",
        ),
        *(
            Check(
                name=f"root {root}",
                run=partial(folders.look_at_root, root, settings),
                seconds=10,
                more_seconds=50,
                when_late=_HANGS,
            )
            for root in settings.watch.roots
        ),
        Check(
            name="events",
            run=partial(events.sends_events, settings),
            seconds=20,
            when_late=_HANGS,
        ),
        Check(
            name="inotify limits",
            run=partial(events.has_enough_watches, settings),
            seconds=30,
            when_late=_HANGS,
        ),
        Check(
            name="state folder",
            run=partial(folders.look_at_state, settings),
            seconds=10,
            when_late=_HANGS,
        ),
        Check(
            name="database",
            run=partial(databases.can_be_used, settings),
            seconds=database_seconds,
            when_late="its server or its disk does not answer",
        ),
        Check(name="versions", run=software.has_right_versions, seconds=10, when_late=_HANGS),
        Check(name="torch", run=software.has_torch, seconds=60, when_late=_TORCH),
        Check(
            name="device",
            run=partial(software.has_its_device, settings),
            seconds=60,
            when_late=_TORCH,
        ),
        Check(
            name=models.NAME,
            run=partial(models.can_be_had, settings),
            seconds=120,
            when_late="the hub does not answer: set base.local_files_only, or a folder",
        ),
        *_channels(settings, env=env, send=send),
    ]


def _settings(settings: Settings, file: Path | None) -> Iterator[Finding]:
    text = "defaults and flags, no settings file" if file is None else str(file)
    if settings.watch.roots:
        yield ok("settings", text)
    else:
        fix = "set watch.roots, or name directories: nptwatch doctor ROOT"
        yield warn("settings", f"{text}; no directory is watched", fix)


def _channels(settings: Settings, *, env: Mapping[str, str], send: bool) -> Iterator[Check]:
    for channel in make_channels(settings.channels, env=env):
        if channel.name != LOG:
            yield Check(
                name=f"channel {channel.name}",
                run=partial(receivers.is_ready, channel, settings, send=send),
                seconds=channel.longest_seconds + 10,
                when_late=f"see [channels.{channel.name}]",
            )
