"""How many CPU threads a worker takes, so that training's data loaders keep their cores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nptwatch.settings import WorkerSettings


def threads_for(settings: WorkerSettings, cores: int) -> int:
    """Give the threads of one worker.

    Args:
        cores: that its process may use.
    """
    share = cores // 2 // max(1, settings.count)  # half of the cores, for all workers together
    return max(1, min(settings.threads or share, cores))


def usable_cores(root: Path = Path("/")) -> int:
    """Give the cores that this process may use: by affinity, and by its cgroups' quotas.

    Args:
        root: where /proc and /sys are.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """Give the CPU quotas on the way up, in cores (cgroup v2; v1's are seldom met any more)."""
    try:
        entries = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    inside = next((line[3:].strip("/") for line in entries if line.startswith("0::")), None)
    if inside is None:
        return []
    top = root / "sys/fs/cgroup"
    folder = top / inside
    levels = [folder, *(up for up in folder.parents if up.is_relative_to(top))]
    return [quota for level in levels if (quota := _quota(level / "cpu.max")) is not None]


def _quota(file: Path) -> float | None:
    """Read `<most> <period>`; None: there is no limit."""
    try:
        most, period = file.read_text().split()
        return None if most == "max" else int(most) / int(period)
    except (OSError, ValueError):
        return None
