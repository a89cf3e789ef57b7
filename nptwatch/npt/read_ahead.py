"""Weights read part by part, the next one on a second thread while this one computes.

Two buffers take turns, so two parts are in memory and never more. A part is whatever is used
together: the weights of a layer, or some rows of the head.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

from nptwatch.npt.transfer import transfer_to

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from torch import Tensor

    from nptwatch.npt.transfer import CudaTransfer, HostTransfer
    from nptwatch.npt.weight_files import Stored, WeightFiles

ALIGNMENT = 64
"""Tensors in a buffer begin at multiples of so many elements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What is read of one tensor.

    Attributes:
        start: number of its first element.
        shape: of what is read.
    """

    stored: Stored
    start: int
    shape: tuple[int, ...]

    @property
    def room(self) -> int:
        """Elements that it takes in a buffer."""
        return -(-prod(self.shape) // ALIGNMENT) * ALIGNMENT


def read_ahead(
    files: WeightFiles,
    parts: Sequence[Mapping[str, Piece]],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> Generator[dict[str, Tensor]]:
    """Give each part's tensors; they hold until the next part is asked for.

    Args:
        dtype: what they are given in, whatever the file has.

    Raises:
        BaseModelError: a file cannot be read, or was written again since it was opened.
    """
    if not parts:
        return
    room = max(sum(piece.room for piece in part.values()) for part in parts)
    transfer = transfer_to(device, files)
    buffers = [_empty(room, dtype, device) for _ in range(min(2, len(parts)))]
    # the thread ends with the block, whether all parts were asked for or not
    with closing(transfer), ThreadPoolExecutor(1, thread_name_prefix="nptwatch-layers") as pool:

        def begin(number: int) -> Future[dict[str, Tensor]]:
            """Have a part read into the buffer of the one before the last, which is free again."""
            buffer = buffers[number % len(buffers)]
            return pool.submit(_fill, transfer, parts[number], buffer, transfer.free())

        coming = begin(0)
        for number in range(len(parts)):
            tensors = coming.result()
            transfer.take()
            files.require_unchanged()
            if number + 1 < len(parts):
                coming = begin(number + 1)
            yield tensors


def _fill(
    transfer: HostTransfer | CudaTransfer,
    part: Mapping[str, Piece],
    buffer: Tensor,
    free: torch.cuda.Event | None,
) -> dict[str, Tensor]:
    """Read a part into a buffer; runs on the reading thread."""
    tensors, place = {}, 0
    with transfer.filling(free):
        for name, piece in part.items():
            flat = buffer[place : place + prod(piece.shape)]
            transfer.fill(piece.stored, piece.start, flat)
            tensors[name] = flat.view(piece.shape)
            place += piece.room
    return tensors


def _empty(room: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Make a buffer that may be written to on any thread, whatever mode the caller is in."""
    with torch.inference_mode(mode=False):
        return torch.empty(room, dtype=dtype, device=device)
