"""The daemon and workers of other hosts on a Postgres server, which is restarted under their work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from postgres import OwnServer, Postgres
from serving import DIAGNOSER, HERE, DaemonProcess, Place, times_measured
from sqlalchemy import func, select
from watching import until

from nptwatch.errors import DatabaseError
from nptwatch.service.child import WorkerProcess
from nptwatch.store.engine import Database
from nptwatch.store.migrate import current, downgrade, upgrade
from nptwatch.store.records import JobState
from nptwatch.store.tables import Job, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nptwatch.settings import Settings

SOON_SECONDS = 5.0
"""Much less than the polling pause of the workers here; the machine may be busy."""


@pytest.fixture(scope="module")
def own_server() -> Iterator[OwnServer]:
    """Give a server that tests may stop."""
    with OwnServer() as server:
        yield server


@pytest.fixture
def place(own_server: OwnServer, tmp_path: Path) -> Iterator[Place]:
    """Give a place whose database is on that server."""
    with Postgres(own_server.url) as postgres:
        url = postgres.new()
        database = Database(url)
        upgrade(database)
        database.close()
        place = Place(tmp_path, url)
        yield place
        place.close()


def lazy(place: Place, **watch: object) -> Settings:
    """Settings whose workers look by themselves once a minute only."""
    return place.settings(
        watch={"roots": [place.root], "settle_seconds": 0.1, "rescan_seconds": 1.0, **watch},
        worker={"count": 0, "poll_seconds": 60.0, "retry_delay_seconds": 0.1},
    )


@pytest.fixture
def worker(place: Place) -> Iterator[WorkerProcess]:
    """Give an idle worker without a daemon of its own: one of another host."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = WorkerProcess(
        "elsewhere-0", os.environ | {"PYTHONPATH": path}, ["--diagnoser", DIAGNOSER]
    )
    assert process.wait_ready(lazy(place))
    yield process
    process.signal(signal.SIGTERM)
    assert process.wait() is None


def up(condition: Callable[[], bool]) -> bool:
    """Ask the server; False where the test's own connection broke in the restart."""
    try:
        return condition()
    except DatabaseError:
        return False


def hears(place: Place) -> bool:
    """Say if a worker listens."""
    with place.stores.database.read() as connection:
        found = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN nptwatch_jobs'"
        ).scalar()
    return bool(found)


def test_a_worker_elsewhere_is_woken(place: Place, worker: WorkerProcess) -> None:
    """A job that another host's watcher queues is taken at once, not at the next poll."""
    until(lambda: hears(place), seconds=30)
    watcher = DaemonProcess(place, lazy(place))
    try:
        watcher.wait_for("watcher_started")
        place.checkpoint(1)
        until(lambda: place.job_state(1) is not None, seconds=30)
        queued = time.monotonic()
        until(lambda: place.job_state(1) == JobState.DONE, seconds=SOON_SECONDS)
        assert time.monotonic() - queued < SOON_SECONDS
        assert place.job(1).worker_id is None
        assert watcher.stop() == 0
    finally:
        watcher.close()


def test_a_worker_hears_again_after_a_restart(
    place: Place, worker: WorkerProcess, own_server: OwnServer
) -> None:
    """The listener comes back by itself, and what was queued meanwhile is found."""
    until(lambda: hears(place), seconds=30)
    own_server.stop()
    own_server.start()
    until(lambda: up(lambda: hears(place)), seconds=30)
    watcher = DaemonProcess(place, lazy(place))
    try:
        place.checkpoint(1)
        until(lambda: place.job_state(1) is not None, seconds=30)
        until(lambda: place.job_state(1) == JobState.DONE, seconds=SOON_SECONDS)
        assert watcher.stop() == 0
    finally:
        watcher.close()


def test_a_server_that_restarts_in_mid_load_loses_nothing(
    place: Place, own_server: OwnServer
) -> None:
    """Crashed three times while checkpoints are found and measured: each is done, once, uncounted."""
    many = 120
    weights = [place.checkpoint(step, run=f"run{step % 3}") for step in range(many)]
    daemon = DaemonProcess(place, place.settings(worker={"count": 2, "poll_seconds": 0.2}))
    try:
        for done in (10, 40, 70):
            until(lambda done=done: up(lambda: done_jobs(place) >= done), seconds=60)
            own_server.stop()
            time.sleep(0.5)  # how long it is away is the point
            own_server.start()
        until(lambda: up(lambda: done_jobs(place) == many), seconds=90)
        assert daemon.stop() == 0
    finally:
        daemon.close()
    with place.stores.database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(Result)) == many
        assert connection.scalar(select(func.max(Job.attempts))) == 0
    assert [times_measured(path) for path in weights] == [1] * many
    assert daemon.log("worker_crashed") == []


def done_jobs(place: Place) -> int:
    """Count the jobs that are done."""
    return place.stores.queue.depth()[JobState.DONE]


@pytest.mark.parametrize(
    ("revision", "told"),
    [
        (None, "has no tables yet: run `nptwatch db upgrade`"),
        ("0001", "is at schema 0001"),
        ("9999", "made by a newer nptwatch"),
    ],
)
def test_a_schema_of_another_version_stops_the_start(
    own_server: OwnServer, tmp_path: Path, revision: str | None, told: str
) -> None:
    """Absent, behind or ahead: daemon and commands say so, end with 5, and change nothing."""
    with Postgres(own_server.url) as postgres:
        url = postgres.new()
        database = Database(url)
        if revision is not None:
            upgrade(database)
        if revision == "0001":
            downgrade(database, revision)
        elif revision is not None:
            with database.begin() as connection:
                connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        (tmp_path / "experiments").mkdir()
        for verb in (["run", "experiments"], ["scan", "--once", "experiments"], ["status"]):
            done = subprocess.run(
                [sys.executable, "-m", "nptwatch", *verb],
                cwd=tmp_path,
                env=os.environ
                | {"NPTWATCH_DATABASE__URL": url, "NPTWATCH_STATE_DIR": str(tmp_path / "state")},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (done.returncode, told in done.stderr) == (5, True), (verb, done.stderr)
        assert current(database) == revision
        database.close()
