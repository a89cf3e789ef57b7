"""NVML for machines without a GPU: the few functions that nptwatch calls, told by a file.

A test puts this folder on the path and names the file in FAKE_NVML:
`{"uuid": ..., "total_mib": ..., "used_mib": {"<pid>": ...}}`. Another process may write it; what a
process had is free when it has ended, as with a real driver.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MIB = 1024**2


class NVMLError(Exception):
    """As the library's."""


class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801, N818 - the library's name
    """There is no driver."""


def nvmlInit() -> None:
    """Fail where no file says what there is."""
    if "FAKE_NVML" not in os.environ:
        raise NVMLError_LibraryNotFound


def nvmlDeviceGetHandleByUUID(uuid: str) -> str:
    """Find the only GPU."""
    if uuid != f"GPU-{_told()['uuid']}":
        raise NVMLError(uuid)
    return uuid


def nvmlDeviceGetMemoryInfo(_handle: str) -> SimpleNamespace:
    """Give total, used and free, in bytes."""
    total, used = _told()["total_mib"] * MIB, sum(_told()["used_mib"].values()) * MIB
    return SimpleNamespace(total=total, used=used, free=total - used)


def nvmlDeviceGetComputeRunningProcesses(_handle: str) -> list[SimpleNamespace]:
    """List who uses it; those in containers do not say how much."""
    return [
        SimpleNamespace(pid=int(pid), usedGpuMemory=mib * MIB or None)
        for pid, mib in _told()["used_mib"].items()
    ]


def _told() -> Any:
    told = json.loads(Path(os.environ["FAKE_NVML"]).read_text())
    used = {pid: mib for pid, mib in told["used_mib"].items() if Path(f"/proc/{pid}").exists()}
    return told | {"used_mib": used}
