"""Hints from the observer's threads to the watcher's: which folders to look at."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

_MAX_FOLDERS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What was asked for since the last time.

    Attributes:
        folders: real path of each folder to list, and whether also what is below it.
        rescan: read everything.
    """

    folders: dict[str, bool]
    rescan: bool


class Mailbox:
    """A set of hints and a bell; safe between threads, bounded."""

    def __init__(self) -> None:
        self._bell = threading.Condition()
        self._folders: dict[str, bool] = {}
        self._rescan = False

    def hint(self, folder: str, *, deep: bool) -> None:
        """Ask for a look into a folder."""
        with self._bell:
            self._folders[folder] = deep or self._folders.get(folder, False)
            if len(self._folders) > _MAX_FOLDERS:  # one walk is cheaper, and memory is bounded
                self._folders.clear()
                self._rescan = True
            self._bell.notify_all()

    def ask_rescan(self) -> None:
        """Ask for a full scan."""
        with self._bell:
            self._rescan = True
            self._bell.notify_all()

    def take(self) -> Hints:
        """Empty the box."""
        with self._bell:
            hints = Hints(folders=self._folders, rescan=self._rescan)
            self._folders, self._rescan = {}, False
            return hints

    def wait(self, timeout_seconds: float) -> None:
        """Sleep until something is in the box, at most so long."""
        with self._bell:
            self._bell.wait_for(lambda: bool(self._folders) or self._rescan, timeout_seconds)
