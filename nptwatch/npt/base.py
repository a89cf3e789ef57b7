"""The base model: loading it, and telling one base from another.

The base is any decoder built as Llama is (families.py) that transformers loads, from a local folder
or the hub. Its weights are never changed; NPT rows and standard rows of a sweep share the one copy.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from nptwatch.errors import BaseModelError
from nptwatch.npt.attention import register
from nptwatch.npt.families import require_known_parts, require_same_numbers
from nptwatch.npt.finding import find_base
from nptwatch.npt.layout import BaseShape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from nptwatch.npt.finding import Found

HEAD_ROWS = 8192
"""Of the head, multiplied at a time on a CPU."""

SAMPLED_BLOCKS = 1024
SAMPLED_BLOCK_BYTES = 16 * 1024
HASHED_WHOLE_BYTES = 64 * 1024 * 1024

IDENTITY_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """A loaded base.

    Attributes:
        name: as it was asked for: folder or hub name.
        revision: content identity of weights, config and tokenizer.
        model: the transformers model, in eval mode, without gradients.
        tokenizer: its tokenizer.
    """

    name: str
    revision: str
    model: Any  # Any: transformers classes are not typed
    tokenizer: Any  # Any: transformers classes are not typed

    @property
    def shape(self) -> BaseShape:
        """Sizes that a checkpoint must fit."""
        config = self.model.config
        return BaseShape(
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.lm_head.weight.device  # type: ignore[no-any-return]  # untyped library

    @property
    def dtype(self) -> torch.dtype:
        """In what the weights are computed."""
        return self.model.lm_head.weight.dtype  # type: ignore[no-any-return]  # untyped library

    @property
    def layers(self) -> Any:  # noqa: ANN401 - transformers' ModuleList of decoder layers
        """The decoder layers, in order."""
        return self.model.model.layers

    def each_layer(self, start: int = 0) -> Iterator[tuple[int, Any]]:  # Any: as `layers`
        """Go through the decoder layers in order, each with its index; use one at a time."""
        yield from enumerate(self.layers[start:], start)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Return the residual stream before the first layer, (B,T,D)."""
        return self.model.model.embed_tokens(ids_BT)  # type: ignore[no-any-return]  # untyped library

    def rotary(self, h_BTD: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return rotary cos and sin, each (B,T,head_dim), in the stream's dtype.

        Args:
            positions: (B,T), or (T,) for B = 1.
        """
        positions_BT = positions if positions.dim() > 1 else positions[None]
        return self.model.model.rotary_emb(h_BTD, position_ids=positions_BT)  # type: ignore[no-any-return]  # untyped library

    def norm(self, h: Tensor) -> Tensor:
        """Apply the last norm, (..., D)."""
        return self.model.model.norm(h)  # type: ignore[no-any-return]  # untyped library

    def head(self, normed: Tensor) -> Tensor:
        """Return float32 logits, (..., V), of a normed stream."""
        weight_VD, bias = self.model.lm_head.weight, self.model.lm_head.bias
        if normed.device.type != "cpu" or bias is not None:
            return self.model.lm_head(normed).float()  # type: ignore[no-any-return]  # untyped library
        # for few tokens the libraries take a table of a vocabulary's height twice as fast in slices
        logits = torch.empty(*normed.shape[:-1], len(weight_VD))
        for row in range(0, len(weight_VD), HEAD_ROWS):
            rows_SD = weight_VD[row : row + HEAD_ROWS]
            logits[..., row : row + HEAD_ROWS] = functional.linear(normed, rows_SD)
        return logits


def load_base(
    name: str,
    *,
    dtype: str = "float32",
    device: torch.device | None = None,
    local_files_only: bool = False,
) -> BaseModel:
    """Load a base model and its tokenizer, all layers into memory.

    Args:
        name: folder or hub name.
        dtype: float32, bfloat16 or float16.
        device: where to put it; the CPU by default.
        local_files_only: never ask the hub.

    Raises:
        BaseModelError: missing, gated, incomplete, or not built as Llama is.
        MemoryError, RuntimeError: memory ran out (npt.memory.device_errors).
    """
    return load_resident(find_base(name, local_files_only=local_files_only), dtype, device)


def load_resident(found: Found, dtype: str, device: torch.device | None = None) -> BaseModel:
    """Load the layers of a base that was found into memory; as `load_base`."""
    from transformers import AutoModelForCausalLM

    name = found.name
    model, report = found.attempt(
        lambda: AutoModelForCausalLM.from_pretrained(
            found.source,
            dtype=getattr(torch, dtype),
            attn_implementation=register(),
            output_loading_info=True,
            **found.options,
        )
    )
    _require_complete(name, model, report)
    require_known_parts(name, model)
    model.requires_grad_(requires_grad=False).eval().to(device or torch.device("cpu"))
    base = BaseModel(
        name=name,
        revision=base_revision(found),
        model=model,
        tokenizer=found.tokenizer,
    )
    require_same_numbers(base)
    return base


def _require_complete(name: str, model: Any, report: Any) -> None:  # noqa: ANN401 - transformers
    """Transformers fills missing weights with random numbers and goes on: we do not."""
    missing = set(report["missing_keys"])
    if model.config.tie_word_embeddings:
        missing.discard("lm_head.weight")
    if missing or report["mismatched_keys"]:
        bad = sorted(missing) + sorted(str(key) for key in report["mismatched_keys"])
        msg = f"base model {name!r} is incomplete: {len(bad)} weights missing, first {bad[0]!r}"
        raise BaseModelError(msg)


def files_stamp(name: str) -> str:
    """Return names, sizes and times of a local base's files: cheap to ask before every job.

    It changes when the folder is written again; a hub name has none, as the hub's cache never
    changes a file.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return ""
    found = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    return str([(name, stat.st_size, stat.st_mtime_ns) for name, stat in found])


def base_revision(found: Found) -> str:
    """Return the content identity of a base: equal for copies, changed by any retraining.

    Hub models are named by their commit. Of a local folder the small files are hashed whole and the
    weights by their size and evenly spread samples, so that tens of GB take well under a second.
    """
    if found.commit is not None:
        return f"hub:{found.commit[:16]}"
    folder = Path(found.source)
    digest = hashlib.sha256()
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    for path in [folder / name for name in IDENTITY_FILES] + weights:
        if not path.is_file():
            continue
        digest.update(json.dumps([path.name, path.stat().st_size]).encode())
        _update_sampled(digest, path)
    return f"dir:{digest.hexdigest()[:16]}"


def _update_sampled(digest: Any, path: Path) -> None:  # noqa: ANN401 - hashlib has no public type
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= HASHED_WHOLE_BYTES:
            digest.update(file.read())
            return
        for block in range(SAMPLED_BLOCKS):
            file.seek(block * (size - SAMPLED_BLOCK_BYTES) // (SAMPLED_BLOCKS - 1))
            digest.update(file.read(SAMPLED_BLOCK_BYTES))
