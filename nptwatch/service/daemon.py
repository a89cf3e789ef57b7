"""`nptwatch run`: starts the crew, minds signals, and ends when told to or when a helper died."""

from __future__ import annotations

import queue
import signal
import threading
from typing import TYPE_CHECKING

import structlog

from nptwatch.errors import NptwatchError
from nptwatch.service.build import require_writable
from nptwatch.service.crew import Crew, lock_paths
from nptwatch.service.lock import DaemonLocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nptwatch.settings import Settings

CHECK_SECONDS = 1.0
"""How soon a dead helper is noticed."""

HELPER_DIED = 1
"""Exit code that makes systemd start the daemon again."""

HURRY_AT_INTERRUPTS = 2

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
        # A SimpleQueue is the one thing that a signal handler may fill at any moment.
        self._inbox: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()
        self._interrupts = 0
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
            self._listen()
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

    def _listen(self) -> None:
        """Have signals put in the inbox; without effect where the daemon runs in a thread."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda number, _frame: self._note(signal.Signals(number)))

    def _note(self, number: signal.Signals) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
        self._inbox.put(number)

    def _mind(self, crew: Crew) -> int:
        while True:
            number = self._next_signal()
            if number == signal.SIGHUP:
                crew = self._reload(crew)
            elif number is not None:
                log.info("daemon_stopping", signal=number.name)
                crew.stop(self._in_hurry)
                log.info("daemon_stopped")
                return 0
            elif dead := crew.dead():
                log.critical("helper_died", helpers=dead)
                crew.stop(self._in_hurry)
                return HELPER_DIED

    def _next_signal(self) -> signal.Signals | None:
        try:
            return self._inbox.get(timeout=CHECK_SECONDS)
        except queue.Empty:
            return None

    def _in_hurry(self) -> bool:
        return self._interrupts >= HURRY_AT_INTERRUPTS

    def _reload(self, crew: Crew) -> Crew:
        """Replace the crew by one with the settings as they are now, if those work."""
        try:
            settings = self._settings if self._loader is None else self._loader()
            successor = self._prepare(settings)
        except NptwatchError as error:
            log.error("reload_failed", error=str(error))  # noqa: TRY400 - a user's typo
            return crew
        crew.stop(self._in_hurry)
        successor.start()
        self._settings = settings
        log.info("settings_reloaded")
        return successor
