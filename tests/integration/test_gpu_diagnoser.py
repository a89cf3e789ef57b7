"""The real diagnoser on a GPU that training uses too: the same numbers, whatever it took."""

from __future__ import annotations

import gc
import math
import shutil
import weakref
from typing import TYPE_CHECKING, Any

import fake_gpu
import pytest
import tiny
import torch
from fake_gpu import UUID, FakeGpu, FakeGpuDiagnoser
from torch.utils._python_dispatch import TorchDispatchMode

from nptwatch.errors import DeviceError, GpuBusyError, OutOfMemoryError
from nptwatch.npt.base import BaseModel
from nptwatch.npt.layout import Kind
from nptwatch.settings import FULL, QUICK, Settings
from nptwatch.store.engine import utc_now
from nptwatch.store.records import Claim
from nptwatch.worker.gpu_lock import GpuLock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from nptwatch.store.records import Measured

LAYERS = (tiny.layer(1, Kind.TRIPLE, num_ranks=2), tiny.layer(3))
NUMBERS = ("mse", "cosine", "kl", "relative_mse", "perplexity_ratio", "hidden_mse", "avg_score")
MOST_BYTES = {QUICK: 100_000, FULL: 300_000}
"""Less than the diagnostic's logits take at once, more than any weight or stream."""


class SmallDevice(TorchDispatchMode):
    """A device whose allocator gives no tensor above a size, as torch's own refuses it."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self.most_bytes = most_bytes
        self.refused: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation; refuse what it gives if that is too large."""
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.dtype == torch.float32:
            size = out.untyped_storage().nbytes()
            if size > self.most_bytes:
                self.refused.append(size)
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes")
        return out


class Bench:
    """A base, a checkpoint and a diagnoser on the fake GPU."""

    def __init__(self, folder: Path, gpu: FakeGpu, files: Path) -> None:
        self.folder, self.gpu = folder, gpu
        self.now = 0.0
        self.base, self.weights = files / "base", files / "npt_weights.pt"

    def diagnoser(self, **gpu: object) -> FakeGpuDiagnoser:
        """Build one with a cache of its own, so that nothing of another is used."""
        state = self.folder / f"state-{len(list(self.folder.iterdir()))}"
        state.mkdir()
        settings = Settings.model_validate(
            {
                "state_dir": state,
                "base": {"model": str(self.base), "local_files_only": True},
                "diagnostic": {"logits_mib": 1},
                "gpu": {"lock_dir": state, **gpu},  # each alone, unless it says otherwise
            }
        )
        return FakeGpuDiagnoser(settings, utc_now, sleep=lambda _: None, seconds=lambda: self.now)

    def claim(self, profile: str = QUICK) -> Claim:
        """The checkpoint's job."""
        return Claim(
            job_id=1,
            checkpoint_id=1,
            run_id=1,
            run_path=str(self.folder),
            run_name="run",
            run_root=str(self.folder),
            paths=(str(self.weights),),
            fingerprint="f",
            step=100,
            mtime_ns=0,
            base_model=None,
            profile=profile,
            settings_hash="h",
            attempts=0,
            kept_by=None,
        )

    def measure(self, diagnoser: FakeGpuDiagnoser, profile: str = QUICK) -> Measured:
        """Measure as the worker does."""
        job = self.claim(profile)
        diagnoser.base_revision(job)
        return diagnoser.measure(job, self.weights)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A base and a checkpoint."""
    folder: Path = tmp_path_factory.mktemp("files")
    tiny.llama(folder / "base", layers=4)
    tiny.save(folder / "npt_weights.pt", tiny.weights(*LAYERS))
    gc.freeze()  # the diagnoser collects garbage: what the tests have loaded is none
    yield folder
    gc.unfreeze()


@pytest.fixture
def bench(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A free GPU."""
    gpu = FakeGpu(tmp_path)
    fake_gpu.see(gpu, monkeypatch)
    return Bench(tmp_path, gpu, files)


@pytest.fixture(scope="module")
def wanted(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Measured]:
    """What a free GPU gives, by profile."""
    with pytest.MonkeyPatch.context() as patch:
        gpu = FakeGpu(tmp_path_factory.mktemp("free"))
        fake_gpu.see(gpu, patch)
        bench = Bench(gpu.file.parent, gpu, files)
        diagnoser = bench.diagnoser()
        return {profile: bench.measure(diagnoser, profile) for profile in (QUICK, FULL)}


def no_room(*_args: object, **_kwargs: object) -> None:
    """Fail as torch does where a GPU is full."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def assert_same_numbers(found: Measured, wanted: Measured) -> None:
    """Hold that two results say the same, to 1e-6."""
    assert (found.grade, found.residual) == (wanted.grade, wanted.residual)
    for name in NUMBERS:
        one, other = getattr(found, name), getattr(wanted, name)
        assert one == other or math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9), name


def on(measured: Measured) -> dict[str, Any]:
    """What the record says of where and how."""
    found: dict[str, Any] = measured.details["measured_on"]
    return found


def test_the_record_says_where_and_how(wanted: Mapping[str, Measured]) -> None:
    """Device, GPU and layers, in the result that the database keeps."""
    for measured in wanted.values():
        assert on(measured) == {
            "device": "cpu",
            "gpu": "Fake",
            "gpu_uuid": UUID,
            "layers": "resident",
            "because": "it needs 0.5 GiB, which are free",
            "steps": [],
        }


@pytest.mark.parametrize("profile", [QUICK, FULL])
def test_smaller_slices_fit_and_change_no_number(
    bench: Bench, profile: str, wanted: Mapping[str, Measured]
) -> None:
    """What does not fit at once is made in parts: the same numbers, and the record says so."""
    diagnoser = bench.diagnoser()
    with SmallDevice(MOST_BYTES[profile]) as device:
        found = bench.measure(diagnoser, profile)
        again = bench.measure(diagnoser, profile)
    assert len(device.refused) == 1, "the second job begins with what fitted the first"
    assert_same_numbers(found, wanted[profile])
    assert_same_numbers(again, wanted[profile])
    (step,) = on(found)["steps"]
    assert "Tried to allocate" in step
    assert step.endswith("; then smaller slices")
    assert on(again)["steps"] == [step]


@pytest.mark.parametrize("where", ["loading", "measuring"])
def test_a_base_that_does_not_fit_is_streamed_with_the_same_numbers(
    bench: Bench, where: str, wanted: Mapping[str, Measured], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is too large itself, or leaves too little to compute in."""
    if where == "loading":
        monkeypatch.setattr("nptwatch.npt.opening.load_filled", no_room)
    else:
        monkeypatch.setattr(BaseModel, "head", no_room)
    found = bench.measure(bench.diagnoser())
    assert_same_numbers(found, wanted[QUICK])
    assert on(found)["layers"] == "streamed"
    thens = [step.rpartition("; then ")[2] for step in on(found)["steps"]]
    slices = [] if where == "loading" else ["smaller slices"]
    assert thens == [*slices, "streamed layers"]


def test_nothing_of_a_failed_try_is_left_when_the_next_begins(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the smaller way would have less room than the larger one had."""
    from nptwatch.npt import opening

    left: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def exhausted(base: BaseModel, normed: torch.Tensor) -> torch.Tensor:
        alive.append(sum(ref() is not None for ref in left))
        scratch = normed.clone()
        left.append(weakref.ref(scratch))
        ring: list[object] = [scratch]
        ring.append(ring)  # as a frame and the error that names it
        raise torch.OutOfMemoryError("CUDA out of memory")

    def streamed(*args: Any) -> BaseModel:
        alive.append(sum(ref() is not None for ref in (*left, *models)))
        return original(*args)

    original = opening.open_streamed
    monkeypatch.setattr(BaseModel, "head", exhausted)
    monkeypatch.setattr(opening, "open_streamed", streamed)
    diagnoser = bench.diagnoser()
    diagnoser.base_revision(bench.claim())
    assert diagnoser._loaded is not None
    models = [weakref.ref(diagnoser._loaded.opened.base.model)]
    gc.disable()  # what goes must not go by chance
    try:
        diagnoser.measure(bench.claim(), bench.weights)
    finally:
        gc.enable()
    assert alive == [0, 0, 0]


def test_later_and_at_last_on_the_cpu(
    bench: Bench, wanted: Mapping[str, Measured], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps in vain: handed back with all reasons, and after the wait measured on the CPU."""
    with monkeypatch.context() as patch:
        patch.setattr("nptwatch.worker.gpu.GpuDiagnoser._device_by", full_gpu)
        diagnoser = bench.diagnoser(lock_dir=bench.folder, wait_minutes=5)
        for minute in (0, 4):
            bench.now = minute * 60.0
            with pytest.raises(OutOfMemoryError, match=r"nothing fits; .*nothing fits"):
                bench.measure(diagnoser)
            assert diagnoser.base_model is None
            other = GpuLock(UUID, bench.folder, share=False)
            assert other.take(), "while it waits, others may try"
            other.release()
        bench.now = 301.0
        found = bench.measure(diagnoser)
    assert_same_numbers(found, wanted[QUICK])
    assert (on(found)["gpu"], on(found)["steps"][-1].rpartition("; then ")[2]) == (None, "the CPU")


def full_gpu(_self: object, way: Any) -> torch.device:
    """A device on which nothing fits; the CPU has room."""
    if way.on_gpu:
        raise OutOfMemoryError("out of memory on meta: nothing fits")
    return torch.device("cpu")


def test_a_base_that_cannot_be_streamed_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no safetensors files: said, as lack of memory and not as a broken base."""
    bench.base = bench.folder / "base"
    shutil.copytree(bench.weights.parent / "base", bench.base)
    (bench.base / "model.safetensors").rename(bench.base / "weights.bin")
    monkeypatch.setattr("nptwatch.npt.opening.load_resident", no_room)
    with pytest.raises(OutOfMemoryError, match="layers can be streamed from safetensors"):
        bench.measure(bench.diagnoser())


def test_a_busy_gpu_is_left_whole(bench: Bench) -> None:
    """While training needs it the base goes, its lock too, and who waits says for whom."""
    diagnoser = bench.diagnoser(lock_dir=bench.folder)
    bench.measure(diagnoser)
    assert diagnoser._loaded is not None
    model = weakref.ref(diagnoser._loaded.opened.base.model)
    other = GpuLock(UUID, bench.folder, share=False)
    assert not other.take()
    bench.gpu.used(pid_1=23_500)
    with pytest.raises(GpuBusyError, match="500 MiB free, 2048 wanted; process 1") as busy:
        bench.measure(diagnoser)
    assert busy.value.is_spent, "the process still has its context there"
    assert model() is None
    assert other.take()
    other.release()
    with pytest.raises(GpuBusyError) as fresh:
        bench.measure(bench.diagnoser())
    assert not fresh.value.is_spent


@pytest.mark.parametrize(
    ("policy", "layers", "gpu"), [("stream", "streamed", "Fake"), ("cpu", "resident", None)]
)
def test_a_busy_gpu_is_streamed_through_or_left(
    bench: Bench, policy: str, layers: str, gpu: str | None, wanted: Mapping[str, Measured]
) -> None:
    """The same numbers; the record says what was done instead of what, and why."""
    bench.gpu.used(pid_1=22_200)
    diagnoser = bench.diagnoser(when_busy=[policy])
    found = bench.measure(diagnoser)
    assert_same_numbers(found, wanted[QUICK])
    assert (on(found)["layers"], on(found)["gpu"]) == (layers, gpu)
    assert "1800 MiB free, 2048 wanted; process 1" in on(found)["steps"][0]
    bench.gpu.used()
    bench.now = 301.0
    assert on(bench.measure(diagnoser))["layers"] == "resident"
    assert on(bench.measure(diagnoser))["gpu"] == "Fake"


def test_two_daemons_take_turns(bench: Bench) -> None:
    """The second measures on the CPU, if it may, while the first has the GPU."""
    first = bench.diagnoser(lock_dir=bench.folder)
    second = bench.diagnoser(lock_dir=bench.folder, when_busy=["cpu"])
    bench.measure(first)
    found = bench.measure(second)
    assert on(found)["gpu"] is None
    assert "another nptwatch worker has it" in on(found)["steps"][0]


def test_workers_that_share_use_the_gpu_together(bench: Bench) -> None:
    """As they do with parts of a GPU on Ray."""
    results = [bench.measure(bench.diagnoser(lock_dir=bench.folder, share=True)) for _ in range(2)]
    assert [on(result)["gpu"] for result in results] == ["Fake", "Fake"]


def test_a_driver_error_is_no_lack_of_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a sticky error nothing works in this process: no step is tried, and it ends."""

    def broken(_base: BaseModel, _normed: torch.Tensor) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(BaseModel, "head", broken)
    with pytest.raises(DeviceError, match="illegal memory access") as error:
        bench.measure(bench.diagnoser())
    assert not isinstance(error.value, OutOfMemoryError)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
        ),
    ],
)
def test_memory_that_the_libraries_lack_is_lack_of_memory(
    bench: Bench, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU that is nearly full, the driver and cuBLAS fail first: never the checkpoint."""

    def exhausted(_base: BaseModel, _normed: torch.Tensor) -> torch.Tensor:
        raise error

    monkeypatch.setattr(BaseModel, "head", exhausted)
    assert on(bench.measure(bench.diagnoser()))["layers"] == "streamed"


def test_batches_change_no_number(bench: Bench) -> None:
    """However few tokens go through a layer at a time."""
    from nptwatch.diagnostics.reference import References
    from nptwatch.npt.base import load_base
    from nptwatch.npt.reader import read_checkpoint
    from nptwatch.worker.bases import full_diagnostic

    base = load_base(str(bench.base), local_files_only=True)
    checkpoint = read_checkpoint(bench.weights, max_bytes=2**24)
    results = [
        full_diagnostic(
            Settings(state_dir=bench.folder / f"batches-{tokens}"),
            References(base=base, batch_tokens=tokens),
        ).measure(checkpoint)
        for tokens in (0, 50, 1)
    ]
    means = [result.quick.mean for result in results]
    assert means[0] is not None
    for mean, result in zip(means, results, strict=True):
        assert mean is not None
        assert mean.mse == pytest.approx(means[0].mse, rel=1e-6)
        assert mean.cosine == pytest.approx(means[0].cosine, rel=1e-6)
        assert result.avg_score == pytest.approx(results[0].avg_score, rel=1e-6)
