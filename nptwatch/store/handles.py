"""The open connections of a database: given up all at once, between transactions."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine


class Handles:
    """Who uses an engine's connections, so that they are closed while nobody does.

    SQLite shares what a process has open of a file among its connections: one that is left from a
    time when the file was read-only makes every new one read-only, so all must go together. And
    none may be closed under another thread, which may be inside the library with it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Condition()
        self._users: Counter[int] = Counter()
        self._is_stale = False

    @contextmanager
    def used(self) -> Iterator[None]:
        """Hold the connections open; waits while they are about to be closed."""
        me = threading.get_ident()
        with self._turn:
            while self._is_stale and not self._users[me]:
                self._turn.wait()
            self._users[me] += 1
        try:
            yield
        finally:
            with self._turn:
                self._users -= Counter({me: 1})  # forgets threads that are at zero
                self._close_unused()

    def close(self) -> None:
        """Close all: now, or once the last transaction of any thread is over."""
        with self._turn:
            self._is_stale = True
            self._close_unused()

    def _close_unused(self) -> None:
        if self._is_stale and not self._users:
            self._is_stale = False
            self._engine.dispose()
            self._turn.notify_all()
