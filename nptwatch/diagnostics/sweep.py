"""The one sweep: all variants of a checkpoint in one pass over the layers.

Legend: T tokens of a prompt, D hidden_size, V vocabulary.

What is to be computed at each layer is planned first (plan.py), then all of it is carried through
the layers together (walk.py), then compared with the base. Each base weight is read once, whatever
is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch

from nptwatch.diagnostics.metrics import score_prompt
from nptwatch.diagnostics.plan import State, Variant, make_plan
from nptwatch.diagnostics.walk import Walk
from nptwatch.npt.finite import all_finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from nptwatch.diagnostics.metrics import BaseSide
    from nptwatch.diagnostics.probes import Probes
    from nptwatch.diagnostics.reference import Reference
    from nptwatch.diagnostics.results import LocalError, Score
    from nptwatch.npt.base import BaseModel
    from nptwatch.npt.modulation import NptLayer

__all__ = ["Outcome", "Swept", "Variant", "sweep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one variant gave.

    Attributes:
        scores: per prompt; empty where the logits are not finite or were not compared.
        same_shape: the logits have the shape of the base's.
        non_finite: the first place where NaN or infinity appeared, or None.
    """

    scores: tuple[Score, ...]
    same_shape: bool
    non_finite: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep gave.

    Attributes:
        outcomes: one for each variant, in order.
        local: each NPT layer's own error, ascending, by residual rule (True: drop); layers whose
            output is not finite are left out.
    """

    outcomes: tuple[Outcome, ...]
    local: Mapping[bool, tuple[LocalError, ...]]


@torch.inference_mode()
def sweep(
    base: BaseModel,
    npt: Mapping[int, NptLayer],
    probes: Probes,
    reference: Reference,
    variants: Sequence[Variant],
    *,
    compare: bool = True,
    local_on: Sequence[int] = (),
) -> Swept:
    """Measure all variants in one pass over the layers.

    Args:
        npt: the checkpoint's layers, by index.
        reference: the base on the same probes.
        variants: at least one with an active layer.
        compare: False only checks that the logits are finite.
        local_on: prompts on which each layer's own error is measured.
    """
    plan = make_plan(
        variants,
        num_layers=base.shape.num_layers,
        num_prompts=len(probes.lengths),
        probe_layers=sorted(npt),
        probe_prompts=local_on,
    )
    walk = Walk(base, npt, reference)
    walk.run(plan)
    ends = _ends(base, walk, reference, dict.fromkeys(chain(*plan.finals)), compare=compare)
    return Swept(
        outcomes=tuple(_joined([ends[state] for state in final]) for final in plan.finals),
        local={drop: tuple(errors) for drop, errors in walk.local.items()},
    )


def _ends(
    base: BaseModel,
    walk: Walk,
    reference: Reference,
    states: Mapping[State, None],
    *,
    compare: bool,
) -> dict[State, Outcome]:
    """Compare the last states with the base, some prompts at a time."""
    ends = {
        state: Outcome(scores=(), same_shape=True, non_finite=walk.broken[state])
        for state in states
        if state in walk.broken
    }
    sound = [state for state in states if state not in ends]
    for part in reference.in_groups([state.prompt for state in sound]):
        group = sound[part]
        normed = [base.norm(walk.stream(state)) for state in group]
        logits = base.head(torch.cat(normed)).split([len(normed_TD) for normed_TD in normed])
        sides = reference.sides([state.prompt for state in group])
        for state, normed_TD, logits_TV in zip(group, normed, logits, strict=True):
            side = sides[state.prompt]
            ends[state] = _end(side, normed_TD, logits_TV, compare=compare)
    return ends


def _end(side: BaseSide, normed_TD: Tensor, logits_TV: Tensor, *, compare: bool) -> Outcome:
    """Compare one prompt's end with the base's."""
    same_shape = logits_TV.shape == side.logits_TV.shape
    if not all_finite(logits_TV):
        return Outcome(scores=(), same_shape=same_shape, non_finite="logits")
    scores = (score_prompt(side, logits_TV, normed_TD),) if compare and same_shape else ()
    return Outcome(scores=scores, same_shape=same_shape, non_finite=None)


def _joined(ends: Sequence[Outcome]) -> Outcome:
    """One variant's prompts together; NaN in one spoils all."""
    broken = next((end.non_finite for end in ends if end.non_finite), None)
    return Outcome(
        scores=() if broken else tuple(score for end in ends for score in end.scores),
        same_shape=all(end.same_shape for end in ends),
        non_finite=broken,
    )
