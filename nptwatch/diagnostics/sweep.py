"""The one sweep: all variants of a checkpoint in one pass over the layers.

Legend: N tokens of all work of a layer together, D hidden_size, V vocabulary, T tokens of a prompt.

What is to be computed at each layer is planned first (plan.py); here it lies packed in one
sequence: active tokens take the NPT path and the others the standard path, and both share every
product with a base weight. Each base weight is read once, whatever is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from nptwatch.diagnostics.metrics import local_error, score_prompt
from nptwatch.diagnostics.plan import LayerPlan, State, Variant, make_plan
from nptwatch.diagnostics.results import LocalError
from nptwatch.npt.attention import Segments
from nptwatch.npt.finite import all_finite
from nptwatch.npt.modulation import layer_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from nptwatch.diagnostics.metrics import BaseSide
    from nptwatch.diagnostics.plan import Plan
    from nptwatch.diagnostics.probes import Probes
    from nptwatch.diagnostics.reference import Reference
    from nptwatch.diagnostics.results import Score
    from nptwatch.npt.base import BaseModel
    from nptwatch.npt.modulation import NptLayer

__all__ = ["Outcome", "Swept", "Variant", "sweep"]

LOGITS_BYTES = 256 * 1024**2
"""At most so many logits at once, if one prompt's are not more."""


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

    def part(self, prompts: slice) -> Outcome:
        """Give the scores of some of the prompts; NaN in any prompt counts for all."""
        return replace(self, scores=self.scores[prompts])


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
    return _Sweep(base, npt, probes, reference).run(plan, compare=compare)


class _Sweep:
    """The states of one sweep, packed, and what is known of them."""

    def __init__(
        self, base: BaseModel, npt: Mapping[int, NptLayer], probes: Probes, reference: Reference
    ) -> None:
        self._base, self._npt, self._probes, self._reference = base, npt, probes, reference
        self._first = [sum(probes.lengths[:n]) for n in range(len(probes.lengths))]
        self._rotary = base.rotary(reference.streams_SND[:1], probes.positions_N)
        self._places: dict[State, slice] = {}
        self._kept_ND = reference.streams_SND[0][:0]
        self._broken: dict[State, str] = {}
        self._local: dict[bool, list[LocalError]] = {}

    def run(self, plan: Plan, *, compare: bool) -> Swept:
        """Go through the layers."""
        steps = zip(self._base.each_layer(plan.start), plan.layers, strict=True)
        for (index, layer), layer_plan in steps:
            self._layer(index, layer, layer_plan)
        ends = self._ends(dict.fromkeys(state for final in plan.finals for state in final), compare)
        return Swept(
            outcomes=tuple(_joined([ends[state] for state in final]) for final in plan.finals),
            local={drop: tuple(errors) for drop, errors in self._local.items()},
        )

    def _layer(self, index: int, layer: Any, plan: LayerPlan) -> None:  # noqa: ANN401 - a module
        tokens = [self._tokens(work.prompt) for work in plan.work]
        lengths = [len(each) for each in tokens]
        h_ND = self._inputs(index, plan)
        probe_N = self._numbers([n for each in tokens for n in each])
        attn_1ND, mlp_1ND = layer_parts(
            layer,
            h_ND[None],
            position_embeddings=(self._rotary[0][:, probe_N], self._rotary[1][:, probe_N]),
            npt=self._npt[index] if any(work.active for work in plan.work) else None,
            active=self._active(plan, lengths),
            mask=Segments.of(lengths, h_ND.device),
        )
        self._keep(plan, lengths, h_ND, attn_1ND[0], mlp_1ND[0])
        self._note_non_finite(index, plan)
        for drop, states in plan.probed.items():
            self._probe(index, drop, states)

    def _inputs(self, index: int, plan: LayerPlan) -> Tensor:
        """Gather what goes through a layer from the states kept and from the base's own stream."""
        kept = len(self._kept_ND)
        numbers: list[int] = []
        for work in plan.work:
            if work.source is None:
                numbers += (kept + n for n in self._tokens(work.prompt))
            else:
                place = self._places[work.source]
                numbers += range(place.start, place.stop)
        if numbers == list(range(kept)):
            return self._kept_ND
        pool_ND = torch.cat([self._kept_ND, self._reference.streams_SND[index]])
        return pool_ND[self._numbers(numbers)]

    def _active(self, plan: LayerPlan, lengths: Sequence[int]) -> Tensor | None:
        flags = [work.active for work, n in zip(plan.work, lengths, strict=True) for _ in range(n)]
        if all(flags):
            return None
        return self._numbers([n for n, flag in enumerate(flags) if flag])

    def _keep(
        self,
        plan: LayerPlan,
        lengths: Sequence[int],
        h_ND: Tensor,
        attn_ND: Tensor,
        mlp_ND: Tensor,
    ) -> None:
        """Sum each state up by its rule: the rules share the work."""
        starts = [sum(lengths[:n]) for n in range(len(lengths))]
        numbers: list[int] = []
        dropped: list[bool] = []
        places: dict[State, slice] = {}
        for state, work in plan.states.items():
            drop = state.drop and plan.work[work].active
            places[state] = slice(len(numbers), len(numbers) + lengths[work])
            numbers += range(starts[work], starts[work] + lengths[work])
            dropped += [drop] * lengths[work]
        if numbers != list(range(len(h_ND))):
            at_N = self._numbers(numbers)
            h_ND, attn_ND, mlp_ND = h_ND[at_N], attn_ND[at_N], mlp_ND[at_N]
        after_ND = h_ND + attn_ND
        if any(dropped):
            drop_N1 = torch.tensor(dropped, device=h_ND.device)[:, None]
            after_ND = torch.where(drop_N1, h_ND, after_ND)
        for state, work in plan.states.items():
            source = plan.work[work].source
            if source is not None and source in self._broken:
                self._broken[state] = self._broken[source]
        self._kept_ND, self._places = after_ND + mlp_ND, places

    def _note_non_finite(self, index: int, plan: LayerPlan) -> None:
        """One sum for all states; only a bad one is looked into."""
        if all_finite(self._kept_ND):
            return
        for state in plan.states:
            if state not in self._broken and not all_finite(self._kept_ND[self._places[state]]):
                self._broken[state] = f"output of layer {index}"

    def _probe(self, index: int, drop: bool, states: Sequence[State]) -> None:
        """Measure a layer's own error: its output against the base layer's on the same input."""
        streams_SND = self._reference.streams_SND
        if any(state in self._broken for state in states):
            return
        pairs = []
        for state in states:
            rows = self._rows(state.prompt)
            base_TD, before_TD = streams_SND[index + 1][rows], streams_SND[index][rows]
            pairs.append(local_error(self._kept_ND[self._places[state]], base_TD, before_TD))
        mse, relative = (sum(numbers) / len(pairs) for numbers in zip(*pairs, strict=True))
        error = LocalError(layer=index, mse=mse, relative=relative)
        self._local.setdefault(drop, []).append(error)

    def _ends(self, states: Mapping[State, None], compare: bool) -> dict[State, Outcome]:
        """Compare the last states with the base, a group of prompts at a time."""
        ends = {
            state: Outcome(scores=(), same_shape=True, non_finite=self._broken[state])
            for state in states
            if state in self._broken
        }
        for group in self._groups([state for state in states if state not in ends]):
            normed_ND = self._base.norm(
                torch.cat([self._kept_ND[self._places[state]] for state in group])
            )
            lengths = [self._probes.lengths[state.prompt] for state in group]
            pieces = zip(
                group,
                normed_ND.split(lengths),
                self._base.head(normed_ND).split(lengths),
                strict=True,
            )
            for state, normed_TD, logits_TV in pieces:
                side = self._reference.sides[state.prompt]
                ends[state] = _end(side, normed_TD, logits_TV, compare=compare)
        return ends

    def _groups(self, states: Sequence[State]) -> Iterator[list[State]]:
        vocabulary = self._reference.logits_NV.shape[-1]
        room = LOGITS_BYTES // (4 * vocabulary)
        group: list[State] = []
        for state in states:
            tokens = sum(self._probes.lengths[each.prompt] for each in (*group, state))
            if group and tokens > room:
                yield group
                group = []
            group.append(state)
        if group:
            yield group

    def _tokens(self, prompt: int) -> range:
        first = self._first[prompt]
        return range(first, first + self._probes.lengths[prompt])

    def _rows(self, prompt: int) -> slice:
        tokens = self._tokens(prompt)
        return slice(tokens.start, tokens.stop)

    def _numbers(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, device=self._kept_ND.device)


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
