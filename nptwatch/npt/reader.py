"""Safe reading of a checkpoint's weights. The file is hostile until proved otherwise.

A .pt file is read in this order, each step before the next may allocate: size cap, ZIP directory
(stored members only, sizes within the file's), CRC of every member, `weights_only` unpickling,
then for every tensor: dense, on the CPU, of a float type, no more elements than its storage holds.
Nothing is mapped into memory: a trainer that rewrites a mapped file kills its reader with SIGBUS.
"""

from __future__ import annotations

import pickle
import struct
import time
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from nptwatch.errors import (
    CheckpointChangedError,
    CheckpointDeletedError,
    IncompleteCheckpointError,
    UnsafeCheckpointError,
)
from nptwatch.npt.archive import opened_archive
from nptwatch.npt.files import check_crc, fingerprint
from nptwatch.npt.finite import all_finite

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

MAX_PICKLE_BYTES = 16 * 1024 * 1024
"""A pickle of names and shapes; 16 MiB holds some 100,000 tensors."""

MAX_TENSORS = 20_000

FLOAT_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint's tensors, on the CPU, in the file's own dtypes.

    Attributes:
        fingerprint: content identity (npt.files.fingerprint).
        read_seconds: how long reading and checking took.
    """

    path: Path
    fingerprint: str
    size_bytes: int
    tensors: dict[str, Tensor]
    read_seconds: float

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, by name."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    @property
    def dtypes(self) -> list[str]:
        """Dtypes in the file, sorted: `float32`, `bfloat16`."""
        return sorted({str(t.dtype).removeprefix("torch.") for t in self.tensors.values()})

    def first_non_finite(self) -> str | None:
        """Name the first tensor that holds NaN or infinity."""
        for name, tensor in self.tensors.items():
            if not all_finite(tensor):
                return name
        return None


def read_checkpoint(path: Path, *, max_bytes: int) -> Checkpoint:
    """Read the weights.

    Args:
        max_bytes: larger files are refused unread.

    Raises:
        CheckpointDeletedError: the file is gone.
        CheckpointChangedError: it was rewritten meanwhile.
        IncompleteCheckpointError: not whole, or a CRC does not match.
        UnsafeCheckpointError: refused: pickled code, compression, sizes that lie, not tensors.
    """
    started = time.perf_counter()
    try:
        before = path.stat()
        if before.st_size > max_bytes:
            msg = f"{path}: {before.st_size:,} bytes are more than the cap of {max_bytes:,} bytes"
            raise UnsafeCheckpointError(msg)
        identity = fingerprint(path)
        safe = path.suffix == ".safetensors"
        tensors = _read_safetensors(path) if safe else _read_torch(path)
        after = path.stat()
    except FileNotFoundError as exc:
        raise CheckpointDeletedError(f"{path}: deleted") from exc
    except OSError as exc:
        raise IncompleteCheckpointError(f"{path}: cannot be read: {exc}") from exc
    if (before.st_ino, before.st_size, before.st_mtime_ns) != (
        after.st_ino,
        after.st_size,
        after.st_mtime_ns,
    ):
        raise CheckpointChangedError(f"{path}: rewritten while it was read; try again")
    _check_tensors(path, tensors)
    return Checkpoint(
        path=path,
        fingerprint=identity,
        size_bytes=before.st_size,
        tensors=tensors,
        read_seconds=time.perf_counter() - started,
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_safetensors(path.read_bytes())
    except SafetensorError as exc:
        msg = f"{path}: not a whole safetensors file: {exc}"
        raise IncompleteCheckpointError(msg) from exc
    return tensors


def _read_torch(path: Path) -> dict[str, Tensor]:
    check_crc(path)
    _check_pickle(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except pickle.UnpicklingError as exc:
        msg = f"{path}: refused: the pickle asks for more than tensors ({_first_line(exc)})"
        raise UnsafeCheckpointError(msg) from exc
    except (RuntimeError, EOFError, zipfile.BadZipFile, struct.error) as exc:
        msg = f"{path}: torch cannot read it: {_first_line(exc)}"
        raise IncompleteCheckpointError(msg) from exc
    except FileNotFoundError:
        raise
    except Exception as exc:
        msg = f"{path}: refused: its pickle is malformed ({type(exc).__name__}: {_first_line(exc)})"
        raise UnsafeCheckpointError(msg) from exc
    return _require_tensor_dict(path, loaded)


def _first_line(exc: Exception) -> str:
    """Torch's messages run over many lines of advice (among it: to switch the safety off)."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    named = [line for line in lines if "GLOBAL" in line or "Unsupported" in line]
    return (named or lines or [type(exc).__name__])[0][:200]


def _check_pickle(path: Path) -> None:
    """The archive must hold the one pickle that torch.save writes, of a sane size."""
    with opened_archive(path) as archive:
        pickles = [m for m in archive.infolist() if m.filename.endswith(".pkl")]
    if not any(m.filename.endswith("/data.pkl") for m in pickles):
        msg = f"{path}: refused: a ZIP archive, but not one that torch.save wrote (no data.pkl)"
        raise UnsafeCheckpointError(msg)
    for member in pickles:
        if member.file_size > MAX_PICKLE_BYTES:
            msg = f"{path}: refused: {member.filename!r} is {member.file_size:,} bytes of pickle"
            raise UnsafeCheckpointError(msg)


def _require_tensor_dict(path: Path, loaded: object) -> dict[str, Tensor]:
    if not isinstance(loaded, dict):
        msg = f"{path}: expected a dict of tensors, found a {type(loaded).__name__}"
        raise UnsafeCheckpointError(msg)
    strange = [
        f"{key!r} ({type(value).__name__})"
        for key, value in loaded.items()
        if not (isinstance(key, str) and isinstance(value, torch.Tensor))
    ]
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""  # noqa: PLR2004 - as cut
        msg = f"{path}: expected a dict of tensors, found also {', '.join(strange[:5])}{more}"
        raise UnsafeCheckpointError(msg)
    return dict(loaded)


def _check_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A view may claim 1e12 elements over 4 bytes; the first copy of it would allocate them."""
    faults = [] if len(tensors) <= MAX_TENSORS else [f"{len(tensors):,} tensors"]
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized:
            faults.append(f"{name!r} is not a dense tensor")
        elif tensor.device.type != "cpu":
            faults.append(f"{name!r} has no data (device {tensor.device})")
        elif tensor.dtype not in FLOAT_TYPES:
            faults.append(f"{name!r} is {str(tensor.dtype).removeprefix('torch.')}, not a float")
        elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            faults.append(
                f"{name!r} claims {tensor.numel():,} elements over "
                f"{tensor.untyped_storage().nbytes():,} bytes"
            )
    if faults:
        msg = f"{path}: refused: {'; '.join(faults[:10])}"
        raise UnsafeCheckpointError(msg)
