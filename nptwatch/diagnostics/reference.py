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
from nptwatch.diagnostics.parts import in_parts
from nptwatch.errors import BaseModelError
from nptwatch.npt.attention import Segments
from nptwatch.npt.finite import all_finite
from nptwatch.npt.modulation import layer_forward

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from nptwatch.diagnostics.probes import Probes
    from nptwatch.npt.base import BaseModel

log = structlog.get_logger()


LOGITS_BYTES = 256 * 1024**2
"""Default of `diagnostic.logits_mib`."""

COPIES = 3
"""Of the base's logits that a comparison wants: as they are, log-probabilities, probabilities."""


@dataclass(slots=True, kw_only=True)
class Reference:
    """The base on one probe set.

    Attributes:
        streams_SND: the residual stream before each layer, and after the last.
        normed_ND: final hidden states, after the last norm.
        logits_bytes: the base's logits are kept in memory if they are not more, else made anew.
        batch_tokens: so many go through a layer at a time; 0: all.
    """

    base: BaseModel
    probes: Probes
    streams_SND: Tensor
    normed_ND: Tensor
    logits_bytes: int = LOGITS_BYTES
    batch_tokens: int = 0
    _kept: dict[int, BaseSide] = field(default_factory=dict)

    @property
    def keeps_logits(self) -> bool:
        """Whether all of the base's logits fit."""
        return COPIES * len(self.normed_ND) * self._row_bytes <= self.logits_bytes

    @property
    def _row_bytes(self) -> int:
        return 4 * int(self.base.model.config.vocab_size)

    @torch.inference_mode()
    def sides(self, prompts: Sequence[int]) -> Mapping[int, BaseSide]:
        """Give the base's side of some prompts.

        Raises:
            BaseModelError: the base's own logits hold NaN or infinity.
        """
        if not self.keeps_logits:
            return self._made(dict.fromkeys(prompts))
        if not self._kept:
            self._kept = self._made(range(len(self.probes.lengths)))
        return self._kept

    def in_groups(self, prompts: Sequence[int]) -> Iterator[slice]:
        """Divide work into parts whose logits, the base's among them, are not more than allowed.

        Args:
            prompts: of each piece of work; one alone may be more than allowed.
        """
        copies = 1 if self.keeps_logits else 1 + COPIES
        row_bytes = copies * self._row_bytes
        wanted = [row_bytes * self.probes.lengths[prompt] for prompt in prompts]
        return in_parts(wanted, self.logits_bytes)

    def _made(self, prompts: Iterable[int]) -> dict[int, BaseSide]:
        numbers = list(prompts)
        pieces = [
            (self.normed_ND[rows], self.probes.ids_N[rows])
            for rows in map(self.probes.rows, numbers)
        ]
        logits_NV = self.base.head(torch.cat([normed_TD for normed_TD, _ in pieces]))
        if not all_finite(logits_NV):
            base = self.base
            msg = f"base model {base.name!r}: its own logits hold NaN or infinity in {base.dtype}"
            raise BaseModelError(msg)
        logits = logits_NV.split([len(ids_T) for _, ids_T in pieces])
        return {
            number: base_side(logits_TV, normed_TD, ids_T)
            for number, logits_TV, (normed_TD, ids_T) in zip(numbers, logits, pieces, strict=True)
        }


@torch.inference_mode()
def compute_reference(
    base: BaseModel, probes: Probes, logits_bytes: int = LOGITS_BYTES, batch_tokens: int = 0
) -> Reference:
    """Run the base once over all prompts, but for its head."""
    h_1ND = base.embed(probes.ids_N[None])
    rotary = base.rotary(h_1ND, probes.positions_N)
    batches = _batches(probes, batch_tokens)
    streams = []
    for _, layer in base.each_layer():
        streams.append(h_1ND[0])
        done = [
            layer_forward(
                layer,
                h_1ND[:, rows],
                position_embeddings=(rotary[0][:, rows], rotary[1][:, rows]),
                mask=mask,
            )
            for rows, mask in batches
        ]
        h_1ND = torch.cat(done, dim=1)  # (1,N,D)
    streams.append(h_1ND[0])
    return Reference(
        base=base,
        probes=probes,
        streams_SND=torch.stack(streams),
        normed_ND=base.norm(h_1ND[0]),
        logits_bytes=logits_bytes,
        batch_tokens=batch_tokens,
    )


def _batches(probes: Probes, batch_tokens: int) -> list[tuple[slice, Segments]]:
    """Give which tokens go through a layer together, and where their prompts lie among them."""
    batches, start = [], 0
    for part in in_parts(probes.lengths, batch_tokens or sum(probes.lengths)):
        lengths = probes.lengths[part]
        rows = slice(start, start + sum(lengths))
        batches.append((rows, Segments.of(lengths, probes.ids_N.device)))
        start = rows.stop
    return batches


@dataclass(slots=True, kw_only=True)
class References:
    """References of one base, by probe set.

    Args:
        folder: where they are kept between processes; None: in memory only.
        logits_bytes, batch_tokens: see Reference.
    """

    base: BaseModel
    folder: Path | None = None
    logits_bytes: int = LOGITS_BYTES
    batch_tokens: int = 0
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
        made_by = f"torch {torch.__version__} transformers {version('transformers')} 4"
        facts = f"{self.base.revision} {dtype} {self.base.device.type} {probes.key} {made_by}"
        return hashlib.sha256(facts.encode()).hexdigest()[:32]

    def _compute(self, key: str, probes: Probes) -> Reference:
        reference = compute_reference(self.base, probes, self.logits_bytes, self.batch_tokens)
        self.computed += 1
        self._save(key, reference)
        return reference

    def _load(self, key: str, probes: Probes) -> Reference | None:
        if self.folder is None:
            return None
        path = self.folder / f"{key}.safetensors"
        try:
            with safe_open(path, framework="pt", device=str(self.base.device)) as file:
                streams_SND, normed_ND = (
                    file.get_tensor(name).clone() for name in ("streams_SND", "normed_ND")
                )
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as exc:
            log.warning("reference_unreadable", path=str(path), error=str(exc))
            return None
        return Reference(
            base=self.base,
            probes=probes,
            streams_SND=streams_SND,
            normed_ND=normed_ND,
            logits_bytes=self.logits_bytes,
            batch_tokens=self.batch_tokens,
        )

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
            }
            save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, part)
            Path(part).replace(self.folder / f"{key}.safetensors")
        except (OSError, SafetensorError) as exc:  # a cache: without it all is slower, not wrong
            log.warning("reference_not_kept", folder=str(self.folder), error=str(exc))
            if part is not None:
                Path(part).unlink(missing_ok=True)
