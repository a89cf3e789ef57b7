"""Who hangs: helpers, for which nobody vouches to a service manager then, and chores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nptwatch.health import Health
    from nptwatch.service.systemd import Notifier

CHORE_PATIENCE_SECONDS = 1800.0
"""No chore takes so long, unless it copies a large checkpoint to a slow disk."""

log = structlog.get_logger()


class Voucher:
    """Keeps the watchdog quiet for as long as all helpers get on; called by the main loop."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._hung: list[str] = []

    def tell(self, health: Health, summary: str) -> None:
        """Say how it goes.

        Args:
            summary: shown while all is well.
        """
        hung = health.ill()
        if not hung:
            self._notifier.alive()
        elif hung != self._hung:
            log.critical("helper_hangs", helpers=hung)
        self._hung = hung
        self._notifier.status(f"hung: {', '.join(hung)}" if hung else summary)


class LongTurns:
    """Says once of a chore that its turn does not end, while the others go on.

    It is no reason to start the daemon anew: a copy to a slow disk takes long too.

    Args:
        running: gives the chores whose turn it is, and for how many seconds.
    """

    def __init__(
        self,
        running: Callable[[], Mapping[str, float]],
        *,
        patience_seconds: float = CHORE_PATIENCE_SECONDS,
    ) -> None:
        self._running = running
        self._patience_seconds = patience_seconds
        self.names: tuple[str, ...] = ()

    def look(self) -> None:
        """Look who is at it for too long; log what is new."""
        turns = self._running().items()
        names = tuple(sorted(n for n, seconds in turns if seconds > self._patience_seconds))
        for name in set(names) - set(self.names):
            log.error("chore_hangs", chore=name, minutes=round(self._patience_seconds / 60, 1))
        for name in set(self.names) - set(names):
            log.info("chore_ended_at_last", chore=name)
        self.names = names
