"""A base that is read into memory: its weights straight from the file, each once.

transformers maps the whole file beside the copy in the dtype that is computed in, and mapped pages
count as the process's memory: for a file in bfloat16 that is computed in float32, half as much
again. Here only a small buffer lies between the file and the weights.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch

from nptwatch.npt.base import BaseModel, base_revision
from nptwatch.npt.families import require_known_parts, require_same_numbers
from nptwatch.npt.streaming import HEAD, require_plain_ends, skeleton_of, stored_of

if TYPE_CHECKING:
    from torch import Tensor

    from nptwatch.npt.finding import Found
    from nptwatch.npt.weight_files import Stored, WeightFiles

BUFFER_ELEMENTS = 8 * 1024**2


def load_filled(found: Found, files: WeightFiles, dtype: str, device: torch.device) -> BaseModel:
    """Load all layers of a base into memory.

    Raises:
        BaseModelError: weights are missing, it is not built as Llama is, or a file changed.
    """
    computed_in = getattr(torch, dtype)
    model = found.attempt(lambda: skeleton_of(found, computed_in))
    require_known_parts(found.name, model)
    require_plain_ends(found.name, model)
    tied = model.config.tie_word_embeddings
    tensors = {
        key: _read(files, stored, computed_in, device)
        for key, stored in stored_of(found.name, model, files).items()
        if not (tied and key == HEAD)
    }
    files.require_unchanged()
    model.load_state_dict(tensors, assign=True, strict=not tied)
    model.tie_weights()
    with device:  # its few numbers follow from the config and are in no file
        model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)
    model.requires_grad_(requires_grad=False)
    base = BaseModel(
        name=found.name,
        revision=base_revision(found),
        model=model,
        tokenizer=found.tokenizer,
    )
    require_same_numbers(base)
    return base


def _read(files: WeightFiles, stored: Stored, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Read a weight into the dtype and place where it is used."""
    weight = torch.empty(stored.shape, dtype=dtype, device=device)
    flat = weight.view(-1)
    if dtype == stored.dtype and device.type == "cpu":
        files.read(stored, 0, flat)
        return weight
    numel = prod(stored.shape)
    buffer = torch.empty(min(BUFFER_ELEMENTS, numel), dtype=stored.dtype)
    for start in range(0, numel, BUFFER_ELEMENTS):
        part = buffer[: min(BUFFER_ELEMENTS, numel - start)]
        files.read(stored, start, part)
        flat[start : start + len(part)].copy_(part)
    return weight
