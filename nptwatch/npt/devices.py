"""Devices: finding one by its name, and using a GPU that others use too."""

from __future__ import annotations

import torch

from nptwatch.errors import DeviceError

MIB = 1024**2

CONTEXT_MIB = 512
"""About what CUDA takes of a GPU for a process, whatever it computes."""

UUID_KINDS = ("GPU-", "MIG-")
"""How a GPU's name by UUID begins, as `nvidia-smi -L` prints it."""

_USE = "use auto, cpu, cuda, cuda:<n> or GPU-<uuid>"


def resolve_device(name: str) -> torch.device:
    """Turn auto, cpu, cuda, cuda:<n> or GPU-<uuid> into a device that exists.

    Args:
        name: a UUID may be cut short, as CUDA_VISIBLE_DEVICES allows.

    Raises:
        DeviceError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if name.startswith(UUID_KINDS):
        return _by_uuid(name)
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise DeviceError(f"unknown device {name!r}: {_USE}") from exc
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise DeviceError(f"device {name!r} is not supported: {_USE}")
    index, count = device.index or 0, _count()
    if index >= count:
        raise DeviceError(
            f"device {name!r}: this machine has {count} CUDA devices; use --device cpu"
        )
    return torch.device("cuda", index)


def uuid_of(device: torch.device) -> str:
    """Give a GPU's UUID, without what `nvidia-smi -L` puts in front."""
    return str(torch.cuda.get_device_properties(device).uuid)


def name_of(device: torch.device) -> str:
    """Give a GPU's name."""
    return str(torch.cuda.get_device_properties(device).name)


def held_mib(device: torch.device) -> int:
    """Give about what this process has of a GPU: allocated, in use or not, and its context."""
    reserved = torch.cuda.memory_reserved(device) if torch.cuda.is_initialized() else 0
    return reserved // MIB + CONTEXT_MIB if reserved else 0


def cap_memory(device: torch.device, max_mib: int) -> None:
    """Let this process have no more of a GPU; beyond, torch's allocator is out of memory.

    Args:
        max_mib: the context included, of which the allocator knows nothing.
    """
    total = torch.cuda.get_device_properties(device).total_memory
    allowed = max(0, max_mib - CONTEXT_MIB) * MIB
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), device)


def compute_in_background(device: torch.device) -> None:
    """Have all that this thread computes on a GPU from now on go through a low-priority stream.

    All of it, loading included: work of two streams has no order unless it is made one. 0 is the
    lowest priority that CUDA has.
    """
    torch.cuda.set_stream(torch.cuda.Stream(device, priority=0))


def _by_uuid(name: str) -> torch.device:
    uuids = [uuid_of(torch.device("cuda", index)) for index in range(_count())]
    wanted = name.partition("-")[2].lower()
    matches = [index for index, uuid in enumerate(uuids) if uuid.lower().startswith(wanted)]
    if len(matches) != 1 or not wanted:
        known = ", ".join(f"GPU-{uuid}" for uuid in uuids) or "none"
        problem = "more than one GPU matches" if matches else "this process sees no such GPU"
        raise DeviceError(f"device {name!r}: {problem}; there are: {known}")
    return torch.device("cuda", matches[0])


def _count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
