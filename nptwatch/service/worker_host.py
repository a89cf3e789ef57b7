"""`nptwatch worker`: workers without a watcher, beside a daemon that is somewhere else."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Protocol

import structlog

from nptwatch.health import Health
from nptwatch.service.inbox import Inbox
from nptwatch.service.reaper import Reaper
from nptwatch.service.schedule import Schedule
from nptwatch.service.systemd import Notifier
from nptwatch.service.vouching import Voucher

if TYPE_CHECKING:
    from collections.abc import Callable

    from nptwatch.service.build import Stores
    from nptwatch.settings import Settings

CHECK_SECONDS = 0.25
"""How soon a dead helper, or that all work is done, is noticed."""

STOP_TAKES_SECONDS = 30.0
"""How much longer than its workers a host may take to stop."""

PATIENCE_SECONDS = 300.0
"""All its chores ask the database, which may be slow to say that it is away."""

HELPER_DIED = 1
"""Exit code that makes whatever supervises this start it again."""

log = structlog.get_logger()


class Team(Protocol):
    """Some workers: processes of this host (Supervisor), or actors on Ray (RayTeam)."""

    def start(self) -> None:
        """Start all workers; returns before they are ready."""

    def is_alive(self) -> bool:
        """Whether those who look after the workers do."""

    def is_done(self) -> bool:
        """Whether all workers ended because nothing is queued."""

    def stop(self, hurry: Callable[[], bool]) -> None:
        """End all workers: first politely, in the end by force."""


class WorkerHost:
    """Keeps a team at work until it is told to stop, its time is up, or nothing is queued.

    Args:
        max_seconds: stop after so long; None: no limit.
        patience_seconds: chores of which none ends for so long hang.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        team: Team,
        *,
        max_seconds: float | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._database = stores.database.safe_url
        self._team = team
        self._max_seconds = max_seconds
        self._inbox = Inbox()
        # A dead worker's job must come back where no daemon is left to see to it.
        chores = Reaper(stores, settings.worker).chores()
        self._schedule = Schedule(chores, lambda _turn: self._health.beat("scheduler"))
        self._health = Health(
            {"workers": team.is_alive, "scheduler": self._schedule.is_alive},
            patience={"scheduler": patience_seconds},
        )
        self._notifier = Notifier.of(os.environ)
        self._voucher = Voucher(self._notifier)
        self._stop_takes_seconds = settings.worker.shutdown_seconds + STOP_TAKES_SECONDS

    def run(self) -> int:
        """Run until the end.

        Returns:
            0, or non-zero when a helper thread died.
        """
        # a closed terminal stops as Ctrl-C does: no daemon reads its settings again here
        self._inbox.listen((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        log.info("worker_host_started", database=self._database)
        self._team.start()
        self._health.beat("scheduler")
        self._schedule.start()
        self._notifier.ready()
        try:
            return self._mind()
        finally:
            self._notifier.stopping()
            self._notifier.busy(self._stop_takes_seconds)
            self._team.stop(self._hurry)
            self._schedule.stop()
            log.info("worker_host_stopped")

    def _hurry(self) -> bool:
        """Asked all the while the team stops: that takes long, and is no hang."""
        self._notifier.alive()
        return self._inbox.in_hurry()

    def _mind(self) -> int:
        deadline = time.monotonic() + (self._max_seconds or float("inf"))
        while True:
            number = self._inbox.next(CHECK_SECONDS)
            if number is not None:
                log.info("worker_host_stopping", signal=number.name)
                return 0
            if self._team.is_done():
                return 0
            if time.monotonic() > deadline:
                log.info("worker_host_stopping", reason="its time is up")
                return 0
            if dead := self._health.dead():
                log.critical("helper_died", helpers=dead)
                return HELPER_DIED
            self._voucher.tell(self._health, "at work")
