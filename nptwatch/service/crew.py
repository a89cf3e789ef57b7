"""Everything of the daemon that depends on its settings: built, started and stopped as one."""

from __future__ import annotations

import os
import threading
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.engine import make_url

from nptwatch.alerts.channels import (
    channel_names,
    chosen_channels,
    make_channels,
    require_secrets,
)
from nptwatch.alerts.outbox import Sender
from nptwatch.alerts.routing import Router
from nptwatch.alerts.templates import Texts
from nptwatch.alerts.watching import Lookout
from nptwatch.diagnostics.identity import bounds_of
from nptwatch.exports.exporter import Exporter
from nptwatch.exports.targets import make_targets
from nptwatch.health import PATIENCE_SECONDS, Health
from nptwatch.service.build import build_keeper, build_watcher, is_sqlite, open_stores
from nptwatch.service.chore_book import ChoreBook, daemon_name
from nptwatch.service.digesting import LOOK_SECONDS, Digest
from nptwatch.service.forecasting import Forecasts
from nptwatch.service.reaper import Reaper
from nptwatch.service.schedule import Chore, Schedule
from nptwatch.service.serving import build_web
from nptwatch.service.supervisor import STOP_MARGIN_SECONDS, Supervisor
from nptwatch.service.tidying import Tidier
from nptwatch.service.vouching import LongTurns
from nptwatch.store.exporting import Exports
from nptwatch.store.records import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nptwatch.service.schedule import Turn
    from nptwatch.settings import Settings

SENDER_SECONDS = 1.0
"""How soon an alert goes out after the result that raised it."""

KEEPER_SECONDS = 5.0
"""How soon a checkpoint is kept whose worker was killed, or could not keep it."""

LOOKOUT_SECONDS = 15.0
"""How soon silence is noticed, beside how long it must last."""

EXPORT_PATIENCE_SECONDS = 3.0
"""On stop, how long an export that runs may take."""

SUMMARY_SECONDS = 5.0
"""How old the line that `systemctl status` shows may be."""

log = structlog.get_logger()


def lock_paths(settings: Settings) -> list[Path]:
    """The lock files of a daemon with these settings."""
    paths = [settings.state_dir / "daemon.lock"]
    database = make_url(settings.database_url).database
    if is_sqlite(settings) and database and Path(database).parent != settings.state_dir:
        paths.append(Path(f"{database}.daemon.lock"))
    return paths


class Crew:
    """Watcher, workers, chores and sender of one daemon, by one version of the settings.

    Building it connects to the database but starts nothing, so that settings which do not work
    are found out while the crew before still runs.

    Args:
        is_heard: somebody wants to know its `summary`.
        patience: how long its helpers may be silent (see Health).
        on_migration: called before a database of an older version is upgraded.

    Attributes:
        health: how its helpers are.
        summary: in a line, how much waits and what was found last.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        worker_arguments: Sequence[str],
        is_heard: bool = False,
        patience: Mapping[str, float] = PATIENCE_SECONDS,
        on_migration: Callable[[], None] | None = None,
    ) -> None:
        self._is_heard = is_heard
        self.summary = "starts"
        require_secrets(settings.channels, env=os.environ)
        digest_channels = chosen_channels(
            "digest.channels", settings.digest.channels, settings.channels
        )
        targets = make_targets(settings, env=os.environ)
        self._settings = settings
        self._stores = open_stores(
            settings, migrate=True, on_migration=on_migration, application="nptwatch run"
        )
        self._supervisor = Supervisor(settings, self._stores, arguments=worker_arguments)
        self._watcher = build_watcher(
            settings,
            self._stores,
            self._supervisor.nudge,
            on_progress=lambda: self.health.beat("watcher"),
        )
        self._stop_watching = threading.Event()
        self._watch_thread = threading.Thread(
            target=self._watch, name="nptwatch-watcher", daemon=True
        )
        channels = make_channels(settings.channels, env=os.environ)
        self._sender = Sender(
            self._stores.outbox,
            channels,
            settings.alerts,
            texts=Texts(settings.alerts.templates),
            forecast=Forecasts(self._stores.history, bounds_of(settings)).of,
            random=Random(),  # noqa: S311 - jitter
        )
        self._digest = Digest(
            self._stores,
            at=settings.digest.at,
            channels=digest_channels,
            clock=lambda: datetime.now().astimezone(),
        )
        exports = Exports(self._stores.database, daemon_name(settings.state_dir))
        self._exporters = [Exporter(exports, target, env=os.environ) for target in targets]
        self._keeper = build_keeper(settings, self._stores, self._stop_watching.is_set)
        router = Router(settings.alerts, channel_names(settings.channels))
        self._book = ChoreBook(
            self._stores.chores,
            self._stores.alarms,
            router,
            daemon_name(settings.state_dir),
            names=lambda: [chore.name for chore in chores],
        )
        self._lookout = Lookout(
            self._stores.alarms,
            router,
            settings.alerts,
            roots=[os.path.realpath(root) for root in settings.watch.roots],
        )
        chores = self._chores()
        self._schedule = Schedule(chores, self._done)
        self._long_turns = LongTurns(self._schedule.running)
        self.health = Health(
            {
                "watcher": self._watch_thread.is_alive,
                "workers": self._supervisor.is_alive,
                "scheduler": self._schedule.is_alive,
            },
            patience=patience,
        )
        self._web = build_web(
            settings, self._stores, self._watcher, self.health, self._book.records
        )

    def start(self) -> None:
        """Start all threads and processes."""
        log.info(
            "daemon_started",
            roots=[str(root) for root in self._settings.watch.roots],
            database=self._stores.database.safe_url,
            workers=self._settings.worker.count,
        )
        for helper in ("watcher", "scheduler"):
            self.health.beat(helper)  # one that hangs before its first sign of life hangs too
        self._supervisor.start()
        self._watch_thread.start()
        self._schedule.start()
        if self._web is not None:
            self._web.start()

    def _sum_up(self) -> None:
        self.summary = "no database"
        depth = self._stores.queue.depth()
        last = self._stores.history.changes(limit=1)
        queue = f"{depth[JobState.QUEUED]} queued, {depth[JobState.LEASED]} at work"
        hung = [f"{name} hangs" for name in self._long_turns.names]
        self.summary = "; ".join([queue, *(f"{c.run} {c.new}" for c in last), *hung])

    def stop(self, hurry: Callable[[], bool]) -> None:
        """Stop everything, workers first; alerts of their last jobs still go out.

        Args:
            hurry: true once somebody lost patience.
        """
        deadline = time.monotonic() + self._settings.worker.shutdown_seconds + STOP_MARGIN_SECONDS
        if self._web is not None:
            self._web.stop()
        self._stop_watching.set()
        self._supervisor.stop(hurry)
        self._stop_chores(0.0 if hurry() else max(deadline - time.monotonic(), 0.0))
        self._watch_thread.join(STOP_MARGIN_SECONDS)
        self._stores.close()

    def _stop_chores(self, patience_seconds: float) -> None:
        helpers: tuple[Sender | Exporter, ...] = (self._sender, *self._exporters)
        breakers = []
        for helper in helpers:
            helper.stop()
            # alerts are waited for; what is not exported is exported at the next start
            longest = patience_seconds if helper is self._sender else EXPORT_PATIENCE_SECONDS
            breaker = threading.Timer(min(patience_seconds, longest), helper.close)
            breaker.name = "nptwatch-stop-sender"
            breaker.start()
            breakers.append(breaker)
        self._schedule.stop()
        for breaker in breakers:
            breaker.cancel()
            breaker.join()

    def _watch(self) -> None:
        try:
            self._watcher.run(self._stop_watching)
        except Exception:  # outermost of its thread: the daemon sees the dead thread and ends
            log.exception("watcher_failed")

    def _look_at_chores(self) -> None:
        self._long_turns.look()

    def _summary_chores(self) -> list[Chore]:
        """A database that does not answer must not hold up the loop that vouches for the daemon."""
        if not self._is_heard:
            return []
        return [Chore(name="sum_up", do=self._sum_up, every_seconds=SUMMARY_SECONDS)]

    def _done(self, turn: Turn) -> None:
        self.health.beat("scheduler")
        self._book.note(turn)

    def _chores(self) -> list[Chore]:
        rescan_seconds = self._settings.watch.rescan_seconds
        return [
            Chore(
                name="rescan",
                do=self._watcher.rescan,
                every_seconds=rescan_seconds,
                at_start=False,  # the watcher begins with a scan
            ),
            *Reaper(self._stores, self._settings.worker).chores(),
            *Tidier(
                self._stores,
                keep_days=self._settings.database.keep_days,
                pause=self._stop_watching.wait,
            ).chores(),
            Chore(name="watch_runs", do=self._lookout.look, every_seconds=LOOKOUT_SECONDS),
            Chore(name="digest", do=self._digest.turn, every_seconds=LOOK_SECONDS),
            *self._book.chores(),
            Chore(name="look_at_chores", do=self._look_at_chores, every_seconds=LOOKOUT_SECONDS),
            *self._summary_chores(),
            Chore(name="keep", do=self._keeper.turn, every_seconds=KEEPER_SECONDS),
            *(
                Chore(  # one for each channel: one that hangs holds up no other
                    name=f"send_alerts_{channel}",
                    do=partial(self._sender.run_due, channel),
                    every_seconds=SENDER_SECONDS,
                )
                for channel in channel_names(self._settings.channels)
            ),
            *(
                Chore(
                    name=f"export_{exporter.target.name}",
                    do=exporter.turn,
                    every_seconds=exporter.target.every_seconds,
                )
                for exporter in self._exporters
            ),
        ]
