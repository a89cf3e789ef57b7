"""How much memory is free, and what running out of it, or losing a device, looks like."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nptwatch.errors import DeviceError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Iterator


ALLOCATION_FAILED = (
    "can't allocate memory",  # torch's CPU allocator has no class of its own
    "CUDA error: out of memory",  # the driver's word, where torch's own allocator is not asked
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate",  # no room for its workspace
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""How errors of other classes say it; none of them spoils the device for what comes after."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory, of the device or the machine, ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    said = str(error)
    return any(words in said for words in ALLOCATION_FAILED)


def free_bytes(device: torch.device) -> int | None:
    """Give the memory that may be allocated on a device.

    Of a GPU what torch keeps unused counts as free; `gpu.max_gpu_mib` bounds the whole.
    """
    if device.type != "cuda":
        return free_host_bytes()
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    kept = torch.cuda.memory_reserved(device) - allocated
    allowed = int(total * torch.cuda.get_per_process_memory_fraction(device)) - allocated
    return max(0, min(free + kept, allowed))


def total_bytes(gpu: str) -> int:
    """Give all the memory that a GPU has, in use or not."""
    return int(torch.cuda.get_device_properties(torch.device(gpu)).total_memory)


def free_host_bytes(root: Path = Path("/")) -> int | None:
    """Give the machine's free memory, or what is left of this process's cgroups if that is less.

    Args:
        root: where /proc and /sys are.

    Returns:
        None where the system does not say (it is not Linux).
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*available, *_left_in_cgroups(root)], default=None)


def _left_in_cgroups(root: Path) -> Iterator[int]:
    """Give what is left below each limit on the way up; cached files make room when asked to."""
    mounted = root / "sys/fs/cgroup"
    try:
        entries = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for entry in entries:
        _, controllers, inside = entry.split(":", 2)
        if controllers not in {"", "memory"}:
            continue
        top = mounted / controllers
        folder = top / inside.strip("/")
        for level in (folder, *(up for up in folder.parents if up.is_relative_to(top))):
            left = _left(level, *(V1 if controllers else V2))
            if left is not None:
                yield left


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left(level: Path, limit: str, used: str, cached: str) -> int | None:
    """Give what is left in one cgroup; None: it has no limit."""
    try:
        most, now = (level / limit).read_text().strip(), int((level / used).read_text())
        stat = dict(line.split() for line in (level / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if most == "max" else max(0, int(most) - now + int(stat.get(cached, 0)))


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Wrap device work: no memory is OutOfMemoryError, a lost device DeviceError."""
    try:
        yield
    except (MemoryError, RuntimeError) as exc:
        first_line = (str(exc).splitlines() or [""])[0]
        if is_out_of_memory(exc):
            raise OutOfMemoryError(f"out of memory on {device}: {first_line}") from exc
        if isinstance(exc, torch.AcceleratorError):  # its context is gone: so is this process's use
            raise DeviceError(f"{device} failed: {first_line}") from exc
        raise
