"""A worker that has nothing to do, or may do nothing: it claims no job, or ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from integration.watching import archive
from stocking import QUICK, no_alerts, whole

from nptwatch.errors import GpuBusyError
from nptwatch.npt.files import fingerprint
from nptwatch.settings import WorkerSettings
from nptwatch.store.records import JobState
from nptwatch.store.workers import Workers
from nptwatch.worker.loop import WorkerLoop
from nptwatch.worker.wake import Wake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from nptwatch.store.catalog import Catalog
    from nptwatch.store.engine import Database
    from nptwatch.store.queue import Queue
    from nptwatch.store.records import Claim, Measured

    Make = Callable[..., WorkerLoop]


class Busy:
    """A diagnoser whose GPU others need."""

    device = "cpu"
    base_model: str | None = "llama"

    def __init__(self) -> None:
        self.asked = 0

    def base_revision(self, claim: Claim) -> str:  # noqa: ARG002 - the protocol's
        """Say so."""
        self.asked += 1
        raise GpuBusyError("waits for cuda:0")

    def measure(self, claim: Claim, path: Path) -> Measured:
        """Never."""
        raise NotImplementedError


@pytest.fixture
def make(database: Database, queue: Queue) -> Iterator[Make]:
    """Builds loops on the test's database."""
    wake = Wake()

    def make(diagnoser: Busy, **settings: object) -> WorkerLoop:
        return WorkerLoop(
            queue=queue,
            workers=Workers(database),
            diagnoser=diagnoser,
            rules=no_alerts,
            settings=WorkerSettings.model_validate({"poll_seconds": 0.01, **settings}),
            request=lambda _profile: QUICK,
            unloadable_after_seconds=600.0,
            worker_id="w1",
            wake=wake,
            abandon=lambda: None,
        )

    yield make
    wake.close()


def admit(catalog: Catalog, folder: Path, step: int) -> None:
    """Queue a real file's job."""
    path = folder / "run1/checkpoints" / f"checkpoint-{step}" / "npt_weights.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(archive(str(step)))
    about = {"root": str(folder), "mtime_ns": path.stat().st_mtime_ns}
    catalog.admit(whole("run1", step, fingerprint(path), **about), QUICK)


def test_while_the_gpu_is_busy_no_further_job_is_claimed(
    make: Make, catalog: Catalog, queue: Queue, tmp_path: Path
) -> None:
    """Each would only be handed back: a queue of thousands would go round with every pause."""
    for step in (100, 200):
        admit(catalog, tmp_path, step)
    busy = Busy()
    loop = make(busy, retry_delay_seconds=60.0)
    for _ in range(3):
        loop._turn()
    assert busy.asked == 1
    assert queue.depth()[JobState.QUEUED] == 2
    assert [job.reason for job in queue.jobs()].count("waits for cuda:0") == 1


def test_a_worker_that_held_its_base_for_nothing_ends(
    make: Make, logs: Sequence[Mapping[str, Any]]
) -> None:
    """In good order, so that its successor starts at once and loads nothing before a job comes."""
    assert make(Busy(), idle_unload_minutes=1e-6).run(lambda: None) == 0
    assert [entry["base_model"] for entry in logs if entry["event"] == "base_unloaded"] == ["llama"]


@pytest.mark.parametrize(("base", "minutes"), [(None, 1e-6), ("llama", 0), ("llama", 60)])
def test_a_worker_without_a_base_or_a_limit_stays(
    make: Make, base: str | None, minutes: float
) -> None:
    """There is nothing to give back, it is not wanted, or it is too early."""
    diagnoser = Busy()
    diagnoser.base_model = base
    loop = make(diagnoser, idle_unload_minutes=minutes)
    for _ in range(3):
        loop._turn()
    assert not loop._is_worn_out()
