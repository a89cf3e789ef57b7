"""Exports of a test's database, each by the real process, into the test's folder."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from stocking import QUICK, alert_good, claimed, measured, whole

from nptwatch.exports.exporter import Exporter
from nptwatch.exports.targets import make_targets
from nptwatch.settings import Settings
from nptwatch.store.catalog import Catalog
from nptwatch.store.exporting import Exports
from nptwatch.store.queue import Queue

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import FakeClock

    from nptwatch.store.engine import Database

ENV = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}


class Exporting:
    """One kind of export.

    Args:
        settings: of the export, beside `on` and `folder`.
    """

    def __init__(
        self,
        database: Database,
        clock: FakeClock,
        folder: Path,
        name: str,
        **settings: Any,  # Any: settings
    ) -> None:
        self.database = database
        self.clock = clock
        self.folder = folder / "exports"
        self._settings = {"on": True, "folder": self.folder, **settings}
        self._name = name
        self._state_dir = folder

    def record(self, *steps: int | None, run: str = "a", grade: str = "GOOD") -> None:
        """Have workers record a result for each step, in this order."""
        catalog = Catalog(self.database, clock=self.clock)
        queue = Queue(self.database, clock=self.clock)
        for step in steps:
            catalog.admit(whole(run, step), QUICK)
            result = measured(grade, None if step is None else 1 / step)
            assert queue.finish(claimed(queue), "w", result, alert_good)

    def exporter(
        self,
        daemon: str = "d",
        env: dict[str, str] | None = None,
        database: Database | None = None,
        **settings: Any,  # Any: settings
    ) -> Exporter:
        """Give a daemon's exporter.

        Args:
            env: of its processes, beside the usual one.
            settings: others than this export's.
        """
        exports = {self._name: self._settings | settings}
        env = ENV | (env or {})
        (target,) = make_targets(Settings(state_dir=self._state_dir, exports=exports), env=env)  # type: ignore[arg-type]
        store = Exports(database or self.database, daemon, clock=self.clock)
        return Exporter(store, target, env=env, clock=self.clock)

    def forget_how_far(self) -> None:
        """Have the database say that nothing was exported: killed before it was noted."""
        with self.database.begin() as connection:
            connection.exec_driver_sql("UPDATE exports SET ordinal = 0")

    def lines(self, run: str = "a") -> list[dict[str, Any]]:  # Any: JSON
        """Give what a run's file of JSON lines holds."""
        path = self.folder / f"{run}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def steps(self, run: str = "a") -> list[int | None]:
        """Give the steps of a run's file of JSON lines, as they stand."""
        return [line["step"] for line in self.lines(run)]
