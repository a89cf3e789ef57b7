"""What the base itself says to a probe set: computed once, kept in memory and on disk.

Legend: S = layers + 1, N tokens of all prompts together, D hidden_size, V vocabulary.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nptwatch.diagnostics.metrics import BaseSide, base_side
from nptwatch.errors import BaseModelError
from nptwatch.npt.finite import all_finite
from nptwatch.npt.modulation import layer_forward

if TYPE_CHECKING:
    from torch import Tensor

    from nptwatch.diagnostics.probes import Probes
    from nptwatch.npt.base import BaseModel

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The base on one probe set.

    Attributes:
        streams_SND: the residual stream before each layer, and after the last.
        normed_ND: final hidden states, after the last norm.
        logits_NV: float32.
        sides: the same, prompt by prompt, as a comparison wants them.
    """

    streams_SND: Tensor
    normed_ND: Tensor
    logits_NV: Tensor
    sides: tuple[BaseSide, ...]


@torch.inference_mode()
def _reference(
    probes: Probes, streams_SND: Tensor, normed_ND: Tensor, logits_NV: Tensor
) -> Reference:
    pieces = zip(
        logits_NV.split(probes.lengths),
        normed_ND.split(probes.lengths),
        probes.ids_N.split(probes.lengths),
        strict=True,
    )
    return Reference(
        streams_SND=streams_SND,
        normed_ND=normed_ND,
        logits_NV=logits_NV,
        sides=tuple(base_side(*piece) for piece in pieces),
    )


@torch.inference_mode()
def compute_reference(base: BaseModel, probes: Probes) -> Reference:
    """Run the base once over all prompts.

    Raises:
        BaseModelError: the base's own logits hold NaN or infinity.
    """
    h_1ND = base.embed(probes.ids_N[None])
    rotary = base.rotary(h_1ND, probes.positions_N)
    mask = probes.segments
    streams = []
    for _, layer in base.each_layer():
        streams.append(h_1ND[0])
        h_1ND = layer_forward(layer, h_1ND, position_embeddings=rotary, mask=mask)
    streams.append(h_1ND[0])
    normed_ND = base.norm(h_1ND[0])
    logits_NV = base.head(normed_ND)
    if not all_finite(logits_NV):
        msg = f"base model {base.name!r}: its own logits hold NaN or infinity in {base.dtype}"
        raise BaseModelError(msg)
    return _reference(probes, torch.stack(streams), normed_ND, logits_NV)


@dataclass(slots=True, kw_only=True)
class References:
    """References of one base, by probe set.

    Args:
        folder: where they are kept between processes; None: in memory only.
    """

    base: BaseModel
    folder: Path | None = None
    computed: int = 0
    _kept: dict[str, Reference] = field(default_factory=dict)

    def of(self, probes: Probes) -> Reference:
        """Return the base's answer to a probe set, from memory, disk, or the base itself."""
        key = self._key(probes)
        if key not in self._kept:
            self._kept[key] = self._load(key, probes) or self._compute(key, probes)
        return self._kept[key]

    def _key(self, probes: Probes) -> str:
        dtype = str(self.base.dtype).removeprefix("torch.")
        made_by = f"torch {torch.__version__} transformers {version('transformers')} 3"
        facts = f"{self.base.revision} {dtype} {self.base.device.type} {probes.key} {made_by}"
        return hashlib.sha256(facts.encode()).hexdigest()[:32]

    def _compute(self, key: str, probes: Probes) -> Reference:
        reference = compute_reference(self.base, probes)
        self.computed += 1
        self._save(key, reference)
        return reference

    def _load(self, key: str, probes: Probes) -> Reference | None:
        if self.folder is None:
            return None
        path = self.folder / f"{key}.safetensors"
        try:
            with safe_open(path, framework="pt", device=str(self.base.device)) as file:
                names = ("streams_SND", "normed_ND", "logits_NV")
                kept = [file.get_tensor(name).clone() for name in names]
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as exc:
            log.warning("reference_unreadable", path=str(path), error=str(exc))
            return None
        return _reference(probes, *kept)

    def _save(self, key: str, reference: Reference) -> None:
        """Write beside and rename, so that no process ever reads half a file."""
        if self.folder is None:
            return
        part = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=self.folder, suffix=".part")
            os.close(handle)
            tensors = {
                "streams_SND": reference.streams_SND,
                "normed_ND": reference.normed_ND,
                "logits_NV": reference.logits_NV,
            }
            save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, part)
            Path(part).replace(self.folder / f"{key}.safetensors")
        except (OSError, SafetensorError) as exc:  # a cache: without it all is slower, not wrong
            log.warning("reference_not_kept", folder=str(self.folder), error=str(exc))
            if part is not None:
                Path(part).unlink(missing_ok=True)
