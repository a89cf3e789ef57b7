"""How a worker shares a GPU with training: when it waits, streams, or leaves for the CPU."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import fake_gpu
import pytest
from fake_gpu import UUID, FakeGpu
from pydantic import ValidationError

from nptwatch.errors import GpuBusyError
from nptwatch.gpu_settings import GpuSettings
from nptwatch.worker.gpu_lock import GpuLock
from nptwatch.worker.manners import FALLBACK_SECONDS, Manners, Way
from nptwatch.worker.nvml import Look, User, open_nvml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BASE = "llama"
USUAL = Way(on_gpu=True, layers="auto")
STREAMED = Way(on_gpu=True, layers="streamed", small=True)
ON_CPU = Way(on_gpu=False, layers="auto")
MINUTE = 60.0


class Bench:
    """A worker's manners on the fake GPU, with a clock that tests move."""

    def __init__(self, folder: Path, gpu: FakeGpu) -> None:
        self.folder, self.gpu = folder, gpu
        self.now = 0.0
        self.slept: list[float] = []
        self.between_looks: Callable[[], None] = lambda: None
        self.held_mib = 0

    def manners(self, **settings: object) -> Manners:
        """Build them."""
        card = fake_gpu.card(lambda: self.held_mib)
        self.lock = GpuLock(UUID, self.folder, share=False)
        chosen = GpuSettings.model_validate({"look_again_seconds": 2.0, **settings})
        return Manners(chosen, "auto", card, self.lock, sleep=self.sleep, seconds=lambda: self.now)

    def sleep(self, seconds: float) -> None:
        """Let something happen meanwhile."""
        self.slept.append(seconds)
        self.between_looks()

    def training_takes(self, mib: int) -> None:
        """Let process 1 use so much."""
        self.gpu.used(pid_1=mib)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A free GPU of 24,000 MiB."""
    gpu = FakeGpu(tmp_path)
    fake_gpu.see(gpu, monkeypatch)
    return Bench(tmp_path, gpu)


def way(manners: Manners, loaded: Way | None = None, stream_mib: int | None = 1000) -> Way:
    """Ask for the next job's way."""
    return manners.way(BASE, loaded, lambda: stream_mib)


def test_a_free_gpu_is_measured_twice_and_used(bench: Bench) -> None:
    """Two looks, so far apart as set, before a base is loaded; one while it is there."""
    manners = bench.manners()
    assert way(manners) == USUAL
    assert bench.slept == [2.0]
    assert bench.lock.is_held
    assert way(manners, USUAL) == USUAL
    assert bench.slept == [2.0]


def test_the_lower_of_two_looks_counts(bench: Bench) -> None:
    """Training's memory goes up and down: free for a moment is not free."""
    bench.training_takes(20_000)
    bench.between_looks = lambda: bench.training_takes(23_000)
    manners = bench.manners()
    with pytest.raises(GpuBusyError, match=r"1000 MiB free, 2048 wanted; process 1 .*23000 MiB"):
        way(manners)
    bench.training_takes(20_000)
    bench.between_looks = lambda: bench.training_takes(0)
    assert way(manners) == USUAL


def test_what_the_worker_itself_holds_counts_as_free(bench: Bench) -> None:
    """Else a loaded base would be its own reason to go away, and come back, for ever."""
    bench.held_mib = 8000
    bench.gpu.used(pid_1=15_500, **{f"pid_{os.getpid()}": 8000})
    manners = bench.manners(min_free_gpu_mib=8000)
    assert way(manners, USUAL) == USUAL


def test_no_memory_asked_for_is_never_busy(bench: Bench) -> None:
    """min_free_gpu_mib = 0 leaves the lock only."""
    bench.training_takes(24_000)
    assert way(bench.manners(min_free_gpu_mib=0)) == USUAL


def test_waiting_comes_first_and_ends(bench: Bench) -> None:
    """wait, stream, cpu: for ten minutes nothing, then streamed layers, and it is said why."""
    bench.training_takes(22_500)
    manners = bench.manners()
    for minute in (0, 5, 9.9):
        bench.now = minute * MINUTE
        with pytest.raises(GpuBusyError):
            way(manners)
    bench.now = 10 * MINUTE
    found = way(manners)
    assert found == STREAMED
    assert found.steps[0].startswith("waited 600 s for cpu (Fake): 1500 MiB free")
    assert found.steps[1].endswith("; then streamed layers")


@pytest.mark.parametrize(
    ("policies", "stream_mib", "wanted"),
    [
        (("cpu", "wait"), 1000, ON_CPU),
        (("stream", "cpu"), 1000, STREAMED),
        (("stream", "cpu"), 1501, ON_CPU),
        (("stream", "cpu"), None, ON_CPU),
        (("stream", "wait"), 1501, None),
        (("wait",), 1000, None),
    ],
)
def test_policies_are_tried_in_the_configured_order(
    bench: Bench, policies: tuple[str, ...], stream_mib: int | None, wanted: Way | None
) -> None:
    """Streaming only where it fits into what is left; where nothing is possible, it waits."""
    bench.training_takes(22_500)
    manners = bench.manners(when_busy=policies)
    if wanted is None:
        with pytest.raises(GpuBusyError):
            way(manners, stream_mib=stream_mib)
    else:
        assert way(manners, stream_mib=stream_mib) == wanted


def test_waiting_alone_waits_for_ever(bench: Bench) -> None:
    """Nothing comes after it."""
    bench.training_takes(23_000)
    manners = bench.manners(when_busy=("wait",))
    for hour in range(3):
        bench.now = hour * 60 * MINUTE
        with pytest.raises(GpuBusyError):
            way(manners)


def test_a_gpu_that_is_free_again_is_used_again_and_the_wait_is_told(bench: Bench) -> None:
    """The record of the job says how long it waited, and for what; the next one's does not."""
    bench.training_takes(23_000)
    manners = bench.manners()
    with pytest.raises(GpuBusyError):
        way(manners)
    bench.training_takes(0)
    bench.now = 90.0
    found = way(manners)
    assert found == USUAL
    assert found.steps[0].startswith("waited 90 s for cpu (Fake): 1000 MiB free")
    assert way(manners, USUAL).steps == ()


def test_the_cpu_is_kept_for_a_while(bench: Bench) -> None:
    """No base is loaded anew for each flicker of training's memory."""
    bench.training_takes(23_000)
    manners = bench.manners(when_busy=("cpu",))
    assert way(manners) == ON_CPU
    bench.training_takes(0)
    bench.now = FALLBACK_SECONDS - 1
    assert way(manners) == ON_CPU
    bench.now = FALLBACK_SECONDS
    assert way(manners) == USUAL


def test_a_gpu_that_another_worker_has_is_busy(bench: Bench) -> None:
    """Streaming would be using it too: what is left is waiting, or the CPU."""
    other = GpuLock(UUID, bench.folder, share=False)
    assert other.take()
    manners = bench.manners(when_busy=("stream", "wait"))
    with pytest.raises(
        GpuBusyError, match=f"another nptwatch worker has it, process {os.getpid()}"
    ):
        way(manners)
    other.release()
    assert way(manners) == USUAL


def test_out_of_memory_goes_down_step_by_step(bench: Bench) -> None:
    """Smaller slices, streamed layers, later; after the wait the CPU: each step with its reason."""
    manners = bench.manners()
    for minute, last in ((0, None), (5, None), (10.1, ON_CPU)):
        bench.now = minute * MINUTE
        first = way(manners)
        assert first == USUAL
        small = manners.smaller(first, BASE, "2 GiB short", layers="resident")
        assert small == Way(on_gpu=True, layers="auto", small=True)
        streamed = manners.smaller(small, BASE, "1 GiB short", layers="resident")
        assert streamed == STREAMED
        assert streamed.steps == (
            "2 GiB short; then smaller slices",
            "1 GiB short; then streamed layers",
        )
        assert manners.smaller(streamed, BASE, "still short", layers="streamed") == last
    assert way(manners) == ON_CPU
    assert manners.way("another", None, lambda: None) == USUAL


def test_a_base_that_does_not_fit_is_streamed_at_once(bench: Bench) -> None:
    """Slices make no base smaller."""
    assert bench.manners().smaller(USUAL, BASE, "short", layers=None) == STREAMED


def test_without_the_cpu_among_the_policies_it_stays_later(bench: Bench) -> None:
    """Who does not want the CPU is not given it."""
    manners = bench.manners(when_busy=("wait", "stream"))
    for minute in (0, 60):
        bench.now = minute * MINUTE
        assert manners.smaller(STREAMED, BASE, "short", layers="streamed") is None


def test_a_job_that_fitted_ends_the_shortage(bench: Bench) -> None:
    """The wait for the CPU begins anew."""
    manners = bench.manners()
    assert manners.smaller(STREAMED, BASE, "short", layers="streamed") is None
    manners.fitted(USUAL, BASE)
    bench.now = 60 * MINUTE
    assert manners.smaller(STREAMED, BASE, "short", layers="streamed") is None


def test_a_way_fallen_to_is_kept_for_its_base(bench: Bench) -> None:
    """The next job begins where the last one ended; five minutes later all is tried again."""
    manners = bench.manners()
    small = manners.smaller(USUAL, BASE, "short", layers="resident")
    assert way(manners) == small
    assert manners.way("another", None, lambda: None) == USUAL
    bench.now = FALLBACK_SECONDS
    assert way(manners) == USUAL


def test_a_worker_on_the_cpu_has_nothing_to_decide() -> None:
    """No GPU, no lock, no look; memory may run out there too."""
    manners = Manners(GpuSettings(), "auto", None, None)
    assert way(manners) == ON_CPU
    small = manners.smaller(ON_CPU, BASE, "short", layers="resident")
    assert small == Way(on_gpu=False, layers="auto", small=True)


def test_policies_must_be_some_and_each_once() -> None:
    """A list that says nothing, or something twice, is a mistake."""
    for wrong in ((), ("cpu", "cpu"), ("sleep",)):
        with pytest.raises(ValidationError):
            GpuSettings.model_validate({"when_busy": wrong})


def test_nvml_tells_memory_and_users(bench: Bench) -> None:
    """A process that does not say how much it has is named all the same."""
    bench.gpu.used(**{"pid_1": 4000, f"pid_{os.getpid()}": 0})
    nvml = open_nvml()
    assert nvml is not None
    users = (User(pid=1, mib=4000), User(pid=os.getpid(), mib=None))
    assert nvml.look(UUID) == Look(free_mib=20_000, total_mib=24_000, users=users)
    assert nvml.look("another") is None


def test_without_a_driver_or_the_library_there_is_no_nvml(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is an error: torch is asked instead."""
    monkeypatch.delenv("FAKE_NVML")
    assert open_nvml() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_nvml() is None
