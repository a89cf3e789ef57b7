"""Shared by the service's tests: planned checkpoints, and the daemon as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from watching import archive, until

from nptwatch.service.build import Stores, open_stores
from nptwatch.service.handover import dump_settings
from nptwatch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.store.records import HistoryRow, JobRow

HERE = Path(__file__).parent
DIAGNOSER = "planned:PlanDiagnoser"


class Place:
    """A state folder, an experiment directory, and the database of both.

    Args:
        database_url: of a migrated database; None: a file in the state folder.
    """

    def __init__(self, folder: Path, database_url: str | None = None) -> None:
        self._database = {} if database_url is None else {"database": {"url": database_url}}
        self.root = folder / "experiments"
        self.root.mkdir()
        self.state_dir = folder / "state"
        self._stores: Stores | None = None

    def settings(self, **sections: dict[str, Any]) -> Settings:
        """Settings with short times; sections are merged in."""
        values: dict[str, dict[str, Any]] = {
            "watch": {"roots": [self.root], "settle_seconds": 0.1, "rescan_seconds": 1.0},
            "worker": {"retry_delay_seconds": 0.1, "poll_seconds": 0.2, "shutdown_seconds": 20.0},
            "alerts": {"retry_delay_seconds": 0.2},
            "log": {"form": "json"},
            "full": {"every": 0, "on_grade": "never", "on_new_best": "never"},
            **self._database,
        }
        for name, section in sections.items():
            values[name] = values.get(name, {}) | section
        return Settings(state_dir=self.state_dir, **values)  # type: ignore[arg-type]

    @property
    def stores(self) -> Stores:
        """The test's own view of the database."""
        if self._stores is None:
            self._stores = open_stores(self.settings(), migrate=True)
        return self._stores

    def close(self) -> None:
        """Close the test's view."""
        if self._stores is not None:
            self._stores.close()

    def checkpoint(self, step: int, run: str = "run1", **plan: object) -> Path:
        """Write a checkpoint whose diagnosis follows `plan`."""
        folder = self.root / run / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text(json.dumps(plan))
        weights = folder / "npt_weights.pt"
        weights.write_bytes(archive(f"{run}/{step}"))
        return weights

    def history(self, run: str = "run1") -> dict[int | None, HistoryRow]:
        """History of a run by step; empty where the run is not known yet."""
        if all(row.run != run for row in self.stores.history.runs()):
            return {}
        return {row.step: row for row in self.stores.history.history(run)}

    def graded(self, run: str = "run1") -> dict[int | None, str | None]:
        """Grade by step, of what has a result."""
        return {step: row.grade for step, row in self.history(run).items() if row.grade}

    def job(self, step: int) -> JobRow:
        """The job of a step."""
        (job,) = (job for job in self.stores.queue.jobs() if job.step == step)
        return job

    def job_state(self, step: int) -> str | None:
        """State of a step's job, None where there is none yet."""
        return next((job.state for job in self.stores.queue.jobs() if job.step == step), None)


def times_measured(weights: Path) -> int:
    """How many measurements of a checkpoint were started, by whatever process."""
    log = weights.parent / "measured.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Service:
    """A long-running process that is given settings in a file, with its log.

    Args:
        before: a command that starts the process, as `nice` does.
    """

    name: ClassVar[str]

    def __init__(
        self, place: Place, settings: Settings, *arguments: str, before: Sequence[str] = ()
    ) -> None:
        folder = place.state_dir.parent
        self.config = folder / f"{self.name}.json"
        self.write(settings)
        number = len(list(folder.glob(f"{self.name}-*.log")))
        self._log = folder / f"{self.name}-{number}.log"
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *before,
                    sys.executable,
                    HERE / f"{self.name}_process.py",
                    self.config,
                    *arguments,
                ],
                stderr=log,
                env=os.environ | {"PYTHONPATH": path},
            )

    def write(self, settings: Settings) -> None:
        """Change the settings file."""
        self.config.write_bytes(dump_settings(settings))

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """What it and its workers logged, all or one kind of event."""
        lines = self._log.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{") and line[-1] == "}"]
        return [one for one in events if event is None or one["event"] == event]

    def wait_for(self, event: str, *, times: int = 1, seconds: float = 30.0) -> dict[str, Any]:
        """Wait until an event was logged so often; return the last."""
        try:
            until(lambda: len(self.log(event)) >= times, seconds=seconds)
        except AssertionError:
            raise AssertionError(f"no {event} in:\n{self.text()}") from None
        return self.log(event)[times - 1]

    def text(self) -> str:
        """The whole log."""
        return self._log.read_text()

    def worker_pid(self, number: int = 1) -> int:
        """Process id of the worker that was ready as the n-th."""
        return int(self.wait_for("worker_ready", times=number)["pid"])

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        self.send(signal.SIGTERM)
        return self.process.wait(40)

    def close(self) -> None:
        """End it however it can be done; its workers end with it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for ready in self.log("worker_started"):
            until(lambda pid=int(ready["pid"]): not is_running(pid), seconds=40)


class DaemonProcess(Service):
    """The daemon as a process."""

    name = "daemon"

    def __init__(
        self,
        place: Place,
        settings: Settings,
        *more: str,
        diagnoser: str = DIAGNOSER,
        before: Sequence[str] = (),
    ) -> None:
        super().__init__(place, settings, diagnoser, *more, before=before)


class HostProcess(Service):
    """`nptwatch worker` as a process, which measures as the checkpoints' plans say."""

    name = "host"
