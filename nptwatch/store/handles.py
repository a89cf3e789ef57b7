"""The open connections of a SQLite file: given up together, or the file stays as they found it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from sqlalchemy import event

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry


class Handles:
    """All connections that an engine has opened, of pools that it gave up too.

    SQLite shares what a process has open of a file among its connections. One that is left from a
    time when the file was read-only makes every new one read-only; and `Engine.dispose` leaves
    those open that are in use just then, in a pool that nobody looks at any more.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._entries: WeakSet[ConnectionPoolEntry] = WeakSet()
        event.listen(engine, "connect", self._opened)

    def close(self) -> None:
        """Close all but those in use by others, which are closed the next time."""
        before = list(self._entries)
        self._engine.dispose()
        for entry in before:
            if not entry.in_use:
                entry.invalidate()

    def _opened(self, _connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        self._entries.add(entry)
