"""A GPU for machines without one: it computes on the CPU, and the fake NVML says what is free."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nptwatch.worker.gpu import GpuDiagnoser
from nptwatch.worker.gpu_card import Card
from nptwatch.worker.nvml import open_nvml

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import pytest

    from nptwatch.settings import Settings
    from nptwatch.worker.nvml import Look

UUID = "8f3c2a11-0000-4000-8000-0123456789ab"
NVML = Path(__file__).parent / "fake_nvml"
TOTAL_MIB = 24_000


class FakeGpu:
    """What the fake NVML tells; other processes that are told of it write the same file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "nvml.json"
        self.used()

    def used(self, **mib: int) -> None:
        """Say who uses it: `pid_<n>` has so many MiB."""
        by_pid = {key.removeprefix("pid_"): value for key, value in mib.items()}
        told = {"uuid": UUID, "total_mib": TOTAL_MIB, "used_mib": by_pid}
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(told))
        part.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to see it, in front of this one's path."""
        path = [str(NVML), str(NVML.parent), os.environ.get("PYTHONPATH", "")]
        return {"FAKE_NVML": str(self.file), "PYTHONPATH": os.pathsep.join(filter(None, path))}


def see(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process see it, and those that it starts."""
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.syspath_prepend(NVML)
    for name, value in gpu.environment.items():
        monkeypatch.setenv(name, value)


def card(held_mib: Callable[[], int] = lambda: 0) -> Card:
    """Describe it as a worker sees it."""
    nvml = open_nvml()
    assert nvml is not None

    def look() -> Look:
        found = nvml.look(UUID)
        assert found is not None
        return found

    cpu = torch.device("cpu")
    return Card(device=cpu, uuid=UUID, name="Fake", look=look, held_mib=held_mib)


class FakeGpuDiagnoser(GpuDiagnoser):
    """The real diagnoser, on it; for workers: `--diagnoser fake_gpu:FakeGpuDiagnoser`."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime], **more: Any) -> None:
        super().__init__(settings, clock, **{"card": card(), **more})
