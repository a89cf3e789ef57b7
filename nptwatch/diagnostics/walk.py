"""The states of all variants, carried through the layers together, each computed once.

Legend: N tokens of all work of a layer together, S streams, D hidden_size, T tokens of a prompt.

What goes through a layer lies packed in one sequence: active tokens take the NPT path and the
others the standard path, and both share every product with a base weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nptwatch.diagnostics.metrics import local_error
from nptwatch.diagnostics.parts import in_parts
from nptwatch.diagnostics.results import LocalError
from nptwatch.npt.attention import Segments
from nptwatch.npt.finite import all_finite
from nptwatch.npt.modulation import layer_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from nptwatch.diagnostics.plan import LayerPlan, Plan, State, Work
    from nptwatch.diagnostics.reference import Reference
    from nptwatch.npt.base import BaseModel
    from nptwatch.npt.modulation import NptLayer


class Walk:
    """One way through the layers.

    Args:
        npt: the checkpoint's layers, by index.
        reference: the base on the probes: its own residual stream before each layer and after the
            last, and how many tokens go through a layer at a time.

    Attributes:
        broken: states that are not finite, and where that began.
        local: each NPT layer's own error, ascending, by residual rule (True: drop).
    """

    def __init__(self, base: BaseModel, npt: Mapping[int, NptLayer], reference: Reference) -> None:
        probes, streams_SND = reference.probes, reference.streams_SND
        self._base, self._npt, self._probes, self._streams_SND = base, npt, probes, streams_SND
        self._batch_tokens = reference.batch_tokens
        self._first = [sum(probes.lengths[:n]) for n in range(len(probes.lengths))]
        self._rotary = base.rotary(streams_SND[:1], probes.positions_N)
        self._places: dict[State, slice] = {}
        self._kept_ND = streams_SND[0][:0]
        self.broken: dict[State, str] = {}
        self.local: dict[bool, list[LocalError]] = {}

    def run(self, plan: Plan) -> None:
        """Go through the layers from the first that is active anywhere."""
        steps = zip(self._base.each_layer(plan.start), plan.layers, strict=True)
        for (index, layer), layer_plan in steps:
            self._layer(index, layer, layer_plan)

    def stream(self, state: State) -> Tensor:
        """Give a state's residual stream after the last layer, (T,D)."""
        return self._kept_ND[self._places[state]]

    def _layer(self, index: int, layer: Any, plan: LayerPlan) -> None:  # noqa: ANN401 - a module
        lengths = [len(self._tokens(work.prompt)) for work in plan.work]
        h_ND = self._inputs(index, plan)
        parts, start = [], 0
        for part in in_parts(lengths, self._batch_tokens or sum(lengths)):
            rows = slice(start, start + sum(lengths[part]))
            parts.append(self._parts(index, layer, plan.work[part], h_ND[rows]))
            start = rows.stop
        attn_ND, mlp_ND = (torch.cat(each) for each in zip(*parts, strict=True))
        self._keep(plan, lengths, h_ND, attn_ND, mlp_ND)
        self._note_non_finite(index, plan)
        for drop, states in plan.probed.items():
            self._probe(index, drop, states)

    def _parts(
        self,
        index: int,
        layer: Any,  # noqa: ANN401 - a module
        work: Sequence[Work],
        h_ND: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Give what the layer adds to some of its work, attention and MLP, each (N,D)."""
        tokens = [self._tokens(each.prompt) for each in work]
        lengths = [len(each) for each in tokens]
        probe_N = self._numbers([n for each in tokens for n in each])
        attn_1ND, mlp_1ND = layer_parts(
            layer,
            h_ND[None],
            position_embeddings=(self._rotary[0][:, probe_N], self._rotary[1][:, probe_N]),
            npt=self._npt[index] if any(each.active for each in work) else None,
            active=self._active(work, lengths),
            mask=Segments.of(lengths, h_ND.device),
        )
        return attn_1ND[0], mlp_1ND[0]

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
        pool_ND = torch.cat([self._kept_ND, self._streams_SND[index]])
        return pool_ND[self._numbers(numbers)]

    def _active(self, work: Sequence[Work], lengths: Sequence[int]) -> Tensor | None:
        flags = [each.active for each, n in zip(work, lengths, strict=True) for _ in range(n)]
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
            if source is not None and source in self.broken:
                self.broken[state] = self.broken[source]
        self._kept_ND, self._places = after_ND + mlp_ND, places

    def _note_non_finite(self, index: int, plan: LayerPlan) -> None:
        """One sum for all states; only a bad one is looked into."""
        if all_finite(self._kept_ND):
            return
        for state in plan.states:
            if state not in self.broken and not all_finite(self._kept_ND[self._places[state]]):
                self.broken[state] = f"output of layer {index}"

    def _probe(self, index: int, drop: bool, states: Sequence[State]) -> None:
        """Measure a layer's own error: its output against the base layer's on the same input."""
        if any(state in self.broken for state in states):
            return
        pairs = []
        for state in states:
            rows = self._rows(state.prompt)
            base_TD = self._streams_SND[index + 1][rows]
            before_TD = self._streams_SND[index][rows]
            pairs.append(local_error(self._kept_ND[self._places[state]], base_TD, before_TD))
        mse, relative = (sum(numbers) / len(pairs) for numbers in zip(*pairs, strict=True))
        error = LocalError(layer=index, mse=mse, relative=relative)
        self.local.setdefault(drop, []).append(error)

    def _tokens(self, prompt: int) -> range:
        first = self._first[prompt]
        return range(first, first + self._probes.lengths[prompt])

    def _rows(self, prompt: int) -> slice:
        tokens = self._tokens(prompt)
        return slice(tokens.start, tokens.stop)

    def _numbers(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, device=self._kept_ND.device)
