"""The chores that bring back what dead workers had in hand.

A daemon does them, and so does every host of `nptwatch worker`: where several do, each job is
taken back by one, because every statement is guarded by the lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from nptwatch.service.schedule import Chore
from nptwatch.store.records import WorkerState

if TYPE_CHECKING:
    from nptwatch.service.build import Stores
    from nptwatch.settings import WorkerSettings

REAPER_SECONDS = 5.0
"""How soon an expired lease is noticed."""

FORGET_WORKERS_SECONDS = 7 * 24 * 3600.0
"""Each worker process has a row of its own; a week is enough to look into what happened."""

GONE = frozenset((WorkerState.STOPPED, WorkerState.LOST))

log = structlog.get_logger()


class Reaper:
    """Takes jobs from workers that are not heard of any more."""

    def __init__(self, stores: Stores, settings: WorkerSettings) -> None:
        self._stores = stores
        self._settings = settings

    def chores(self) -> list[Chore]:
        """What is to be done, and how often."""
        return [
            Chore(name="reap_leases", do=self.reap_leases, every_seconds=REAPER_SECONDS),
            Chore(name="lost_workers", do=self.note_lost_workers, every_seconds=REAPER_SECONDS),
        ]

    def reap_leases(self) -> None:
        """Take back jobs whose lease is past its time."""
        jobs = self._stores.queue.expire(
            max_attempts=self._settings.max_attempts,
            retry_delay_seconds=self._settings.retry_delay_seconds,
        )
        if jobs:
            log.warning("leases_expired", jobs=jobs)

    def note_lost_workers(self) -> None:
        """Write off workers that were silent for so long that their leases are gone too."""
        workers, settings = self._stores.workers, self._settings
        workers.forget(after_seconds=FORGET_WORKERS_SECONDS)
        alive = {row.worker_id for row in workers.alive(2 * settings.lease_seconds)}
        for row in workers.rows():
            if row.worker_id in alive or row.state in GONE:
                continue
            self._stores.queue.release_worker(
                row.worker_id,
                cause="lease_expired",
                error=f"worker {row.worker_id} was not heard of any more",
                max_attempts=settings.max_attempts,
                retry_delay_seconds=settings.retry_delay_seconds,
            )
            log.warning("worker_lost", worker_id=row.worker_id, host=row.host, pid=row.pid)
