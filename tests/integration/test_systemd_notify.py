"""What the real daemon tells a service manager, over a real socket."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from notified import Manager
from serving import DaemonProcess, HostProcess, Place
from watching import until

from nptwatch.service.systemd import Notifier
from nptwatch.store.migrate import REVISIONS, current, downgrade
from nptwatch.store.records import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

HUNG = Path(__file__).parents[1] / "acceptance/hung_mount.py"
CANNOT_MOUNT = 77

WATCHDOG_SECONDS = 3.0
QUIET_SECONDS = 3.0
"""The daemon's own loop turns each second."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give a place."""
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """Listen where the daemon is told that somebody does."""
    address = str(tmp_path / "notify")
    manager = Manager(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_SECONDS * 1e6)))
    yield manager
    manager.close()


def test_the_daemon_says_how_it_is(place: Place, manager: Manager) -> None:
    """Ready, what it does, alive; a reload by the clock; that it stops, and how long it may take."""
    daemon = DaemonProcess(place, place.settings())
    try:
        manager.wait_for("READY=1")
        assert daemon.log("daemon_started")
        assert manager.got == ["READY=1"], "a new database takes no time"
        manager.wait_for("STATUS=0 queued, 0 at work")
        manager.wait_for("WATCHDOG=1", seconds=WATCHDOG_SECONDS)
        place.checkpoint(1, mse=0.08)
        until(lambda: place.job_state(1) == JobState.DONE, seconds=30)
        assert manager.wait_for("STATUS=0 queued, 0 at work; run1") == (
            "STATUS=0 queued, 0 at work; run1 GOOD"
        )
        before = time.monotonic()
        daemon.send(signal.SIGHUP)
        message = manager.wait_for("RELOADING=1\n")
        micros = int(message.partition("MONOTONIC_USEC=")[2])
        assert before <= micros / 1e6 <= time.monotonic()
        manager.wait_for("EXTEND_TIMEOUT_USEC=50000000")
        manager.wait_for("READY=1")
        daemon.send(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        assert manager.wait_for("EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=50000000"
        assert daemon.process.wait(40) == 0
    finally:
        daemon.close()


def test_a_start_that_upgrades_the_database_asks_for_its_time(
    place: Place, manager: Manager
) -> None:
    """A history of years may take longer than a start may; systemd would end it in the middle."""
    downgrade(place.stores.database, REVISIONS[-2])
    place.close()
    daemon = DaemonProcess(place, place.settings())
    try:
        manager.wait_for("READY=1")
        assert daemon.log("database_upgrading")
        asked = manager.got.index("EXTEND_TIMEOUT_USEC=3600000000")
        assert manager.got[asked - 1] == "STATUS=brings the database up to date"
        assert asked < manager.got.index("READY=1")
        assert current(place.stores.database) == REVISIONS[-1]
        assert daemon.stop() == 0
    finally:
        daemon.close()


def test_a_daemon_that_hangs_is_silent(place: Place, manager: Manager) -> None:
    """The watchdog hears of it for as long as its loop turns, and no longer."""
    daemon = DaemonProcess(place, place.settings())
    try:
        manager.wait_for("WATCHDOG=1")
        daemon.send(signal.SIGSTOP)
        until(lambda: stopped(daemon.process.pid))
        manager.drain()
        with pytest.raises(TimeoutError):
            manager.wait_for("", seconds=QUIET_SECONDS)
        daemon.send(signal.SIGCONT)
        manager.wait_for("WATCHDOG=1", seconds=WATCHDOG_SECONDS)
        assert daemon.stop() == 0
    finally:
        daemon.close()


def test_a_base_model_that_loads_holds_up_no_start_and_its_time_is_asked_for(
    place: Place, manager: Manager
) -> None:
    """Ready without it; at a stop time is asked for, the watchdog is quiet, and nothing is counted."""
    place.checkpoint(1, base="load")
    settings = place.settings(worker={"shutdown_seconds": 2.5})
    daemon = DaemonProcess(place, settings)
    try:
        manager.wait_for("READY=1")
        until(lambda: [w.state for w in place.stores.workers.rows()] == ["loading"], seconds=30)
        manager.drain()
        daemon.send(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        assert manager.wait_for("EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=32500000"
        manager.wait_for("WATCHDOG=1", seconds=WATCHDOG_SECONDS)
        assert daemon.process.wait(32.5) == 0
        assert (place.job(1).state, place.job(1).attempts) == (JobState.QUEUED, 0)
    finally:
        daemon.close()


def test_a_helper_that_hangs_is_not_hidden(place: Place, manager: Manager) -> None:
    """The loop turns on, and vouches no longer: its watcher waits for a server that is dead."""
    dead = place.root / "dead"
    dead.mkdir()
    before = (sys.executable, str(HUNG), str(dead))
    daemon = DaemonProcess(place, place.settings(), "1.0", before=before)
    try:
        if (ended := ends(daemon.process, seconds=0.5)) is not None:
            assert ended == CANNOT_MOUNT
            pytest.skip("a file system of one's own cannot be mounted here")
        manager.wait_for("READY=1")
        manager.wait_for("STATUS=hung: watcher")
        assert daemon.wait_for("helper_hangs")["helpers"] == ["watcher"]
        manager.drain()
        with pytest.raises(TimeoutError):
            manager.wait_for("", seconds=QUIET_SECONDS)
        assert daemon.process.poll() is None
        daemon.send(signal.SIGABRT)  # as systemd does then
        assert daemon.process.wait(40) == -signal.SIGABRT
    finally:
        daemon.close()


def ends(process: subprocess.Popen[bytes], *, seconds: float) -> int | None:
    """Give the exit code of a process that ends soon."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def stopped(pid: int) -> bool:
    """Say if a process is."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - a line
        return file.read().rpartition(")")[2].split()[0] == "T"


def test_a_worker_host_says_how_it_is(place: Place, manager: Manager) -> None:
    """Ready, alive, stopping, as the unit of a worker wants."""
    assert place.stores.queue.depth()[JobState.QUEUED] == 0
    host = HostProcess(place, place.settings())
    try:
        manager.wait_for("READY=1")
        manager.wait_for("WATCHDOG=1", seconds=WATCHDOG_SECONDS)
        host.send(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        assert host.process.wait(40) == 0
    finally:
        host.close()


def test_a_worker_hosts_chores_that_hang_are_not_hidden(place: Place, manager: Manager) -> None:
    """No pings while another process has the database's write lock for long; then they go on."""
    file = place.stores.database.path
    assert file is not None
    patient = place.settings(database={"busy_timeout_seconds": 60.0})
    with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        host = HostProcess(place, patient, "--patience", "1.5")
        try:
            manager.wait_for("STATUS=hung: scheduler")
            manager.drain()
            with pytest.raises(TimeoutError):
                manager.wait_for("", seconds=QUIET_SECONDS)
            other.execute("ROLLBACK")
            manager.wait_for("STATUS=at work")
            manager.wait_for("WATCHDOG=1", seconds=WATCHDOG_SECONDS)
            assert host.log("helper_hangs")[0]["helpers"] == ["scheduler"]
            assert host.stop() == 0
        finally:
            host.close()


def test_an_abstract_socket_and_a_watchdog_of_another_process() -> None:
    """Both as sd_notify(3) and sd_watchdog_enabled(3) have them; without a manager nothing is said."""
    name = f"nptwatch-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    env = {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "1"}
    notifier = Notifier.of(env)
    notifier.alive()
    notifier.status("all\nis well")
    notifier.status("all\nis well")
    notifier.ready()
    manager.wait_for("READY=1")
    assert manager.got == ["STATUS=all is well", "READY=1"]
    manager.close()
    notifier.ready()  # nobody is there any more: not our trouble
    assert not Notifier.of({}).is_heard
    Notifier.of({}).ready()


def test_pings_come_thrice_in_the_time_that_is_given() -> None:
    """However often the loop turns."""
    now = [0.0]
    name = f"nptwatch-pings-{os.getpid()}"
    manager = Manager(f"\0{name}")
    notifier = Notifier(f"@{name}", watchdog_seconds=3.0, clock=lambda: now[0])
    for turn in range(60):
        now[0] = turn / 10
        notifier.alive()
    notifier.ready()
    manager.wait_for("READY=1")
    manager.close()
    assert manager.got.count("WATCHDOG=1") == 6
