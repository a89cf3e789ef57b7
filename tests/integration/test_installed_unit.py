"""A unit that `nptwatch service install` wrote, kept alive as systemd would keep it.

A real systemd does the same by hand (docs/operations.md); here the test is the manager, which speaks
the protocol to the very command of the unit.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from notified import Manager
from serving import is_running
from watching import until

from nptwatch.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator

WATCHDOG_SECONDS = 3.0
"""Instead of the unit's two minutes."""


class Supervised:
    """A service of Type=notify with Restart=on-failure: what its unit says is what is done.

    Attributes:
        restarts: how often it was started again.
    """

    def __init__(self, unit: Path, folder: Path) -> None:
        lines = unit.read_text().splitlines()
        settings = [line.partition("=") for line in lines if re.match(r"[A-Z]\w+=", line)]
        (command,) = [value for key, _, value in settings if key == "ExecStart"]
        self._command = shlex.split(command)
        given = [shlex.split(value)[0] for key, _, value in settings if key == "Environment"]
        assert ("WatchdogSec", "120") in [(key, value) for key, _, value in settings]
        self.manager = Manager(str(folder / "notify"))
        self._env = {
            **{key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ},
            **dict(variable.split("=", 1) for variable in given),
            "HOME": str(folder),
            "STATE_DIRECTORY": str(folder / "state"),
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6)),
        }
        self._log = (folder / "log").open("w")
        self.restarts = -1
        self.start()

    def start(self) -> None:
        """Start it, again or for the first time."""
        self.restarts += 1
        self._heard_at: float | None = None  # the watchdog begins once it is ready
        self.process = subprocess.Popen(
            self._command, env=self._env, stderr=self._log, stdout=self._log, cwd="/"
        )

    def keep_until(self, wanted: str, *, seconds: float = 60.0) -> None:
        """Do a manager's work until a message that begins so has come."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                message = self.manager.wait_for("", seconds=0.1)
            except TimeoutError:
                message = ""
            if message in {"WATCHDOG=1", "READY=1"}:
                self._heard_at = time.monotonic()
            if message.startswith(wanted) and message:
                return
            heard_at = self._heard_at or time.monotonic()
            is_silent = time.monotonic() - heard_at > WATCHDOG_SECONDS
            if is_silent:
                self.process.kill()  # after SIGABRT, which one that is stopped does not see
            if is_silent or self.process.poll() is not None:
                assert self.process.wait() != 0, "what ends well is not started again"
                self.start()
        raise AssertionError(f"no {wanted}: {self.manager.got}")

    def workers(self) -> list[int]:
        """Give the processes of its workers."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for children in threads for pid in children.read_text().split()]

    def close(self) -> None:
        """End it."""
        workers = self.workers() if self.process.poll() is None else []
        self.process.kill()
        self.process.wait()
        self.manager.close()
        self._log.close()
        until(lambda: not any(is_running(pid) for pid in workers), seconds=40)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Supervised]:
    """Give what runs after `nptwatch service install`."""
    (tmp_path / "experiments").mkdir()
    config = tmp_path / "config.toml"
    config.write_text('state_dir = "state"\n[watch]\nroots = ["experiments"]\n')
    root = tmp_path / "root"
    assert main(["service", "install", "--root", str(root), "--config", str(config)]) == 0
    service = Supervised(root / "etc/systemd/system/nptwatch.service", tmp_path)
    yield service
    service.close()


def test_an_installed_unit_survives_what_happens_to_it(service: Supervised) -> None:
    """Its worker killed, itself killed, itself hung: each time it is there again, and well."""
    service.keep_until("READY=1")
    until(lambda: len(service.workers()) == 1)
    (worker,) = service.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: service.workers() not in ([], [worker]))
    assert service.restarts == 0

    for blow in (signal.SIGKILL, signal.SIGSTOP):
        before = service.restarts
        service.manager.got.clear()
        service.process.send_signal(blow)
        service.keep_until("READY=1")
        assert service.restarts == before + 1
    service.keep_until("STATUS=0 queued, 0 at work")
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0
