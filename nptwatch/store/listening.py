"""Hears on Postgres that a job was queued, whichever host it was queued from."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING, Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from nptwatch.store.postgres import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import psycopg

    from nptwatch.store.engine import Database

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
"""Between tries to reach a server that went away; they double."""

log = structlog.get_logger()


class JobListener:
    """A thread with a connection of its own for as long as the context lasts; none for SQLite.

    It is a wake-up that may get lost, as all of them: while the server is away nothing is heard,
    so that who listens polls as well. Once it is back, what was missed counts as heard.

    Args:
        heard: called in the thread after jobs were queued.
    """

    def __init__(self, database: Database, heard: Callable[[], None]) -> None:
        self._database = database
        self._heard = heard
        self._read_fd, self._write_fd = os.pipe()
        self._stop = threading.Event()
        self._is_cut_off = False
        self._thread = threading.Thread(target=self._run, name="nptwatch-listener", daemon=True)

    def __enter__(self) -> Self:
        """Begin to listen."""
        if self._database.path is None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the thread."""
        self._stop.set()
        os.write(self._write_fd, b"\n")
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._read_fd)
        os.close(self._write_fd)

    def _run(self) -> None:
        from psycopg import Error

        pause_seconds = FIRST_PAUSE_SECONDS
        while not self._stop.is_set():
            try:
                with self._connect() as connection:
                    pause_seconds = FIRST_PAUSE_SECONDS
                    self._listen(connection)
            except (SQLAlchemyError, Error) as error:
                if not self._is_cut_off:
                    log.warning("listener_cut_off", error=" ".join(str(error).split()))
                self._is_cut_off = True
                self._stop.wait(pause_seconds)
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
            except Exception:  # outermost of its thread: polling goes on
                log.exception("listener_failed")
                return

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """Open a connection outside the pool, which must not be full because of it."""
        import psycopg

        arguments = self._database.engine.dialect.create_connect_args(self._database.engine.url)
        given = {**arguments[1], **self._database.connect_arguments}
        return psycopg.connect(**given, autocommit=True)

    def _listen(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        connection.execute(f"LISTEN {CHANNEL}".encode())
        if self._is_cut_off:
            self._is_cut_off = False
            log.info("listener_back")
        self._heard()  # what was queued before LISTEN was heard by nobody
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN)
        poller.register(self._read_fd, select.POLLIN)
        while not self._stop.is_set():
            poller.poll()
            if [*connection.notifies(timeout=0)]:
                self._heard()
