"""Opening a base: all of it in memory if it fits, else streamed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import structlog
import torch

from nptwatch.errors import BaseModelError
from nptwatch.npt.base import load_resident
from nptwatch.npt.filling import load_filled
from nptwatch.npt.finding import find_base
from nptwatch.npt.memory import free_bytes
from nptwatch.npt.streaming import SLICE_BYTES, open_streamed
from nptwatch.npt.weight_files import WeightFiles

if TYPE_CHECKING:
    from nptwatch.npt.base import BaseModel
    from nptwatch.npt.finding import Found

log = structlog.get_logger()

AUTO, RESIDENT, STREAMED = "auto", "resident", "streamed"

GIB = 1024**3
WORK_BYTES = GIB // 2
"""Left free for computing, beside an eighth of the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A base and how its layers are held.

    Attributes:
        layers: resident or streamed.
        why: in words.
    """

    base: BaseModel
    layers: str
    why: str


def open_base(
    name: str, *, layers: str, dtype: str, device: torch.device, local_files_only: bool
) -> Opened:
    """Open a base.

    Args:
        layers: resident, streamed, or auto: what free memory allows.

    Raises:
        BaseModelError: missing, gated, incomplete, not built as Llama is, or not to be streamed.
        MemoryError, RuntimeError: memory ran out (npt.memory.device_errors).
    """
    found = find_base(name, local_files_only=local_files_only)
    files = _files(found, needed=layers == STREAMED)
    why = "as base.layers says"
    if layers == AUTO:
        layers, why = _choose(files, dtype, device)
    if files is not None and layers == STREAMED:
        base: BaseModel = open_streamed(found, files, dtype, device)
    else:
        base = _resident(found, files, dtype, device)
    return Opened(base=base, layers=layers, why=why)


def streamed_bytes(name: str, *, dtype: str, local_files_only: bool) -> int | None:
    """Give about what a streamed base takes on its device; None: it cannot be streamed.

    Raises:
        BaseModelError: it is missing, gated or broken.
    """
    files = _files(find_base(name, local_files_only=local_files_only), needed=False)
    if files is None:
        return None
    layers: Counter[str] = Counter()
    for key, stored in files.tensors.items():
        if number := re.search(r"\blayers\.(\d+)\.", key):
            layers[number[1]] += prod(stored.shape)
    two_layers: int = 2 * max(layers.values(), default=0) * getattr(torch, dtype).itemsize
    return two_layers + 2 * SLICE_BYTES + WORK_BYTES


def _resident(
    found: Found, files: WeightFiles | None, dtype: str, device: torch.device
) -> BaseModel:
    """Load all layers: straight from safetensors, whatever else there is by transformers."""
    if files is not None:
        try:
            return load_filled(found, files, dtype, device)
        except BaseModelError as exc:  # transformers knows more forms of a file, and says more
            log.debug("base_not_read_directly", base_model=found.name, why=str(exc))
    return load_resident(found, dtype, device)


def _files(found: Found, *, needed: bool) -> WeightFiles | None:
    """Look into the weight files; those that are not needed may not be there, or be damaged."""
    try:
        return WeightFiles(found.name, found.weight_files())
    except BaseModelError:
        if needed:
            raise
        return None


def _choose(files: WeightFiles | None, dtype: str, device: torch.device) -> tuple[str, str]:
    """Choose by free memory; loading goes through the machine's, also on the way to a GPU."""
    if files is None:
        return RESIDENT, "it has no safetensors files that could be streamed"
    weights = files.numel() * getattr(torch, dtype).itemsize
    needed = weights + weights // 8 + WORK_BYTES
    for place in dict.fromkeys((device, torch.device("cpu"))):
        free = free_bytes(place)
        if free is not None and free < needed:
            return STREAMED, f"it needs {_gib(needed)} and {place} has {_gib(free)} free"
    return RESIDENT, f"it needs {_gib(needed)}, which are free"


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
