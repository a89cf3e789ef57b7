"""Turns of the keeper beside a worker's measuring."""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING

import structlog

from nptwatch.errors import DatabaseError

if TYPE_CHECKING:
    from nptwatch.worker.keeper import Keeper

PATIENCE_SECONDS = 3.0
"""So long a worker that ends waits for a turn; a link takes none, a long copy is left to others."""

log = structlog.get_logger()


class KeeperThread:
    """Takes turns beside a worker's measuring: a slow or hanging disk holds up no result."""

    def __init__(self, keeper: Keeper, stop: threading.Event) -> None:
        self._keeper = keeper
        self._stop = stop
        self._due = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(
            target=copy_context().run,  # what logs are bound to
            args=(self._run,),
            name="nptwatch-keeper",
            daemon=True,
        )
        self._thread.start()

    def nudge(self) -> None:
        """Have a turn taken now."""
        self._idle.clear()
        self._due.set()

    def close(self) -> None:
        """End; a turn that is due may take a moment. What is left is the daemon's."""
        self._idle.wait(PATIENCE_SECONDS)
        self._stop.set()
        self._due.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._due.wait()
            self._due.clear()
            try:
                if not self._stop.is_set():
                    self._keeper.turn(wait=True)
            except DatabaseError as error:
                log.warning("keeping_put_off", error=str(error))
            except Exception:  # outermost of its thread: the daemon's turn comes
                log.exception("keeping_failed")
            finally:
                if not self._due.is_set():
                    self._idle.set()
