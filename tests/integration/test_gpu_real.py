"""On a real card: what no fake can show. Run with `pytest -m gpu` where there is one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import tiny
import torch

from nptwatch.errors import DeviceError, GpuBusyError, OutOfMemoryError
from nptwatch.npt.devices import CONTEXT_MIB, MIB, cap_memory, resolve_device, uuid_of
from nptwatch.npt.memory import device_errors, free_bytes
from nptwatch.settings import FULL, QUICK, Settings
from nptwatch.store.engine import utc_now
from nptwatch.store.records import Claim
from nptwatch.worker.gpu import GpuDiagnoser
from nptwatch.worker.gpu_card import card_of
from nptwatch.worker.nvml import open_nvml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nptwatch.store.records import Measured

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: nothing of this was tested"),
]

HIDDEN, LAYERS = 256, 12
NUMBERS = ("mse", "cosine", "kl", "relative_mse", "perplexity_ratio", "hidden_mse")
LEFT_MIB = 1500
TRAINING = (
    "import sys, torch\n"
    "left = int(sys.argv[1])\n"
    "free, _ = torch.cuda.mem_get_info(0)\n"
    "held = torch.empty(free - left * 2**20, dtype=torch.uint8, device='cuda:0')\n"
    "torch.cuda.synchronize()\n"
    "print('filled', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def training() -> Iterator[subprocess.Popen[str]]:
    """Another process that holds most of the memory, as training does, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(LEFT_MIB)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "filled\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a checkpoint."""
    folder: Path = tmp_path_factory.mktemp("files")
    tiny.llama(folder / "base", hidden=HIDDEN, layers=LAYERS)
    tensors = tiny.weights(tiny.layer(8), tiny.layer(11), hidden=HIDDEN, intermediate=3 * HIDDEN)
    tiny.save(folder / "npt_weights.pt", tensors)
    return folder


def diagnoser(files: Path, state: Path, device: str = "cuda:0", **gpu: object) -> GpuDiagnoser:
    """Build one with a cache and a lock folder of its own."""
    state.mkdir(exist_ok=True)
    settings = Settings.model_validate(
        {
            "state_dir": state,
            "base": {"model": str(files / "base"), "local_files_only": True},
            "worker": {"device": device},
            "gpu": {"lock_dir": state, "look_again_seconds": 0.1, "min_free_gpu_mib": 64, **gpu},
        }
    )
    return GpuDiagnoser(settings, utc_now)


def measure(by: GpuDiagnoser, files: Path, profile: str = QUICK) -> Measured:
    """Measure as the worker does."""
    weights = files / "npt_weights.pt"
    claim = Claim(
        job_id=1,
        checkpoint_id=1,
        run_id=1,
        run_path=str(files),
        run_name="run",
        run_root=str(files),
        paths=(str(weights),),
        fingerprint="f",
        step=1,
        mtime_ns=0,
        base_model=None,
        profile=profile,
        settings_hash="h",
        attempts=0,
        kept_by=None,
    )
    by.base_revision(claim)
    return by.measure(claim, weights)


def on(measured: Measured) -> dict[str, Any]:
    """What the record says of where and how."""
    found: dict[str, Any] = measured.details["measured_on"]
    return found


def assert_near(found: Measured, wanted: Measured, rel: float) -> None:
    """Hold that two results say the same."""
    assert found.grade == wanted.grade
    for name in NUMBERS:
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=rel, abs=1e-7), name


def test_a_gpu_is_found_by_its_uuid() -> None:
    """Whole, or cut short; by an index too."""
    uuid = uuid_of(torch.device("cuda", 0))
    for name in (f"GPU-{uuid}", f"GPU-{uuid[:13]}", "cuda:0", "cuda", "auto"):
        assert resolve_device(name) == torch.device("cuda", 0)
    with pytest.raises(DeviceError, match=f"there are: GPU-{uuid}"):
        resolve_device("GPU-00000000-nowhere")


def test_the_driver_tells_what_torch_does() -> None:
    """NVML finds the GPU by torch's UUID; the two agree on what is free, but for the context."""
    card, nvml = card_of(torch.device("cuda", 0)), open_nvml()
    assert card is not None
    assert nvml is not None, "install nvidia-ml-py"
    look = nvml.look(card.uuid)
    assert look is not None, "NVML does not know torch's UUID"
    free, total = torch.cuda.mem_get_info(0)
    assert look.free_mib == pytest.approx(free / MIB, abs=1024)
    assert look.total_mib == pytest.approx(total / MIB, rel=0.05)


@pytest.mark.parametrize("profile", [QUICK, FULL])
def test_small_batches_on_a_background_stream_give_the_cpu_s_numbers(
    files: Path, tmp_path: Path, profile: str
) -> None:
    """All that is loaded, copied and computed keeps its order on a stream of its own."""
    on_cpu = measure(diagnoser(files, tmp_path / "cpu", "cpu"), files, profile)
    for tokens in (0, 16):
        by = diagnoser(files, tmp_path / f"gpu-{tokens}", batch_tokens=tokens)
        found = measure(by, files, profile)
        assert on(found)["device"] == "cuda:0"
        assert torch.cuda.current_stream(0) != torch.cuda.default_stream(0)
        assert_near(found, on_cpu, rel=1e-3)


def test_training_that_fills_the_gpu_is_given_way(
    files: Path, tmp_path: Path, training: subprocess.Popen[str]
) -> None:
    """Wait, stream, CPU, each as set; once training is gone the GPU is used."""
    waiting = diagnoser(files, tmp_path / "wait", min_free_gpu_mib=4096)
    with pytest.raises(GpuBusyError, match="MiB free, 4096 wanted"):
        measure(waiting, files)
    on_cpu = diagnoser(files, tmp_path / "cpu", min_free_gpu_mib=4096, when_busy=["cpu"])
    wanted = measure(on_cpu, files)
    assert on(wanted)["gpu"] is None
    streaming = diagnoser(files, tmp_path / "stream", min_free_gpu_mib=4096, when_busy=["stream"])
    found = measure(streaming, files)
    assert (on(found)["device"], on(found)["layers"]) == ("cuda:0", "streamed")
    assert_near(found, wanted, rel=1e-3)
    training.kill()
    training.wait()
    assert on(measure(waiting, files))["layers"] == "resident"


def test_a_cap_holds_and_memory_that_runs_out_is_told_as_such() -> None:
    """Torch's allocator refuses; `free_bytes` knows; and nothing is broken afterwards."""
    device = torch.device("cuda", 0)
    held = torch.cuda.memory_allocated(device)
    cap_memory(device, held // MIB + 512 + CONTEXT_MIB)
    try:
        free = free_bytes(device)
        assert free is not None
        assert free <= 513 * MIB
        with pytest.raises(OutOfMemoryError), device_errors(device):
            torch.empty(768 * MIB, dtype=torch.uint8, device=device)
        assert torch.ones(8, device=device).sum().item() == 8
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def test_a_sticky_error_is_a_device_error() -> None:
    """In a process of its own, as it spoils it: what the worker ends for."""
    program = (
        "import torch\n"
        "from nptwatch.errors import DeviceError, OutOfMemoryError\n"
        "from nptwatch.npt.memory import device_errors\n"
        "device = torch.device('cuda', 0)\n"
        "try:\n"
        "    with device_errors(device):\n"
        "        torch.zeros(2, 2, device=device)[torch.tensor([7], device=device)].sum().item()\n"
        "except OutOfMemoryError: print('memory')\n"
        "except DeviceError: print('device')\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert said.stdout == "device\n", said.stderr[-2000:]
