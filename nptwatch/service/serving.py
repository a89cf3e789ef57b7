"""The daemon's web server: built from its parts, where the settings name an address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nptwatch.errors import DatabaseError
from nptwatch.store import migrate
from nptwatch.store.gauges import GaugeReader
from nptwatch.web_settings import split_address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nptwatch.health import Health
    from nptwatch.service.build import Stores
    from nptwatch.settings import Settings
    from nptwatch.store.chore_records import ChoreRecord
    from nptwatch.watch.watcher import Watcher
    from nptwatch.web.server import WebServer


def build_web(
    settings: Settings,
    stores: Stores,
    watcher: Watcher,
    health: Health,
    chores: Callable[[], Sequence[ChoreRecord]],
) -> WebServer | None:
    """Build it; None: no address is set.

    Args:
        chores: gives how the daemon's chores went.
    """
    if not settings.web.listen:
        return None
    # imported here: who serves nothing need not have it in memory
    from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
    from prometheus_client.registry import CollectorRegistry

    from nptwatch.web.metrics import DaemonCollector
    from nptwatch.web.server import WebServer

    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    registry.register(
        DaemonCollector(
            GaugeReader(stores.database, silent_seconds=settings.worker.lease_seconds),
            health,
            chores,
            lambda: watcher.last_scan,
        )
    )
    return WebServer(
        split_address(settings.web.listen),
        registry=registry,
        health=health,
        reasons=lambda: reasons_against(stores, watcher),
    )


def reasons_against(stores: Stores, watcher: Watcher) -> dict[str, str]:
    """Say what keeps the daemon from being ready; empty: nothing."""
    found = {}
    try:
        migrate.check(stores.database)
    except DatabaseError as error:
        found["database"] = str(error)
    if watcher.last_scan is None:
        found["watcher"] = "its first scan is not over"
    return found
