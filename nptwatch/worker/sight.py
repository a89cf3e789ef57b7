"""What a worker's host sees of the shared file system: what is missing here may be elsewhere."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from nptwatch.store.records import Claim

BLIND_SECONDS = 60.0
"""So long no job below a folder that is not seen is taken; then one of them is tried again."""

LAG_SECONDS = 120.0
"""A network file system may show a new file to other hosts so late (NFS: a minute)."""


class Sight:
    """Tells a deleted file from one that this host cannot see, and remembers where it is blind.

    Args:
        shared: whether other hosts use the database too.
        host: what this one is called.
        seconds: a monotonic clock.
    """

    def __init__(
        self,
        *,
        shared: bool = False,
        host: str = socket.gethostname(),
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._host = host
        self._seconds = seconds
        self._until: dict[str, float] = {}

    @property
    def blind(self) -> tuple[str, ...]:
        """Folders that are not seen, of runs and watched roots."""
        now = self._seconds()
        self._until = {folder: until for folder, until in self._until.items() if until > now}
        return tuple(self._until)

    def unseen(self, claim: Claim) -> str | None:
        """Say why this host cannot know that the claim's files are gone; None: it can.

        A share that is not mounted is an empty folder, or none. What a host keeps, only it has.
        """
        if not _has_entries(claim.run_root):
            return self._be_blind(claim.run_root)
        if not Path(claim.run_path).is_dir():
            return self._be_blind(claim.run_path)
        if claim.kept_by not in {None, self._host}:
            self._be_blind(claim.run_path)
            return f"only {claim.kept_by} has the file, which it keeps"
        return None

    def unreadable(self, claim: Claim, error: Exception) -> str:
        """Say that the operating system refuses a file to this host; others may be let in."""
        self._be_blind(claim.run_path)
        return f"{self._host}: {error}"

    def is_late(self, claim: Claim, now: datetime) -> bool:
        """Say whether a file is so new that other hosts may have it before this one."""
        return self._shared and now.timestamp() - claim.mtime_ns / 1e9 < LAG_SECONDS

    def not_yet(self, claim: Claim) -> str:
        """Say that a new file is not there yet."""
        return f"{self._host} does not see {claim.paths[0]} yet"

    def _be_blind(self, folder: str) -> str:
        self._until[folder] = self._seconds() + BLIND_SECONDS
        return f"{self._host} does not see {folder}: mount it, or name its place in path_map there"


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as listing:
            return any(True for _ in listing)
    except OSError:
        return False
