"""Keeping the database small and quick, as chores of the daemon."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import structlog

from nptwatch.service.schedule import Chore

if TYPE_CHECKING:
    from collections.abc import Callable

    from nptwatch.service.build import Stores

TIDY_SECONDS = 6 * 3600.0
"""How often old rows are forgotten."""

log = structlog.get_logger()


class Tidier:
    """Forgets what is old; daemons that share a database may each do so.

    Args:
        keep_days: 0: forget nothing.
        pause: waits for so many seconds; true: the daemon stops.
    """

    def __init__(self, stores: Stores, *, keep_days: int, pause: Callable[[float], bool]) -> None:
        self._stores = stores
        self._keep_days = keep_days
        self._pause = pause

    def chores(self) -> list[Chore]:
        """Give what is to be done every so often."""
        return [Chore(name="tidy", do=self.tidy, every_seconds=TIDY_SECONDS)]

    def tidy(self) -> None:
        """Forget what is old, some at a time, and let SQLite's planner know what is left."""
        if self._keep_days:
            forgotten = self._stores.retention.forget(self._keep_days, pause=self._pause)
            if forgotten.checkpoints:
                log.info("old_forgotten", keep_days=self._keep_days, **asdict(forgotten))
        if self._stores.database.path is not None:
            self._stores.upkeep.analyze()
