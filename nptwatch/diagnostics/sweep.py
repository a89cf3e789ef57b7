"""The one sweep: all variants of a checkpoint as rows of one batch, through the layers once.

Legend: A variants (the rows), N tokens of all prompts together, D hidden_size, V vocabulary.

A variant says which NPT layers are active. Before the first active layer every row equals the base,
so the sweep starts there from the base's cached stream. At each layer, active rows take the NPT
path and the others the standard path; both share every product with a base weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nptwatch.diagnostics.metrics import score_prompt
from nptwatch.npt.finite import all_finite
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
    h_AND = reference.streams_LND[start].repeat(len(variants), 1, 1)
    rotary = base.rotary(h_AND, probes.positions_N)
    broken: list[str | None] = [None] * len(variants)
    for index in range(start, len(base.layers)):
        active = [a for a, variant in enumerate(variants) if index in variant.active]
        h_AND = layer_forward(
            base.layers[index],
            h_AND,
            position_embeddings=rotary,
            npt=npt[index] if active else None,
            rows=_rows(active, variants, h_AND.device),
            mask=probes.mask_NN[None, None],
        )
        _note_non_finite(broken, h_AND, index)
    return [
        _finish(base, probes, reference, h_ND, bad, compare=compare)
        for h_ND, bad in zip(h_AND, broken, strict=True)
    ]


def _rows(active: list[int], variants: Sequence[Variant], device: torch.device) -> Rows:
    """Row numbers of the active variants, and where the attention output is dropped."""
    numbers = torch.tensor(active, device=device) if len(active) < len(variants) else None
    drop = None
    if any(variants[a].drop for a in active):
        flags = [a in active and variant.drop for a, variant in enumerate(variants)]
        drop = torch.tensor(flags, device=device)[:, None, None]  # (A,1,1)
    return Rows(active=numbers, drop_B11=drop)


def _note_non_finite(broken: list[str | None], h_AND: Tensor, index: int) -> None:
    """One sum for all rows; only a bad one is looked into."""
    if all_finite(h_AND):
        return
    for number, h_ND in enumerate(h_AND):
        if broken[number] is None and not all_finite(h_ND):
            broken[number] = f"output of layer {index}"


def _finish(
    base: BaseModel,
    probes: Probes,
    reference: Reference,
    h_ND: Tensor,
    broken: str | None,
    *,
    compare: bool,
) -> Swept:
    if broken is not None:
        return Swept(scores=(), non_finite=broken)
    normed_ND = base.norm(h_ND)
    logits_NV = base.head(normed_ND)
    if not all_finite(logits_NV):
        return Swept(scores=(), non_finite="logits")
    if not compare:
        return Swept(scores=(), non_finite=None)
    pieces = zip(
        reference.sides,
        logits_NV.split(probes.lengths),
        normed_ND.split(probes.lengths),
        strict=True,
    )
    return Swept(scores=tuple(score_prompt(*piece) for piece in pieces), non_finite=None)
