"""What the driver says of a GPU: free memory, and who uses it. The only module that asks NVML.

NVML (nvidia-ml-py, the extra `nptwatch[gpu]`) tells without touching the GPU; torch would first
make a context there, which takes some hundred MiB of it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nptwatch.npt.devices import MIB, UUID_KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A process that has memory on a GPU.

    Attributes:
        mib: None where the driver does not say (some containers, WDDM).
    """

    pid: int
    mib: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A GPU at one moment.

    Attributes:
        users: as the driver knows them, so in its own PID namespace; this process may be among
            them.
    """

    free_mib: int
    total_mib: int
    users: tuple[User, ...] = ()


class Nvml:
    """NVML, opened."""

    def __init__(self, module: Any) -> None:  # noqa: ANN401 - pynvml has no types
        self._nvml = module

    def look(self, uuid: str) -> Look | None:
        """Look at a GPU; None: the driver does not say.

        Args:
            uuid: as torch gives it, without its kind in front.
        """
        for kind in UUID_KINDS:
            with suppress(self._nvml.NVMLError):
                handle = self._nvml.nvmlDeviceGetHandleByUUID(f"{kind}{uuid}")
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                return Look(
                    free_mib=memory.free // MIB,
                    total_mib=memory.total // MIB,
                    users=self._users(handle),
                )
        return None

    def _users(self, handle: Any) -> tuple[User, ...]:  # noqa: ANN401 - as above
        try:
            found = self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except self._nvml.NVMLError:  # free memory is what counts
            return ()
        return tuple(
            User(pid=one.pid, mib=None if one.usedGpuMemory is None else one.usedGpuMemory // MIB)
            for one in found
        )


def open_nvml() -> Nvml | None:
    """Open NVML; None: it is not installed, or there is no driver."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return Nvml(pynvml)
