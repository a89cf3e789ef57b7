"""The way of weights from a file to where they are computed, a few MiB at a time.

On the CPU bytes of the right dtype are read straight into place. For a GPU they are read into
pinned memory and copied on a stream of its own, beside the computing; what still computes on a
buffer, or still copies into it, is told by events.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor

    from nptwatch.npt.weight_files import Stored, WeightFiles

STAGE_BYTES = 8 * 1024**2


def transfer_to(device: torch.device, files: WeightFiles) -> HostTransfer | CudaTransfer:
    """Build the way to a device."""
    return CudaTransfer(files, device) if device.type == "cuda" else HostTransfer(files)


class HostTransfer:
    """To the machine's own memory."""

    def __init__(self, files: WeightFiles) -> None:
        self._files = files
        self._stage = torch.empty(STAGE_BYTES, dtype=torch.uint8)

    def free(self) -> None:
        """Say that the caller is done with a buffer; what it computed is computed."""

    def filling(self, _free: object) -> AbstractContextManager[None]:
        """Enclose the filling of a buffer."""
        return nullcontext()

    def fill(self, stored: Stored, start: int, into: Tensor) -> None:
        """Read elements from `start` on into a flat tensor, in its dtype."""
        if stored.dtype == into.dtype:
            self._files.read(stored, start, into)
            return
        stage = self._stage.view(stored.dtype)
        for at in range(0, len(into), len(stage)):
            part = into[at : at + len(stage)]
            self._files.read(stored, start + at, stage[: len(part)])
            part.copy_(stage[: len(part)])

    def take(self) -> None:
        """Make what was filled usable to the caller."""

    def close(self) -> None:
        """Wait for all copies."""


class CudaTransfer:
    """To a GPU.

    Buffers belong to the stream that the caller computes on; the reading thread has its own.
    """

    def __init__(self, files: WeightFiles, device: torch.device) -> None:
        self._files = files
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._stages = [
            torch.empty(STAGE_BYTES, dtype=torch.uint8, pin_memory=True) for _ in range(2)
        ]
        self._copied = [torch.cuda.Event() for _ in self._stages]
        self._ready = torch.cuda.Event()
        self._turn = 0

    def free(self) -> torch.cuda.Event:
        """Mark the end of what computes on a buffer, to be waited for before it is filled."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event

    @contextmanager
    def filling(self, free: torch.cuda.Event | None) -> Iterator[None]:
        """Enclose the filling of a buffer, on the reading thread."""
        with torch.cuda.stream(self._stream):
            if free is not None:
                self._stream.wait_event(free)
            yield
            self._ready.record(self._stream)

    def fill(self, stored: Stored, start: int, into: Tensor) -> None:
        """Read elements from `start` on into a flat tensor of the device, in its dtype."""
        stage_elements = STAGE_BYTES // stored.dtype.itemsize
        for at in range(0, len(into), stage_elements):
            part = into[at : at + stage_elements]
            stage = self._stages[self._turn].view(stored.dtype)[: len(part)]
            self._copied[self._turn].synchronize()  # what it held before has left it
            self._files.read(stored, start + at, stage)
            # in the file's dtype over the bus, and converted there: copy_ would convert here
            part.copy_(stage.to(self._device, non_blocking=True))
            self._copied[self._turn].record(self._stream)
            self._turn = 1 - self._turn

    def take(self) -> None:
        """Let the caller's stream wait for the copies."""
        torch.cuda.current_stream(self._device).wait_event(self._ready)

    def close(self) -> None:
        """Wait for all copies: buffers and stages may then be given back."""
        self._stream.synchronize()
