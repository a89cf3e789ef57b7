"""The daemon forgets what is old by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from serving import DaemonProcess, Place
from stocking import QUICK, alert_good, claimed, measured, path_of, whole

from nptwatch.store.catalog import Catalog
from nptwatch.store.queue import Queue

if TYPE_CHECKING:
    from pathlib import Path


def test_the_daemon_forgets_what_is_older_than_keep_days(tmp_path: Path) -> None:
    """At its start, and every few hours; it says what, and has the planner know what is left."""
    place = Place(tmp_path)
    long_ago = datetime.now(UTC) - timedelta(days=40)
    catalog = Catalog(place.stores.database, clock=lambda: long_ago)
    queue = Queue(place.stores.database, clock=lambda: long_ago)
    for step in (1, 2, 3):
        catalog.admit(whole(step=step), QUICK)
        result = measured("FAIR", 0.5 - step / 10)
        assert queue.finish(claimed(queue), "w", result, alert_good)
    catalog.gone([path_of("a", f"checkpoint-{step}") for step in (1, 2, 3)])
    daemon = DaemonProcess(place, place.settings(database={"keep_days": 30}))
    try:
        event = daemon.wait_for("old_forgotten")
        assert (event["keep_days"], event["checkpoints"], event["results"]) == (30, 1, 1)
        assert set(place.history("a")) == {1, 3}
        daemon.wait_for("daemon_started")
        assert daemon.stop() == 0
    finally:
        daemon.close()
        place.close()
