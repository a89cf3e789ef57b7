"""What wakes the watcher between scans: events where they come, polls where they do not.

inotify tells what this host does. What another host writes to a network file system it never hears
of, so folders there are polled by the watcher itself, in its own thread.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from nptwatch.filesystem import filesystem_of
from nptwatch.watch.observer import Silence, WatchdogObserver, make_observer
from nptwatch.watch.polling import Poller, is_below

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from nptwatch.settings import WatchSettings
    from nptwatch.watch.mailbox import Mailbox
    from nptwatch.watch.observer import EventSource

log = structlog.get_logger(__name__)


class NetworkFolders:
    """Knows which folders are on a network file system; asks again when another is mounted."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, bool]] = {}

    def __call__(self, folder: str) -> bool:
        """Say whether a folder is on one; False where nobody can tell."""
        try:
            device = os.stat(folder).st_dev  # noqa: PTH116 - several times a second
        except OSError:
            return False
        known = self._known.get(folder)
        if known is None or known[0] != device:
            found = filesystem_of(Path(folder))
            known = device, found is not None and found.network
            self._known[folder] = known
            if known[1] and found is not None:
                log.info("folder_polled", folder=folder, filesystem=found.name)
        return known[1]


class Waking:
    """Divides the watched folders between an observer and a poller.

    Args:
        events: hears of what changes, in the folders that it is given.
        is_polled: of a folder, by its path.
    """

    def __init__(
        self, *, events: EventSource, poller: Poller, is_polled: Callable[[str], bool]
    ) -> None:
        self.events = events
        self.is_polled = is_polled
        self._poller = poller
        self._polled: frozenset[str] = frozenset()
        self._folders: Collection[str] = ()
        self._heard: Collection[str] = ()

    def start(self, tops: Collection[str]) -> None:
        """Begin with the tops of trees; nobody knows yet what is below them."""
        self._divide(tops, tops)
        self.events.start(self._heard)

    def check(self, tops: Collection[str], folders: Collection[str]) -> list[str]:
        """See to it that these folders, and no others, are heard or polled.

        Args:
            tops: roots, and folders below them from which something else may be polled or not.
            folders: these, and all below them of which events are wanted.

        Returns:
            Folders of which events come only now.
        """
        self._divide(tops, folders)
        return self.events.check(self._heard)

    def scanned(self) -> None:
        """Be told that everything has just been read."""
        self.events.send_canary()
        self._poller.put_off(time.monotonic())

    def poll(self, look: Callable[[str], int]) -> None:
        """Look into the folders that are due.

        Args:
            look: looks into a folder; gives a number that differs where what is there does.
        """
        for folder in self._poller.due(time.monotonic()):
            begun = time.monotonic()
            state = look(folder)
            self._poller.looked(folder, state, begun=begun, now=time.monotonic())

    def next_poll(self) -> float | None:
        """Monotonic time at which a folder is due; None: none ever."""
        return self._poller.next_due()

    def missed(self, path: str, changed_at: float, late_seconds: float) -> None:
        """Be told that a checkpoint was found of which no event came; it should have.

        Args:
            changed_at: by the clock on the wall.
            late_seconds: events may take so long.
        """
        since = self.events.heard_since()
        if since is not None and changed_at > since + late_seconds and not self._poller.polls(path):
            self.events.suspect(f"no event came for {path}")

    def stop(self) -> None:
        """End."""
        self.events.stop()

    def _divide(self, tops: Collection[str], folders: Collection[str]) -> None:
        """Hand over to the poller what is its own; the rest is heard."""
        polled = frozenset(filter(self.is_polled, tops))
        if polled == self._polled and folders is self._folders:
            return
        self._polled, self._folders = polled, folders
        self._poller.poll(polled, time.monotonic())
        self._heard = [f for f in folders if not any(is_below(f, top) for top in polled)]


def make_waking(
    settings: WatchSettings,
    *,
    mailbox: Mailbox,
    canary_dir: Path,
    is_of_interest: Callable[[str], bool],
) -> Waking:
    """Build what `watch.observer` asks for: auto, inotify, polling or none."""
    events: EventSource = Silence()
    if settings.observer in {"auto", "inotify"}:
        events = WatchdogObserver(
            make=make_observer,
            mailbox=mailbox,
            canary_dir=canary_dir,
            is_of_interest=is_of_interest,
        )
    polled: dict[str, Callable[[str], bool]] = {
        "auto": NetworkFolders(),
        "polling": lambda _: True,
    }
    poller = Poller(
        shortest_seconds=settings.poll_min_seconds, longest_seconds=settings.poll_max_seconds
    )
    return Waking(
        events=events, poller=poller, is_polled=polled.get(settings.observer, lambda _: False)
    )
