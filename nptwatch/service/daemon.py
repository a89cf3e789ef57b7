"""`nptwatch run`: starts the crew, minds signals, and ends when told to or when a helper died."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import structlog

from nptwatch.errors import NptwatchError
from nptwatch.health import PATIENCE_SECONDS
from nptwatch.service.build import require_writable
from nptwatch.service.crew import Crew, lock_paths
from nptwatch.service.inbox import Inbox
from nptwatch.service.lock import DaemonLocks
from nptwatch.service.systemd import Notifier
from nptwatch.service.vouching import Voucher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nptwatch.settings import Settings

CHECK_SECONDS = 1.0
"""How soon a dead helper is noticed."""

STOP_TAKES_SECONDS = 30.0
"""How much longer than its workers a daemon may take to stop."""

MIGRATION_SECONDS = 3600.0
"""How long a start may take where a history of years is brought to a newer schema."""

HELPER_DIED = 1
"""Exit code that makes systemd start the daemon again."""

log = structlog.get_logger()


class Daemon:
    """The long-running process.

    Args:
        settings: to start with.
        loader: reads the settings again for SIGHUP; None: SIGHUP starts the crew anew as it is.
        worker_arguments: more of the workers' command line; for tests (see worker_main).
        notifier: tells the service manager; None: whoever the environment names.
        patience: how long helpers may be silent; for tests (see Health).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        loader: Callable[[], Settings] | None = None,
        worker_arguments: Sequence[str] = (),
        notifier: Notifier | None = None,
        patience: Mapping[str, float] = PATIENCE_SECONDS,
    ) -> None:
        self._notifier = notifier or Notifier.of(os.environ)
        self._settings = settings
        self._loader = loader
        self._worker_arguments = tuple(worker_arguments)
        self._patience = patience
        self._inbox = Inbox()
        self._voucher = Voucher(self._notifier)
        self._locks = DaemonLocks()

    def run(self) -> int:
        """Run until stopped.

        Returns:
            0 after a stop, non-zero when a helper thread died.

        Raises:
            ConfigError: another daemon runs, or the state folder cannot be used.
            DatabaseError: the database cannot be reached or its schema does not fit.
        """
        try:
            crew = self._prepare(self._settings)
            self._inbox.listen((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
            crew.start()
            self._notifier.ready()
            return self._mind(crew)
        finally:
            self._locks.close()

    def stop(self) -> None:
        """End the daemon; may be called from any thread."""
        self._inbox.put(signal.SIGTERM)

    def _prepare(self, settings: Settings) -> Crew:
        """Build a crew; locks of a folder or database of before are kept until the end."""
        require_writable(settings.state_dir)
        self._locks.take(lock_paths(settings))
        return Crew(
            settings,
            worker_arguments=self._worker_arguments,
            is_heard=self._notifier.is_heard,
            patience=self._patience,
            on_migration=self._on_migration,
        )

    def _on_migration(self) -> None:
        """A copy is made and every table may be written anew: of years, that takes minutes."""
        log.info("database_upgrading", then="the daemon starts")
        self._notifier.status("brings the database up to date")
        self._notifier.busy(MIGRATION_SECONDS)

    def _mind(self, crew: Crew) -> int:
        while True:
            number = self._inbox.next(CHECK_SECONDS)
            if number == signal.SIGHUP:
                crew = self._reload(crew)
            elif number is not None:
                log.info("daemon_stopping", signal=number.name)
                self._stop(crew)
                log.info("daemon_stopped")
                return 0
            elif dead := crew.health.dead():
                log.critical("helper_died", helpers=dead)
                self._stop(crew)
                return HELPER_DIED
            else:
                self._voucher.tell(crew.health, crew.summary)

    def _stop(self, crew: Crew) -> None:
        self._notifier.stopping()
        self._ask_for_time()
        crew.stop(self._hurry)

    def _ask_for_time(self) -> None:
        """Workers may finish a job, and one that loads a base model stops for nobody meanwhile."""
        self._notifier.busy(self._settings.worker.shutdown_seconds + STOP_TAKES_SECONDS)

    def _hurry(self) -> bool:
        """Asked all the while a crew stops: that takes long, and is no hang."""
        self._notifier.alive()
        return self._inbox.in_hurry()

    def _reload(self, crew: Crew) -> Crew:
        """Replace the crew by one with the settings as they are now, if those work."""
        self._notifier.reloading()
        self._ask_for_time()
        try:
            return self._successor(crew)
        finally:
            self._notifier.ready()

    def _successor(self, crew: Crew) -> Crew:
        try:
            settings = self._settings if self._loader is None else self._loader()
            successor = self._prepare(settings)
        except NptwatchError as error:
            log.error("reload_failed", error=str(error))  # noqa: TRY400 - a user's typo
            return crew
        crew.stop(self._hurry)
        successor.start()
        self._settings = settings
        log.info("settings_reloaded")
        return successor
