"""`nptwatch worker --ray` on a real Ray cluster of two nodes, with a real Postgres."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from serving import HERE, HostProcess, Place, times_measured
from sqlalchemy import func, select
from sqlalchemy.engine import make_url
from watching import GOLDEN_RUN, until

from nptwatch.service.build import build_watcher
from nptwatch.service.ray_team import RayPlan, _placed_by_ray
from nptwatch.settings import Settings, WorkerSettings
from nptwatch.store.records import JobState
from nptwatch.store.tables import Job, Result

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from postgres import Postgres

PASSWORD = "geheim-4711"  # noqa: S105 - what must not be seen
LONG_SECONDS = 60.0
"""Time-out of each wait; Ray needs some seconds to notice what was lost."""


class RayCluster:
    """Two nodes with a GPU each, as Ray counts them; a context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._log = self.folder / "keeper.log"
        with self._log.open("wb") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, HERE / "ray_keeper.py", self.folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C ends the tests, and they the cluster
            )
        self.address = self._read()

    def __enter__(self) -> Self:
        """Give the running cluster."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self._keeper.communicate(timeout=LONG_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self, node: str) -> None:
        """End a node as a power cut would."""
        self._tell(f"kill {node}")

    def add(self) -> None:
        """Bring another node."""
        self._tell("add")

    def _tell(self, line: str) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{line}\n")
        self._keeper.stdin.flush()
        assert self._read() == "ok"

    def _read(self) -> str:
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline().strip()
        assert line, self._log.read_text()
        return line


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    """Give a cluster to all tests here: it takes some seconds to start."""
    with RayCluster() as cluster:
        yield cluster


@pytest.fixture
def place(tmp_path: Path, postgres: Postgres) -> Iterator[Place]:
    """Give a place on Postgres, whose URL has a password."""
    with postgres.migrated() as database:
        url = make_url(database.engine.url).set(password=PASSWORD)
        place = Place(tmp_path, url.render_as_string(hide_password=False))
        yield place
        place.close()


@pytest.fixture
def hosts(place: Place, ray_cluster: RayCluster) -> Iterator[list[HostProcess]]:
    """Give a list; what a test adds is ended."""
    started: list[HostProcess] = []
    yield started
    for host in started:
        host.close()


def enqueue(place: Place, settings: Settings) -> None:
    """Queue what is there, as `nptwatch scan --once` does."""
    place.state_dir.mkdir(exist_ok=True)
    build_watcher(settings, place.stores, lambda: None).scan_once()


def placed(host: HostProcess, workers: int) -> list[dict[str, Any]]:
    """Wait until so many workers were placed; say where."""
    host.wait_for("worker_placed", times=workers, seconds=LONG_SECONDS)
    return host.log("worker_placed")


@pytest.mark.parametrize(
    ("device", "gpus", "placed", "shares"),
    [
        ("auto", 1.0, "auto", False),
        ("cpu", 0.0, "cpu", False),
        ("cuda:3", 0.25, "cuda", True),
        ("GPU-8f3c", 2.0, "cuda", False),
    ],
)
def test_ray_chooses_the_gpu_and_parts_of_one_are_shared(
    device: str, gpus: float, placed: str, shares: bool
) -> None:
    """A worker sees no other GPU than its own; those with a part of one do not lock each other out."""
    plan = RayPlan(workers=2, gpus=gpus)
    settings = _placed_by_ray(Settings(worker=WorkerSettings(device=device)), plan)
    assert (settings.worker.device, settings.gpu.share) == (placed, shares)


def test_a_node_that_is_lost_in_mid_load_loses_and_blames_nothing(
    place: Place, ray_cluster: RayCluster, hosts: list[HostProcess]
) -> None:
    """Each job ends once, on the node that is left; none is blamed for the node's end.

    All four workers have a job in hand when the node dies: leases would hold for another minute.
    """
    settings = place.settings(worker={"count": 4, "lease_seconds": 120.0})
    quick = [place.checkpoint(step) for step in range(40)]
    held = [place.checkpoint(1, run=f"held{n}", do="block") for n in range(4)]
    enqueue(place, settings)
    host = HostProcess(place, settings, "--ray", ray_cluster.address, "--until-empty")
    hosts.append(host)
    workers = placed(host, 4)
    until(lambda: [times_measured(path) for path in held] == [1] * 4, seconds=LONG_SECONDS)
    doomed = workers[0]["node"]
    lost = {worker["worker_id"] for worker in workers if worker["node"] == doomed}
    assert len(lost) == 2  # Ray spreads them: two are left

    ray_cluster.kill(doomed)
    host.wait_for("worker_written_off", times=2, seconds=LONG_SECONDS)
    for path in held:
        (path.parent / "go").touch()

    assert host.process.wait(LONG_SECONDS) == 0, host.text()
    ray_cluster.add()
    with place.stores.database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(Result)) == 44
        assert connection.scalar(select(func.max(Job.attempts))) == 0
    assert place.stores.queue.depth()[JobState.DONE] == 44
    assert sorted(times_measured(path) for path in held) == [1, 1, 2, 2]
    assert [times_measured(path) for path in quick] == [1] * 40
    assert {row["worker_id"] for row in host.log("worker_written_off")} == lost
    assert all(worker["node"] != doomed for worker in host.log("worker_placed")[4:])


def test_a_worker_that_crashes_on_a_node_is_counted_and_started_anew(
    place: Place, ray_cluster: RayCluster, hosts: list[HostProcess]
) -> None:
    """A checkpoint that ends every worker is quarantined as it is without Ray; others are done."""
    settings = place.settings(worker={"count": 2, "max_attempts": 2})
    place.checkpoint(1, run="bad", do="kill")
    good = [place.checkpoint(step) for step in range(10)]
    enqueue(place, settings)

    host = HostProcess(place, settings, "--ray", ray_cluster.address, "--until-empty")

    hosts.append(host)
    assert host.process.wait(LONG_SECONDS) == 0, host.text()
    (bad,) = (job for job in place.stores.queue.jobs() if job.run == "bad")
    assert (bad.state, bad.attempts_by_cause) == (JobState.FAILED, {"crash": 2})
    assert [times_measured(path) for path in good] == [1] * 10
    assert len(host.log("worker_crashed")) == 2
    assert place.stores.workers.alive(1000) == []


def test_stopping_hands_jobs_back_and_nobody_sees_the_password(
    place: Place, ray_cluster: RayCluster, hosts: list[HostProcess]
) -> None:
    """SIGTERM: queued again, uncounted, exit code 0; no file of Ray's has the password."""
    settings = place.settings(worker={"count": 1, "shutdown_seconds": 0.5})
    weights = place.checkpoint(1, do="block")
    enqueue(place, settings)
    host = HostProcess(place, settings, "--ray", ray_cluster.address)
    hosts.append(host)
    (worker,) = placed(host, 1)
    until(lambda: times_measured(weights) == 1, seconds=LONG_SECONDS)
    environ = Path(f"/proc/{worker['pid']}/environ").read_bytes()
    command = Path(f"/proc/{worker['pid']}/cmdline").read_bytes()

    assert host.stop() == 0

    job = place.job(1)
    assert (job.state, job.attempts, job.worker_id) == (JobState.QUEUED, 0, None)
    assert place.stores.workers.alive(1000) == []
    files = [path for path in ray_cluster.folder.rglob("*") if path.is_file()]
    written = {path.name: path.read_bytes() for path in files}
    assert any(worker["worker_id"].encode() in text for text in written.values())  # its log is here
    secret = PASSWORD.encode()
    assert [name for name, text in written.items() if secret in text] == []
    assert secret not in environ + command
    assert PASSWORD not in host.text()


def test_jobs_come_back_where_the_driver_is_killed_too(
    place: Place, ray_cluster: RayCluster, hosts: list[HostProcess]
) -> None:
    """Nobody is left to tell why: leases expire, any other host sees to it, the job is done."""
    settings = place.settings(worker={"count": 1, "lease_seconds": 2.0})
    weights = place.checkpoint(1, do="block")
    enqueue(place, settings)
    host = HostProcess(place, settings, "--ray", ray_cluster.address)
    hosts.append(host)
    (worker,) = placed(host, 1)
    until(lambda: times_measured(weights) == 1, seconds=LONG_SECONDS)

    host.send(signal.SIGKILL)
    host.process.wait(LONG_SECONDS)
    until(lambda: not Path(f"/proc/{worker['pid']}").exists(), seconds=LONG_SECONDS)
    (weights.parent / "go").touch()
    other = HostProcess(place, settings)
    hosts.append(other)

    until(lambda: place.job_state(1) == JobState.DONE, seconds=LONG_SECONDS)
    assert place.job(1).attempts_by_cause == {"lease_expired": 1}
    assert other.stop() == 0


def test_the_verb_measures_on_ray(place: Place, ray_cluster: RayCluster) -> None:
    """The command itself, with its real diagnostic: a run of the original trainer is measured."""
    shutil.copytree(GOLDEN_RUN, place.root / "equivalence")
    base = {"model": str(GOLDEN_RUN.parents[2] / "base"), "local_files_only": True}
    settings = place.settings(base=base)
    enqueue(place, settings)
    config = place.state_dir / "nptwatch.toml"
    config.write_text(f'[base]\nmodel = "{base["model"]}"\nlocal_files_only = true\n')

    done = subprocess.run(
        [
            *(sys.executable, "-m", "nptwatch", "worker", "--config", config, "--device", "cpu"),
            *("--ray", ray_cluster.address, "--workers", "2", "--until-empty"),
        ],
        env=os.environ
        | {
            "NPTWATCH_DATABASE__URL": settings.database_url,
            "NPTWATCH_STATE_DIR": str(place.state_dir),
        },
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("worker_placed") == 2
    assert place.graded("equivalence") == dict.fromkeys((100, 200, 300, 400), "FAIR")
