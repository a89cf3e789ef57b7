"""Running out of memory, and losing a device, whatever torch calls it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from nptwatch.errors import DeviceError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory, of the device or the machine, ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch's CPU allocator has no class of its own
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Wrap device work: no memory is OutOfMemoryError, a lost device DeviceError."""
    try:
        yield
    except (MemoryError, RuntimeError) as exc:
        first_line = (str(exc).splitlines() or [""])[0]
        if is_out_of_memory(exc):
            if device.type == "cuda":
                torch.cuda.empty_cache()
            raise OutOfMemoryError(f"out of memory on {device}: {first_line}") from exc
        if isinstance(exc, torch.AcceleratorError):  # its context is gone: so is this process's use
            raise DeviceError(f"{device} failed: {first_line}") from exc
        raise
