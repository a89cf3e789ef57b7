"""What a database says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - of a record
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nptwatch.store.engine import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What a database says of itself.

    Attributes:
        version: with its name.
        now: a server's clock; None: it is this host's.
    """

    version: str
    now: datetime | None


def server_facts(database: Database) -> ServerFacts:
    """Ask it.

    Raises:
        DatabaseError: it cannot be read.
    """
    with database.read() as connection:
        if database.path is not None:
            version = connection.exec_driver_sql("SELECT sqlite_version()").scalar_one()
            return ServerFacts(version=f"SQLite {version}", now=None)
        version, now = connection.exec_driver_sql(
            "SELECT current_setting('server_version'), clock_timestamp()"
        ).one()
        return ServerFacts(version=f"Postgres {str(version).split()[0]}", now=now)
