"""Whether the database can be reached and written, and has this version's tables."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from nptwatch.doctor.finding import Finding, fail, ok, warn
from nptwatch.errors import ConfigError, DatabaseError, SchemaError
from nptwatch.filesystem import filesystem_of
from nptwatch.store import migrate
from nptwatch.store.engine import Database
from nptwatch.store.server import server_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nptwatch.settings import Settings

SKEW_SECONDS: Final = 5.0
"""Leases are measured by each host's own clock, and last a minute."""


def can_be_used(settings: Settings) -> Iterator[Finding]:
    """Open it as the daemon does, without changing it."""
    name, where = "database", settings.safe_database_url
    file = settings.sqlite_file
    if file is not None and not file.exists():
        found = filesystem_of(file.parent)
        if found is not None and found.network:
            fix = "put state_dir on a local disk, or use Postgres (database.url)"
            text = f"SQLite's locks do not hold on {found.name}, where {file} is to be"
            yield fail(name, text, fix)
        else:
            yield ok(name, f"{where} is not there yet: `nptwatch run` makes it")
        return
    try:
        database = Database.of(settings, application="nptwatch doctor")
    except ConfigError as error:
        yield fail(name, str(error), "correct database.url or state_dir")
        return
    try:
        yield from _opened(name, where, database)
    except DatabaseError as error:
        text = str(error).removeprefix("database ")
        yield fail(name, text, "as it says; daemon and workers wait and lose nothing meanwhile")
    finally:
        database.close()


def _opened(name: str, where: str, database: Database) -> Iterator[Finding]:
    begun = time.monotonic()
    found = migrate.current(database)
    took = time.monotonic() - begun
    facts = server_facts(database)
    try:
        migrate.check(database)
    except SchemaError as error:
        if database.path is not None and (found is None or found in migrate.REVISIONS):
            text = f"{where} is at schema {found or 'none'}, this version has {migrate.head()}"
            fix = "`nptwatch run` upgrades it, after a copy; or `nptwatch db upgrade` now"
            yield warn(name, text, fix)
        else:
            fix = "as it says; until then neither daemon nor workers start"
            yield fail(name, str(error).removeprefix("database "), fix)
        return
    with database.begin():  # takes SQLite's write lock; a server refuses nothing here
        pass
    yield ok(name, f"{where}, {facts.version}, schema {found}, answers in {took * 1000:.0f} ms")
    if facts.now is not None:
        skew = (facts.now - datetime.now(UTC)).total_seconds()
        yield _clock("clock of the database", skew)


def _clock(name: str, skew: float) -> Finding:
    if abs(skew) <= SKEW_SECONDS:
        return ok(name, "agrees with this host's")
    text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's"
    fix = "set all hosts' clocks by NTP: leases last `worker.lease_seconds` by each host's own"
    return warn(name, text, fix)
