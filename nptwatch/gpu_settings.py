"""Settings for a GPU that training uses too."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from nptwatch.sections import Seconds, Section

WAIT: Literal["wait"] = "wait"
STREAM: Literal["stream"] = "stream"
CPU: Literal["cpu"] = "cpu"

BusyPolicy = Literal["wait", "stream", "cpu"]


def _each_once(policies: tuple[BusyPolicy, ...]) -> tuple[BusyPolicy, ...]:
    if not policies or len(set(policies)) < len(policies):
        raise ValueError('needs "wait", "stream" or "cpu", each at most once')
    return policies


class GpuSettings(Section):
    """How a worker shares its GPU; on a CPU none of it counts."""

    min_free_gpu_mib: Annotated[int, Field(ge=0)] = 2048
    """With less free memory, what the worker itself holds included, the GPU is busy; 0: never."""
    look_again_seconds: Annotated[Seconds, Field(le=60)] = 2.0
    """Before a base is loaded, free memory is measured twice, so far apart."""
    max_gpu_mib: Annotated[int, Field(ge=1024)] | None = None
    """What a worker may have of its GPU at most, CUDA's context included; unset: all of it."""
    when_busy: Annotated[tuple[BusyPolicy, ...], AfterValidator(_each_once)] = (WAIT, STREAM, CPU)
    """What is done while the GPU is busy, in order."""
    wait_minutes: Annotated[float, Field(ge=0)] = 10.0
    """How long "wait" waits before what comes after it is tried."""
    share: bool = False
    """Workers of other daemons may use the GPU at the same time, if they share as well."""
    lock_dir: Path | None = None
    """Where the locks of GPUs are; unset: /run/lock, or /dev/shm."""
    batch_tokens: Annotated[int, Field(ge=0)] = 256
    """So many tokens go through a layer at a time on a GPU; 0: all."""
