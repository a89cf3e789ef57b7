"""How many CPU threads a worker takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from nptwatch.settings import WorkerSettings
from nptwatch.worker.cores import threads_for, usable_cores

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("threads", "count", "cores", "wanted"),
    [
        (0, 1, 16, 8),
        (0, 2, 16, 4),
        (0, 8, 4, 1),
        (0, 1, 1, 1),
        (3, 2, 16, 3),
        (64, 1, 16, 16),
        (0, 0, 16, 8),
    ],
)
def test_half_of_the_cores_are_left_to_others(
    threads: int, count: int, cores: int, wanted: int
) -> None:
    """All workers of a host together take half of them; who asks for more gets what there is."""
    assert threads_for(WorkerSettings(threads=threads, count=count), cores) == wanted


def test_a_quota_counts_as_cores(tmp_path: Path) -> None:
    """In a container with a quota, the machine's number of cores says nothing."""
    cores = usable_cores(tmp_path)
    assert cores == len(os.sched_getaffinity(0))
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/box/worker\n")
    group = tmp_path / "sys/fs/cgroup/box/worker"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path) == cores
    (group.parent / "cpu.max").write_text("150000 100000\n")
    assert usable_cores(tmp_path) == 1
