"""The composition root's pieces: settings in, connected objects out."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.diagnostics.identity import settings_hash
from nptwatch.errors import ConfigError, SchemaError
from nptwatch.settings import QUICK
from nptwatch.store import migrate as migrations
from nptwatch.store.alarms import Alarms
from nptwatch.store.catalog import Catalog
from nptwatch.store.chores import Chores
from nptwatch.store.engine import Database
from nptwatch.store.history import History
from nptwatch.store.kept import Kept
from nptwatch.store.outbox import Outbox
from nptwatch.store.queue import Queue
from nptwatch.store.records import Request
from nptwatch.store.retention import Retention
from nptwatch.store.upkeep import Upkeep
from nptwatch.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nptwatch.settings import Settings
    from nptwatch.watch.watcher import Watcher
    from nptwatch.worker.keeper import Keeper


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The database and everything that is kept in it."""

    database: Database
    catalog: Catalog
    queue: Queue
    workers: Workers
    history: History
    outbox: Outbox
    alarms: Alarms
    retention: Retention
    upkeep: Upkeep
    kept: Kept
    chores: Chores

    def close(self) -> None:
        """Close all connections."""
        self.database.close()


def open_stores(
    settings: Settings,
    *,
    migrate: bool = False,
    on_migration: Callable[[], None] | None = None,
    application: str = "nptwatch",
) -> Stores:
    """Connect to the database.

    Args:
        migrate: create or upgrade a SQLite database first. A server's schema is its
            administrator's: `nptwatch db upgrade`.
        on_migration: called before one of an older version is upgraded.
        application: as which it is seen at a server.

    Raises:
        ConfigError: the state folder cannot be used.
        SchemaError: the schema is not this version's.
        DatabaseError: the database cannot be reached.
    """
    if migrate:
        require_writable(settings.state_dir)
    database = Database.of(settings, application=application)
    try:
        _require_schema(
            database, may_upgrade=migrate and is_sqlite(settings), on_migration=on_migration
        )
    except BaseException:
        database.close()
        raise
    return Stores(
        database=database,
        catalog=Catalog(database),
        queue=Queue(database),
        workers=Workers(database),
        history=History(database),
        outbox=Outbox(database),
        alarms=Alarms(database),
        retention=Retention(database),
        upkeep=Upkeep(database),
        kept=Kept(database),
        chores=Chores(database),
    )


def build_watcher(
    settings: Settings,
    stores: Stores,
    on_queued: Callable[[], None],
    on_progress: Callable[[], None] | None = None,
) -> Watcher:
    """Build the watcher of these settings.

    Args:
        on_queued: called after a job was queued.
        on_progress: called all the while it works.

    Raises:
        ConfigError: a root has no name in the database.
    """
    from nptwatch.watch.discovery import nothing
    from nptwatch.watch.needs import Needs
    from nptwatch.watch.watcher import Watcher

    _require_names(settings)
    return Watcher(
        catalog=stores.catalog,
        request=request_of(settings),
        settings=settings.watch,
        canary_dir=settings.state_dir / "canary",
        on_queued=on_queued,
        is_named=settings.paths.is_named,
        min_gpu_mib=Needs(settings.labels, settings.base.model).min_gpu_mib,
        on_progress=on_progress or nothing,
    )


def _require_names(settings: Settings) -> None:
    paths = settings.paths
    for root in settings.watch.roots:
        if not paths.is_named(os.path.realpath(root)):
            message = (
                f"{root} has no name in the database: path_map says that {paths.stored(str(root))}"
                f" is {paths.here(paths.stored(str(root)))} here; give {root} an entry of its own"
            )
            raise ConfigError(message)


def build_keeper(settings: Settings, stores: Stores, stopping: Callable[[], bool]) -> Keeper:
    """Build what keeps checkpoints in the state folder.

    Args:
        stopping: asked now and then during a copy.
    """
    from nptwatch.worker.keeper import Keeper
    from nptwatch.worker.shelf import Shelf

    return Keeper(
        store=stores.kept,
        shelf=Shelf(settings.state_dir / "kept", settings.watch.roots),
        settings=settings.kept,
        stopping=stopping,
    )


def request_of(settings: Settings, profile: str = QUICK) -> Request:
    """Say what is asked for; of each new checkpoint the quick profile."""
    return Request(
        profile=profile,
        settings_hash=settings_hash(settings, profile),
        base_model=settings.base.model,
    )


def require_writable(folder: Path) -> None:
    """Create a folder if it is not there and make sure that files can be written in it.

    Raises:
        ConfigError: it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        message = (
            f"state folder {folder} cannot be written: {exc.strerror or exc}; "
            "set state_dir (or NPTWATCH_STATE_DIR) to a folder that can"
        )
        raise ConfigError(message) from exc


def is_sqlite(settings: Settings) -> bool:
    """Whether the database is a file of this host."""
    return settings.database_url.partition(":")[0].partition("+")[0] == "sqlite"


def _require_schema(
    database: Database, *, may_upgrade: bool, on_migration: Callable[[], None] | None
) -> None:
    try:
        migrations.check(database)
    except SchemaError:
        if not may_upgrade:
            raise
        if on_migration is not None and migrations.current(database) in migrations.REVISIONS:
            on_migration()
        migrations.upgrade(database)
        migrations.check(database)
