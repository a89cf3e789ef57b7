"""`nptwatch run`: starts the crew, minds signals, and ends when told to or when a helper died."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import structlog

from nptwatch.errors import NptwatchError
from nptwatch.service.build import require_writable
from nptwatch.service.crew import Crew, lock_paths
from nptwatch.service.inbox import Inbox
from nptwatch.service.lock import DaemonLocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nptwatch.settings import Settings

CHECK_SECONDS = 1.0
"""How soon a dead helper is noticed."""

HELPER_DIED = 1
"""Exit code that makes systemd start the daemon again."""

log = structlog.get_logger()


class Daemon:
    """The long-running process.

    Args:
        settings: to start with.
        loader: reads the settings again for SIGHUP; None: SIGHUP starts the crew anew as it is.
        worker_arguments: more of the workers' command line; for tests (see worker_main).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        loader: Callable[[], Settings] | None = None,
        worker_arguments: Sequence[str] = (),
    ) -> None:
        self._settings = settings
        self._loader = loader
        self._worker_arguments = tuple(worker_arguments)
        self._inbox = Inbox()
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
        return Crew(settings, worker_arguments=self._worker_arguments)

    def _mind(self, crew: Crew) -> int:
        while True:
            number = self._inbox.next(CHECK_SECONDS)
            if number == signal.SIGHUP:
                crew = self._reload(crew)
            elif number is not None:
                log.info("daemon_stopping", signal=number.name)
                crew.stop(self._inbox.in_hurry)
                log.info("daemon_stopped")
                return 0
            elif dead := crew.health.dead():
                log.critical("helper_died", helpers=dead)
                crew.stop(self._inbox.in_hurry)
                return HELPER_DIED

    def _reload(self, crew: Crew) -> Crew:
        """Replace the crew by one with the settings as they are now, if those work."""
        try:
            settings = self._settings if self._loader is None else self._loader()
            successor = self._prepare(settings)
        except NptwatchError as error:
            log.error("reload_failed", error=str(error))  # noqa: TRY400 - a user's typo
            return crew
        crew.stop(self._inbox.in_hurry)
        successor.start()
        self._settings = settings
        log.info("settings_reloaded")
        return successor
