"""Several hosts, one Postgres: the same tree under other roots, and workers that fit some jobs only.

The other host's tree is made of hard links: the same files under real paths of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from serving import DIAGNOSER, HERE, Place, times_measured
from watching import until

from nptwatch.service.child import WorkerProcess
from nptwatch.store.records import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postgres import Postgres

    from nptwatch.settings import Settings

SMALL, BIG = "org/small", "org/big"
STEPS = range(1, 5)
BIG_RULE = {"base": "*/big", "min_gpu_gib": 40}


class Hosts:
    """Two hosts' trees, the settings of each, and the processes that run there."""

    def __init__(self, folder: Path, url: str) -> None:
        self.place = Place(folder, url)
        self.ours = self.place.root
        self.theirs = folder / "mnt/lab"
        self.theirs.mkdir(parents=True)
        self._workers: list[WorkerProcess] = []
        for run, base in (("small", SMALL), ("big", BIG)):
            for step in STEPS:
                self.place.checkpoint(step, run)
            (self.ours / run / "config.json").write_text(json.dumps({"model_name": base}))
        for file in [path for path in self.ours.rglob("*") if path.is_file()]:
            twin = self.theirs / file.relative_to(self.ours)
            twin.parent.mkdir(parents=True, exist_ok=True)
            twin.hardlink_to(file)

    def settings(self, *, mapped: Path | None = None, **worker: Any) -> Settings:
        """Settings of a host that calls the tree `mapped`."""
        root = mapped or self.ours
        settings = self.place.settings(
            watch={"roots": [root]},
            worker={"count": 0, **worker},
        )
        pairs = [] if mapped is None else [{"stored": str(self.ours), "here": mapped}]
        return type(settings).model_validate(settings.model_dump() | {"path_map": pairs})

    def worker(self, name: str, settings: Settings) -> None:
        """Start a worker process of a host."""
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        worker = WorkerProcess(name, os.environ | {"PYTHONPATH": path}, ["--diagnoser", DIAGNOSER])
        self._workers.append(worker)
        assert worker.wait_ready(settings)

    def stop(self) -> None:
        """End all workers, in good order."""
        while self._workers:
            worker = self._workers.pop()
            worker.signal(signal.SIGTERM)
            assert worker.wait() is None

    def measured(self, root: Path, run: str) -> list[int]:
        """How often each step was measured from a host's tree."""
        names = (root / run / f"checkpoints/checkpoint-{n}/npt_weights.pt" for n in STEPS)
        return [times_measured(path) for path in names]

    def done(self, run: str) -> bool:
        """Whether all of a run is done."""
        jobs = self.place.stores.queue.jobs(states=[JobState.DONE], run=run)
        return len(jobs) == len(STEPS)

    def nptwatch(self, *words: str, mapped: Path | None = None) -> Any:  # Any: JSON
        """What a command says on a host that calls the tree `mapped`, its settings in variables."""
        pairs = [{"stored": str(self.ours), "here": str(mapped)}] if mapped else []
        env = {
            "NPTWATCH_DATABASE__URL": self.settings().database_url,
            "NPTWATCH_STATE_DIR": str(self.place.state_dir),
            "NPTWATCH_WATCH__SETTLE_SECONDS": "0.1",
            "NPTWATCH_FULL__EVERY": "0",
            "NPTWATCH_LABELS__RULES": json.dumps([BIG_RULE]),
            "NPTWATCH_PATH_MAP": json.dumps(pairs),
        }
        shown = subprocess.run(
            [sys.executable, "-m", "nptwatch", *words, "--json"],
            env=os.environ | env,
            capture_output=True,
            check=True,
            timeout=60,
        )
        return json.loads(shown.stdout)


@pytest.fixture
def hosts(postgres: Postgres, tmp_path: Path) -> Iterator[Hosts]:
    """Give two hosts and a migrated database."""
    with postgres.migrated(shared=False) as database:
        url = database.engine.url.render_as_string(hide_password=False)
        hosts = Hosts(tmp_path, url)
        yield hosts
        hosts.stop()
        hosts.place.close()


def test_hosts_share_the_work_by_labels_under_their_own_paths(hosts: Hosts) -> None:
    """One run, one job each; each worker takes what fits, by its own paths; the rest is explained."""
    first = hosts.nptwatch("scan", "--once", str(hosts.theirs), mapped=hosts.theirs)
    second = hosts.nptwatch("scan", "--once", str(hosts.ours))
    assert (first["queued"], second["queued"], second["known"]) == (8, 0, 8)
    queue = hosts.place.stores.queue
    elsewhere = hosts.theirs.parent / "not-mounted"
    hosts.worker("blind-0", hosts.settings(mapped=elsewhere, gpu_memory_gib=80))
    until(lambda: any("does not see" in (job.reason or "") for job in queue.jobs()), seconds=30)
    hosts.worker("small-0", hosts.settings(gpu_memory_gib=8))
    until(lambda: hosts.done("small"), seconds=60)
    until(lambda: len(hosts.nptwatch("status")["stuck"]) == 1, seconds=30)
    (stuck,) = hosts.nptwatch("status")["stuck"]
    assert stuck["jobs"] == len(STEPS)
    assert "needs 40 GiB of GPU memory, the worker has 8" in stuck["why"]
    assert f"lies below {hosts.ours}, which the worker's host does not see" in stuck["why"]
    waiting = [job["stuck"] for job in hosts.nptwatch("jobs") if job["state"] == "queued"]
    assert waiting == [stuck["why"]] * len(STEPS)
    hosts.worker("big-0", hosts.settings(mapped=hosts.theirs, gpu_memory_gib=80, bases=[BIG]))
    until(lambda: hosts.done("big"), seconds=60)
    assert hosts.nptwatch("status")["stuck"] == []
    hosts.stop()
    assert hosts.measured(hosts.ours, "small") == hosts.measured(hosts.theirs, "big") == [1] * 4
    assert hosts.measured(hosts.ours, "big") == hosts.measured(hosts.theirs, "small") == [0] * 4
    assert [job.attempts for job in queue.jobs()] == [0] * 8
    rows = hosts.nptwatch("history", "big", mapped=hosts.theirs)
    assert {row["run_path"] for row in rows} == {str(hosts.theirs / "big")}
    assert {row.path for row in hosts.place.stores.history.runs()} == {
        str(hosts.ours / run) for run in ("big", "small")
    }
