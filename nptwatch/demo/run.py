"""The demo: a base from code, a real training process, the real daemon, and what came of them."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.demo.children import Child, DemoError
from nptwatch.demo.closing import Closing
from nptwatch.demo.show import Progress, Show, Snapshot, show_on
from nptwatch.errors import ConfigError, DatabaseError
from nptwatch.store.engine import Database
from nptwatch.store.history import History
from nptwatch.store.outbox import Outbox
from nptwatch.store.records import FileState, JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from nptwatch.demo.folder import DemoFolder
    from nptwatch.store.records import HistoryRow

POLL_SECONDS = 0.5
"""The display is refreshed so often."""
BUILD_SECONDS = 120
TRAINING_SECONDS = 900
"""Ten times what training takes: a slow machine is no failure."""
MEASURING_SECONDS = 120
"""After training, for the checkpoints that still wait, and the alerts."""
STOPPING_SECONDS = 45
OPEN = frozenset({JobState.QUEUED, JobState.LEASED, FileState.SETTLING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """One run of the demo.

    Args:
        folder: where everything goes.
        steps: training steps.
        seed: of the base's weights and of the training.
        command: how the user calls nptwatch, for what to type next.
        cwd: what printed paths are relative to.
        env: of the processes that are started.
    """

    folder: DemoFolder
    steps: int
    seed: int
    command: str
    cwd: Path
    env: Mapping[str, str]
    console: Console

    def run(self) -> None:
        """Show everything.

        Raises:
            ConfigError: the folder cannot be used.
            DemoError: a process failed, training did not reach GOOD, or no alert arrived.
        """
        started = time.monotonic()
        with self.folder.taken() as marker:
            keep = marker.fileno()
            self.folder.write_config()
            with show_on(self.console) as show:
                self._build_base(show, keep)
                self._train_and_watch(show, keep)
            self._close(time.monotonic() - started)

    def _build_base(self, show: Show, keep: int) -> None:
        show.update(Snapshot(phase="building a tiny random Llama and its tokenizer"))
        options = ("--output", str(self.folder.base), "--seed", str(self.seed))
        with ExitStack() as stack:
            builder = self._start(stack, "base builder", "nptwatch.demo.base", options, keep)
            deadline = time.monotonic() + BUILD_SECONDS
            while builder.running:
                _require_time(deadline, "the base model was not built", BUILD_SECONDS)
                time.sleep(POLL_SECONDS)
            builder.require_success()

    def _train_and_watch(self, show: Show, keep: int) -> None:
        with ExitStack() as stack:
            daemon = self._start(
                stack, "daemon", "nptwatch", ("run", "--config", str(self.folder.config)), keep
            )
            trainer = self._start(
                stack,
                "trainer",
                "nptwatch.demo.trainer",
                (
                    *("--base", str(self.folder.base), "--run", str(self.folder.run)),
                    *("--steps", str(self.steps), "--seed", str(self.seed)),
                ),
                keep,
            )
            self._watch_training(show, trainer, daemon)
            self._watch_measuring(show, daemon)
            show.update(self._snapshot("stopping the daemon"))
            daemon.stop(seconds=STOPPING_SECONDS)
            daemon.require_success()

    def _start(
        self, stack: ExitStack, name: str, module: str, options: Sequence[str], keep: int
    ) -> Child:
        """Start a module of ours; it is stopped when the stack is left, however that is."""
        log = self.folder.daemon_log if name == "daemon" else self.folder.trainer_log
        child = Child(
            name, (sys.executable, "-m", module, *options), log=log, env=self.env, keep=keep
        )
        stack.callback(child.stop, seconds=STOPPING_SECONDS)
        return child

    def _watch_training(self, show: Show, trainer: Child, daemon: Child) -> None:
        deadline = time.monotonic() + TRAINING_SECONDS
        while trainer.running:
            show.update(self._snapshot("training, with the daemon beside it"))
            daemon.require_running()
            _require_time(deadline, "training did not end", TRAINING_SECONDS)
            time.sleep(POLL_SECONDS)
        trainer.require_success()

    def _watch_measuring(self, show: Show, daemon: Child) -> None:
        """Wait until every checkpoint on disk has its results and every alert was delivered."""
        deadline = time.monotonic() + MEASURING_SECONDS
        while waiting := self._waiting():
            show.update(self._snapshot("training is done, measuring the rest"))
            daemon.require_running()
            _require_time(deadline, f"the daemon is not done with {waiting}", MEASURING_SECONDS)
            time.sleep(POLL_SECONDS)

    def _waiting(self) -> str:
        """Name what the daemon still has to do; empty: nothing."""
        rows = self._rows()
        done = {p for r in rows if not OPEN & {r.state, r.full_state} for p in (r.path, *r.also)}
        for weights in sorted(self.folder.run.glob("checkpoints/*/npt_weights.pt")):
            if str(weights) not in done:
                return weights.parent.name
        return "the alerts" if self._has_unsent_alerts() else ""

    def _snapshot(self, phase: str) -> Snapshot:
        return Snapshot(
            phase=phase, training=self._progress(), rows=self._rows(), alerts=self._alerts()
        )

    def _progress(self) -> Progress:
        """Read the last whole line of the training log that has a loss."""
        try:
            lines = (self.folder.run / "training_log.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            lines = ""
        for line in reversed(lines.split("\n")[:-1]):
            entry = json.loads(line)
            if "fidelity_loss" in entry:
                return Progress(step=entry["step"], steps=self.steps, loss=entry["fidelity_loss"])
        return Progress(step=0, steps=self.steps, loss=None)

    def _rows(self) -> Sequence[HistoryRow]:
        """Read the run's history; empty while the daemon has not got so far."""
        if not self.folder.database.exists():
            return ()
        with closing(self._database()) as database:
            try:
                return History(database).history(str(self.folder.run))
            except (ConfigError, DatabaseError):
                return ()  # no such run yet, or the schema is being made

    def _has_unsent_alerts(self) -> bool:
        with closing(self._database()) as database:
            return Outbox(database).pending() > 0

    def _database(self) -> Database:
        return Database(f"sqlite:///{self.folder.database}")

    def _alerts(self) -> int:
        try:
            return self.folder.alerts.read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def _close(self, seconds: float) -> None:
        page = Closing(folder=self.folder, command=self.command, cwd=self.cwd, console=self.console)
        with closing(self._database()) as database:
            page.report(History(database), seconds)


def _require_time(deadline: float, what: str, seconds: float) -> None:
    if time.monotonic() > deadline:
        raise DemoError(f"{what} within {seconds} s")
