"""A base's safetensors files: what lies where, read piece by piece.

Nothing is mapped: pages of a mapped file count as this process's memory, and a mapped file that is
cut short kills its reader with SIGBUS.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from nptwatch.errors import BaseModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F64": torch.float64,
}

MAX_HEADER_BYTES = 100 * 1024**2
"""safetensors' own limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where a tensor lies.

    Attributes:
        offset: of its first byte in the file.
    """

    path: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Its elements."""
        return prod(self.shape)


class WeightFiles:
    """The files of one base, as they were when they were opened.

    Args:
        name: the base's, for messages.
        paths: its safetensors files; no tensor is in two of them.

    Raises:
        BaseModelError: one is not whole, or holds what is not a float.
    """

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self._name = name
        self.tensors: dict[str, Stored] = {}
        self._stamps: dict[Path, tuple[int, int, int]] = {}
        for path in paths:
            try:
                self._stamps[path] = _stamp(path)
                self.tensors.update(_tensors(path))
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:
                msg = f"base model {name!r}: {path} is not a whole safetensors file ({exc})"
                raise BaseModelError(msg) from exc

    def numel(self) -> int:
        """Count the elements of all tensors."""
        return sum(stored.numel for stored in self.tensors.values())

    def require_unchanged(self) -> None:
        """Hold that all files are those that were opened.

        Raises:
            BaseModelError: one was written again, or is gone.
        """
        for path, stamp in self._stamps.items():
            try:
                same = _stamp(path) == stamp
            except OSError as exc:
                msg = f"base model {self._name!r}: {path} is gone while it is in use ({exc})"
                raise BaseModelError(msg) from exc
            if not same:
                msg = (
                    f"base model {self._name!r}: {path} was written again while it is in use; "
                    "what is measured now would be of two bases. Try again"
                )
                raise BaseModelError(msg)

    def read(self, stored: Stored, start: int, into: Tensor) -> None:
        """Read elements as they are in the file.

        Args:
            start: number of the first element.
            into: contiguous, on the CPU, of the file's dtype; as many are read as it has.

        Raises:
            BaseModelError: the file ends before, or cannot be read.
        """
        view = into.view(torch.uint8).flatten().numpy().data
        offset = stored.offset + start * into.element_size()
        try:
            with stored.path.open("rb", buffering=0) as file:
                while view:
                    count = os.preadv(file.fileno(), [view], offset)
                    if count == 0:
                        raise EOFError("it ends too early")  # noqa: TRY301 - one message for both
                    view, offset = view[count:], offset + count
        except (OSError, EOFError) as exc:
            msg = f"base model {self._name!r}: {stored.path} cannot be read: {exc}"
            raise BaseModelError(msg) from exc


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _tensors(path: Path) -> Mapping[str, Stored]:
    """Read a file's header.

    Raises:
        OSError, ValueError, LookupError, TypeError, AttributeError: it is not whole.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > min(size, MAX_HEADER_BYTES):
            raise ValueError(f"{size} bytes, its header does not fit")
        header = json.loads(file.read(header_bytes))
    header.pop("__metadata__", None)
    data = 8 + header_bytes
    found = {name: _stored(path, name, data, entry) for name, entry in header.items()}
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if data + end != size:
        raise ValueError(f"{size} bytes where its header says {data + end}")
    return found


def _stored(path: Path, name: str, data: int, entry: Mapping[str, Any]) -> Stored:
    dtype = DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(f"{name!r} is {entry['dtype']}: only floats can be streamed")
    begin, end = entry["data_offsets"]
    stored = Stored(path=path, offset=data + begin, dtype=dtype, shape=tuple(entry["shape"]))
    if not 0 <= begin <= end or end - begin != stored.numel * dtype.itemsize:
        raise ValueError(f"{name!r} has {end - begin} bytes for shape {list(stored.shape)}")
    return stored
