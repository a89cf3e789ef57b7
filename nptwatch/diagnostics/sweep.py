"""The one sweep: all variants of a checkpoint as rows of one batch, through the layers once.

Legend: A variants, B prompts, T tokens of the longest prompt, D hidden_size, V vocabulary.

A variant says which NPT layers are active. Before the first active layer every row equals the base,
so the sweep starts there from the base's cached stream. At each layer, active rows take the NPT
path and the others the standard path; both share every product with a base weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nptwatch.diagnostics.metrics import score_prompt
from nptwatch.npt.modulation import Rows, layer_forward

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from nptwatch.diagnostics.probes import Probes
    from nptwatch.diagnostics.reference import Reference
    from nptwatch.diagnostics.results import Score
    from nptwatch.npt.base import BaseModel
    from nptwatch.npt.modulation import NptLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One model among those that a checkpoint and its base can form.

    Attributes:
        active: indices of the layers on the NPT path.
        drop: the residual rule: True leaves the attention output out of the sum.
    """

    active: frozenset[int]
    drop: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one variant gave.

    Attributes:
        scores: per prompt; empty where the logits are not finite or were not compared.
        non_finite: the first place where NaN or infinity appeared, or None.
    """

    scores: tuple[Score, ...]
    non_finite: str | None


@torch.inference_mode()
def sweep(
    base: BaseModel,
    npt: Mapping[int, NptLayer],
    probes: Probes,
    reference: Reference,
    variants: Sequence[Variant],
    *,
    compare: bool = True,
) -> list[Swept]:
    """Measure all variants in one pass over the layers.

    Args:
        npt: the checkpoint's layers, by index.
        reference: the base on the same probes.
        variants: at least one; each with at least one active layer.
        compare: False only checks that the logits are finite.

    Returns:
        One outcome for each variant, in order.
    """
    start = min(min(variant.active) for variant in variants)
    first_BTD = probes.unpack(reference.streams_LND[start])
    h_RTD = first_BTD.repeat(len(variants), 1, 1)  # rows: variant-major, (A*B,T,D)
    rotary = base.rotary(h_RTD)
    broken: list[str | None] = [None] * len(variants)
    for index in range(start, len(base.layers)):
        active = [a for a, v in enumerate(variants) if index in v.active]
        rows = _rows(active, variants, len(probes.prompts), h_RTD.device)
        h_RTD = layer_forward(
            base.layers[index],
            h_RTD,
            position_embeddings=rotary,
            npt=npt[index] if active else None,
            rows=rows,
        )
        _note_non_finite(broken, h_RTD, index)
    streams = h_RTD.chunk(len(variants))  # A x (B,T,D)
    return [
        _finish(base, probes, reference, stream_BTD, bad, compare=compare)
        for stream_BTD, bad in zip(streams, broken, strict=True)
    ]


def _rows(
    active: list[int], variants: Sequence[Variant], prompts: int, device: torch.device
) -> Rows:
    """Row numbers of the active variants, and where the attention output is dropped."""
    if not active:
        return Rows(active=None, drop_B11=None)
    numbers = None
    if len(active) < len(variants):
        numbers = torch.tensor([a * prompts + b for a in active for b in range(prompts)])
        numbers = numbers.to(device)
    drop = None
    if any(variants[a].drop for a in active):
        flags = [a in active and variant.drop for a, variant in enumerate(variants)]
        drop = torch.tensor(flags, device=device).repeat_interleave(prompts)[:, None, None]
    return Rows(active=numbers, drop_B11=drop)


def _note_non_finite(broken: list[str | None], h_RTD: Tensor, index: int) -> None:
    """One reduction for all rows; only a bad sum is looked into."""
    if math.isfinite(h_RTD.sum(dtype=torch.float64).item()):
        return
    for number, stream_BTD in enumerate(h_RTD.chunk(len(broken))):
        if broken[number] is None and not torch.isfinite(stream_BTD).all():
            broken[number] = f"output of layer {index}"


def _finish(
    base: BaseModel,
    probes: Probes,
    reference: Reference,
    stream_BTD: Tensor,
    broken: str | None,
    *,
    compare: bool,
) -> Swept:
    if broken is not None:
        return Swept(scores=(), non_finite=broken)
    normed_ND = base.norm(probes.pack(stream_BTD))
    logits_NV = base.head(normed_ND)
    if not torch.isfinite(logits_NV).all():
        return Swept(scores=(), non_finite="logits")
    if not compare:
        return Swept(scores=(), non_finite=None)
    lengths = probes.lengths
    pieces = zip(
        logits_NV.split(lengths),
        reference.logits_NV.split(lengths),
        (row[:length] for row, length in zip(probes.ids_BT, lengths, strict=True)),
        normed_ND.split(lengths),
        reference.normed_ND.split(lengths),
        strict=True,
    )
    return Swept(scores=tuple(score_prompt(*piece) for piece in pieces), non_finite=None)
