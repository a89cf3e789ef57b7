"""What a service manager is told of the helpers: one that hangs is not vouched for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from nptwatch.health import Health
    from nptwatch.service.systemd import Notifier

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
