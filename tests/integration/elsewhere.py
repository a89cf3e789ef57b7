"""Processes without a daemon around them: workers of another host, crews that share a database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving import DIAGNOSER, HERE
from watching import until

from nptwatch.service.handover import dump_settings

if TYPE_CHECKING:
    from nptwatch.settings import Settings

END_SECONDS = 60.0


class Lone:
    """A process that works until its standard input ends, with its log."""

    def __init__(self, log: Path, *command: str) -> None:
        self._log = log
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=os.environ | {"PYTHONPATH": path},
            )

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def is_stopped(self) -> bool:
        """Say if all of it stands still."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def pause(self) -> None:
        """Stop it where it is."""
        self.send(signal.SIGSTOP)
        until(self.is_stopped)

    def go_on(self) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word, stopped or not."""
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """Close its life line; give its exit code."""
        self.process.communicate(timeout=END_SECONDS)
        return self.process.returncode

    def text(self) -> str:
        """Give what it wrote."""
        return self._log.read_text()

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """Give what it logged, all or one kind of event; the last line may be torn by a kill."""
        lines = self.text().splitlines()
        entries = [json.loads(line) for line in lines if line[:1] == "{" and line[-1:] == "}"]
        return [entry for entry in entries if event is None or entry["event"] == event]


class LoneWorker(Lone):
    """The real worker process, which measures as the checkpoints' plans say."""

    def __init__(self, name: str, settings: Settings, folder: Path) -> None:
        self.name = name
        module = ("-m", "nptwatch.service.worker_main", "--worker-id", name)
        super().__init__(folder / f"{name}.log", *module, "--diagnoser", DIAGNOSER)
        assert self.process.stdin is not None
        self.process.stdin.write(dump_settings(settings))
        self.process.stdin.flush()


class LoneCrew(Lone):
    """All of a daemon but its workers and its lock: two can share a SQLite file."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        config = folder / f"{settings.state_dir.name}.json"
        config.write_bytes(dump_settings(settings))
        super().__init__(config.with_suffix(".log"), str(HERE / "crew_process.py"), str(config))
