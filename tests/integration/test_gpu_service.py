"""The real daemon on a GPU that a training process fills, and leaves."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import fake_gpu
import pytest
import tiny
from fake_gpu import UUID, FakeGpu
from serving import DaemonProcess, Place
from watching import until

from nptwatch.store.records import JobState
from nptwatch.worker.gpu_lock import GpuLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = 40.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A fresh place."""
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.mark.slow
def test_a_job_waits_for_training_and_an_idle_worker_leaves_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queued with the reason, uncounted; measured once training ended; then base and lock go."""
    gpu = FakeGpu(tmp_path)
    fake_gpu.see(gpu, monkeypatch)
    training = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gpu.used(**{f"pid_{training.pid}": 23_500})
    base = tiny.llama(tmp_path / "base", layers=4)
    folder = place.root / "run1/checkpoints/checkpoint-100"
    tiny.save(folder / "npt_weights.pt", tiny.weights(tiny.layer(1), tiny.layer(3)))
    settings = place.settings(
        base={"model": str(base), "local_files_only": True},
        worker={"idle_unload_minutes": 0.02},
        gpu={"lock_dir": tmp_path, "look_again_seconds": 0.05},
    )
    daemon = DaemonProcess(place, settings, diagnoser="fake_gpu:FakeGpuDiagnoser")
    try:
        daemon.wait_for("gpu_busy", seconds=LONG)
        until(lambda: place.job(100).reason)
        job = place.job(100)
        assert (job.state, job.attempts) == (JobState.QUEUED, 0)
        assert f"500 MiB free, 2048 wanted; process {training.pid}" in (job.reason or "")
        training.communicate(b"\n")
        until(lambda: place.job_state(100) == JobState.DONE, seconds=LONG)

        _, details = place.stores.history.show(str(folder / "npt_weights.pt"))
        assert details is not None
        assert details["measured_on"]["gpu_uuid"] == UUID
        assert daemon.log("base_loaded")[0]["layers"] == "resident"
        daemon.wait_for("base_unloaded")
        daemon.wait_for("worker_recycled")
        assert daemon.log("worker_crashed") == []
        lock = GpuLock(UUID, tmp_path, share=False)
        assert lock.take()
        lock.release()
    finally:
        training.kill()
        training.communicate()
        daemon.close()
